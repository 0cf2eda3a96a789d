"""A fit in a real cgroup that it fills: it ends by itself, in time, and the next attempt needs less.

For root, where cgroups can be made.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.common import contract, memory
from stages.common.store import open_store
from tests import programs
from tests.unit.pipelines import XGBOOST, Pipeline, publish

pytestmark = [pytest.mark.faults]

ROWS, COLUMNS = 8_000, 200
LIMITS = {"search-work": 660_000_000, "train": 1_000_000_000}  # between what the fits take with 128 bins and with all
# One tree of eleven levels has up to two thousand histograms of 200 columns, of fourteen some more: 0.8 MB each with all bins, half as much
# with half of them.
PARAMS = {"max_depth": 14, "learning_rate": 0.1, "min_child_weight": 1e-6, "subsample": 1.0, "colsample_bytree": 1.0, "reg_lambda": 1.0}
CONFIG = """
prepare: {source: file, path: table.csv, label: fraud, split: order, max_column_auc: 1}
search: {n_trials: 2, rounds: 10, space: {xgboost: {max_depth: [11, 12], min_child_weight: [1.0e-6, 2.0e-6], subsample: [0.98, 1.0]}}}
train: {rounds: 10}
common: {threads: 1}
"""
# The steps as they are, but for an estimate that says nothing: what is left is to watch.
STEP = """
import os, pathlib, sys
pathlib.Path(sys.argv.pop(1)).write_text(str(os.getpid()))
name = sys.argv.pop(1)
from stages.common import step
from stages.families import need
need.lacking = lambda *_: ""
step.main(name)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare a wide table, once."""
    folder = tmp_path_factory.mktemp("wide")
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(ROWS, COLUMNS)).round(6), columns=[f"n{number}" for number in range(COLUMNS)])
    table["fraud"] = (table["n0"] + rng.normal(size=ROWS) > 0).astype(int)
    table.to_csv(folder / "table.csv", index=False)
    (folder / "config.yaml").write_text(CONFIG)
    made = Pipeline(folder, open_store(str(folder / "store")))
    for name in ("prepare", "search-create"):
        made.do(name)
    return folder


@pytest.fixture
def pipeline(prepared: Path, tmp_path: Path) -> Pipeline:
    """Give a pipeline of its own."""
    shutil.copytree(prepared, tmp_path / "wide")
    return Pipeline(tmp_path / "wide", open_store(str(tmp_path / "wide" / "store")))


@pytest.fixture
def name() -> str:
    """Say whose limit a cgroup has."""
    return "search-work"


@pytest.fixture
def cgroup(name: str) -> Iterator[Path]:
    """Make a memory cgroup with a limit; give its file of processes."""
    around = [*memory._cgroups()]
    # Of version 1 within our own; of version 2 below the root, the only one that may hold both processes and groups.
    parent = next((one for one in around if (one / "memory.limit_in_bytes").exists()), around[-1] if around else None)
    if parent is None:
        pytest.skip("this system has no cgroups: no fit was ended at the limit of one")
    group = parent / f"surefoot-test-{secrets.token_hex(4)}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made in {parent} ({error.strerror}): no fit was ended at the limit of one")
    try:
        limits = [group / name for name in ("memory.max", "memory.limit_in_bytes") if (group / name).exists()]
        if not limits:
            pytest.skip(f"cgroups in {parent} have no limit of memory: no fit was ended at the limit of one")
        limits[0].write_text(str(LIMITS[name]))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def attempt(pipeline: Pipeline, cgroup: Path, name: str) -> programs.Ended:
    """Run a step in a cgroup, as a pod does."""
    words = ["--config", str(pipeline.folder / "config.yaml"), "--store", pipeline.store.address, "--item", '{"family": "xgboost"}']
    return programs.python("-c", STEP, cgroup, name, *words, limit=300)


@pytest.mark.parametrize("name", LIMITS)
def test_a_fit_that_fills_its_cgroup_ends_by_itself_and_the_next_attempt_needs_less(pipeline: Pipeline, cgroup: Path, name: str) -> None:
    if name == "train":
        best = {"family": "xgboost", "metric": "auc", "params": PARAMS, "slot": 0, "value": 0.5, "options": {}, "rung": 0}
        publish(pipeline.addresses(), "search-collect", XGBOOST, {"best.json": contract.dump(best)}, {})
    first = attempt(pipeline, cgroup, name)
    assert first.code == 76, first.err
    (failed,) = first.named("step.failed")
    assert failed["error"] == "OutOfMemory"
    assert failed["message"].endswith(f"of {LIMITS[name] / 1e9:.2f} GB that the cgroup allows were used: ended in time.")

    second = attempt(pipeline, cgroup, name)
    assert second.code == 0, "the other slot too begins with fewer bins: a step is not tried often. " + second.err
    if name == "search-work":
        pipeline.do("search-collect")
    manifest = pipeline.addresses().find("train" if name == "train" else "search-collect", XGBOOST)
    assert manifest
    assert manifest.document["degraded"] == ["128 bins for lack of memory"]


def test_copies_of_files_end_nothing(cgroup: Path, tmp_path: Path) -> None:
    """They fill the cgroup, and go when memory is wanted."""
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 3 * LIMITS["search-work"])
    code = f"""
import os, pathlib, time
pathlib.Path({str(cgroup)!r}).write_text(str(os.getpid()))
from stages.common import memory
with memory.watched(print, pathlib.Path({str(tmp_path)!r})), open({str(tmp_path / "large")!r}, "rb") as file:
    while file.read(1_000_000):
        pass
    (group, *_) = [folder for folder in memory._cgroups() if (folder / "memory.stat").exists()]
    print(max(int((group / name).read_text()) for name in ("memory.usage_in_bytes", "memory.current") if (group / name).exists()))
    time.sleep(0.5)
"""
    ended = programs.python("-c", code)
    assert ended.code == 0, ended.err
    assert int(ended.out) > memory.FULL * LIMITS["search-work"], "it was full"
