"""The production checks and the verdict.

A check is a function that answers ``pass``, ``fail`` or ``cannot tell``; it never raises because the answer is no. All of
them run. What a check cannot know of (a bug, a lost file, no memory) is no answer: it ends the step, and the next run asks again.

    python -m stages.validate.validate FAMILY MODEL FEATURES ROWS    what ``memory`` starts: load, score, say the peak in kB
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from stages import families
from stages.common import contract, log
from stages.common.errors import OutOfMemory
from stages.common.recipe import ROOT
from stages.common.step import Run
from stages.features import features as feature
from stages.features.features import Features, Table
from stages.validate.config import Config, Need

Answer = Literal["pass", "fail", "cannot tell"]

CALLS = 300  # timed single-row predictions of one round
WARM_UP = 30
ROUNDS = 3
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Check:
    """What one check answered. Nothing measured stands here: the bytes are the same on every host that answers the same."""

    name: str
    answer: Answer
    limit: float
    need: Need
    reason: str


@dataclass
class Shipped:
    """The model that would go to production, and what is known of it."""

    family: ModuleType
    name: str
    path: Path
    features: Path
    rows: Table  # the test split
    evaluation: dict[str, Any]
    room: Path  # folder for what a check writes
    measured: dict[str, float] = field(default_factory=dict)


def validate(config: Config, run: Run) -> dict[str, Any]:
    """Ask all checks; the model is accepted if every required one passes."""
    shipped = _shipped(run)
    checks: list[Check] = []
    for check in CHECKS:
        run.progress(len(checks), len(CHECKS))
        checks.append(check(shipped, config))
        log.info("check.answered", **vars(checks[-1]), value=shipped.measured.get(checks[-1].name))
    run.measured["checks"] = shipped.measured
    failed = [check.name for check in checks if check.need == "required" and check.answer != "pass"]
    (run.out / "checks.json").write_bytes(contract.dump([vars(check) for check in checks]))
    return {"verdict": "rejected" if failed else "accepted", "failed": failed}


def _shipped(run: Run) -> Shipped:
    evaluation = run.input("evaluate").read_json("evaluation.json")
    prepared, trained = run.input("prepare"), run.input("train", family=evaluation["winner"])
    path = trained.path(next(name for name in trained.manifest.files if name.startswith("shipped.")))
    contract_file = prepared.path("features.json")
    rows = feature.read(prepared.path("test.parquet"), Features.from_json(prepared.read_json("features.json")))
    return Shipped(families.load(evaluation["winner"]), evaluation["winner"], path, contract_file, rows, evaluation, run.folder)


# --- the checks -----------------------------------------------------------------------------------


def auc_floor(shipped: Shipped, config: Config) -> Check:
    """AUC on the test split is not below the floor."""
    value = shipped.measured["auc_floor"] = shipped.evaluation["test"]["auc"]
    return _answered(
        "auc_floor",
        value >= config.auc_floor,
        config.auc_floor,
        config.auc_floor_need,
        "test AUC reaches the floor",
        "test AUC is below the floor",
    )


def latency(shipped: Shipped, config: Config) -> Check:
    """99 of 100 single-row predictions are faster than the limit."""
    limit = config.latency_p99_ms
    model = shipped.family.load(shipped.path)
    rows = [shipped.rows.X.iloc[[i]] for i in range(min(CALLS, len(shipped.rows.y)))]
    # The best of some rounds: what else runs on the machine can only slow a round down, never make the model faster.
    values: list[float] = []
    with threadpool_limits(1):  # as a server scores one row: threads that wait for each other cost more than the row
        while len(values) < ROUNDS and min(values, default=np.inf) >= limit:
            values.append(_p99_ms(shipped.family, model, rows))
    value = shipped.measured["latency_p99_ms"] = round(min(values), 3)
    return _answered(
        "latency_p99_ms",
        value < limit,
        limit,
        config.latency_p99_need,
        "single rows are scored in time",
        "scoring a single row takes too long",
    )


def _p99_ms(family: ModuleType, model: Any, rows: list[pd.DataFrame]) -> float:
    seconds = []
    for row in islice(cycle(rows), WARM_UP + CALLS):
        started = time.perf_counter()
        family.predict(model, row)
        seconds.append(time.perf_counter() - started)
    return float(np.percentile(seconds[WARM_UP:], 99)) * 1000


def memory(shipped: Shipped, config: Config) -> Check:
    """Give a fresh process the shipped model and a row to score: its memory stays below the limit."""
    limit, need = config.memory_mb, config.memory_need
    if not STATUS.exists():
        return Check("memory_mb", "cannot tell", limit, need, "this system has no /proc that tells a process's peak memory")
    value = shipped.measured["memory_mb"] = _peak_mb(shipped)
    return _answered(
        "memory_mb",
        value < limit,
        limit,
        need,
        "the process that scores stays small enough",
        "the process that scores takes too much memory",
    )


def _peak_mb(shipped: Shipped) -> float:
    one_row = shipped.room / "one_row.parquet"
    rows = shipped.rows
    first = replace(rows, X=rows.X.iloc[:1], y=rows.y[:1], row=rows.row[:1], time=None, entity=None)
    feature.write(first, one_row)
    command = [sys.executable, "-m", "stages.validate.validate", shipped.name, str(shipped.path), str(shipped.features), str(one_row)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False, text=True)
    if child.returncode == -9:
        raise OutOfMemory("the process that loads the shipped model was killed: give this step more memory.")
    child.check_returncode()
    return round(int(child.stdout) * 1024 / 1e6, 1)


def champion(shipped: Shipped, config: Config) -> Check:
    """Tell whether the model is better than the champion or not worse, or there is none."""
    found = shipped.evaluation["champion"]
    answer, limit = found["answer"], 0.0 - found.get("min_gain", 0.0)
    if "difference" in found:
        shipped.measured["champion"] = found["difference"]
    if answer == "cannot tell":
        # A run on the champion's own table has no later rows: it must not be stuck for that.
        need: Need = config.champion_need if config.champion_unknown == "reject" else "advisory"
        reason = found.get("reason", "the interval of the difference is too wide on the rows that neither has seen")
        return Check("champion", "cannot tell", limit, need, reason)
    reason = "there is no champion" if answer == "no champion" else f"on rows that neither has seen, it is {answer}"
    return Check("champion", "fail" if answer == "worse" else "pass", limit, config.champion_need, reason)


def _answered(name: str, passed: bool, limit: float, need: Need, yes: str, no: str) -> Check:
    return Check(name, "pass" if passed else "fail", limit, need, yes if passed else no)


CHECKS = (auc_floor, latency, memory, champion)


def score_once(family: str, model: Path, features: Path, rows: Path) -> int:
    """Do what a server does first; give this process's peak memory in kB."""
    table = feature.read(rows, Features.from_json(json.loads(features.read_bytes())))
    loaded = families.load(family)
    loaded.predict(loaded.load(model), table.X)
    # Not getrusage: its peak comes along from whoever started this process.
    line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1])


if __name__ == "__main__":
    name, *files = sys.argv[1:]
    sys.stdout.write(str(score_once(name, *map(Path, files))))
