"""How busy many workers are at one search in Postgres: each trial sleeps, and all else that a worker does is real. Printed, never a limit.

SUREFOOT_BENCH_WORKERS, SUREFOOT_BENCH_SECONDS (of a trial) and SUREFOOT_BENCH_ROUNDS (trials of each worker) say how many and how long.
"""

import contextlib
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import optuna
import pytest

from stages.common import config
from stages.families import space, xgboost
from stages.search import patience
from stages.search import study as studies
from stages.search.slots import Slots
from stages.search.work import _Reports, _wait
from tests import servers
from tests import slots as drill

SIZES = {"WORKERS": 64, "SECONDS": 30, "ROUNDS": 5}
WORKERS, SECONDS, ROUNDS = (int(os.environ.get(f"SUREFOOT_BENCH_{name}", default)) for name, default in SIZES.items())
REPORTS = 30  # of a trial


def worker(url: str, name: str, budget: int, told: str) -> None:
    """Search until the budget is met, with trials that sleep; write down how long that took, and how much of it they slept."""
    storage = patience.Storage(
        url.replace("postgresql:", "postgresql+psycopg2:"),
        {"pool_size": 2, "max_overflow": 1, "pool_pre_ping": True},
        skip_table_creation=True,
    )
    slots = Slots(optuna.load_study(study_name=name, storage=storage, pruner=optuna.pruners.MedianPruner()), storage)
    asked = config.load(config.CONFIGS / "base.yaml", (), {})["search"]
    slept, told_at = 0.0, [time.monotonic()]
    while len(studies.finished(slots.reconcile())) < budget:
        if (claim := slots.claim(budget)) is None:
            _wait(slots, budget)
            continue
        slots.study.sampler = studies.sampler(asked, claim)
        with slots.kept(claim) as hold:
            begun = slots.begin(claim, xgboost.SPACE.keys())
            assert begun
            value = space.suggest(begun[0], xgboost.SPACE)["subsample"]
            reports = _Reports(slots, claim, *begun, hold)
            for step in range(1, REPORTS + 1):
                time.sleep(SECONDS / REPORTS)
                slept += SECONDS / REPORTS
                with contextlib.suppress(optuna.TrialPruned):  # it is asked, and not heard: each trial takes as long
                    reports(step, value * step)
            record = {"state": "complete", "value": value, "seconds": SECONDS, "began": 0, "rung": 0}
            record["reports"] = [*reports.values.items()]
            studies.tell(slots, claim, begun[0], record)
        told_at.append(time.monotonic())
    with Path(told).open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps([slept, told_at[-1] - told_at[0], slept - SECONDS, told_at[-1] - told_at[1]])}\n")


@pytest.mark.bench
def test_many_workers_are_busy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each does its share, and each slot is finished once."""
    context, budget = multiprocessing.get_context("forkserver"), WORKERS * ROUNDS
    context.set_forkserver_preload(["tests.bench.test_many_workers", "alembic.command", "alembic.migration", "alembic.script"])
    with servers.PostgresServer(tmp_path, connections=3 * WORKERS + 10) as server:
        storage = drill.storage(server.address, create=True)
        slots = Slots(optuna.create_study(study_name="many", storage=storage, direction="maximize"), storage)
        slots.create()
        slots.grow(budget)
        crew = [context.Process(target=worker, args=(server.address, "many", budget, str(tmp_path / "told"))) for _ in range(WORKERS)]
        for process in crew:
            process.start()
        for process in crew:
            process.join()
        drill.counted(server.address, "many", budget)
        drill.let_go()
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert len(told) == WORKERS
    slept, took, slept_later, took_later = map(sum, zip(*told, strict=True))
    with capsys.disabled():
        sys.stdout.write(f"\n{WORKERS} workers, {budget} trials of {SECONDS} s: {100 * slept / took:.1f} % busy, ")
        sys.stdout.write(f"{100 * slept_later / took_later:.1f} % once all have begun (each worker's first trial left out)\n")
