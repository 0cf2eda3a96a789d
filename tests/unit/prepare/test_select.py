"""Columns that say again what another one says are left out, if asked, and told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

Prepare = Callable[..., Any]


@pytest.fixture
def alike(tmp_path: Path) -> Path:
    """Write a table in which b follows a, rough is a in steps, d follows a but is missing elsewhere, and c is alone."""
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=(2, 1000))
    columns = {"a": a, "b": a**3 + rng.normal(0, 0.01, 1000), "rough": a.round(), "c": c, "d": np.where(rng.random(1000) < 0.2, np.nan, a)}
    frame = pd.DataFrame(columns | {"y": (rng.random(1000) < 0.2).astype(int)})
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def test_what_follows_another_is_left_out_with_the_reason(prepare: Prepare, alike: Path) -> None:
    made = prepare(alike, label="y", split="order", max_correlation=0.9)
    assert made.features.names == ["a", "c", "d"]
    assert [(name, reason[:9]) for name, reason in made.features.dropped] == [
        ("b", "follows a"),
        ("rough", "follows a"),
        ("y", "the label"),
    ]
    whole = prepare(alike, label="y", split="order")
    assert whole.features.names == ["a", "b", "rough", "c", "d"]
    for name in made.features.names:
        assert made.test.X[name].equals(whole.test.X[name])


def test_what_is_left_out_depends_on_train_alone(prepare: Prepare, alike: Path) -> None:
    frame = pd.read_csv(alike)
    frame.loc[700:, "b"] = 0.5
    frame.to_csv(alike, index=False)
    assert "b" not in prepare(alike, label="y", split="order", max_correlation=0.9).features.names
