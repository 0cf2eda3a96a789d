"""Slots: the budget of a search, one row each, beside Optuna's own tables.

Who works at a slot holds a lease, which the database's clock measures. Each attempt at it is an Optuna trial of its own, made after
the lease was won: taking a slot over fails the last attempt's trial, and Optuna itself then refuses what its worker still tells.
Every process may die between any two commits, or sleep for as long as it likes:

    claim       the slot's attempt counts up                    killed here: the lease runs out, the next attempt begins
    begin       earlier trials of the slot are failed           one turns out finished: so is the slot
                the attempt's trial is made, with its number    killed here: it is RUNNING, and failed by the next attempt, or reconcile
                is the slot still ours?                         no: its trial is failed; it was made after the next attempt had looked
    tell        Optuna: only a RUNNING trial can be finished    killed here: the next attempt, or reconcile, finds it finished
    close       nobody claims the slot again

So a slot has at most one finished trial, and after ``reconcile`` nothing runs that nobody works at.

An attempt that fails, or whose worker dies, is a failure of its slot, unless it came further than the last one. After FAILURES of them
in a row the slot draws other parameters: that is how a budget is topped up for what cannot be fitted.
"""

import contextlib
import datetime as dt
import functools
import math
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

from stages.common import log
from stages.common.errors import NotNow
from stages.search.patience import Storage, add_attributes, add_reports, patiently

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
LEASE = 15.0  # seconds; renewed three times as often
MANY = 1000  # rows made at once
FAILURES = 3  # of a slot with the same parameters
ENDED = 1.0  # a lease that ran out; 0 is one that was let go
TABLE = """
CREATE TABLE IF NOT EXISTS surefoot_slots (
    study VARCHAR(200) NOT NULL,
    slot INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    owner VARCHAR(200) NOT NULL DEFAULT '',
    lease_until DOUBLE PRECISION NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    draw INTEGER NOT NULL DEFAULT 0,
    rung INTEGER NOT NULL DEFAULT 0,
    closed BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (study, slot)
)"""
CLOSE = "UPDATE surefoot_slots SET closed = TRUE WHERE study = :study AND slot = :slot"


class Lost(Exception):
    """Another worker took the slot over: what this one still knows of it has no effect."""


@dataclass(frozen=True)
class Claim:
    """One attempt at a slot."""

    slot: int
    attempt: int
    failures: int = field(default=0, compare=False)  # of it with these parameters, in a row
    draw: int = field(default=0, compare=False)  # how often other parameters were drawn for it
    rung: int = field(default=0, compare=False)  # of the memory ladder


@dataclass
class Hold:
    """How a slot is kept."""

    lost: threading.Event = field(default_factory=threading.Event)  # another worker took it over
    renewals: int = 0  # since the work's last sign of life


