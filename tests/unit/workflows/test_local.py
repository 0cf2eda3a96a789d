"""The walk on this machine, shown on the toy: one process per step that has work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stages.common import artifact, config, contract, log, step
from stages.common.address import Addresses
from stages.plan import plan as plans
from tests import programs
from tests.toy import work
from tests.toy.fixtures import toy
from tests.toy.pipeline import Pipeline, digests
from workflows import dag, local

__all__ = ["toy"]

TASKS = tuple(
    dag.Task(f"toy-{letter}", depends=(f"toy-{before}",) if before else (), deadline_seconds=30)
    for letter, before in zip("abc", ("", "a", "b"), strict=True)
)


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Walk the toy's three steps, without waiting between attempts."""
    monkeypatch.setattr(dag, "TASKS", TASKS)
    monkeypatch.setattr(dag, "BACKOFF_SECONDS", 0)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Give what the walk logs."""
    lines: list[dict[str, Any]] = []
    for level in ("warning", "error"):
        monkeypatch.setattr(log, level, lambda event, **fields: lines.append({"event": event, **fields}))
    return lines


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do each step in this process: a program more is half a second more."""

    def run(task: dag.Task, item: contract.Item, addresses: Addresses, *_: Any) -> tuple[int, dict[str, Any]]:
        outputs: dict[str, Any] = {}
        code = step.guarded(lambda: outputs.update(step.run_step(task.step, item, Addresses(addresses.config, addresses.store))))
        return code, outputs

    monkeypatch.setattr(local, "_run", run)


def walk(toy: Pipeline, *sets: str) -> list[local.Outcome]:
    made = plans.plan(config.load(toy.config, sets, {}), toy.store)
    return local.walk(made.addresses, plans.write(made))


def ended(outcomes: list[local.Outcome]) -> dict[str, str]:
    return {outcome.step[-1]: outcome.state for outcome in outcomes}


def spoil(toy: Pipeline, letter: str, how: str) -> None:
    path = toy.store.local(toy.blob(letter))
    assert path
    data = path.read_bytes()
    path.chmod(0o644)
    if how == "lost":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if how == "cut" else data[:-2] + b" \n")


