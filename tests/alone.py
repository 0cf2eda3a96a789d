"""The same drill without Surefoot: a plain script that keeps its trials in memory, and Optuna by itself, as its manual has it.

Both fit the tables of ``tests/searches.py`` with the same families; what is killed is started again, as a person or a pod's owner would.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from stages import families
from stages.common import contract, step
from stages.families import space
from stages.features import features
from stages.features.features import Table
from stages.search.slots import immediate
from tests import searches
from tests.searches import Journal
from tests.slots import send

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
HEARTBEAT = 1  # seconds; a trial without one for three is stale


def tables(folder: Path, address: str) -> list[Table]:
    """Read what prepare made."""
    made = searches.planned(folder, address)
    prepared = step.Run("search-work", searches.FAMILY, made, _empty(folder), made.found("search-work", searches.FAMILY), "").input(
        "prepare"
    )
    contract_of = features.Features.from_json(prepared.read_json("features.json"))
    return [features.read(prepared.path(f"{split}.parquet"), contract_of) for split in ("train", "valid")]


def _empty(folder: Path) -> Path:
    made = folder / f"tables-{os.getpid()}-{time.monotonic_ns()}"
    made.mkdir()
    return made


def _fit(trial: Any, folder: Path, address: str, both: list[Table], lines: int) -> float:
    """Fit one trial as the search does, but for its checkpoint."""
    config = searches.planned(folder, address).config["search"]
    params = space.suggest(trial, space.merged("xgboost", families.load("xgboost").SPACE, config.space["xgboost"]))

    def report(rounds: int, value: float | None) -> None:
        os.write(lines, f"{json.dumps([time.time(), os.getpid(), 'reaches', contract.digest(params), rounds])}\n".encode())
        trial.report(value, rounds)
        if trial.should_prune():
            raise optuna.TrialPruned

    fitted = families.fit(
        "xgboost", params, *both, rounds=config.rounds, early_stopping_rounds=config.early_stopping_rounds, seed=0, metric=config.metric,
        threads=1, report=report,
    )  # fmt: skip
    assert fitted.score is not None
    return fitted.score


def work(url: str, name: str, budget: int, folder: Path, address: str, journal: Path) -> None:
    """Be a worker of Optuna's own: heartbeats, stale trials tried again, and no more finished trials than asked for."""
    lines = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    both = tables(folder, address)
    study = optuna.load_study(study_name=name, storage=storage(url), pruner=optuna.pruners.MedianPruner(5, 30))
    enough = optuna.study.MaxTrialsCallback(budget, states=FINISHED)
    if sum(trial.state in FINISHED for trial in study.trials) < budget:
        study.optimize(lambda trial: _fit(trial, folder, address, both, lines), callbacks=[enough])


def storage(url: str) -> RDBStorage:
    """Open a database with heartbeats; SQLite's transactions take turns, as in Surefoot."""
    arguments = {"connect_args": {"timeout": 60, "isolation_level": None}}
    again = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=False)
    made = RDBStorage(url, arguments, heartbeat_interval=HEARTBEAT, grace_period=3 * HEARTBEAT, heartbeat_stale_trial_callback=again)
    immediate(made.engine)
    return made


def script(_url: str, _name: str, budget: int, folder: Path, address: str, journal: Path) -> None:
    """Be a plain script: all trials in memory, the best one written at the end."""
    lines = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    both = tables(folder, address)
    sampler, pruner = optuna.samplers.TPESampler(seed=0), optuna.pruners.MedianPruner(5, 30)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    for number in range(budget):
        study.optimize(lambda trial: _fit(trial, folder, address, both, lines), n_trials=1)
        os.write(lines, f"{json.dumps([time.time(), os.getpid(), 'finished', '', number])}\n".encode())


def search(kind: Any, folder: Path, address: str, rng: random.Random, number: int, workers: int, kills: int) -> Counter[str]:
    """Let workers search, kill some amid their fits, and start them again; count what came."""
    budget, name = 8, f"alone-{number}"
    url, journal = f"sqlite:///{folder}/{name}.db", Journal(folder / f"{name}.journal")
    optuna.create_study(study_name=name, storage=storage(url), direction="maximize")
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.alone", "tests.searches"])
    running: list[ForkServerProcess] = []
    found: Counter[str] = Counter()
    is_over, due = False, time.monotonic() + rng.uniform(0, 8)
    while running or not is_over:
        while len(running) < workers and not is_over:
            process = context.Process(target=kind, args=(url, name, budget, folder, address, journal.path))
            process.start()
            running.append(process)
        for process in [one for one in running if not one.is_alive()]:
            running.remove(process)
            found[{0: "ended", -signal.SIGKILL: "killed"}.get(process.exitcode or 0, "crashed")] += 1
            is_over = is_over or process.exitcode == 0
        amid = {line[1] for line in journal.lines()}
        may = [one for one in running if one.is_alive() and one.pid in amid]
        if may and kills and time.monotonic() > due:
            victim = rng.choice(may)
            send(victim, signal.SIGKILL)
            victim.join()
            found["lost"] += sum(line[1:3] == (victim.pid, "finished") for line in journal.lines())  # of a script's own memory
            kills -= 1
            due = time.monotonic() + rng.uniform(0, 8)
        time.sleep(0.01)
    found["fitted"], found["again"] = journal.redone()
    if kind is work:
        found["beyond"], found["running"] = _left(url, budget)
    return found


def _left(url: str, budget: int) -> tuple[int, int]:
    """Ask the database how many trials are finished beyond the budget, and how many run although nobody works."""
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        states = Counter(str(row[0]) for row in connection.execute(sqlalchemy.text("SELECT state FROM trials")))
    engine.dispose()
    return states["COMPLETE"] + states["PRUNED"] - budget, states["RUNNING"] + states["WAITING"]
