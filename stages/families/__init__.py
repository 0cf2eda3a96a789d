"""Model families: one file each, the same words in all. A family's name is its file's.

    FILE                        its model file's name
    SPACE                       what is searched, and where
    FIRST                       of that, what a search tries first
    BINS                        how many bins a column of numbers gets, in a family that needs less memory with fewer
    boost(fit, borders)         fit from border to border; give the model, cut at the best one, and the device that was used
    predict(model, X)           each row's probability of the positive label
    save(model, path), load(path)
    contributions(model, X)     what each column adds to each row's log-odds (rows x columns)
    importance(model)           each used column's gain
    has_cuda()                  whether its library can use a GPU, and comes to it

``fit`` is how all of them are called. A fit that was killed goes on from its last saved border to the model that it would have made.
"""

import contextlib
import importlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stages.common.checkpoint import Checkpoint, end_if_told
from stages.common.errors import NotNow, OutOfMemory
from stages.families import device

if TYPE_CHECKING:  # whoever asks for GPUs alone does not wait for tables and metrics
    from stages.features.features import Table

NAMES = ("xgboost", "lightgbm", "catboost", "logistic")
# What a fit is tried with, one after the other, as memory does not suffice.
LADDER: tuple[dict[str, Any], ...] = ({"bins": None}, {"bins": 128}, {"bins": 64}, {"bins": 64, "gpu": False})
ON_GPU = ("xgboost", "catboost")  # those that are published for a GPU too: on a CPU beside a GPU they fell back


@dataclass(frozen=True)
class Fit:
    """What is to be fitted, and on what."""

    params: dict[str, Any]  # as the family's SPACE names them
    train: "Table"
    valid: "Table | None"
    seed: int
    threads: int
    place: str = "cpu"  # or "cuda"
    bins: int | None = None  # of a number column, at most; None: as many as the library makes
    positive_weight: float = 1.0  # of a positive row beside a negative one
    monotone: dict[str, int] = field(default_factory=dict)  # column: 1 where more of it may only mean more risk, -1 where less


@dataclass(frozen=True)
class Fitted:
    """A fitted model, cut at its best border."""

    model: Any
    rounds: int
    score: float | None  # the model's own on valid, by the metric asked for; None without valid
    device: str  # as the library says
    gpu_memory: int | None = None  # bytes that it took of a GPU, where it was fitted on one and the driver says


def load(name: str) -> ModuleType:
    """Import one family; the others stay unimported.

    Raises:
        LookupError: there is no such family.

    """
    if name not in NAMES:
        raise LookupError(f"no family {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def rungs(name: str, *, gpu: bool, accept_degraded: bool) -> int:
    """Count the rungs of the ladder that a fit may go down: one where no fallback is accepted or would help, on a GPU the CPU's too."""
    if not accept_degraded or not hasattr(load(name), "BINS"):
        return 1
    return len(LADDER) if gpu and can_use_gpu(name) else len(LADDER) - 1


def can_use_gpu(name: str) -> bool:
    """Tell whether there is a GPU and the family's library can use it."""
    return device.gpus() > 0 and bool(load(name).has_cuda())


def fallback(rung: int) -> list[str]:
    """Say what a rung gives up."""
    asked = LADDER[rung]
    return ([f"{asked['bins']} bins for lack of memory"] if asked["bins"] else []) + ([] if asked.get("gpu", True) else ["CPU for GPU"])


def fit(
    name: str,
    params: dict[str, Any],
    train: "Table",
    valid: "Table | None",
    *,
    rounds: int,
    early_stopping_rounds: int,
    seed: int,
    metric: str,
    threads: int,
    gpu: bool = False,
    bins: int | None = None,
    balanced: bool = False,
    monotone: dict[str, int] | None = None,
    checkpoint: Checkpoint | None = None,
    report: Callable[[int, float | None], None] | None = None,
) -> Fitted:
    """Fit up to ``rounds`` rounds; with ``valid``, stop early and cut at the best border.

    ``report(rounds, score)`` is called at each border and may raise to stop the fit. ``balanced`` gives both labels the same weight.

    Raises:
        OutOfMemory: the GPU's or the machine's memory did not suffice.
        NotNow: the GPU does not work any more, or the disk of scratch files is full.

    """
    from stages.families.borders import Borders

    family = load(name)
    place = "cuda" if gpu and can_use_gpu(name) else "cpu"
    weight = (len(train.y) - float(train.y.sum())) / max(float(train.y.sum()), 1.0) if balanced else 1.0
    asked = Fit(params, train, valid, seed, threads, place, bins, weight, monotone or {})
    borders = Borders(valid, metric, rounds, early_stopping_rounds, checkpoint, report, place)
    try:
        with device.taken() if place == "cuda" else contextlib.nullcontext(device.Taken()) as taken:
            model, used = family.boost(asked, borders)
        score = borders.best if borders.is_exact or not valid else borders.score(family.predict(model, valid.X))
    except Exception as error:
        if device.is_out_of_memory(error):
            raise OutOfMemory(f"{name} on {place}: {device.told(error)}") from error
        if device.is_full_disk(error):
            raise NotNow(f"{name}: {device.told(error)}. Free some of {tempfile.gettempdir()}.") from error
        if place == "cuda" and device.is_broken(error):
            raise NotNow(f"{name} on {place}: {device.told(error)}. The GPU does not work: look at it, and at its driver.") from error
        raise
    except KeyboardInterrupt:  # CatBoost's word for any exception of a signal's handler
        end_if_told()
        raise
    return Fitted(model, borders.best_rounds, score, used, taken.most if used.startswith("cuda") else None)
