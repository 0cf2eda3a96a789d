"""What memory a fit needs, told before it begins.

tests/bench/test_estimates_of_memory.py measured the constants; a GPU's follow from how the libraries lay out their tables there.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.common import memory
from stages.common.artifact import Artifact
from stages.common.errors import ConfigError, NotNow, SurefootError
from stages.families import LADDER, device

AT_ALL = 30e6  # bytes, whatever the table
READ = 3.2  # bytes per byte of a table that is read: Arrow's, pandas', and what the allocator keeps
NAME = 70  # bytes of an entity's name
WIDTHS = {"float32": 4, "float64": 8, "category": 1}
BINS = {"xgboost": 256, "lightgbm": 255, "catboost": 254, "logistic": 0}  # the libraries' own
LOOKED = 10_000  # rows that values are counted in
SAMPLED = 200_000  # rows that LightGBM finds bins by
GPU_BINS = 128  # CatBoost's own there
FEW = 50_000  # rows that logistic fits on, or scores at a time, at most
DEEPEST, TINY = 60, 1e-18  # what a space may ask beyond them is as much more than any machine has
SURE = 1.5  # times what is allowed, and no estimate was as much too high
SMALLEST = {"max_depth": 0, "num_leaves": 0, "depth": 0, "min_child_weight": 1}  # the end of a range where trees are smallest
ADVICE = (
    "Give the step more memory, end what else takes it, take fewer rows (prepare.sample_size), "
    "or accept a fallback (common.accept_degraded)."
)


@dataclass(frozen=True)
class Sizes:
    """What memory depends on of a prepared table, known before it is read."""

    rows: dict[str, int]  # of each split
    positives: float  # share of train's rows
    row_bytes: int  # of one row in memory
    numbers: tuple[int, ...]  # how many values each column of numbers has, in some rows
    words: tuple[int, ...]  # how many categories each other column has

    @classmethod
    def of(cls, prepared: Artifact, *, look: bool = True) -> "Sizes":
        """Read what stands beside a prepared table, and look at some rows of it: else all numbers are taken to have many values."""
        splits, features = prepared.read_json("data.json")["splits"], prepared.read_json("features.json")
        columns, roles = features["columns"], features["roles"]
        words = tuple(len(column["categories"]) for column in columns if column["dtype"] == "category")
        numbers = [column["name"] for column in columns if column["dtype"] != "category"]
        beside = 9 + (8 if roles["time"] else 0) + (NAME if roles["entity"] or roles["keys"] else 0)
        return cls(
            rows={name: split["rows"] for name, split in splits.items()},
            positives=splits["train"]["positives"] / max(splits["train"]["rows"], 1),
            row_bytes=beside + sum(WIDTHS[column["dtype"]] for column in columns),
            numbers=_values(prepared.path("train.parquet"), numbers) if look else (LOOKED,) * len(numbers),
            words=words,
        )

    def cells(self, rows: int) -> int:
        """Count the values of some rows."""
        return rows * (len(self.numbers) + len(self.words))

    def bins(self, most: int) -> int:
        """Count the bins of all columns: one a value, or a category, and as many as they may be."""
        return sum(min(most, values + 1) for values in (*self.numbers, *self.words))


def _values(path: Path, names: list[str]) -> tuple[int, ...]:
    """Count the values of some columns in the first rows of a split."""
    import pyarrow.compute
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        rows = next(file.iter_batches(LOOKED, columns=names))
    return tuple(pyarrow.compute.count_distinct(rows[name]).as_py() for name in names)


@dataclass(frozen=True)
class Fits:
    """Fits of one family on one table, as a step makes them."""

    family: str
    sizes: Sizes
    balanced: bool
    shipped: bool = False  # after the fit on train, another one on all rows
    gpu: bool = False  # where the rung does not say otherwise
    held: float = field(default_factory=memory.resident)  # bytes that this process holds before it reads the table

    def need(self, params: dict[str, Any], rung: int) -> float:
        """Bytes of main memory that the process comes to hold."""
        train, valid = self.sizes.rows["train"], self.sizes.rows["valid"]
        read, fit = train + valid, self._fit(train, valid, params, rung)
        if self.shipped:  # its rows are a copy
            read = sum(self.sizes.rows.values())
            fit = max(fit, self.sizes.row_bytes * read + self._fit(read, 0, params, rung))
        return self.held + AT_ALL + READ * self.sizes.row_bytes * read + fit

    def need_of_gpu(self, params: dict[str, Any], rung: int) -> float:
        """Bytes of a GPU's memory beyond those that a process takes to begin: the table in bins, gradients, histograms."""
        sizes = self.sizes
        train, valid = (sum(sizes.rows.values()), 0) if self.shipped else (sizes.rows["train"], sizes.rows["valid"])
        if self.family == "catboost":  # valid is scored on the CPU
            nodes = 2.0 ** min(int(params.get("depth", 6)), DEEPEST)
            return AT_ALL + sizes.cells(train) + 100 * train + 6 * sizes.bins(LADDER[rung]["bins"] or GPU_BINS) * nodes
        bits = math.ceil(math.log2(sizes.bins(self._bins(rung)) + 2))  # of a value; as the table is packed it lies there twice
        histograms = 3 * self._histograms(train, params, self._bins(rung))
        return AT_ALL + 2 * sizes.cells(train + valid) * bits / 8 + 32 * (train + valid) + histograms

    def is_on_gpu(self, rung: int) -> bool:
        """Tell whether the fit takes a GPU's memory at a rung."""
        return self.gpu and bool(LADDER[rung].get("gpu", True))

    def _bins(self, rung: int) -> int:
        return LADDER[rung]["bins"] or BINS[self.family]

    def _fit(self, rows: int, valid: int, params: dict[str, Any], rung: int) -> float:
        cells, scored = self.sizes.cells(rows), self.sizes.cells(valid)
        if self.is_on_gpu(rung):
            return 4.0 * (cells + scored)
        histograms = self._histograms(rows, params, self._bins(rung))
        if self.family == "xgboost":
            return 5.0 * (cells + scored) + histograms
        if self.family == "lightgbm":  # the table as floats and its sample go before the first round
            binning = 4 * cells + 12 * self.sizes.cells(min(rows, SAMPLED))
            return cells + max(binning, histograms + 4 * scored)
        if self.family == "catboost":
            return 14.0 * (cells + scored) + histograms
        return 65.0 * self.sizes.cells(min(max(rows, valid), FEW))

    def _histograms(self, rows: int, params: dict[str, Any], bins: int) -> float:
        total = self.sizes.bins(bins)
        if self.family == "xgboost":
            weight = rows * (0.5 if self.balanced else self.sizes.positives)  # no node has less than min_child_weight of it
            least = max(float(params.get("min_child_weight", 1)), TINY)
            nodes = min(0.9 * 2.0 ** min(int(params.get("max_depth", 6)), DEEPEST), weight / least)
            return 16 * total * nodes
        if self.family == "lightgbm":
            return 18.0 * total * int(params.get("num_leaves", 31))
        if self.family == "catboost":
            each = 30 + 45 * min(1, 20_000 / max(rows, 1))  # measured: of few rows it keeps more
            return each * total * 2.0 ** min(int(params.get("depth", 6)), DEEPEST)
        return 0.0


