"""A budget of slots is met exactly, whoever dies or sleeps between which two commits; in SQLite and in Postgres."""

import contextlib
import itertools
import math
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text

from stages.search import patience
from stages.search import slots as module
from stages.search.slots import Claim, Lost, Slots
from tests import programs
from tests import slots as drill
from tests.slots import Kill, Killed

SEED = int(os.environ.get("SUREFOOT_SEED", "1"))
KILLS = int(os.environ.get("SUREFOOT_KILLS", "300"))  # kill points of one test


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the address of a database: once SQLite, once Postgres."""
    yield f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres"))
    drill.let_go()


@pytest.fixture
def study(url: str) -> str:
    """Create a study; give its name."""
    name, storage = secrets.token_hex(6), drill.storage(url, create=True)
    Slots(optuna.create_study(study_name=name, storage=storage, direction="maximize"), storage).create()
    return name


def opened(url: str, study: str, lease: float = 60) -> Slots:
    storage = drill.storage(url)
    return Slots(optuna.load_study(study_name=study, storage=storage), storage, lease)


def test_a_budget_grows(url: str, study: str, tmp_path: Path) -> None:
    slots = opened(url, study)
    for budget in (3, 3, 7):
        slots.grow(budget)
        drill.work(slots, budget, tmp_path, Kill())
        assert drill.check(url, study, budget, tmp_path) == {"failed": 0, "trials": budget}


def test_two_workers_never_hold_one_slot(url: str, study: str) -> None:
    one, other = opened(url, study), opened(url, study)
    one.grow(3)

    assert [one.claim(3), other.claim(3), one.claim(3), other.claim(3)] == [
        Claim(0, 1),
        Claim(1, 1),
        Claim(2, 1),
        None,
    ]


def test_a_lease_in_the_far_future_has_ended(url: str, study: str) -> None:
    """The server's clock was an hour ahead when it was made."""
    ahead, right = opened(url, study, lease=3600), opened(url, study, lease=10)
    right.grow(1)
    first = ahead.claim(1)

    assert right.claim(1) == Claim(0, 2)
    assert first
    with pytest.raises(Lost):
        ahead.renew(first)


def test_a_dead_process_of_this_machine_is_not_waited_for(url: str, study: str) -> None:
    """Its lease has a minute to go; that of another machine's process with the same number is left alone."""
    slots = opened(url, study)
    slots.grow(2)
    code = "import sys; from tests.integration.test_slots import opened; c = opened(*sys.argv[1:]).claim(2); print(c.slot, c.attempt)"
    assert programs.python("-c", code, url, study).out == "0 1\n"
    assert slots.claim(2) == Claim(1, 1)
    with slots._storage.engine.begin() as connection:
        connection.execute(text("UPDATE surefoot_slots SET owner = 'elsewhere/' || owner WHERE slot = 1"))

    assert slots.claim(2) is None
    slots.reconcile()

    assert slots.claim(2) == Claim(0, 2)
    slots.reconcile()
    assert slots.claim(2) is None


def test_owners_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ["boot", "pid:[1]"]
    monkeypatch.setattr(module, "place", lambda: mine)
    me, began = os.getpid(), module.started(os.getpid())
    owners = {f"boot/pid:[1]/{me}/{began}": False, f"boot/pid:[1]/{me}/{began}1": True, f"boot/pid:[1]/{2**30}/5": True}
    owners |= {f"boot/pid:[2]/{2**30}/5": False, f"other/pid:[1]/{2**30}/5": False, f"//{2**30}/": False, "": False, "boot": False}

    assert {owner: module.is_dead(owner) for owner in owners} == owners


def test_a_lease_is_renewed_for_as_long_as_it_is_kept(url: str, study: str) -> None:
    slots, other = opened(url, study, lease=2), opened(url, study, lease=2)
    slots.grow(1)
    claim = slots.claim(1)
    assert claim
    with slots.kept(claim) as hold:
        for _ in range(8):
            time.sleep(0.5)
            assert other.claim(1) is None
        assert not hold.lost.is_set()

    assert other.claim(1) == Claim(0, 2), "let go at the end"