def test_a_walk_makes_what_is_missing_and_starts_nothing_for_the_rest(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    first = walk(toy)
    assert ended(first) == dict.fromkeys("abc", "made")
    assert first[0].outputs.keys() == {"a_value", "verdict"}

    monkeypatch.setattr(subprocess, "Popen", None)
    second = walk(toy)
    assert ended(second) == dict.fromkeys("abc", "done")
    assert [outcome.outputs for outcome in second] == [outcome.outputs for outcome in first]
    assert work.calls() == ["toy-a", "toy-b", "toy-c"]


@pytest.mark.usefixtures("quick")
def test_what_a_step_finds_done_is_told_so(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another walk finish in between: the process is started, and proves that nothing is to be done."""
    made = plans.plan(config.load(toy.config, (), {}), toy.store)
    real = local._attempts

    def late(*arguments: Any) -> local.Outcome:
        toy.do_all()
        return real(*arguments)

    monkeypatch.setattr(local, "_attempts", late)
    assert ended(local.walk(made.addresses, plans.write(made))) == dict.fromkeys("abc", "done")
    assert work.calls() == ["toy-a", "toy-b", "toy-c"]


@pytest.mark.parametrize(
    ("letter", "how"), [("a", "lost"), ("a", "cut"), ("a", "flipped"), ("b", "flipped"), ("c", "lost"), ("c", "flipped")]
)
@pytest.mark.usefixtures("quick")
def test_a_damaged_blob_is_made_again_in_the_same_walk(toy: Pipeline, letter: str, how: str) -> None:
    """Let c be undone too, so that the blobs are read."""
    toy.do_all()
    before = digests(toy.store)
    spoil(toy, letter, how)
    if letter != "c":
        artifact.void(toy.store, toy.find("c"), "for the test")
    outcomes = walk(toy)

    assert {outcome.code for outcome in outcomes} == {0}
    again = set() if (letter, how) == ("c", "flipped") else {letter, "c"}
    assert {name for name, state in ended(outcomes).items() if state == "made"} == again
    assert digests(toy.store) == before
    assert len(artifact.verify(toy.store)) == (1 if (letter, how) == ("c", "flipped") else 0), "what no step reads, verify finds"
    assert artifact.verify(toy.store) == []


@pytest.mark.usefixtures("quick")
def test_no_step_is_done_that_need_not_be(toy: Pipeline) -> None:
    toy.do_all()
    spoil(toy, "a", "lost")
    assert ended(walk(toy)) == {"a": "made", "b": "done", "c": "done"}
    assert work.calls() == ["toy-a", "toy-b", "toy-c", "toy-a"]


@pytest.mark.usefixtures("quick")
def test_what_is_lost_again_and_again_ends_the_walk(toy: Pipeline, monkeypatch: pytest.MonkeyPatch, said: list[dict[str, Any]]) -> None:
    """Lose a's blob each time before b runs: healed once, then the walk says what is wrong."""
    real = local._run

    def losing(task: dag.Task, *arguments: Any) -> Any:
        if task.step == "toy-b":
            spoil(toy, "a", "flipped")
        return real(task, *arguments)

    monkeypatch.setattr(local, "_run", losing)
    outcomes = walk(toy)
    assert (outcomes[-1].step, outcomes[-1].state, outcomes[-1].code) == ("toy-b", "failed", 66)
    assert [line["lost"] for line in said if line["event"] == "run.heals"] == ["toy-a"]
    assert work.calls() == ["toy-a", "toy-b", "toy-a", "toy-b"]


@pytest.mark.usefixtures("quick")
def test_the_failed_step_is_the_last_one_though_it_was_there_before(toy: Pipeline) -> None:
    """Lose a's bytes, which only c notices; making a again then fails."""
    toy.do("a")
    toy.do("b")
    spoil(toy, "a", "flipped")
    outcomes = walk(toy, "toy.act=a:raise-DataError")
    assert len(outcomes) == 2
    assert (outcomes[-1].step, outcomes[-1].state, outcomes[-1].code) == ("toy-a", "failed", 65)


@pytest.mark.parametrize(
    ("act", "code", "calls"),
    [("raise-DataError", 65, 1), ("bug", 70, 1), ("raise-NotNow", 75, 4), ("signal-SIGKILL", 137, 4), ("signal-SIGSEGV", 139, 4)],
)
def test_a_failed_step_is_tried_again_if_that_can_help_and_ends_the_walk(toy: Pipeline, act: str, code: int, calls: int) -> None:
    outcomes = walk(toy, f"toy.act=b:{act}")
    assert [(outcome.step, outcome.state, outcome.code) for outcome in outcomes] == [("toy-a", "made", 0), ("toy-b", "failed", code)]
    assert work.calls() == ["toy-a", *["toy-b"] * calls]
    assert ended(walk(toy)) == {"a": "done", "b": "made", "c": "made"}


FAMILIES = "search.families=[xgboost, lightgbm, catboost]"


@pytest.mark.parametrize(
    ("least", "act", "outcomes"),
    [
        ("all", "b/lightgbm:raise-DataError", {"b/xgboost": 0, "b/lightgbm": 65}),
        (2, "b/lightgbm:raise-DataError", {"b/xgboost": 0, "b/lightgbm": 65, "b/catboost": 0, "c": 0}),
        (2, "b/lightgbm:raise-MissingInput", {"b/xgboost": 0, "b/lightgbm": 66, "b/catboost": 0, "c": 0}),
        (2, "b/xgboost:bug;b/lightgbm:raise-DataError", {"b/xgboost": 70, "b/lightgbm": 65}),
        (1, "b/xgboost:bug;b/lightgbm:raise-NotNow", {"b/xgboost": 70, "b/lightgbm": 75, "b/catboost": 0, "c": 0}),
        (1, "c:raise-DataError", {"b/xgboost": 0, "b/lightgbm": 0, "b/catboost": 0, "c": 65}),
        (2, "b/catboost:raise-DataError;c:bug", {"b/xgboost": 0, "b/lightgbm": 0, "b/catboost": 65, "c": 70}),
    ],
)
@pytest.mark.usefixtures("quick")
def test_a_family_that_fails_is_left_out_while_there_are_enough(
    toy: Pipeline, said: list[dict[str, Any]], least: str | int, act: str, outcomes: dict[str, int]
) -> None:
    """And the walk ends as soon as there are not; the last outcome says how. Repaired, the next walk makes what was left out."""
    sets = (FAMILIES, f"search.min_families={least}")
    ended = walk(toy, *sets, f"toy.act={act}")
    assert {o.label.removeprefix("toy-"): o.code for o in ended} == {"a": 0, **outcomes}
    last = list(outcomes)[-1]
    assert ended[-1].label.removeprefix("toy-") == last
    left_out = [f"toy-{label}" for label, code in outcomes.items() if code and label != last]
    assert [f"{line['step']}/{line['family']}" for line in said if line["event"] == "family.left_out"] == left_out

    again = walk(toy, *sets)
    assert {o.code for o in again} == {0}
    made = [o.label.removeprefix("toy-") for o in again if o.state == "made"]
    assert made == [label for label in ("b/xgboost", "b/lightgbm", "b/catboost") if outcomes.get(label, 1)] + ["c"]
    assert toy.find("c", *sets).document["degraded"] == []
    assert {o.state for o in walk(toy, *sets)} == {"done"}


@pytest.mark.usefixtures("quick")
def test_a_family_whose_input_is_damaged_is_healed_and_not_left_out(toy: Pipeline) -> None:
    sets = (FAMILIES, "search.min_families=1")
    walk(toy, *sets)
    spoil(toy, "a", "flipped")
    for family in ("xgboost", "lightgbm", "catboost"):
        manifest = toy.addresses(*sets).find("toy-b", {"family": family})
        assert manifest
        artifact.void(toy.store, manifest, "for the test")
    ended = walk(toy, *sets)
    assert {o.label: o.code for o in ended} == dict.fromkeys(
        ("toy-a", *(f"toy-b/{family}" for family in ("xgboost", "lightgbm", "catboost")), "toy-c"), 0
    )


def test_a_search_is_started_as_often_as_it_gets_on(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is taken away again and again ends no search that finishes trials in between; one that finishes none is given up."""
    monkeypatch.setattr(dag, "BACKOFF_SECONDS", 5)
    search = local._Attempts(dag.Task("search-work", fan_out="workers"), {"family": "xgboost"}, toy.addresses())
    for number in range(10):
        toy.store.create(f"search/trials/xgboost-1234/{number}-0.json", b"1")
        assert search.pause(137) == 5
    toy.store.create("search/trials/lightgbm-1234/0-0.json", b"1")
    assert [search.pause(137) for _ in range(3)] == [10, 20, None], "another family's trials are not its"
    assert search.made == 12
    train = local._Attempts(dag.Task("train"), {"family": "xgboost"}, toy.addresses())
    assert [train.pause(code) for code in (75, 139, 76, 137)] == [5, 10, 20, None]
    assert local._Attempts(dag.Task("train"), {}, toy.addresses()).pause(65) is None


def test_each_attempt_is_told_its_number(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    real = local._run
    monkeypatch.setattr(local, "_run", lambda *arguments: (75, {}) if arguments[-1] < 2 else real(*arguments))
    walk(toy)
    assert toy.find("a").document["measured"]["attempt"] == 2


def test_a_step_that_takes_too_long_is_stopped_and_goes_on_from_its_last_border(
    toy: Pipeline, monkeypatch: pytest.MonkeyPatch, said: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(dag, "TASKS", (dag.Task("toy-a", deadline_seconds=2),))
    (outcome,) = walk(toy, "toy.act=a:slow", "toy.rounds=40")
    assert outcome.code == 0
    assert [line["event"] for line in said].count("step.deadline") >= 1
    assert toy.find("a", "toy.rounds=40").document["measured"]["rounds_here"] < 40


def test_a_step_that_does_not_stop_is_killed(toy: Pipeline, monkeypatch: pytest.MonkeyPatch, said: list[dict[str, Any]]) -> None:
    monkeypatch.setattr(dag, "TASKS", (dag.Task("toy-a", deadline_seconds=3),))
    monkeypatch.setattr(dag, "GRACE_SECONDS", 1)
    monkeypatch.setattr(dag, "RETRIES", 0)
    (outcome,) = walk(toy, "toy.act=a:deaf")
    assert (outcome.state, outcome.code) == ("failed", 137)
    assert [line["event"] for line in said] == ["step.deadline", "step.killed"]
    assert work.calls() == ["toy-a"]


@pytest.mark.usefixtures("quick")
def test_a_gated_step_is_not_started(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    gated = work.Toy("toy-c", reads=("toy-a", "toy-b"), gate=("toy-a", "verdict", "yes"))
    with monkeypatch.context() as patch:  # undone before the toy is taken away, or the step would outlive it
        patch.setitem(contract.STEPS, "toy-c", gated)
        assert ended(walk(toy, "toy.value=2")) == {"a": "made", "b": "made", "c": "gated"}
    assert work.calls() == ["toy-a", "toy-b"]


WALK = """
import sys
from pathlib import Path
from stages.common import checkpoint, config, log, step
from stages.common.store import open_store
from stages.plan import plan as plans
from tests.toy import work
from tests.unit.workflows.test_local import TASKS
from workflows import dag, local

def walk():
    dag.TASKS = TASKS
    made = plans.plan(config.load(Path(sys.argv[1]), sys.argv[3:]), open_store(sys.argv[2]))
    local.walk(made.addresses, plans.write(made))

checkpoint.catch_signals()
log.setup()
with work.installed():
    sys.exit(step.guarded(walk))
"""


@pytest.mark.parametrize(("name", "whole_group", "code"), [("SIGINT", True, 130), ("SIGTERM", False, 143), ("SIGTERM", True, 143)])
def test_a_stopped_walk_stops_its_step_which_saves_its_last_border(
    toy: Pipeline, tmp_path: Path, name: str, whole_group: bool, code: int
) -> None:
    """Ctrl-C reaches the whole group, ``kill`` the walk alone."""
    sets = ["toy.act=a:slow", "toy.rounds=100"]
    command = [sys.executable, "-c", WALK, str(toy.config), toy.store.address, *sets]
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(command, env=programs.environment(), stderr=err, start_new_session=True)
    while b"step.started" not in (tmp_path / "err").read_bytes():
        assert process.poll() is None, (tmp_path / "err").read_text()
        time.sleep(0.02)
    time.sleep(0.5)
    (os.killpg if whole_group else os.kill)(process.pid, signal.Signals[name])

    assert process.wait(timeout=20) == code
    lines = [line for line in (tmp_path / "err").read_text().splitlines() if "checkpoint.saved" in line or "step.failed" in line]
    assert ["checkpoint.saved" in line for line in lines] == [True, False, False]
    assert toy.do("a", "toy.rounds=100")["state"] == "made"
    assert 0 < toy.find("a", "toy.rounds=100").document["measured"]["rounds_here"] < 100