def least(space: dict[str, list[Any]]) -> dict[str, Any]:
    """Give, of a search's space, the parameters that need least memory."""
    return {name: space[name][end] for name, end in SMALLEST.items() if name in space}


def most(space: dict[str, list[Any]]) -> dict[str, Any]:
    """Give, of a search's space, the parameters that need most memory."""
    return {name: space[name][1 - end] for name, end in SMALLEST.items() if name in space}


def lacking(fits: Fits, params: dict[str, Any], rung: int, sure: float = 1.0) -> str:
    """Say what there is not enough of for a fit at a rung, even if it needs so much less than estimated; nothing where there is."""
    needed, (most, by) = fits.need(params, rung), memory.allowed()
    if needed > sure * most:
        return f"{fits.family} needs about {needed / 1e9:.2f} GB of memory, {most / 1e9:.2f} GB are allowed by {by}"
    free = device.free() if fits.is_on_gpu(rung) else None
    if free is not None and (needed := fits.need_of_gpu(params, rung)) > sure * free:
        return f"{fits.family} needs about {needed / 1e9:.2f} GB of the GPU's memory, {free / 1e9:.2f} GB are free"
    return ""


def first_rung(fits: Fits, params: dict[str, Any], rung: int, rungs: int) -> tuple[int | None, str]:
    """Give the first rung of the memory ladder, from one on, at which a fit has room, None where there is none; and what is lacking before.

    At the last one it is refused only where no estimate is as wrong: else it is tried, and ended in time where it does run out of memory.
    Where a GPU's ladder was gone down, ``rung`` may be one that a CPU does not have.
    """
    why, last = "", max(rungs - 1, rung)
    for one in range(rung, last + 1):
        if not (found := lacking(fits, params, one, SURE if one == last else 1.0)):
            return one, why
        why = found
    return None, why


def refused(fits: Fits, params: dict[str, Any], rungs: int, why: str) -> SurefootError:
    """Say how a step ends that has room at no rung: as one that is too large, or, where others hold what it needs, to be tried again."""
    is_too_large = fits.need(params, rungs - 1) > SURE * memory.allowed(ever=True)[0]
    return (ConfigError if is_too_large else NotNow)(f"{why}. {ADVICE}")
