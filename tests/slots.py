"""Workers that search with objectives of no time, killed before or after any commit: what a search must withstand."""

import ast
import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

from stages.search import patience
from stages.search import slots as module
from stages.search.slots import Lost, Slots

SHAPES = {"x": FloatDistribution(0, 1), "depth": IntDistribution(1, 3)}
NAMES = SHAPES.keys()
STEPS = (10, 20, 30)
OPENED: list[sqlalchemy.Engine] = []


def let_go() -> None:
    """Close the connections of all databases that were opened: a Postgres has a hundred."""
    while OPENED:
        OPENED.pop().dispose()


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Kill:
    """At which effect a worker dies: a commit, or a record that is written; before it or after it."""

    nth: int = 0  # 0: never
    after: bool = False
    real: bool = False  # by SIGKILL, instead of an exception
    seen: int = 0

    def effect(self, do: Any) -> Any:
        """Have an effect, or die."""
        self.seen += 1
        if self.seen == self.nth and not self.after:
            self._die()
        answer = do()
        if self.seen == self.nth and self.after:
            self._die()
        return answer

    def _die(self) -> None:
        if self.real:
            os.kill(os.getpid(), signal.SIGKILL)
        raise Killed


def storage(url: str, *, create: bool = False) -> patience.Storage:
    """Open a database, as the search does."""
    lite = url.startswith("sqlite")
    arguments: dict[str, Any] = {"connect_args": {"timeout": 60, "isolation_level": None}} if lite else {"pool_size": 2}
    made = patience.Storage(url.replace("postgresql:", "postgresql+psycopg2:"), arguments, skip_table_creation=not create)
    OPENED.append(made.engine)
    if lite:
        module.immediate(made.engine)
        with made.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            connection.exec_driver_sql("PRAGMA synchronous=OFF")  # kills are of processes here, not of machines
            connection.exec_driver_sql("BEGIN")
    return made


@contextmanager
def dying(engine: sqlalchemy.Engine, kill: Kill) -> Iterator[None]:
    """Count the commits of an engine, and die at one."""
    real = engine.dialect.do_commit

    def commit(connection: Any) -> None:
        kill.effect(lambda: real(connection))

    engine.dialect.do_commit = commit  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        engine.dialect.do_commit = real  # type: ignore[method-assign]


def is_open(engine: sqlalchemy.Engine, study: str, budget: int) -> bool:
    """Tell whether a slot of the budget is not closed: claimed or not."""
    asked = "SELECT count(*) FROM surefoot_slots WHERE study = :study AND slot < :budget AND NOT closed"
    with engine.connect() as connection:
        return bool(connection.execute(text(asked), {"study": study, "budget": budget}).scalar_one())


def value(params: dict[str, Any]) -> float:
    """Give what a trial's parameters are worth."""
    return float(params["x"] * 2 + params["depth"])


def is_pruned(params: dict[str, Any]) -> bool:
    """Tell whether they are pruned."""
    return bool(params["depth"] == 3)


def work(slots: Slots, budget: int, records: Path, kill: Kill, seconds: float = 0.0) -> None:
    """Search until the budget is met."""
    slots.reconcile()
    while is_open(slots._storage.engine, slots.study.study_name, budget):
        slots.reconcile()
        claim = slots.claim(budget)
        if claim is None:
            time.sleep(slots.lease / 5)
            continue
        try:
            _attempt(slots, claim, records, kill, seconds)
        except (Lost, optuna.exceptions.UpdateFinishedTrialError):
            continue
    slots.reconcile()


def _attempt(slots: Slots, claim: module.Claim, records: Path, kill: Kill, seconds: float) -> None:
    slots.study.sampler = optuna.samplers.RandomSampler(seed=claim.slot * 1000 + claim.attempt)  # another attempt would draw others
    if (begun := slots.begin(claim, NAMES, _known(records, claim.slot) if claim.draw else None)) is None:
        return
    trial, reports = begun
    with slots.together():
        params = {"x": trial.suggest_float("x", 0, 1), "depth": trial.suggest_int("depth", 1, 3)}
    record = records / f"{claim.slot}-{hashlib.sha256(repr(params).encode()).hexdigest()}"
    if not record.exists():
        for step in sorted({*STEPS} - reports.keys()):
            slots.report(trial, {step: value(params) * step})
            time.sleep(seconds)
            slots.renew(claim)
        kill.effect(lambda: record.write_text(repr(params)))
    slots.tell(claim, trial, TrialState.PRUNED if is_pruned(params) else TrialState.COMPLETE, value(params))


