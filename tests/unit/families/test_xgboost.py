"""XGBoost's fits: exact resume, early stopping, and being told to stop."""

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
from stages.common.checkpoint import Checkpoint
from stages.common.errors import OutOfMemory
from stages.common.store import open_store
from stages.families import device, logistic, xgboost
from stages.features.features import Table
from tests import programs

SETTINGS: dict[str, Any] = {"rounds": 60, "early_stopping_rounds": 60, "seed": 3, "metric": "auc", "threads": 1}
PARAMS = {"max_depth": 3, "learning_rate": 0.2, "subsample": 0.6, "colsample_bytree": 0.6}


def table(rows: int, seed: int) -> Table:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, 5)).astype("float32")
    label = (matrix[:, 0] + matrix[:, 1] * matrix[:, 2] + rng.normal(size=rows) > 0.5).astype("int8")
    return Table(pd.DataFrame(matrix, columns=[*"abcde"]), label, np.arange(rows), None, None)


class Cut(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("border", [10, 30, 60])
def test_a_fit_that_was_killed_goes_on_to_the_same_bytes(tmp_path: Path, border: int) -> None:
    train, valid = table(400, 0), table(200, 1)
    reports: list[tuple[int, float | None]] = []
    whole = xgboost.fit(PARAMS, train, valid, **SETTINGS, report=lambda *one: reports.append(one))
    store = open_store(str(tmp_path))

    def killed(rounds: int, _score: float | None) -> None:
        if rounds > border:
            raise Cut

    if border < SETTINGS["rounds"]:
        with pytest.raises(Cut):
            xgboost.fit(PARAMS, train, valid, **SETTINGS, checkpoint=Checkpoint(store, "fit", 0), report=killed)
    else:
        xgboost.fit(PARAMS, train, valid, **SETTINGS, checkpoint=Checkpoint(store, "fit", 0))
    again: list[tuple[int, float | None]] = []
    resumed = xgboost.fit(PARAMS, train, valid, **SETTINGS, checkpoint=Checkpoint(store, "fit", 0), report=lambda *one: again.append(one))

    assert resumed.model.save_raw("ubj") == whole.model.save_raw("ubj")
    assert (resumed.rounds, resumed.score, again) == (whole.rounds, whole.score, reports)


def test_it_stops_early_and_is_cut_at_the_best_border() -> None:
    settings = {**SETTINGS, "rounds": 500, "early_stopping_rounds": 20}
    reports: list[tuple[int, float | None]] = []
    fitted = xgboost.fit(
        {**PARAMS, "learning_rate": 0.5}, table(300, 0), table(200, 1), **settings, report=lambda *one: reports.append(one)
    )

    best = max(reports, key=lambda one: one[1] or 0)
    assert (fitted.rounds, fitted.score) == best
    assert fitted.model.num_boosted_rounds() == fitted.rounds
    assert reports[-1][0] == fitted.rounds + 20 < 500


def test_what_it_saves_it_loads(tmp_path: Path) -> None:
    train = table(300, 0)
    fitted = xgboost.fit(PARAMS, train, None, **SETTINGS)
    xgboost.save(fitted.model, tmp_path / xgboost.FILE)
    assert (fitted.rounds, fitted.score, fitted.device) == (60, None, "cpu")
    assert np.array_equal(xgboost.predict(xgboost.load(tmp_path / xgboost.FILE), train.X), xgboost.predict(fitted.model, train.X))


@pytest.mark.parametrize("seed", range(5))
def test_the_baseline_is_fitted_on_both_labels_however_rare_one_is(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(logistic, "ROWS", 50)
    train = table(2000, 0)
    rare = Table(train.X, (np.arange(2000) % 700 == 1).astype("int8"), train.row)

    found = logistic.predict(logistic.fit(rare, seed=seed), rare.X)

    assert 0 < found.min() <= found.max() < 1


def test_rows_are_scored_as_the_library_scores_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts, with categories that are missing, or were in no train row, and with numbers that float32 cannot hold."""
    train = table(400, 0)
    kind = pd.CategoricalDtype(["a", "b", "c", "never"])
    words = pd.Series(np.random.default_rng(2).choice(["a", "b", "c", None], len(train.y))).astype(kind)
    train.X["kind"], train.X["wide"] = words, np.arange(len(train.y)) + 2.0**40
    train = Table(train.X, (train.y ^ (words == "b").to_numpy()).astype("int8"), train.row)
    model = xgboost.fit({"max_depth": 6}, train, None, **SETTINGS).model
    rows = train.X.head(90).copy()
    rows.loc[:9, "kind"], rows.loc[10:19, "a"] = "never", np.nan
    monkeypatch.setattr(xgboost, "BATCH", 40)

    found = xgboost.predict(model, rows)

    assert found.tolist() == model.predict(library.DMatrix(rows, enable_categorical=True)).tolist()
    assert np.concatenate([xgboost.predict(model, rows.iloc[[row]]) for row in range(90)]).tolist() == found.tolist()
    assert len(xgboost.predict(model, rows.iloc[:0])) == 0
    far, farther = (xgboost.predict(model, rows.head(1).assign(wide=wide)).tolist() for wide in (1e38, 1e300))
    assert far == farther


@pytest.mark.parametrize("text", ["cudaErrorMemoryAllocation: out of memory", "std::bad_alloc"])
def test_out_of_memory_is_told_as_such(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def fails(*_: Any) -> Any:
        raise library.core.XGBoostError(f"[12:00:00] file.cu:12:\n{text}")

    monkeypatch.setattr(xgboost, "_boost", fails)
    with pytest.raises(OutOfMemory, match="xgboost on cpu: "):
        xgboost.fit(PARAMS, table(30, 0), None, **SETTINGS)


def test_another_error_of_the_library_stays_a_bug() -> None:
    with pytest.raises(library.core.XGBoostError):
        xgboost.fit({"max_depth": -3}, table(30, 0), None, **SETTINGS)


def test_no_driver_is_no_gpu() -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU here: what is said without one was not tried")
    assert device.gpus() == 0


def test_a_family_that_is_not_there() -> None:
    with pytest.raises(LookupError, match="no family 'forest'"):
        families.load("forest")
    assert not hasattr(logistic, "FILE")


STOPPED = """
import sys
from pathlib import Path
from stages.common import checkpoint, step
from stages.families import xgboost
from tests.unit.families.test_xgboost import SETTINGS, table

checkpoint.catch_signals()
rows = table(400_000, 0)
def work():
    print("now", flush=True)
    xgboost._matrix(rows, 1)
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
