"""What is XGBoost's own: how it scores rows, its errors, and a signal while it bins a table."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as library

from stages import families
from stages.families import logistic, metrics, xgboost
from stages.features.features import Table
from tests import programs

SETTINGS: dict[str, Any] = {"rounds": 60, "early_stopping_rounds": 60, "seed": 3, "metric": "auc", "threads": 1}
PARAMS = {"max_depth": 3, "learning_rate": 0.2, "subsample": 0.6, "colsample_bytree": 0.6}


def table(rows: int, seed: int) -> Table:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, 5)).astype("float32")
    label = (matrix[:, 0] + matrix[:, 1] * matrix[:, 2] + rng.normal(size=rows) > 0.5).astype("int8")
    return Table(pd.DataFrame(matrix, columns=[*"abcde"]), label, np.arange(rows), None, None)


@pytest.mark.parametrize("seed", range(5))
def test_the_baseline_is_fitted_on_both_labels_however_rare_one_is(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(logistic, "ROWS", 50)
    train = table(2000, 0)
    rare = Table(train.X, (np.arange(2000) % 700 == 1).astype("int8"), train.row)

    found = logistic.predict(logistic.regress(rare, seed=seed), rare.X)

    assert 0 < found.min() <= found.max() < 1


@pytest.mark.parametrize(("kinds", "times"), [("ab", 0), ("abc", 1)])
def test_valid_is_scored_again_only_where_its_borders_were_others(monkeypatch: pytest.MonkeyPatch, kinds: str, times: int) -> None:
    """A category that comes after all of train's is binned as the last of those; else the model gives its border's score, bit for bit."""
    train, valid = table(2000, 0), table(xgboost.BATCH + 2000, 1)
    rng, kept = np.random.default_rng(2), pd.CategoricalDtype([*"abc"])
    for one, known in ((train, "ab"), (valid, kinds)):
        one.X["kind"] = pd.Series(rng.choice([*known], len(one.y))).astype(kept)
    predicted: list[int] = []
    real = xgboost.predict

    def seen(model: library.Booster, rows: pd.DataFrame) -> Any:
        predicted.append(len(rows))
        return real(model, rows)

    monkeypatch.setattr(xgboost, "predict", seen)

    fitted = families.fit("xgboost", {"max_depth": 8}, train, valid, **{**SETTINGS, "metric": "log_loss"})

    assert len(predicted) == times
    assert fitted.score == metrics.score("log_loss", valid.y, real(fitted.model, valid.X))


def test_rows_are_scored_as_the_library_scores_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts, with categories that are missing, or were in no train row, and with numbers that float32 cannot hold."""
    train = table(400, 0)
    kind = pd.CategoricalDtype(["a", "b", "c", "never"])
    words = pd.Series(np.random.default_rng(2).choice(["a", "b", "c", None], len(train.y))).astype(kind)
    train.X["kind"], train.X["wide"] = words, np.arange(len(train.y)) + 2.0**40
    train = Table(train.X, (train.y ^ (words == "b").to_numpy()).astype("int8"), train.row)
    model = families.fit("xgboost", {"max_depth": 6}, train, None, **SETTINGS).model
    rows = train.X.head(90).copy()
    rows.loc[:9, "kind"], rows.loc[10:19, "a"] = "never", np.nan
    monkeypatch.setattr(xgboost, "BATCH", 40)

    found = xgboost.predict(model, rows)

    assert found.tolist() == model.predict(library.DMatrix(rows, enable_categorical=True)).tolist()
    assert np.concatenate([xgboost.predict(model, rows.iloc[[row]]) for row in range(90)]).tolist() == found.tolist()
    assert len(xgboost.predict(model, rows.iloc[:0])) == 0
    far, farther = (xgboost.predict(model, rows.head(1).assign(wide=wide)).tolist() for wide in (1e38, 1e300))
    assert far == farther


def test_another_error_of_the_library_stays_a_bug() -> None:
    with pytest.raises(library.core.XGBoostError):
        families.fit("xgboost", {"max_depth": -3}, table(30, 0), None, **SETTINGS)


STOPPED = """
import sys
from pathlib import Path
from stages.common import checkpoint, step
from stages.families import Fit, xgboost
from tests.unit.families.test_xgboost import SETTINGS, table

checkpoint.catch_signals()
rows = table(400_000, 0)
def work():
    print("now", flush=True)
    xgboost._matrix(rows, Fit({}, rows, None, 0, 1))
    Path(sys.argv[1]).write_text("built")
sys.exit(step.guarded(work))
"""


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.2])
def test_a_signal_while_a_table_is_binned_waits_for_the_end(tmp_path: Path, seconds: float) -> None:
    """The table is read through callbacks; an exception inside one breaks the library: exit 70, or 134."""
    command = [sys.executable, "-c", STOPPED, str(tmp_path / "built")]
    process = subprocess.Popen(command, env=programs.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert not (tmp_path / "built").exists()
    assert b"Traceback" not in err