def _known(records: Path, slot: int) -> FrozenTrial | None:
    """Find what was finished but not told before the slot drew other parameters."""
    found = [ast.literal_eval(record.read_text()) for record in records.glob(f"{slot}-*")]
    if not found:
        return None
    reports = {step: value(found[0]) * step for step in STEPS}
    return optuna.trial.create_trial(state=TrialState.RUNNING, params=found[0], distributions=SHAPES, intermediate_values=reports)


def counted(url: str, study: str, budget: int) -> dict[str, int]:
    """Ask the database, past Optuna, whether the budget was met exactly; give some counts."""
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.connect() as connection:

        def ask(statement: str) -> Any:
            return connection.execute(text(statement), {"study": study, "budget": budget}).scalar_one()

        of = "FROM trials JOIN studies USING (study_id) WHERE study_name = :study AND"
        assert ask(f"SELECT count(*) {of} state IN ('COMPLETE', 'PRUNED')") == budget
        assert ask(f"SELECT count(*) {of} state IN ('RUNNING', 'WAITING')") == 0
        distinct = "SELECT count(DISTINCT a.value_json) FROM trials t JOIN studies USING (study_id)"
        distinct += " JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'slot'"
        assert ask(f"{distinct} WHERE study_name = :study AND t.state IN ('COMPLETE', 'PRUNED')") == budget
        assert ask("SELECT count(*) FROM surefoot_slots WHERE study = :study AND slot < :budget AND NOT closed") == 0
        counts = {"failed": ask(f"SELECT count(*) {of} state = 'FAIL'"), "trials": ask(f"SELECT count(*) {of} 1 = 1")}
    engine.dispose()
    return counts


def check(url: str, study: str, budget: int, records: Path) -> dict[str, int]:
    """See that the budget was met exactly, and that each trial is what its parameters are worth; give some counts."""
    counts = counted(url, study, budget)
    for trial in optuna.load_study(study_name=study, storage=storage(url)).trials:
        if trial.state in module.FINISHED:
            assert trial.state == (TrialState.PRUNED if is_pruned(trial.params) else TrialState.COMPLETE)
            assert trial.value is None or trial.state == TrialState.PRUNED or trial.value == value(trial.params)
            assert trial.intermediate_values == {step: value(trial.params) * step for step in STEPS}
            name = hashlib.sha256(repr({"x": trial.params["x"], "depth": trial.params["depth"]}).encode()).hexdigest()
            assert (records / f"{trial.user_attrs['slot']}-{name}").exists()
    return counts


def one_worker(url: str, study: str, budget: int, records: Path, kill: Kill, lease: float, seconds: float) -> None:
    """Be a worker's process, which dies when its kill says so."""
    opened = storage(url)
    slots = Slots(optuna.load_study(study_name=study, storage=opened), opened, lease)
    with dying(opened.engine, kill):
        work(slots, budget, records, kill, seconds)


def send(process: Any, number: signal.Signals) -> None:
    """Send a signal to a process, which may just have ended."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)


@dataclass
class Crew:
    """Some workers at one study, each killed or put to sleep and replaced; all decided by one seed, but for what the clock decides."""

    url: str
    study: str
    records: Path
    rng: random.Random
    workers: int = 4
    lease: float = 0.2
    killed: int = 0
    stopped: int = 0

    def meet(self, budget: int, kills: int, stops: int) -> None:
        """Let them work until the budget is met, and all of them ended well."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.slots"])
        running: list[Any] = []
        asleep: list[tuple[float, Any]] = []
        while running or asleep or self._is_open(budget):
            while len(running) + len(asleep) < self.workers and self._is_open(budget):
                nth = self.rng.randint(1, 50) if self.killed < kills else 0
                kill = Kill(nth, self.rng.random() < 0.5, real=True)
                begun = context.Process(target=one_worker, args=(self.url, self.study, budget, self.records, kill, self.lease, 0.002))
                begun.start()
                running.append(begun)
            for process in [one for one in running if not one.is_alive()]:
                running.remove(process)
                assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
                self.killed += process.exitcode != 0
            if running and self.stopped < stops and self.rng.random() < 0.3:
                process = running.pop(self.rng.randrange(len(running)))
                send(process, signal.SIGSTOP)
                self.stopped += 1
                asleep.append((time.monotonic() + self.lease * self.rng.uniform(1.1, 3), process))
            for until, process in [*asleep]:
                if time.monotonic() > until:
                    send(process, signal.SIGCONT)
                    asleep.remove((until, process))
                    running.append(process)
            time.sleep(0.01)

    def _is_open(self, budget: int) -> bool:
        engine = sqlalchemy.create_engine(self.url.replace("postgresql:", "postgresql+psycopg2:"))
        found = is_open(engine, self.study, budget)
        engine.dispose()
        return found
