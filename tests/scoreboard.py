"""Faults by the hundred: what a crash costs, counted part by part.

    python -m tests.scoreboard resume-xgboost [POINTS] [SEED]  fits are killed, and go on to the same model; or resume-lightgbm, ...
    python -m tests.scoreboard slots [FAULTS] [SEED]           workers are killed, and sleep, over slots in SQLite, or in SUREFOOT_STUDY
    python -m tests.scoreboard damage [DAMAGES] [SEED]         stored objects get other bytes, and are read
    python -m tests.scoreboard fuzz [CASES] [SEED]             readers of configs, tables and records are given what a generator makes up
    python -m tests.scoreboard table                           the table for the README, of all parts so far

Each part appends its counts to docs/scoreboard.jsonl; a seed that was run is not counted again.
"""

import functools
import json
import multiprocessing
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from stages import families
from stages.common.checkpoint import Checkpoint
from stages.common.store import open_store
from stages.families.borders import Borders
from stages.search.slots import Slots
from tests import slots as drill
from tests.damage import damage
from tests.fuzz import fuzz
from tests.unit.families.test_families import BOOSTED, PARAMS, table, written

FILE = Path(__file__).resolve().parents[1] / "docs" / "scoreboard.jsonl"
SETTINGS: dict[str, Any] = {"rounds": 400, "early_stopping_rounds": 80, "seed": 3, "metric": "auc"}
SLOW = 0.03  # a fit's learning rate: its best border comes late


def fit(name: str, threads: int, folder: str | None, began: Any = None) -> families.Fitted:
    """Fit a small table with early stopping; every border is saved."""
    saved = Checkpoint(open_store(folder), "fit", 0) if folder else None
    params = {**PARAMS[name], "learning_rate": SLOW}
    if began is not None:
        began.set()
    return families.fit(name, params, table(1000, 0), table(400, 1), threads=threads, checkpoint=saved, **SETTINGS)


def resume(name: str, points: int, seed: int) -> list[dict[str, Any]]:
    """Kill fits of a family at moments spread evenly over them, and let each go on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.unit.families.test_families"])
    found = []
    for threads in (1, 2):
        rng = random.Random(f"{seed}/{name}/{threads}")
        with tempfile.TemporaryDirectory() as folder:
            whole = fit(name, threads, None)
            expected = written(name, whole.model, Path(folder)), whole.rounds, whole.score
            seconds = _seconds(lambda threads=threads, folder=folder: fit(name, threads, f"{folder}/store"))  # type: ignore[misc]
        begun: list[int] = []  # the rounds that the fits went on from
        same, first = 0, 0.0  # of the time, where the first border is
        while len(begun) < points:
            with tempfile.TemporaryDirectory() as folder:
                share = first + (1 - first) * (len(begun) + rng.random()) / points
                code = _killed(context, name, threads, folder, seconds * share)
                borders = Borders(None, "auc", 1, 1, Checkpoint(open_store(f"{folder}/store"), "fit", 0))
                if code == -signal.SIGKILL and borders.load() is not None:
                    again = fit(name, threads, f"{folder}/store")
                    begun.append(borders.rounds)
                    same += (written(name, again.model, Path(folder)), again.rounds, again.score) == expected
                elif code == 0:  # it was over: the machine is quicker now
                    seconds *= 0.98
                else:  # it had not reached its first border
                    first = min(first + 0.01, 0.5)
        fault = f"a fit of {name} is killed, {threads} thread{'s' * (threads > 1)}"
        how = f"SIGKILL at moments spread over it; it went on from rounds {min(begun)} to {max(begun)}"
        found.append({"fault": fault, "how": how, "runs": points, "lost": points - same, "verdict": "the same model, byte for byte"})
    return found


def _killed(context: Any, name: str, threads: int, folder: str, moment: float) -> int:
    """Kill a fit so many seconds after its beginning; give its exit code."""
    began = context.Event()
    process = context.Process(target=fit, args=(name, threads, f"{folder}/store", began))
    process.start()
    began.wait()
    process.join(moment)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return int(process.exitcode)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def slots(faults: int, seed: int) -> list[dict[str, Any]]:
    """Kill and put to sleep four workers at one study, whose budget grows, until there were so many of both."""
    given = os.environ.get("SUREFOOT_STUDY", "")
    with tempfile.TemporaryDirectory() as folder:
        url = given or f"sqlite:///{folder}/study.db"
        name, storage = secrets.token_hex(6), drill.storage(url, create=True)
        made = Slots(optuna.create_study(study_name=name, storage=storage, direction="maximize"), storage)
        made.create()
        crew = drill.Crew(url, name, Path(folder), random.Random(f"{seed}/{url[:6]}"), 4)
        budget = 0
        while crew.killed < faults or crew.stopped < faults:
            budget += 10
            made.grow(budget)
            crew.meet(budget, faults, faults)
            drill.check(url, name, budget, Path(folder))
    place = "Postgres" if given else "SQLite"
    verdict = f"{budget} slots of {budget} finished once, none running"
    return [
        {
            "fault": f"a search worker is killed, {place}",
            "how": "SIGKILL at a random commit or record",
            "runs": crew.killed,
            "lost": 0,
            "verdict": verdict,
        },
        {
            "fault": f"a search worker sleeps beyond its lease, {place}",
            "how": "SIGSTOP, SIGCONT",
            "runs": crew.stopped,
            "lost": 0,
            "verdict": verdict,
        },
    ]


def rows() -> list[dict[str, Any]]:
    """Read all parts so far."""
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()] if FILE.exists() else []


def markdown() -> str:
    """Write the table of all parts: equal faults are one row."""
    by_fault: dict[str, list[dict[str, Any]]] = {}
    for row in rows():
        by_fault.setdefault(row["fault"], []).append(row)
    lines = ["| fault | how it is injected | runs | lost | what was found |", "|---|---|---|---|---|"]
    for fault, parts in by_fault.items():
        counts = [sum(part[name] for part in parts) for name in ("runs", "lost")]
        lines.append(f"| {fault} | {parts[0]['how']} | {counts[0]:,} | {counts[1]} | {parts[-1]['verdict']} |")
    return "\n".join(lines) + "\n"


PARTS: dict[str, Callable[[int, int], list[dict[str, Any]]]] = {
    **{f"resume-{name}": functools.partial(resume, name) for name in BOOSTED},
    "slots": slots,
    "damage": damage,
    "fuzz": fuzz,
}

if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    match sys.argv[1:]:
        case ["table"]:
            sys.stdout.write(markdown())
        case [part, *numbers] if part in PARTS:
            count, seed = (*map(int, numbers), *(20, 1)[len(numbers) :])
            if any((row["part"], row["seed"]) == (part, seed) for row in rows() if part != "slots"):
                sys.exit(f"{part} was run with seed {seed}: give another one")
            made = [{"part": part, "seed": seed, **row} for row in PARTS[part](count, seed)]
            with FILE.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in made)
            sys.stdout.writelines(json.dumps(row) + "\n" for row in made)
        case _:
            sys.exit(__doc__)
