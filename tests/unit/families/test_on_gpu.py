"""What only a GPU can show: devices, exact resume, full and broken ones. ``pytest -m gpu`` where there is one."""

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import families
from stages.common.checkpoint import Checkpoint
from stages.common.store import open_store
from stages.families import device, metrics
from tests import programs
from tests.unit.families.test_families import PARAMS, SETTINGS, Cut, table, written

pytestmark = pytest.mark.gpu
ON_GPU = pytest.mark.parametrize("name", families.ON_GPU)


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if not device.gpus():
        pytest.skip("there is no NVIDIA GPU here: nothing was fitted on one")


def alone(work: Callable[..., None], name: str, *arguments: Any) -> None:
    """Do some work on the GPU in a process of its own, as a step does: one library's end there may be another one's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(_comes_to_it, name).result()
        pool.submit(work, name, *arguments).result()


def _comes_to_it(name: str) -> None:
    assert families.can_use_gpu(name), f"{name} cannot use the GPU that is here"


@contextmanager
def taken(left: int) -> Iterator[None]:
    """Let another process hold all of the GPU's memory but what a process takes to begin, and so many bytes."""
    with subprocess.Popen([sys.executable, "-m", "tests.hog", str(left)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hog:
        assert hog.stdout
        assert int(hog.stdout.readline()) > 0
        yield
        assert hog.stdin
        hog.stdin.close()


@ON_GPU
def test_a_fit_is_on_the_gpu_and_as_good_as_on_a_cpu(name: str) -> None:
    alone(_as_good, name)


def _as_good(name: str) -> None:
    train, valid = table(20_000, 0), table(5_000, 1)
    on_gpu, on_cpu = (families.fit(name, PARAMS[name], train, valid, **SETTINGS, gpu=gpu) for gpu in (True, False))
    assert (on_gpu.device[:4], on_cpu.device) == ("cuda", "cpu")
    assert on_gpu.gpu_memory
    assert on_cpu.gpu_memory is None
    scores = [metrics.score("auc", valid.y, families.load(name).predict(one.model, valid.X)) for one in (on_gpu, on_cpu)]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)
    assert on_gpu.score == pytest.approx(scores[0], abs=1e-6), "as it was scored at its borders"


def test_the_other_families_take_a_cpu() -> None:
    for name in ("lightgbm", "logistic"):
        assert families.fit(name, PARAMS[name], table(300, 0), None, **SETTINGS, gpu=True).device == "cpu"


@ON_GPU
@pytest.mark.parametrize("border", [10, 30, 60])
def test_a_fit_that_was_killed_goes_on_to_the_same_model(name: str, border: int, tmp_path: Path) -> None:
    alone(_goes_on, name, border, tmp_path)


def _goes_on(name: str, border: int, folder: Path) -> None:
    train, valid = table(20_000, 0), table(5_000, 1)
    settings = {**SETTINGS, "threads": 2, "gpu": True}
    saved = Checkpoint(open_store(str(folder / "store")), "fit", 0)
    reports: list[Any] = []
    again: list[Any] = []
    whole = families.fit(name, PARAMS[name], train, valid, **settings, report=lambda *one: reports.append(one))

    def killed(rounds: int, _score: float | None) -> None:
        if rounds > border:
            raise Cut

    try:
        families.fit(name, PARAMS[name], train, valid, **settings, checkpoint=saved, report=killed)
    except Cut:
        assert border < reports[-1][0]
    rows = table(20_000, 0)
    resumed = families.fit(name, PARAMS[name], rows, valid, **settings, checkpoint=saved, report=lambda *one: again.append(one))
    assert saved.began == border
    assert (resumed.rounds, again) == (whole.rounds, reports)
    assert written(name, resumed.model, folder) == written(name, whole.model, folder)


@ON_GPU
def test_the_same_fit_gives_the_same_model(name: str, tmp_path: Path) -> None:
    alone(_is_the_same, name, tmp_path)


def _is_the_same(name: str, folder: Path) -> None:
    made = [families.fit(name, PARAMS[name], table(20_000, 0), table(5_000, 1), **SETTINGS, gpu=True) for _ in range(3)]
    assert len({written(name, one.model, folder) for one in made}) == 1


FIT = """
import pathlib, sys
import numpy as np, pandas as pd
from stages import families
from stages.common import log, memory, step
from stages.features.features import Table
rows = np.random.default_rng(0).normal(size=(800_000, 100)).astype("float32")
train = Table(pd.DataFrame(rows, columns=[f"c{i}" for i in range(100)]), (rows[:, 0] > 0).astype("int8"), np.arange(len(rows)))
options = dict(rounds=10, early_stopping_rounds=10, seed=0, metric="auc", threads=4, gpu=True)
log.setup()
def fit():
    with memory.watched(lambda: None, pathlib.Path("/nowhere")):
        print(families.fit(sys.argv[1], {}, train, None, **options).device)
sys.exit(step.guarded(fit))
"""


def fitted(name: str, **environment: str) -> programs.Ended:
    """Fit 800,000 x 100 as a process of its own."""
    return programs.python("-c", FIT, name, more=environment, limit=120)


@ON_GPU
def test_a_full_gpu_is_told_by_what_the_library_says(name: str) -> None:
    with taken(200_000_000):
        ended = fitted(name)
    assert ended.code == 76, ended.err
    (failed,) = ended.named("step.failed")
    assert failed["message"].startswith((f"{name} on cuda: ", "a library aborted the process"))
    assert fitted(name).out.startswith("cuda"), "the memory is free again"


@ON_GPU
def test_a_gpu_that_the_library_does_not_come_to_is_named_and_a_cpu_taken(name: str) -> None:
    ended = fitted(name, CUDA_VISIBLE_DEVICES="7")
    assert (ended.code, ended.out) == (0, "cpu\n"), ended.err
    assert [line["so"] for line in ended.named("gpu.broken")] == ["fits take a CPU"]


SETS = ("search.families=[xgboost, catboost]", "search.n_trials=3", "search.rounds=60", "train.rounds=60", "prepare.sample_size=8000")


def devices(store: Path, *sets: str) -> dict[str, tuple[str, list[str], float]]:
    """Run the example; give each training's device, fallback and megabytes of the GPU."""
    words = [word for one in (*SETS, *sets) for word in ("--set", one)]
    ended = programs.surefoot("run", "configs/example.yaml", "--store", str(store), *words, limit=500)
    assert ended.code == 0, ended.err
    listed = programs.surefoot("ls", "--json", "--store", str(store), limit=60)
    return {
        one["item"]["family"]: (one["device"], one["degraded"], one["measured"].get("gpu_memory_mb"))
        for one in json.loads(listed.out)
        if one["step"] == "train"
    }


def test_a_whole_run_takes_the_gpu_by_itself(tmp_path: Path) -> None:
    found = devices(tmp_path / "store")
    assert {family: (used[:4], fallback) for family, (used, fallback, _) in found.items()} == dict.fromkeys(families.ON_GPU, ("cuda", []))
    assert all(np.isfinite(memory) and memory > 0 for *_, memory in found.values())


def test_a_whole_run_beside_a_full_gpu_ends_on_the_cpu_and_says_so(tmp_path: Path) -> None:
    with taken(0):
        found = devices(tmp_path / "store")
    assert {family: used for family, (used, _, _) in found.items()} == dict.fromkeys(families.ON_GPU, "cpu")
    assert all("CPU for GPU" in fallback for _, fallback, _ in found.values())


def test_two_workers_share_a_gpu(tmp_path: Path) -> None:
    found = devices(tmp_path / "store", "search.workers=2", "search.n_trials=6")
    assert {family: used[:4] for family, (used, _, _) in found.items()} == dict.fromkeys(families.ON_GPU, "cuda")
