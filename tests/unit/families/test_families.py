"""What holds for every family: exact resume, early stopping, being told to stop, and the same words in each."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pynvml
import pytest
import xgboost as library
from catboost import CatBoost, CatBoostError
from lightgbm.basic import Booster, LightGBMError
from scipy import special

from stages import families
from stages.common import checkpoint, recipe
from stages.common.checkpoint import Checkpoint
from stages.common.errors import Interrupted, NotNow, OutOfMemory
from stages.common.store import Store, open_store
from stages.families import catboost, device, lightgbm, logistic, metrics, space, xgboost
from stages.families.borders import Borders
from stages.features.features import Table
from tests import disk
from tests.servers import Missing

SETTINGS: dict[str, Any] = {"rounds": 60, "early_stopping_rounds": 60, "seed": 3, "metric": "auc", "threads": 1}
PARAMS: dict[str, dict[str, Any]] = {
    "xgboost": {"max_depth": 3, "learning_rate": 0.2, "subsample": 0.6, "colsample_bytree": 0.6},
    "lightgbm": {"num_leaves": 7, "learning_rate": 0.2, "bagging_fraction": 0.6, "feature_fraction": 0.6, "min_data_in_leaf": 5},
    "catboost": {"depth": 3, "learning_rate": 0.2, "subsample": 0.6},
    "logistic": {"C": 1.0},
}
BOOSTED = ("xgboost", "lightgbm", "catboost")
EACH = pytest.mark.parametrize("name", families.NAMES)
EACH_BOOSTED = pytest.mark.parametrize("name", BOOSTED)
KIND = pd.CategoricalDtype(["a", "b", "c", "never"])


def table(rows: int, seed: int) -> Table:
    """Numbers with gaps, and a category that is missing in some rows."""
    rng = np.random.default_rng(seed)
    matrix = pd.DataFrame(rng.normal(size=(rows, 5)).astype("float32"), columns=[*"abcde"])
    words = rng.choice(["a", "b", "c", None], rows)
    label = matrix["a"] + matrix["b"] * matrix["c"] + 1.5 * (words == "b") + rng.normal(size=rows) > 0.8
    matrix["kind"] = pd.Series(words).astype(KIND)
    matrix.loc[matrix["d"] > 1, "d"] = np.nan
    return Table(matrix, label.to_numpy("int8"), np.arange(rows))


class Cut(BaseException):
    """The process ends here."""


def written(name: str, model: Any, folder: Path) -> bytes:
    family = families.load(name)
    found: Path = folder / family.FILE
    family.save(model, found)
    return found.read_bytes()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Give a place for checkpoints."""
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def stoppable() -> Iterator[None]:
    """Let signals be caught as a step does."""
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    checkpoint.catch_signals()
    yield
    signal.signal(signal.SIGTERM, handlers[0])
    signal.signal(signal.SIGINT, handlers[1])
    checkpoint._stop.signal = 0


def test_each_family_is_known_everywhere() -> None:
    assert sorted(families.NAMES) == recipe.families()
    with pytest.raises(LookupError, match="no family 'forest'"):
        families.load("forest")


@EACH
def test_each_family_has_the_same_words(name: str) -> None:
    family = families.load(name)
    words = ("boost", "predict", "save", "load", "contributions", "importance", "has_cuda")
    assert all(callable(getattr(family, word)) for word in words)
    assert space.merged(name, family.SPACE, {}) == family.SPACE
    assert space.nearest(family.FIRST, family.SPACE) == family.FIRST
    assert {key: type(value) for key, value in family.FIRST.items()} == {key: type(bounds[0]) for key, bounds in family.SPACE.items()}


