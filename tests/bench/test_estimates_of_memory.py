"""What memory fits take, beside what is estimated before they begin. Each fit is a process of its own."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages import families
from stages.common import memory
from stages.families import need
from stages.features import features
from stages.features.features import Column, Features, Roles, Table
from tests import programs

SIZES = ((20_000, 50), (50_000, 200), (100_000, 100))  # rows of train, columns; valid has a quarter of the rows
PARAMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("xgboost", {"max_depth": 6}),
    ("xgboost", {"max_depth": 10}),
    ("lightgbm", {"num_leaves": 31}),
    ("lightgbm", {"num_leaves": 255}),
    ("catboost", {"depth": 6}),
    ("catboost", {"depth": 8}),
    ("logistic", {"C": 1.0}),
)
LEAST, MOST = 0.8, 1.6  # estimate / measured
WORDS = tuple(f"w{number}" for number in range(20))
MADE = Features(
    columns=tuple(Column(f"c{i}", (f"c{i}",), *(("float32",) if i % 10 else ("category", WORDS))) for i in range(max(c for _, c in SIZES))),
    dropped=(),
    roles=Roles("label", "1", "0"),
)


def table(rows: int, columns: int) -> Table:
    """Make rows of numbers, three of ten missing, and categories, which know a little of the label."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=rows)
    matrix = {}
    for column in MADE.columns[:columns]:
        if column.dtype == "category":
            matrix[column.name] = pd.Series(pd.Categorical.from_codes(rng.integers(0, 20, rows), dtype=column.pandas_type()))
        else:
            matrix[column.name] = pd.Series((rng.normal(size=rows) + 0.2 * hidden).astype("float32")).where(rng.random(rows) > 0.3)
    return Table(pd.DataFrame(matrix), (hidden + rng.normal(size=rows) > 1.5).astype("int8"), np.arange(rows))


def sizes(rows: int, columns: int) -> need.Sizes:
    """Give what the estimate goes by."""
    words = sum(column.dtype == "category" for column in MADE.columns[:columns])
    row_bytes = 9 + words + 4 * (columns - words)
    return need.Sizes({"train": rows, "valid": rows // 4}, 0.14, row_bytes, (need.LOOKED,) * (columns - words), (len(WORDS),) * words)


def fit(folder: Path, columns: int, name: str, params: dict[str, Any], rung: int) -> None:
    """Fit once, as a program; print what memory was held before, and what it grew by."""
    families.load(name)
    before = memory.resident()
    contract = Features(MADE.columns[:columns], (), MADE.roles)
    train, valid = (features.read(folder / f"{split}.parquet", contract) for split in ("train", "valid"))
    options: dict[str, Any] = {"rounds": 10, "early_stopping_rounds": 10, "seed": 0, "metric": "auc", "threads": 2}
    families.fit(name, params, train, valid, **options, **families.LADDER[rung])
    told = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    sys.stdout.write(json.dumps({"before": before, "grew": int(told["VmHWM"].split()[0]) * 1024 - before}))


@pytest.mark.bench
def test_estimates_beside_what_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Within 0.8 and 1.6 times, on three tables, for each family, with all bins and with fewest."""
    ratios = []
    for rows, columns in SIZES:
        for split, count in (("train", rows), ("valid", rows // 4)):
            features.write(table(count, columns), tmp_path / f"{split}.parquet")
        for name, params in PARAMS:
            for rung in (0, 2) if name != "logistic" else (0,):
                call = f"t.fit(t.Path({str(tmp_path)!r}), {columns}, {name!r}, {params}, {rung})"
                code = f"from tests.bench import test_estimates_of_memory as t; {call}"
                ended = programs.python("-c", code, limit=300)
                assert ended.code == 0, ended.err
                grew = ended.answer["grew"]
                estimate = need.Fits(name, sizes(rows, columns), balanced=False, held=0).need(params, rung)
                ratios.append(estimate / grew)
                with capsys.disabled():
                    sys.stdout.write(
                        f"\n{rows:8,} x {columns:3}  {name:9}{params!s:20} bins {families.LADDER[rung]['bins'] or 'all':>4}"
                        f"  measured {grew / 1e6:6.0f} MB, estimated {estimate / 1e6:6.0f} MB: {ratios[-1]:.2f}"
                    )
    assert min(ratios) >= LEAST, ratios
    assert max(ratios) <= MOST, ratios