class Slots:
    """The slots of one study."""

    def __init__(self, study: optuna.Study, storage: Storage, lease: float = LEASE) -> None:
        self.study = study
        self.lease = lease
        self.seen: list[FrozenTrial] = []  # all trials, at the last reconcile
        self._storage = storage
        is_sqlite = storage.engine.dialect.name == "sqlite"
        # In the server's time. A lease that ends too late was made before its clock was set back: it counts as ended.
        now = "((julianday('now') - 2440587.5) * 86400.0)" if is_sqlite else "extract(epoch from clock_timestamp())::double precision"
        self._until = f"{now} + :lease"
        self._is_held = f"(lease_until >= {now} AND lease_until <= {now} + :lease)"
        self._locked = "" if is_sqlite else "FOR UPDATE SKIP LOCKED"  # SQLite's transactions take turns as they are

    # --- the budget -------------------------------------------------------------------------------

    def create(self) -> None:
        """Make the table, unless it is there; one process does, since several at once collide in Postgres."""
        with self._storage.engine.begin() as connection:
            connection.execute(text(TABLE))
            there = {column["name"] for column in sqlalchemy.inspect(connection).get_columns("surefoot_slots")}
            for name in sorted({"failures", "draw", "rung"} - there):  # made by an earlier version
                connection.execute(text(f"ALTER TABLE surefoot_slots ADD COLUMN {name} INTEGER NOT NULL DEFAULT 0"))

    def grow(self, budget: int) -> None:
        """Make the rows of a budget; those that are there stay as they are."""
        there = self._one_row("SELECT count(*) AS rows FROM surefoot_slots WHERE study = :study").rows
        for first in range(there, budget, MANY):
            rows = ", ".join(f"(:study, {slot})" for slot in range(first, min(first + MANY, budget)))
            self._run(f"INSERT INTO surefoot_slots (study, slot) VALUES {rows} ON CONFLICT DO NOTHING")  # noqa: S608 - numbers

    def held(self, budget: int) -> int:
        """Count the slots of a budget that somebody works at."""
        asked = f"SELECT count(*) AS held FROM surefoot_slots WHERE study = :study AND slot < :budget AND NOT closed AND {self._is_held}"  # noqa: S608
        return int(self._one_row(asked, budget=budget).held)

    def are_held(self, budget: int) -> bool:
        """Tell whether there are open slots, with a worker at each of them."""
        asked = f"""SELECT count(*) AS open, sum(CASE WHEN {self._is_held} THEN 1 ELSE 0 END) AS held FROM surefoot_slots
            WHERE study = :study AND slot < :budget AND NOT closed"""  # noqa: S608 - of our own words
        found = self._one_row(asked, budget=budget)
        return bool(found.open and found.open == found.held)

    # --- one attempt ------------------------------------------------------------------------------

    def claim(self, budget: int, first: int = 0) -> Claim | None:
        """Take the lowest slot, from ``first`` on, that nobody works at; None where there is none, for now."""
        found = "(failures + CASE WHEN lease_until > 0 THEN 1 ELSE 0 END)"  # who died did not let the slot go
        taken = self._one_row(
            f"""UPDATE surefoot_slots SET attempt = attempt + 1, owner = :owner, lease_until = {self._until},
                draw = draw + CASE WHEN {found} >= :most THEN 1 ELSE 0 END, failures = CASE WHEN {found} >= :most THEN 0 ELSE {found} END
            WHERE study = :study AND slot = (
                SELECT slot FROM surefoot_slots
                WHERE study = :study AND slot >= :first AND slot < :budget AND NOT closed AND NOT {self._is_held}
                ORDER BY slot LIMIT 1 {self._locked})
            RETURNING slot, attempt, failures, draw, rung""",  # noqa: S608 - of our own words
            most=FAILURES,
            budget=budget,
            first=first,
            owner="/".join([*place(), str(os.getpid()), started(os.getpid())]),
        )
        return Claim(*taken) if taken else None

    def begin(
        self, claim: Claim, names: AbstractSet[str], known: FrozenTrial | None = None, first: FrozenTrial | None = None
    ) -> tuple[optuna.Trial, dict[int, float]] | None:
        """Make the attempt's trial, with parameters and reports of what is ``known``, or of the last one if that had all of ``names``.

        The slot's first one has those of ``first``.

        The trial suggests the parameters that it came with. None where the slot turns out to be finished; it is closed then.

        Raises:
            Lost: another worker took the slot over.

        """
        trials = self.study.get_trials(deepcopy=False) if claim.attempt > 1 else []
        earlier = [trial for trial in trials if trial.user_attrs.get("slot") == claim.slot]
        finished = [trial for trial in earlier if trial.state in FINISHED or (trial.state == TrialState.RUNNING and not self._fail(trial))]
        if finished:
            self._close(claim.slot)
            return None
        same = [trial for trial in earlier if trial.user_attrs["draw"] == claim.draw and names <= trial.params.keys()]
        last = known or (same[-1] if same else None if claim.draw else first)
        # With other bins it is another fit: what the last one reported is not its.
        reported = last.intermediate_values if last and (known or last.user_attrs["rung"] == claim.rung) else None
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=last.params if last else None,
            distributions=last.distributions if last else None,
            intermediate_values=reported,
            user_attrs={name: getattr(claim, name) for name in ("slot", "attempt", "draw", "rung")},
        )
        self.study._thread_local.cached_all_trials = self.seen or None  # for the sampler; Optuna's own ask() lets it read them again
        trial = optuna.Trial(self.study, self.study._storage.create_new_trial(self.study._study_id, template))
        try:
            self.renew(claim)
        except Lost:
            self._fail(trial)
            raise
        return trial, template.intermediate_values

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Write what an attempt's trial draws in one transaction."""
        return self._storage.together()

    def renew(self, claim: Claim) -> None:
        """Keep the slot for another lease.

        Raises:
            Lost: another worker took it over.

        """
        renewed = self._one_row(
            f"""UPDATE surefoot_slots SET lease_until = {self._until}
            WHERE study = :study AND slot = :slot AND attempt = :attempt AND NOT closed RETURNING slot""",  # noqa: S608
            **vars(claim),
        )
        if not renewed:
            raise Lost(f"slot {claim.slot} of {self.study.study_name}: attempt {claim.attempt} was taken over")

    def report(self, trial: optuna.Trial, values: Mapping[int, float], **attributes: Any) -> None:
        """Tell what an attempt reported, by step, and what is to be known of it, in one transaction. Reports that are there stay.

        Raises:
            UpdateFinishedTrialError: another worker took the slot over, and failed the attempt.

        """
        self._write(trial, values, attributes)

    def tell(
        self,
        claim: Claim,
        trial: optuna.Trial,
        state: TrialState,
        value: float | None,
        reported: Mapping[int, float] | None = None,
        **attributes: Any,
    ) -> None:
        """Finish the attempt, and with it the slot, as ``report`` tells what it reported, all in one transaction.

        What is pruned is worth what it reported last, as in Optuna's ``Study.tell``, which takes a transaction of its own and three
        more questions; of its samplers' ``after_trial`` none that is used here does anything.

        Raises:
            Lost: another worker took the slot over.
            ValueError: a finished trial without a number to tell.

        """
        if state == TrialState.COMPLETE and (value is None or math.isnan(value)):
            raise ValueError(f"slot {claim.slot} of {self.study.study_name}: {value} is no value of a finished trial.")
        self.study._thread_local.cached_all_trials = None
        try:
            self._write(trial, reported or {}, attributes, (claim, state, value))
        except optuna.exceptions.UpdateFinishedTrialError as error:
            if self._state(trial) not in FINISHED:  # else it was done, but the answer got lost: others can only fail it
                raise Lost(f"slot {claim.slot} of {self.study.study_name}: attempt {claim.attempt} was taken over") from error
            self._close(claim.slot)

    def _write(
        self,
        trial: optuna.Trial,
        values: Mapping[int, float],
        attributes: Mapping[str, Any],
        end: tuple[Claim, TrialState, float | None] | None = None,
    ) -> None:
        models, number = optuna.storages._rdb.models, trial._trial_id
        row = models.TrialIntermediateValueModel

        def write() -> None:
            with optuna.storages._rdb.storage._create_scoped_session(self._storage.scoped_session) as session:
                found: Any = models.TrialModel.find_or_raise_by_id(number, session, for_update=end is not None)
                self._storage.check_trial_is_updatable(number, found.state)
                asked = session.query(row.step, row.intermediate_value, row.intermediate_value_type).filter(row.trial_id == number)
                there = {step: row.stored_repr_to_intermediate_value(*stored) for step, *stored in asked}
                add_reports(session, number, {step: value for step, value in values.items() if step not in there})
                add_attributes(session, number, attributes)
                if end:
                    claim, state, worth = end
                    if state == TrialState.PRUNED:
                        told = {**values, **there}
                        worth = told[max(told)] if told else None
                    if worth is not None and not math.isnan(worth):
                        self._storage._set_trial_value_without_commit(session, found, 0, worth)
                    found.state, found.datetime_complete = state, dt.datetime.now()  # noqa: DTZ005 - as Optuna's own
                    session.execute(text(CLOSE), {**self._study, "slot": claim.slot})

        patiently(self._storage.engine, write)

    @contextlib.contextmanager
    def kept(self, claim: Claim, hangs_after: float = math.inf, scratch: Path | None = None) -> Iterator[Hold]:
        """Renew the lease until the end, beside whatever is done. At the end it is let go.

        A process whose work shows no sign of life for ``hangs_after`` seconds is ended, as if its server had gone: to be tried again.
        Nobody else would remove its ``scratch`` then.
        """
        ended, hold = threading.Event(), Hold()

        def renew() -> None:
            while not ended.wait(self.lease / 3) and not hold.lost.is_set():
                hold.renewals += 1  # counted, since a process that was put to sleep does not hang
                if hold.renewals * self.lease / 3 > hangs_after:
                    log.error("slot.hangs", slot=claim.slot, attempt=claim.attempt, seconds=hangs_after, exit=NotNow.code)
                    if scratch:
                        shutil.rmtree(scratch, ignore_errors=True)
                    os._exit(NotNow.code)
                try:
                    self.renew(claim)
                except Lost:
                    hold.lost.set()
                except sqlalchemy.exc.SQLAlchemyError as error:  # the database comes back, or the lease runs out
                    log.warning("lease.not_renewed", slot=claim.slot, error=type(error).__name__)

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield hold
        finally:
            ended.set()
            thread.join(self.lease)  # a server that is gone answers nobody
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                self.release(claim)

    def release(self, claim: Claim) -> None:
        """Let the next worker have the slot at once; the attempt's trial is failed when it is taken over.

        A server that is away is not waited for: what ended the work may have done so already, and the lease runs out by itself.
        """
        self._let_go(claim, waits=False)

    def _let_go(self, claim: Claim, until: float = 0, *, failed: int = 0, waits: bool = True) -> Any:
        return self._one_row(
            """UPDATE surefoot_slots SET failures = failures + :failed, lease_until = :until
            WHERE study = :study AND slot = :slot AND attempt = :attempt AND NOT closed RETURNING failures""",
            waits=waits,
            **{**vars(claim), "until": until, "failed": failed},
        )

    def fail(self, claim: Claim, trial: optuna.Trial) -> bool:
        """Give up an attempt whose fit failed; the next one begins at once. Tell whether it draws other parameters."""
        self._fail(trial)
        row = self._let_go(claim, failed=1)
        return row is not None and row.failures >= FAILURES

    def go_down(self, claim: Claim, trial: optuna.Trial, rung: int) -> None:
        """Give up an attempt that there was no memory for: the next one takes less of it, at a lower rung."""
        self._fail(trial)
        self._one_row(
            """UPDATE surefoot_slots SET rung = :to, lease_until = 0
            WHERE study = :study AND slot = :slot AND attempt = :attempt AND NOT closed RETURNING slot""",
            **{**vars(claim), "to": rung},
        )

    def all_go_down(self, rung: int) -> None:
        """Let all open slots need as little memory as a rung does, or less."""
        self._run("UPDATE surefoot_slots SET rung = :rung WHERE study = :study AND NOT closed AND rung < :rung", rung=rung)

    def came_further(self, claim: Claim) -> None:
        """Forget the slot's failures: this attempt came further than the last one."""
        self._one_row(
            "UPDATE surefoot_slots SET failures = 0 WHERE study = :study AND slot = :slot AND attempt = :attempt RETURNING slot",
            **vars(claim),
        )

    # --- after a death ----------------------------------------------------------------------------

    def reconcile(self) -> list[FrozenTrial]:
        """Close what is finished and fail what runs without a worker, whatever died in between; give all trials, as they were before."""
        self.seen = trials = self.study.get_trials(deepcopy=False)
        asked = f"SELECT slot, attempt, owner, closed, {self._is_held} AS held FROM surefoot_slots WHERE study = :study"  # noqa: S608
        rows = {row.slot: row for row in self._run(asked)}
        for held in rows.values():
            if held.held and not held.closed and is_dead(held.owner):
                self._let_go(Claim(held.slot, held.attempt), ENDED)
        for trial in trials:  # read before the slots: who claimed later has no trial among them
            row = rows.get(trial.user_attrs.get("slot", -1))
            if row is None:
                continue
            if trial.state in FINISHED and not row.closed:
                self._close(row.slot)
            if trial.state == TrialState.RUNNING:
                is_last = row.attempt == trial.user_attrs["attempt"] and not row.closed
                is_left = not row.held or is_dead(row.owner)
                if not is_last or (is_left and self._revoke(Claim(row.slot, row.attempt))):
                    self._fail(trial)
        return trials

    def _revoke(self, claim: Claim) -> bool:
        """Take a slot from who let its lease run out; False where it was renewed in the meantime."""
        revoked = self._one_row(
            f"""UPDATE surefoot_slots SET attempt = attempt + 1, lease_until = {ENDED}
            WHERE study = :study AND slot = :slot AND attempt = :attempt AND NOT {self._is_held} RETURNING slot""",  # noqa: S608
            **vars(claim),
        )
        return revoked is not None

    def _close(self, slot: int) -> None:
        self._one_row(f"{CLOSE} RETURNING slot", slot=slot)

    def _fail(self, trial: optuna.Trial | FrozenTrial) -> bool:
        """Fail a trial; False where its worker had finished it."""
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return self._state(trial) not in FINISHED

    def _state(self, trial: optuna.Trial | FrozenTrial) -> TrialState:
        return self._storage.get_trial(trial._trial_id).state

    @property
    def _study(self) -> dict[str, Any]:
        return {"study": self.study.study_name}

    def _one_row(self, statement: str, *, waits: bool = True, **values: Any) -> Any:
        """Run one statement; give the row that it changed or found, None where there was none."""
        return next(iter(self._run(statement, waits=waits, **values)), None)

    def _run(self, statement: str, *, waits: bool = True, **values: Any) -> Sequence[Any]:
        """Run one statement in a transaction of its own; give its rows."""

        def run() -> Sequence[Any]:
            with self._storage.engine.begin() as connection:
                result = connection.execute(text(statement), {**self._study, "lease": self.lease, **values})
                return result.all() if result.returns_rows else []

        return patiently(self._storage.engine, run) if waits else run()


@functools.cache
def place() -> list[str]:
    """Name this boot of this machine, and the namespace of its processes' numbers; nothing where that cannot be told."""
    try:
        return [Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(), os.readlink("/proc/self/ns/pid")]  # noqa: PTH115
    except OSError:
        return ["", ""]


def started(process: int) -> str:
    """Say when a process began, in ticks since the boot: a number is given to another process one day. Nothing where there is none."""
    try:
        state, *_ = rest = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else rest[19]  # a zombie works no more


def is_dead(owner: str) -> bool:
    """Tell whether an owner was a process of this very place, and is no more: nobody has to wait for its lease."""
    here = "/".join([*place(), ""])
    if not owner.startswith(here) or here == "//":
        return False
    process, began = owner.removeprefix(here).split("/")
    return started(int(process)) != began


def immediate(engine: sqlalchemy.Engine) -> None:
    """Make SQLite's transactions take turns: one that began by reading could else write over what came in between."""

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
