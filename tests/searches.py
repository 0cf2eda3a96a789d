"""Whole searches of real fits, whose workers are killed, told to stop, and put to sleep, at one seed's moments."""

import bisect
import json
import os
import random
import signal
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NoReturn

import sqlalchemy
from sqlalchemy import text

from stages import families
from stages.common import config, contract, step
from stages.common.address import Addresses
from stages.common.checkpoint import Checkpoint
from stages.common.store import Store, open_store
from stages.families import metrics
from stages.families.borders import Borders
from stages.features import features
from stages.prepare import generate
from stages.search import slots as module
from stages.search import study as studies
from stages.search.patience import patiently
from tests import network
from tests import slots as toy

FAMILY = {"family": "xgboost"}
ELSEWHERE = "elsewhere"
LEASE = 1.0  # seconds, of the drills: a worker that sleeps longer lost its slot
CONFIG = """
common: {checkpoint_interval_minutes: 0, threads: 1}
prepare: {source: file, path: table.csv, label: is_fraud, time: time, id: transaction, entity: customer, min_per_class: 1}
search: {rounds: 1000, early_stopping_rounds: 400, space: {xgboost: {min_child_weight: [0.1, 1.0], learning_rate: [0.003, 0.01]}}}
train: {rounds: 300, early_stopping_rounds: 60}
"""


def lay_out(folder: Path, address: str = "") -> Addresses:
    """Write table and config, and prepare them in a store."""
    generate.table(2000, 0).to_csv(folder / "table.csv", index=False)
    (folder / "drill.yaml").write_text(CONFIG)
    made = planned(folder, address or str(folder / "store"))
    step.run_step("prepare", {}, made)
    return made


def planned(folder: Path, address: str, *sets: str) -> Addresses:
    """Plan a run over that table."""
    store = open_store(address)
    return Addresses(step.pin(config.load(folder / "drill.yaml", sets, {}), store), store)


# --- one process ----------------------------------------------------------------------------------