@EACH
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("border", [10, 30, 60])
def test_a_fit_that_was_killed_goes_on_to_the_same_model(name: str, threads: int, border: int, store: Store, tmp_path: Path) -> None:
    train, valid = table(400, 0), table(200, 1)
    settings = {**SETTINGS, "threads": threads}
    reports: list[tuple[int, float | None]] = []
    whole = families.fit(name, PARAMS[name], train, valid, **settings, report=lambda *one: reports.append(one))

    def killed(rounds: int, _score: float | None) -> None:
        if rounds > border:
            raise Cut

    try:
        families.fit(name, PARAMS[name], train, valid, **settings, checkpoint=Checkpoint(store, "fit", 0), report=killed)
    except Cut:
        assert border < reports[-1][0]
    else:
        assert border >= reports[-1][0]
    again: list[tuple[int, float | None]] = []
    resumed = families.fit(
        name, PARAMS[name], table(400, 0), valid, **settings, checkpoint=Checkpoint(store, "fit", 0), report=lambda *one: again.append(one)
    )

    assert written(name, resumed.model, tmp_path) == written(name, whole.model, tmp_path)
    assert (resumed.rounds, resumed.score, again) == (whole.rounds, whole.score, reports)


@EACH_BOOSTED
def test_a_fit_that_is_over_leaves_no_model_behind(name: str, store: Store) -> None:
    """Not even until Python looks for cycles: the next fit of the process needs its memory."""
    kinds = library.Booster, Booster, CatBoost
    gc.collect()
    gc.disable()
    try:
        for number in range(2):
            with Checkpoint(store, f"fit-{number}", 0) as saved:
                families.fit(name, PARAMS[name], table(400, 0), table(200, 1), **SETTINGS, checkpoint=saved)
            assert not [one for one in gc.get_objects() if isinstance(one, kinds)]
    finally:
        gc.enable()