def test_who_keeps_a_lost_slot_is_told(url: str, study: str) -> None:
    slots, other = opened(url, study, lease=0.3), opened(url, study, lease=0.3)
    slots.grow(1)
    claim = slots.claim(1)
    assert claim
    slots.release(claim)
    assert other.claim(1)
    with slots.kept(claim) as hold:
        assert hold.lost.wait(timeout=10)

    with pytest.raises(Lost):
        other.renew(claim)
    other.renew(Claim(0, 2))


def test_after_three_failures_a_slot_draws_other_parameters(url: str, study: str, tmp_path: Path) -> None:
    """A fit that fails, a worker that dies, a lease that runs out: each counts; being told to stop, and coming further, do not."""
    slots = opened(url, study, lease=0.05)
    slots.grow(1)
    seen = []

    def attempt(end: str) -> None:
        claim = slots.claim(1)
        assert claim
        begun = slots.begin(claim, {"x"})
        assert begun
        seen.append((claim.failures, claim.draw, begun[0].suggest_float("x", 0, 1)))
        if end == "fails":
            slots.fail(claim, begun[0])
        elif end == "is told to stop":
            slots.release(claim)
        elif end == "came further, and dies":
            slots.came_further(claim)
            time.sleep(0.06)
        elif end == "dies":
            time.sleep(0.06)
        else:
            time.sleep(0.06)
            slots.reconcile()

    for end in ("fails", "is told to stop", "dies", "came further, and dies", "runs out", "fails", "dies", "fails", "dies"):
        attempt(end)

    assert [(failures, draw) for failures, draw, _ in seen] == [(0, 0), (1, 0), (1, 0), (2, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    first, others = {x for _, draw, x in seen if draw == 0}, {x for _, draw, x in seen if draw == 1}
    assert len(first) == len(others) == 1
    assert first != others
    time.sleep(0.06)
    drill.work(slots, 1, tmp_path, Kill())
    drill.check(url, study, 1, tmp_path)


def test_an_attempt_that_lacked_memory_goes_on_one_rung_down(url: str, study: str) -> None:
    slots = opened(url, study)
    slots.grow(1)
    for rung in range(3):
        claim = slots.claim(1)
        assert claim
        assert (claim.rung, claim.failures) == (rung, 0)
        begun = slots.begin(claim, {"x"})
        assert begun
        assert begun[1] == {}, "what was reported was another fit's"
        begun[0].suggest_float("x", 0, 1)
        begun[0].report(0.5, 10)
        slots.go_down(claim, begun[0], claim.rung + 1)
    assert len({trial.params["x"] for trial in slots.study.trials}) == 1


def test_a_table_of_an_earlier_version_gets_what_it_lacks(url: str, study: str) -> None:
    slots = opened(url, study)
    with slots._storage.engine.begin() as connection:
        for column in ("failures", "draw", "rung"):
            connection.execute(text(f"ALTER TABLE surefoot_slots DROP COLUMN {column}"))
    slots.create()
    slots.create()
    slots.grow(1)
    assert slots.claim(1) == Claim(0, 1)


def test_who_is_told_twice_to_finish_has_lost_nothing(url: str, study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server did it, went away before it could answer, and was asked again."""
    slots = opened(url, study)
    slots.grow(1)
    claim = slots.claim(1)
    assert claim
    begun = slots.begin(claim, {"x"})
    assert begun
    began: list[Callable[[], Any]] = []

    def twice(_: Any, action: Callable[[], Any]) -> Any:
        began.append(action)
        action()
        return action()

    monkeypatch.setattr(patience, "patiently", twice)
    monkeypatch.setattr(module, "patiently", twice)
    with slots.together():
        begun[0].suggest_float("x", 0, 1)
        begun[0].suggest_float("y", 0, 1)
    slots.tell(claim, begun[0], TrialState.COMPLETE, 0.5, {10: 0.25}, seconds=1.0)
    (trial,) = slots.study.trials
    assert (trial.state, trial.value, trial.intermediate_values, {*trial.params}) == (TrialState.COMPLETE, 0.5, {10: 0.25}, {"x", "y"})
    assert trial.user_attrs["seconds"] == 1.0
    assert not drill.is_open(slots._storage.engine, study, 1)
    assert began


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED])
@pytest.mark.parametrize("reports", [{}, {10: 0.75, 20: 0.25}, {10: 0.75, 20: math.nan}])
def test_an_end_is_told_as_optuna_tells_it(url: str, study: str, state: TrialState, reports: dict[int, float]) -> None:
    """Value, reports and what else is known; and the slot is closed by then."""
    slots = opened(url, study)
    slots.grow(1)
    claim = slots.claim(1)
    assert claim
    begun = slots.begin(claim, set())
    assert begun
    slots.report(begun[0], {step: value for step, value in reports.items() if step == 10}, seconds=0.5)
    slots.tell(claim, begun[0], state, 0.5, reports, seconds=1.0, rung=2)
    beside = slots.study.ask()
    for step, value in reports.items():
        beside.report(value, step)
    slots.study.tell(beside, None if state == TrialState.PRUNED else 0.5, state)

    ours, optunas = opened(url, study).study.trials
    assert ours.state == optunas.state == state
    assert ours.values == optunas.values
    assert repr(ours.intermediate_values) == repr(optunas.intermediate_values)
    assert (ours.user_attrs["seconds"], ours.user_attrs["rung"]) == (1.0, 2)
    assert ours.datetime_complete
    assert not drill.is_open(slots._storage.engine, study, 1)
    with pytest.raises(ValueError, match="nan is no value"):
        slots.tell(claim, begun[0], TrialState.COMPLETE, math.nan)


def test_what_a_trial_draws_is_written_as_a_whole_or_not_at_all(url: str, study: str) -> None:
    slots, other = opened(url, study), opened(url, study)
    slots.grow(2)
    drawn = []
    for is_cut in (True, False, False):
        trial = slots.study.ask()
        with contextlib.suppress(Killed), slots.together():
            drawn.append({"x": trial.suggest_float("x", 0, 1), "depth": trial.suggest_int("depth", 1, 3)})
            assert other.study.trials[-1].params == {}
            if is_cut:
                raise Killed
    assert [trial.params for trial in other.study.trials] == [{}, *drawn[1:]]
    trial = slots.study.ask()
    with pytest.raises(ValueError, match="Cannot set different distribution kind"), slots.together():
        trial.suggest_int("x", 0, 1)


def test_what_is_reported_together_is_as_if_one_by_one(url: str, study: str) -> None:
    """A part of it may be there: of the last time, whose answer was lost."""
    slots, other = opened(url, study), opened(url, study)
    slots.grow(2)
    reports = {10: 0.5, 20: math.inf, 30: math.nan, 40: 1e-300}
    for together in (True, False):
        claim = slots.claim(2)
        assert claim
        begun = slots.begin(claim, set())
        assert begun
        if together:
            slots.report(begun[0], {20: math.inf})
            slots.report(begun[0], reports)
            slots.report(begun[0], {})
        else:
            for step, value in reports.items():
                begun[0].report(value, step)

    one, two = (dict(sorted(trial.intermediate_values.items())) for trial in other.study.trials)
    assert repr(one) == repr(two) == repr(reports)


def test_who_lost_its_slot_reports_nothing(url: str, study: str) -> None:
    slots, other = opened(url, study), opened(url, study)
    slots.grow(1)
    claim = slots.claim(1)
    assert claim
    begun = slots.begin(claim, set())
    assert begun
    slots.release(claim)
    taken = other.claim(1)
    assert taken
    assert other.begin(taken, set())

    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        slots.report(begun[0], {10: 0.5})
    assert [trial.intermediate_values for trial in other.study.trials] == [{}, {}]


@pytest.mark.parametrize("is_told", [False, True])
def test_the_next_attempt_looks_for_itself_at_what_the_last_one_left(url: str, study: str, is_told: bool) -> None:
    """No reconcile comes between: a trial that was told makes no second one, and one that runs is failed and goes on."""
    slots, other = opened(url, study), opened(url, study)
    slots.grow(1)
    claim = slots.claim(1)
    assert claim
    begun = slots.begin(claim, {"x"})
    assert begun
    x = begun[0].suggest_float("x", 0, 1)
    begun[0].report(0.5, 10)
    if is_told:
        slots.study.tell(begun[0], x)  # and dies before it closes the slot
    slots.release(claim)
    taken = other.claim(1)
    assert taken == Claim(0, 2)

    again = other.begin(taken, {"x"})

    states = [trial.state.name for trial in other.study.trials]
    if is_told:
        assert (again, states) == (None, ["COMPLETE"])
        assert not drill.is_open(other._storage.engine, study, 1)
    else:
        assert again
        assert (again[0].suggest_float("x", 0, 1), again[1], states) == (x, {10: 0.5}, ["FAIL", "RUNNING"])


def test_whoever_sleeps_beyond_the_lease_has_no_effect(url: str, study: str, tmp_path: Path) -> None:
    """At each of the places where it may sleep, and whether or not the next worker is done when it wakes."""
    slots, sleeper = opened(url, study, lease=0.05), opened(url, study, lease=0.05)
    slots.grow(6)
    for late in (False, True):
        claim = sleeper.claim(6)
        assert claim
        time.sleep(0.06)
        if late:  # it has made its trial
            begun = sleeper.begin(claim, drill.NAMES)
            assert begun
            trial, _ = begun
            trial.suggest_float("x", 0, 1)
            time.sleep(0.06)
        drill.work(slots, claim.slot + 1, tmp_path, Kill())
        if not late:
            with pytest.raises(Lost):
                sleeper.begin(claim, drill.NAMES)
        else:
            with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
                trial.suggest_int("depth", 1, 3)
            with pytest.raises(Lost):
                sleeper.tell(claim, trial, optuna.trial.TrialState.COMPLETE, 100.0)
    assert drill.check(url, study, 2, tmp_path)["failed"] == 2


def test_every_effect_may_be_the_last(url: str, study: str, tmp_path: Path) -> None:
    """One worker after the other dies at the nth commit or record, before it or after it, until nobody has to."""
    slots = opened(url, study, lease=0.001)
    killed = 0
    for round_ in itertools.count():
        budget = 2 * (round_ + 1)
        slots.grow(budget)
        for after in (False, True):
            for nth in range(1, 60):
                kill = Kill(nth, after)
                try:
                    with drill.dying(slots._storage.engine, kill):
                        drill.work(slots, budget, tmp_path, kill)
                except Killed:
                    killed += 1
                    time.sleep(0.002)
                else:
                    break
        drill.work(slots, budget, tmp_path, Kill())
        drill.check(url, study, budget, tmp_path)
        assert len([*tmp_path.glob("[0-9]*-*")]) == budget, "whatever was finished was told: nothing was done twice"
        if killed >= KILLS:
            break


@pytest.mark.faults
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_are_killed_and_sleep_beyond_their_leases(url: str, study: str, tmp_path: Path, workers: int) -> None:
    """By real signals, and the budget grows while they work."""
    crew = drill.Crew(url, study, tmp_path, random.Random(f"{SEED}/{workers}"), workers)
    budget = 0
    for kills, stops in ((KILLS // 30, KILLS // 30), (KILLS // 15, KILLS // 15), (KILLS // 10, KILLS // 10)):
        while crew.killed < kills or crew.stopped < stops:
            budget += 10
            opened(url, study).grow(budget)
            crew.meet(budget, kills, stops)
        counts = drill.check(url, study, budget, tmp_path)
    print(f"seed {SEED}, {workers} workers, {url[:8]}: {crew.killed} killed, {crew.stopped} asleep, budget {budget}, {counts}")  # noqa: T201