def be(
    name: str, folder: Path, address: str, environment: dict[str, str], sets: tuple[str, ...], journal: Path, lease: float, net: str
) -> NoReturn:
    """Be a step's process, which writes down what it does at each border, in a network of its own if one is given.

    One that is ``ELSEWHERE`` says so: whether it lives, the others can tell by its lease alone.
    """
    os.environ |= environment  # the server that it is forked from has that of its own beginning
    if net == ELSEWHERE:
        module.place = lambda: [ELSEWHERE, str(os.getpid())]  # type: ignore[assignment]
    elif net:
        network.enter(net)
    log = os.open(journal.with_suffix(".log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 2)
    os.dup2(log, 1)
    lines = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    _tell_borders(lines)
    module.Slots.__init__.__defaults__ = (lease,)
    argv = ["--config", str(folder / "drill.yaml"), "--store", address, *(word for one in sets for word in ("--set", one))]
    step.main(name, [*argv, *(["--item", json.dumps(FAMILY)] if contract.STEPS[name].item else [])])


def _tell_borders(lines: int) -> None:
    load, reach, save = Borders.load, Borders.reach, Checkpoint.save

    def tell(what: str, name: str, rounds: int) -> None:
        os.write(lines, f"{json.dumps([time.time(), os.getpid(), what, name, rounds])}\n".encode())

    def loaded(self: Borders) -> bytes | None:
        found = load(self)
        assert self._checkpoint
        tell("begins", self._checkpoint.name, self.rounds)
        return found

    def reached(self: Borders, rounds: int, *arguments: Any) -> None:
        assert self._checkpoint
        tell("reaches", self._checkpoint.name, rounds)
        reach(self, rounds, *arguments)

    def saved(self: Checkpoint, data: bytes) -> None:
        save(self, data)
        tell("saved", self.name, json.loads(data.partition(b"\n")[0])[0][-1][0])

    Borders.load, Borders.reach, Checkpoint.save = loaded, reached, saved  # type: ignore[method-assign, assignment]


@dataclass
class Journal:
    """What the processes of a drill wrote down."""

    path: Path

    def lines(self) -> list[tuple[float, int, str, str, int]]:
        """Give time, process, what it did, for which fit, and at which round."""
        whole = self.path.read_text().splitlines() if self.path.exists() else []
        return [tuple(json.loads(line)) for line in whole]

    def redone(self) -> tuple[int, int]:
        """Give how many borders were fitted, and how many of them again.

        An attempt goes on from the last saved border: each process that ended amid a fit may cost the one border that it had not saved.
        What a worker still fits when another one goes on with its slot is not counted.
        """
        fitted: Counter[tuple[str, int]] = Counter()
        owner: dict[str, int] = {}
        for _, process, what, name, rounds in self.lines():
            if what == "begins":
                owner[name] = process
            elif what == "reaches" and owner[name] == process:  # else it has not noticed yet that another one goes on with it
                fitted[name, rounds] += 1
        return sum(fitted.values()), sum(count - 1 for count in fitted.values())

    def lost(self) -> int:
        """Count the attempts that did not go on from the last border that was saved before they began."""
        saved: dict[str, int] = defaultdict(int)
        lost = 0
        for _, _, what, name, rounds in self.lines():
            if what == "saved":
                saved[name] = max(saved[name], rounds)
            elif what == "begins":
                lost += rounds < saved[name]
        return lost

    def waits(self, since: list[float]) -> list[float]:
        """Give the seconds from each moment to the next thing that was done."""
        moments = sorted(line[0] for line in self.lines())
        return [moments[place] - moment for moment in since if (place := bisect.bisect(moments, moment)) < len(moments)]

    def recovery(self, killed: list[tuple[float, int]]) -> list[float]:
        """Give the seconds from each death amid a fit to the next attempt at that fit."""
        lines, found = self.lines(), []
        for moment, process in killed:
            mine = [line for line in lines if line[1] == process]
            if mine:
                later = [line[0] for line in lines if line[3] == mine[-1][3] and line[1] != process and line[0] > moment]
                found += [min(later) - moment] if later else []  # none: it was finished, and told or found
        return found


# --- several of them ------------------------------------------------------------------------------


@dataclass
class Crew:
    """Workers at one search, each replaced when it ends before the search does."""

    folder: Path
    address: str
    database: str  # as SUREFOOT_STUDY says it
    rng: random.Random
    journal: Journal
    workers: int
    lease: float = LEASE
    net: str = ""  # the path of the network that they are in
    killed: list[tuple[float, int]] = field(default_factory=list)
    told: int = 0
    slept: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    finished: dict[int, tuple[int, float]] = field(default_factory=dict)  # slot: its trial, and what it was worth
    best: float = float("-inf")

    def start(self, name: str, sets: tuple[str, ...]) -> ForkServerProcess:
        """Start one process of a step."""
        context = get_context("forkserver")
        context.set_forkserver_preload(["tests.searches", "tests.warm"])
        environment = {"SUREFOOT_STUDY": self.database, **{one: value for one, value in os.environ.items() if one.startswith("AWS_")}}
        arguments = (name, self.folder, self.address, environment, sets, self.journal.path, self.lease, self.net)
        process = context.Process(target=be, args=arguments)
        process.start()
        return process

    def do(self, name: str, sets: tuple[str, ...]) -> None:
        """Do a step to its end."""
        process = self.start(name, sets)
        process.join()
        assert process.exitcode == 0, self.journal.path.with_suffix(".log").read_text()[-2000:]

    def search(self, sets: tuple[str, ...], faults: int, pause: float) -> None:
        """Work until the search is over, with so many faults, each after a pause; a finished trial is looked for again each time."""
        running: list[ForkServerProcess] = []
        asleep: list[tuple[float, ForkServerProcess]] = []
        name = studies.name(planned(self.folder, self.address, *sets).config["search"], _run(self, sets))
        is_over, due = False, time.monotonic() + self.rng.uniform(0, 2 * pause)
        while running or asleep or not is_over:
            while len(running) + len(asleep) < self.workers and not is_over:
                running.append(self.start("search-work", sets))
            for process in [one for one in running if not one.is_alive()]:
                running.remove(process)
                assert process.exitcode in (0, -signal.SIGKILL, -signal.SIGTERM, 143), (process.exitcode, self.said())
                self.codes[int(process.exitcode)] += 1
                is_over = is_over or process.exitcode == 0
            if faults and time.monotonic() > due and (hit := self._chosen(running)):
                self.look(name)
                self._hit(hit, running, asleep)
                faults -= 1
                due = time.monotonic() + self.rng.uniform(0, 2 * pause)
            for until, process in [*asleep]:
                if time.monotonic() > until:
                    toy.send(process, signal.SIGCONT)
                    asleep.remove((until, process))
                    running.append(process)
            time.sleep(0.01)
        self.look(name)

    def _chosen(self, running: list[ForkServerProcess]) -> ForkServerProcess | None:
        """Choose one that is amid fits; seldom one that is on its way there."""
        amid = {line[1] for line in self.journal.lines()}
        may = [one for one in running if one.is_alive() and (one.pid in amid or self.rng.random() < 0.002)]
        return self.rng.choice(may) if may else None

    def _hit(self, process: ForkServerProcess, running: list[ForkServerProcess], asleep: list[tuple[float, ForkServerProcess]]) -> None:
        pid = process.pid or 0
        match self.rng.choices(["kill", "tell", "sleep"], [7, 2, 1])[0]:
            case "kill":
                self.killed.append((time.time(), pid))
                toy.send(process, signal.SIGKILL)
                process.join()
            case "tell":
                self.told += 1
                toy.send(process, signal.SIGTERM)
            case _:
                self.slept += 1
                toy.send(process, signal.SIGSTOP)
                running.remove(process)
                asleep.append((time.monotonic() + self.lease * self.rng.uniform(1.1, 2), process))

    def look(self, name: str) -> None:
        """See that no finished trial was lost or changed, and that the best one is no worse than it was."""
        there = finished(url(self), name)
        assert there.items() >= self.finished.items(), (self.finished, there)
        best = max((value for _, value in there.values()), default=float("-inf"))
        assert best >= self.best
        self.finished, self.best = there, best

    def lose_database(self, sets: tuple[str, ...]) -> None:
        """Drop all that is in the database, create the study again, and see that each finished trial is there as it was."""
        name, before = studies.name(planned(self.folder, self.address, *sets).config["search"], _run(self, sets)), self.finished
        if self.database:
            engine = sqlalchemy.create_engine(url(self), isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text("DROP SCHEMA public CASCADE"))
                connection.execute(text("CREATE SCHEMA public"))
            engine.dispose()
        else:
            for path in Path(self.address).glob("study.db*"):
                path.unlink()
        self.do("search-create", sets)
        self.finished = finished(url(self), name)
        assert {slot: value for slot, (_, value) in self.finished.items()} == {slot: value for slot, (_, value) in before.items()}

    def said(self) -> str:
        """Give the last of what the processes logged."""
        path = self.journal.path.with_suffix(".log")
        return path.read_text()[-3000:] if path.exists() else ""


def _run(crew: Crew, sets: tuple[str, ...]) -> Any:
    made = planned(crew.folder, crew.address, *sets)
    folder = crew.folder / f"run-{crew.rng.getrandbits(64):x}"
    folder.mkdir()
    return step.Run("search-work", FAMILY, made, folder, made.found("search-work", FAMILY), "")


def url(crew: Crew) -> str:
    """Give the address of a crew's study, for SQLAlchemy."""
    return (crew.database or f"sqlite:///{crew.address}/study.db").replace("postgresql:", "postgresql+psycopg2:")


def finished(database: str, study: str) -> dict[int, tuple[int, float]]:
    """Ask the database, past Optuna, for each finished slot's trial and value; a pruned one has none."""
    asked = """SELECT a.value_json, t.trial_id, v.value FROM trials t JOIN studies USING (study_id)
        JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'slot' LEFT JOIN trial_values v ON v.trial_id = t.trial_id
        WHERE study_name = :study AND t.state IN ('COMPLETE', 'PRUNED')"""
    engine = sqlalchemy.create_engine(database)

    def ask() -> list[Any]:
        with engine.connect() as connection:
            return [*connection.execute(text(asked), {"study": study})]

    rows = patiently(engine, ask)  # a drill may have just taken it away
    engine.dispose()
    return {int(slot): (trial, float("-inf") if value is None else value) for slot, trial, value in rows}


def check(crew: Crew, sets: tuple[str, ...], budget: int) -> None:
    """See that the budget is met exactly, and that each finished trial is in the store, with a model that is worth what was told."""
    run = _run(crew, sets)
    settings = run.config["search"]
    name = studies.name(settings, run)
    toy.counted(url(crew), name, budget)
    os.environ["SUREFOOT_STUDY"] = crew.database
    slots = studies.load(settings, run)
    prepared = run.input("prepare")
    valid = features.read(prepared.path("valid.parquet"), features.Features.from_json(prepared.read_json("features.json")))
    for slot, trial in studies.finished(slots.study.get_trials(deepcopy=False)).items():
        record, _ = studies.known(settings, run, slots, slot) or ({}, None)
        assert record, f"slot {slot} has no record"
        assert record["params"] == trial.params
        assert record["reports"] == sorted(map(list, trial.intermediate_values.items()))
        if record["state"] == "complete":
            assert record["value"] == trial.value == _rescored(run.store, record, valid, crew.folder)


def _rescored(store: Store, record: dict[str, Any], valid: features.Table, folder: Path) -> float:
    family = families.load(FAMILY["family"])
    path = folder / "model"
    assert store.download(f"blobs/{record['model']['sha256']}", path) == record["model"]["sha256"]
    return metrics.score(record["metric"], valid.y, family.predict(family.load(path), valid.X))


def collected(crew: Crew, sets: tuple[str, ...]) -> dict[str, str]:
    """Collect; give the digests of what came."""
    crew.do("search-collect", sets)
    found = planned(crew.folder, crew.address, *sets).find("search-collect", FAMILY)
    assert found
    return {name: file["sha256"] for name, file in found.files.items()}


def allowed(crew: Crew) -> int:
    """Give how many borders may have been fitted again: one for each process that ended amid a fit, or lost its slot.

    It loses it asleep; or awake, where the machine is so busy that a lease of a second runs out.
    """
    log = crew.journal.path.with_suffix(".log").read_text()
    return len(crew.killed) + max(crew.slept, log.count('"event": "slot.lost"'))