@EACH_BOOSTED
def test_a_fit_that_was_killed_begins_at_its_last_border(name: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the rounds that are fitted, from outside."""
    train, valid = table(400, 0), table(200, 1)
    begun: list[int] = []
    real = Borders.ahead

    def ahead(borders: Borders) -> int | None:
        found = real(borders)
        begun.extend([borders.rounds] if found else [])
        return found

    def killed(rounds: int, _score: float | None) -> None:
        if rounds == 40:
            raise Cut

    monkeypatch.setattr(Borders, "ahead", ahead)
    with pytest.raises(Cut):
        families.fit(name, PARAMS[name], train, valid, **SETTINGS, checkpoint=Checkpoint(store, "fit", 0), report=killed)
    assert begun == [0, 10, 20, 30]
    begun.clear()
    families.fit(name, PARAMS[name], train, valid, **SETTINGS, checkpoint=Checkpoint(store, "fit", 0))
    assert begun == [30, 40, 50]


@EACH_BOOSTED
def test_it_stops_early_and_is_cut_at_the_best_border(name: str, store: Store) -> None:
    settings = {**SETTINGS, "rounds": 500, "early_stopping_rounds": 20}
    reports: list[tuple[int, float | None]] = []
    params, saved = {**PARAMS[name], "learning_rate": 0.5}, Checkpoint(store, "fit", 0)
    train, valid = table(300, 0), table(200, 1)
    fitted = families.fit(name, params, train, valid, **settings, checkpoint=saved, report=lambda *one: reports.append(one))

    best = max(reports, key=lambda one: one[1] or 0)
    assert fitted.rounds == best[0]
    assert fitted.score == pytest.approx(best[1], abs=1e-9)
    assert reports[-1][0] == fitted.rounds + 20 < 500

    again = families.fit(name, params, train, valid, **settings, checkpoint=Checkpoint(store, "fit", 0))
    assert (again.rounds, again.score) == (fitted.rounds, fitted.score), "and it ends there when it is asked again"


@EACH
@pytest.mark.parametrize("metric", ["average_precision", "auc", "log_loss"])
@pytest.mark.parametrize(("threads", "more"), [(1, {}), (2, {"balanced": True}), (2, {"monotone": {"a": 1}})])
def test_the_score_is_that_of_the_model(name: str, metric: str, threads: int, more: dict[str, Any], tmp_path: Path) -> None:
    """Bit for bit, as it is read anew, with each family's deepest trees: nobody predicts valid once more to learn it."""
    valid = table(300, 1)
    deep = {key: bounds[1] for key, bounds in families.load(name).SPACE.items() if "depth" in key or "leaves" in key}
    settings = {**SETTINGS, "metric": metric, "threads": threads, **more}
    fitted = families.fit(name, {**PARAMS[name], **deep}, table(900, 0), valid, **settings)
    family = families.load(name)
    family.save(fitted.model, tmp_path / family.FILE)
    assert metrics.score(metric, valid.y, family.predict(family.load(tmp_path / family.FILE), valid.X)) == fitted.score


@EACH
def test_the_score_is_that_of_the_model_where_valid_has_a_category_that_train_lacks(name: str) -> None:
    valid = table(300, 1)
    valid.X["kind"] = valid.X["kind"].where(valid.X["kind"] != "a", "never")
    fitted = families.fit(name, PARAMS[name], table(900, 0), valid, **SETTINGS)
    assert metrics.score(SETTINGS["metric"], valid.y, families.load(name).predict(fitted.model, valid.X)) == fitted.score


@EACH
def test_it_is_better_than_chance_on_new_rows(name: str) -> None:
    new = table(1000, 7)
    fitted = families.fit(name, PARAMS[name], table(1000, 0), table(500, 1), **SETTINGS)
    assert metrics.score("auc", new.y, families.load(name).predict(fitted.model, new.X)) > 0.75


@EACH
def test_what_it_saves_it_loads(name: str, tmp_path: Path) -> None:
    family, train = families.load(name), table(300, 0)
    fitted = families.fit(name, PARAMS[name], train, None, **SETTINGS)
    text = written(name, fitted.model, tmp_path)
    loaded = family.load(tmp_path / family.FILE)
    assert (fitted.score, fitted.device) == (None, "cpu")
    assert fitted.rounds == (1 if name == "logistic" else 60)
    assert np.array_equal(family.predict(loaded, train.X), family.predict(fitted.model, train.X))
    assert written(name, families.fit(name, PARAMS[name], train, None, **SETTINGS).model, tmp_path) == text


@EACH
def test_rows_are_scored_alike_one_by_one_and_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts, with categories that are missing, or were in no train row, and with numbers that float32 cannot hold."""
    family, train = families.load(name), table(400, 0)
    train.X["wide"] = np.arange(400) + 2.0**40
    model = families.fit(name, PARAMS[name], train, None, **SETTINGS).model
    rows = train.X.head(90).copy()
    rows.loc[:9, "kind"], rows.loc[10:19, "a"] = "never", np.nan
    if hasattr(family, "BATCH"):
        monkeypatch.setattr(family, "BATCH", 40)

    found = family.predict(model, rows)

    assert np.allclose([family.predict(model, rows.iloc[[row]])[0] for row in range(90)], found, rtol=1e-12)
    assert len(family.predict(model, rows.iloc[:0])) == 0
    far, farther = (family.predict(model, rows.head(1).assign(wide=wide)).tolist() for wide in (1e38, 1e300))
    assert far == farther


@EACH
def test_contributions_add_up_to_the_log_odds(name: str) -> None:
    family, train = families.load(name), table(400, 0)
    model = families.fit(name, PARAMS[name], train, None, **SETTINGS).model

    found = family.contributions(model, train.X)

    rest = special.logit(family.predict(model, train.X).astype("float64")) - found.sum(axis=1)
    assert found.shape == train.X.shape
    assert np.ptp(rest) < 1e-4, "but for what is the same for all rows"
    assert np.abs(found).mean(axis=0).argsort()[-1] in (0, 1, 2, 5)


@EACH
def test_importance_names_what_says_most(name: str) -> None:
    model = families.fit(name, PARAMS[name], table(2000, 0), None, **SETTINGS).model
    found = families.load(name).importance(model)
    assert set(found) <= set(table(1, 0).X.columns)
    assert max(found, key=lambda column: found[column]) in ("a", "kind")
    assert all(isinstance(value, float) and value >= 0 for value in found.values())


@EACH
def test_balanced_labels_weigh_the_same(name: str) -> None:
    rare = table(2000, 0)
    rare = Table(rare.X, (rare.y * (np.arange(2000) % 8 == 0)).astype("int8"), rare.row)
    plain, balanced = (families.fit(name, PARAMS[name], rare, None, **SETTINGS, balanced=one).model for one in (False, True))
    found = [float(families.load(name).predict(model, rare.X).mean()) for model in (plain, balanced)]
    assert found[0] == pytest.approx(rare.y.mean(), abs=0.02)
    assert found[1] > 3 * found[0]


@EACH_BOOSTED
@pytest.mark.parametrize("sign", [1, -1])
def test_a_monotone_column_only_adds_risk_or_only_takes_it(name: str, sign: int) -> None:
    rows = table(600, 0)
    model = families.fit(name, PARAMS[name], rows, None, **SETTINGS, monotone={"b": sign}).model
    ladder = np.linspace(-3, 3, 61)
    for row in range(20):
        one = pd.concat([rows.X.iloc[[row]]] * 61, ignore_index=True).assign(b=ladder.astype("float32"))
        steps = np.diff(families.load(name).predict(model, one).astype("float64")) * sign
        assert steps.min() >= -1e-7


def test_a_column_without_a_value_in_the_rows_that_are_fitted(tmp_path: Path) -> None:
    rows = table(300, 0)
    rows.X["e"] = np.nan
    model = families.fit("logistic", {}, rows, None, **SETTINGS).model
    assert np.isfinite(logistic.predict(model, rows.X.assign(e=5.0))).all()
    assert written("logistic", model, tmp_path)


@EACH
def test_names_that_are_words_of_python(name: str) -> None:
    rows = table(300, 0)
    rows = Table(rows.X.rename(columns={"a": "lambda", "b": "class", "kind": "self"}), rows.y, rows.row)
    model = families.fit(name, PARAMS[name], rows, None, **SETTINGS).model
    assert {"lambda", "self"} <= set(families.load(name).importance(model))


@EACH_BOOSTED
def test_what_did_not_fit_into_memory_does_not_stay_there(name: str) -> None:
    rows, valid = table(300, 0), table(100, 1)
    for rung in families.LADDER[:3]:
        families.fit(name, PARAMS[name], rows, valid, **{**SETTINGS, "rounds": 10}, **rung)
    family = families.load(name)
    kept = next(getattr(family, word) for word in ("_matrices", "_datasets", "_pools") if hasattr(family, word))
    assert [*kept[rows]] == [64]


@EACH
@pytest.mark.usefixtures("stoppable")
def test_a_signal_after_the_last_border_saves_it(name: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    family = families.load(name)
    real = family.boost

    def boost(*arguments: Any) -> Any:
        made = real(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        return made

    monkeypatch.setattr(family, "boost", boost)
    with pytest.raises(Interrupted), Checkpoint(store, "fit", 1000) as saved:
        families.fit(name, PARAMS[name], table(400, 0), table(200, 1), **SETTINGS, checkpoint=saved)
    last = Borders(None, "auc", 1, 1, Checkpoint(store, "fit", 0))
    assert last.load()
    assert last.rounds == (1 if name == "logistic" else 60)


@EACH
def test_what_a_fit_on_a_gpu_left_is_none_for_a_cpu(name: str, store: Store, tmp_path: Path) -> None:
    """CatBoost refuses such a state, and a model half of each would be neither's: the fit begins anew."""
    train, valid = table(400, 0), table(200, 1)
    whole = families.fit(name, PARAMS[name], train, valid, **SETTINGS)
    Borders(valid, "auc", 60, 60, Checkpoint(store, "fit", 0), place="cuda").reach(30, np.linspace(0, 1, 200), lambda: b"a GPU's")
    assert Borders(valid, "auc", 60, 60, Checkpoint(store, "fit", 0), place="cuda").load() == b"a GPU's"
    saved = Checkpoint(store, "fit", 0)
    again = families.fit(name, PARAMS[name], train, valid, **SETTINGS, checkpoint=saved)
    assert (again.rounds, again.score, saved.began) == (whole.rounds, whole.score, 0)
    if name != "catboost":  # its models hold the times at which they were made
        assert written(name, again.model, tmp_path) == written(name, whole.model, tmp_path)


FILLING = """
import os, random, sys, tempfile
from pathlib import Path
from stages import families
from stages.common import memory, step
from tests import disk
from tests.unit.families import test_families as these
full, at = disk.Disk(Path(tempfile.gettempdir())), int(sys.argv[1])
def fill(rounds, _value):
    if rounds == at:
        full.fill(random.Random(0), 1)
def fit():
    fill(0, None)
    (scratch := full.folder / "scratch").mkdir()
    with memory.watched(lambda: print("went down"), scratch):
        families.fit("catboost", these.PARAMS["catboost"], these.table(400, 0), these.table(200, 1), **these.SETTINGS, report=fill)
sys.exit(step.guarded(fit))
"""


@pytest.mark.parametrize("at", [0, 10, 50])
def test_a_full_disk_of_scratch_files_is_no_bug_and_no_lack_of_memory(at: int, tmp_path: Path) -> None:
    """CatBoost alone keeps its state there. It says so, says something else, or aborts: it is tried again (75), as it was."""
    with contextlib.ExitStack() as stack:
        try:
            full = stack.enter_context(disk.Disk(tmp_path / "disk"))
        except Missing as error:
            pytest.skip(f"{error}: no disk was filled")
        environment = {**os.environ, "TMPDIR": str(full.folder), "PYTHONPATH": str(recipe.ROOT)}
        done = subprocess.run([sys.executable, "-c", FILLING, str(at)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 75, done.stderr
    assert "went down" not in done.stdout


@EACH
@pytest.mark.usefixtures("stoppable")
def test_a_signal_while_a_border_is_reported_saves_it(name: str, store: Store) -> None:
    """The report waits for a database that is away, and looks whether it is told to stop."""
    at = 1 if name == "logistic" else 30

    def report(rounds: int, _value: float | None) -> None:
        if rounds == at:
            os.kill(os.getpid(), signal.SIGTERM)
            checkpoint.end_if_told()

    with pytest.raises(Interrupted), Checkpoint(store, "fit", 1000) as saved:
        families.fit(name, PARAMS[name], table(400, 0), table(200, 1), **SETTINGS, checkpoint=saved, report=report)
    last = Borders(None, "auc", 1, 1, Checkpoint(store, "fit", 0))
    assert last.load()
    assert last.rounds == at


@EACH_BOOSTED
def test_fewer_bins_are_fewer_thresholds(name: str) -> None:
    rows = table(2000, 0)
    family = families.load(name)
    found = []
    for bins in (None, 8):
        model = families.fit(name, PARAMS[name], rows, None, **{**SETTINGS, "rounds": 200}, bins=bins).model
        one = pd.concat([rows.X.iloc[[0]]] * 2000, ignore_index=True).assign(a=np.linspace(-3, 3, 2000).astype("float32"))
        found.append(len(np.unique(family.predict(model, one))))
    assert found[1] <= 9 < found[0]


WORDS: list[tuple[type[Exception], str, bool]] = [  # what the libraries say, and whether it is of memory
    (library.core.XGBoostError, "[12:00:00] file.cu:12:\nMemory allocation error: cudaErrorMemoryAllocation: out of memory", True),
    (library.core.XGBoostError, "std::bad_alloc", True),
    (library.core.XGBoostError, "[12:00:00] Check failed: cudaErrorNoDevice: no CUDA-capable device is detected", False),
    (library.core.XGBoostError, "cudaErrorECCUncorrectable: uncorrectable ECC error encountered", False),
    (LightGBMError, "Memory Object Allocation Failure", True),
    (LightGBMError, "std::bad_alloc", True),
    (LightGBMError, "CUDA Tree Learner was not enabled in this build.", False),
    (CatBoostError, "NCudaLib::TOutOfMemoryError: Out of memory. Requested 100.0MB; Free 3.0MB", True),
    (CatBoostError, "std::bad_alloc", True),
    (CatBoostError, "CUDA error 35: CUDA driver version is insufficient for CUDA runtime version", False),
    (MemoryError, "", True),
    (MemoryError, "Unable to allocate 3.00 GiB for an array with shape (400000, 1000)", True),
]


@pytest.mark.parametrize(("kind", "text", "is_memory"), WORDS)
def test_full_is_told_from_broken(monkeypatch: pytest.MonkeyPatch, kind: type[Exception], text: str, is_memory: bool) -> None:
    def fails(*_: Any) -> Any:
        raise kind(text)

    monkeypatch.setattr(xgboost, "boost", fails)
    with pytest.raises(OutOfMemory if is_memory else kind) as raised:
        families.fit("xgboost", {}, table(30, 0), None, **SETTINGS)
    assert str(raised.value).startswith("xgboost on cpu: ") == is_memory
    assert device.is_out_of_memory(kind(text)) == is_memory


@pytest.mark.parametrize("text", ["cudaErrorECCUncorrectable: uncorrectable ECC error encountered", "CUDA error 35: too old a driver"])
def test_a_gpu_that_breaks_is_tried_again(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def fails(*_: Any) -> Any:
        raise CatBoostError(text)

    monkeypatch.setattr(catboost, "boost", fails)
    monkeypatch.setattr(families, "can_use_gpu", lambda _name: True)
    with pytest.raises(NotNow, match=f"catboost on cuda: {text}. The GPU does not work"):
        families.fit("catboost", {}, table(30, 0), None, **SETTINGS, gpu=True)


STACK = "\n\nStack trace:\n  [bt] (0) lib/libxgboost.so(xgboost::cuda_impl::Fit()+0x1)\n  [bt] (8) /lib/libffi.so.8(ffi_call+0xcd)\n\n"


@pytest.mark.parametrize(
    ("said", "is_full", "is_broken"),
    [
        ("catboost/cuda/cuda_lib/cuda_base.h:265: CUDA error 35: too old a driver", False, True),
        ("catboost/cuda/methods/helpers.cpp:7: All features are either constant or ignored", False, False),
        ("[08:36:22] /workspace/src/a.cc:27: Unknown objective function: `nope`" + STACK, False, False),
        ("[08:36:22] /workspace/src/a.cu:27: cudaErrorIllegalAddress: an illegal memory access" + STACK, False, True),
        ("[08:36:22] /src/a.cu:27: Memory allocation error: out of memory\n- Free memory: 3MB\n" + STACK, True, False),
    ],
)
def test_the_files_and_the_stack_that_a_library_names_are_not_what_is_wrong(said: str, *, is_full: bool, is_broken: bool) -> None:
    error = CatBoostError(said)
    assert (device.is_out_of_memory(error), device.is_broken(error)) == (is_full, is_broken)
    assert device.told(error) == said.splitlines()[0]


@pytest.mark.parametrize(
    ("answer", "is_working"),
    [
        ("cuda:0", True),
        ("cpu", False),
        (CatBoostError("CUDA error 35: CUDA driver version is insufficient for CUDA runtime version"), False),
        (CatBoostError("NCudaLib::TOutOfMemoryError: Out of memory. Requested 1.0MB; Free 0.0MB"), True),
    ],
)
def test_a_gpu_works_where_a_small_fit_comes_to_it(answer: Any, *, is_working: bool) -> None:
    def fit() -> str:
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert device.works(fit) == is_working


def test_a_gpu_is_used_where_one_is_there_and_the_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    places = []

    def boost(fit: families.Fit, borders: Borders) -> Any:
        places.append(fit.place)
        borders.reach(10, None, bytes)
        return None, fit.place

    for family in (xgboost, lightgbm, catboost, logistic):
        monkeypatch.setattr(family, "boost", boost)
    for gpus, cuda in ((0, True), (1, False), (1, True)):
        monkeypatch.setattr(device, "gpus", lambda gpus=gpus: gpus)
        monkeypatch.setattr(xgboost, "has_cuda", lambda cuda=cuda: cuda)
        for gpu in (False, True):
            families.fit("xgboost", {}, table(30, 0), None, **SETTINGS, gpu=gpu)
    assert places == ["cpu", "cpu", "cpu", "cpu", "cpu", "cuda"]
    assert not logistic.has_cuda()


@pytest.mark.parametrize(("given", "count"), [(None, 4), ("", 0), ("-1", 0), ("2", 1), ("0, 3", 2), ("0,1,2,3,4,5", 4)])
def test_a_process_counts_the_gpus_that_it_was_given(monkeypatch: pytest.MonkeyPatch, given: str | None, count: int) -> None:
    monkeypatch.setattr(device, "_counted", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert device.gpus() == count


class Driver:
    """Tells of one GPU of 10 GB, of which others hold 3."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.own: dict[int, int | None] = {}
        self.says_whose = True
        for name in ("nvmlInit", "nvmlShutdown"):
            monkeypatch.setattr(pynvml, name, lambda: None)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", self._handle)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda name: self._handle(name != "MIG-1"))
        memory = SimpleNamespace(total=10, used=3, free=7)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda _handle: memory)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses_v3", self._processes)

    def _handle(self, number: int) -> int:
        if number:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return 0

    def _processes(self, _gpu: Any) -> list[Any]:
        if not self.says_whose:  # as of a driver that is older than what it is asked by
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.own.items()]


@pytest.mark.parametrize(
    ("visible", "own", "shares", "free"),
    [
        ("0", {}, "1", 7),
        ("MIG-1", {}, "1", 7),
        ("", {}, "1", None),
        ("7", {}, "1", None),
        ("GPU-1", {}, "2", None),
        ("0", {}, "2", 5),
        ("0", {os.getpid(): 1}, "2", 4),
        ("0", {os.getpid(): None}, "2", 5),
        ("0", None, "1", 7),
        ("0", None, "2", None),
    ],
)
def test_what_is_free_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, visible: str, own: dict[int, int | None] | None, shares: str, free: int | None
) -> None:
    driver = Driver(monkeypatch)
    driver.own, driver.says_whose = own or {}, own is not None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("SUREFOOT_GPU_SHARES", shares)
    assert device.free() == free
    is_told = visible in ("0", "MIG-1")
    assert device.part() == pytest.approx(device.MOST * (min(1, 10 / int(shares) / 7) if is_told else 1 / int(shares)))
    with device.taken() as taken:
        pass
    is_known = own is not None and (shares == "1" or any(own.values()))
    assert taken.most == (0 if is_told and is_known else None)


def test_a_driver_that_hangs_keeps_no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, mended = Driver(monkeypatch), threading.Event()
    monkeypatch.setattr(driver, "own", SimpleNamespace(items=lambda: [mended.wait(5)][:0]))
    began = time.monotonic()
    with device.taken() as taken:
        pass
    assert time.monotonic() - began < 4
    assert taken.most is None
    mended.set()


def test_a_fit_on_a_cpu_took_nothing_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CatBoost keeps to monotone columns on a CPU alone."""
    Driver(monkeypatch)
    monkeypatch.setattr(catboost, "has_cuda", lambda: True)
    fitted = families.fit("catboost", PARAMS["catboost"], table(300, 0), None, **SETTINGS, gpu=True, monotone={"a": 1})
    assert (fitted.device, fitted.gpu_memory) == ("cpu", None)


def test_the_ladder_ends_at_the_cpu_where_a_fallback_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpus", lambda: 1)
    monkeypatch.setattr(catboost, "has_cuda", lambda: True)
    asked = [("catboost", True, True), ("catboost", True, False), ("catboost", False, True), ("lightgbm", True, True)]
    assert [families.rungs(name, gpu=gpu, accept_degraded=accepts) for name, gpu, accepts in asked] == [4, 1, 3, 3]
    assert families.rungs("logistic", gpu=True, accept_degraded=True) == 1, "without bins nothing is given up"
    assert [families.fallback(rung) for rung in (0, 1, 3)] == [
        [],
        ["128 bins for lack of memory"],
        ["64 bins for lack of memory", "CPU for GPU"],
    ]


def test_the_published_lightgbm_cannot_use_a_gpu() -> None:
    assert not lightgbm.has_cuda()


def test_no_driver_is_no_gpu() -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU here: what is said without one was not tried")
    assert device.gpus() == 0


@EACH
@pytest.mark.usefixtures("stoppable")
def test_a_signal_amid_a_fit_saves_the_next_border(name: str, store: Store, tmp_path: Path) -> None:
    train, valid = table(400, 0), table(200, 1)
    whole = families.fit(name, PARAMS[name], train, valid, **SETTINGS)

    def told(rounds: int, _score: float | None) -> None:
        if rounds in (1, 20):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted), Checkpoint(store, "fit", 1000) as saved:
        families.fit(name, PARAMS[name], train, valid, **SETTINGS, checkpoint=saved, report=told)
    checkpoint._stop.signal = 0
    seen: list[int] = []
    resumed = families.fit(
        name, PARAMS[name], train, valid, **SETTINGS, checkpoint=Checkpoint(store, "fit", 0), report=lambda *one: seen.append(one[0])
    )
    assert seen[0] == (1 if name == "logistic" else 10)
    assert written(name, resumed.model, tmp_path) == written(name, whole.model, tmp_path)
