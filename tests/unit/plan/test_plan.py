"""What plan says of a run before anything starts, shown on the toy."""

import json
import re
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from stages.common import address, artifact, config, contract, database
from stages.common.errors import ConfigError, NotNow
from stages.common.step import run_step
from stages.plan import plan as plans
from tests import programs
from tests.toy import work
from tests.toy.fixtures import toy
from tests.toy.pipeline import Pipeline, item

__all__ = ["toy"]

ALL = ("toy-a", "toy-b/xgboost", "toy-c")


def planned(toy: Pipeline, *sets: str, write: bool = True) -> plans.Plan:
    made = plans.plan(config.load(toy.config, sets, {}), toy.store)
    if write:
        plans.write(made)
    return made


def states(made: plans.Plan) -> dict[str, str]:
    return {row.label: row.state for row in made.rows}


def why(made: plans.Plan) -> dict[str, tuple[str, ...]]:
    return {row.label: row.why for row in made.rows}


# --- what will run ---


def test_in_an_empty_store_everything_runs_or_depends(toy: Pipeline) -> None:
    made = planned(toy)
    assert states(made) == dict(zip(ALL, ("run", "depends", "depends"), strict=True))
    assert set(why(made).values()) == {("never run",)}
    assert made.todo() == dict.fromkeys((*work.TOYS, *ALL), "run")


def test_what_is_there_is_done_and_nothing_changed(toy: Pipeline) -> None:
    planned(toy)
    toy.do_all()
    made = planned(toy)
    assert states(made) == dict.fromkeys(ALL, "done")
    assert set(why(made).values()) == {()}
    assert made.todo() == dict.fromkeys((*work.TOYS, *ALL), "done")


def test_locks_are_named_by_work_and_store(toy: Pipeline) -> None:
    """The same for two runs of the same, others where there is something else to do."""
    first, again, other = planned(toy).locks(), planned(toy).locks(), planned(toy, "toy.value=3").locks()
    assert first == again
    assert set(first) == set(ALL)
    assert len(set(first.values())) == len(first)
    assert all(re.fullmatch("[0-9a-f]{16}", lock) for lock in first.values())
    assert set(first.values()).isdisjoint(other.values())


def test_a_memory_is_named_by_the_run_that_made_the_result(toy: Pipeline) -> None:
    """So the next plan looks up what that run saved, as long as it finds that very result; no other name comes twice."""

    def named(run: str) -> plans.Plan:
        return plans.plan(config.load(toy.config, (), {}), toy.store, run)

    first = named("one")
    for letter in "abc":
        run_step(f"toy-{letter}", item(letter), first.addresses)
    assert named("two").memos() == named("three").memos() == first.memos()
    assert set(first.memos()) == set(ALL)
    assert all(re.fullmatch("[0-9a-f]{32}", memo) for memo in first.memos().values())

    artifact.void(toy.store, toy.find("b"), "for the test")
    second, third = named("two").memos(), named("three").memos()
    assert {label for label, memo in second.items() if memo == first.memos()[label]} == {"toy-a"}, "what depends has none either"
    assert {label for label, memo in third.items() if memo == second[label]} == {"toy-a"}
    toy.do("b")
    assert {label for label, memo in named("two").memos().items() if memo == first.memos()[label]} == {"toy-a", "toy-c"}


def test_what_is_half_done_goes_on_in_the_middle(toy: Pipeline) -> None:
    toy.do("a")
    assert states(planned(toy)) == dict(zip(ALL, ("done", "run", "depends"), strict=True))


def test_what_depends_on_something_still_to_be_made_may_have_to_run(toy: Pipeline) -> None:
    """Lose the first result: what the others are made of is not known until it is made again."""
    toy.do_all()
    artifact.void(toy.store, toy.find("a"), "for the test")
    made = planned(toy)
    assert states(made) == dict(zip(ALL, ("run", "depends", "depends"), strict=True))
    assert made.todo() == dict.fromkeys((*work.TOYS, *ALL), "run")


def test_a_changed_value_is_named_with_both_values(toy: Pipeline) -> None:
    planned(toy)
    toy.do_all()
    made = planned(toy, "toy.value=2", "common.threads=5")
    assert why(made) == {
        "toy-a": ("toy.value: 1 -> 2",),
        "toy-b/xgboost": ("toy.value: 1 -> 2", "after toy-a"),
        "toy-c": ("toy.value: 1 -> 2", "after toy-a", "after toy-b/xgboost"),
    }


def test_changed_code_libraries_and_bytes_are_named(toy: Pipeline) -> None:
    before = toy.addresses().plan_document("toy-a", {})
    now = json.loads(json.dumps(before))
    now["recipe"] |= {"source": "other", "python": "3.13", "libraries": {"xgboost": "4.0"}}
    before["recipe"]["libraries"] = {"pandas": "3.1.1"}
    now["pins"]["raw"] = {"table": "0"}
    python = before["recipe"]["python"]
    assert address.changed(before, now) == [
        "code",
        f"python {python} -> 3.13",
        "pandas 3.1.1 -> None",
        "xgboost None -> 4.0",
        "bytes of the table",
    ]


def test_a_gated_step_needs_no_pod(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contract.STEPS, "toy-c", work.Toy("toy-c", reads=("toy-a", "toy-b"), gate=("toy-a", "verdict", "yes")))
    toy.do_all("toy.value=2")
    made = planned(toy, "toy.value=2")
    assert states(made)["toy-c"] == "gated"
    assert made.todo()["toy-c"] == "gated"
    assert made.is_unchanged()


# --- what is written ---


def test_the_resolved_config_is_in_the_store_with_all_that_was_pinned(toy: Pipeline) -> None:
    made = planned(toy, write=False)
    key = plans.write(made)
    assert key == f"config/{artifact.sha256(made.addresses.config.dump())}.json"
    assert config.parse(toy.store.read(key), key) == made.addresses.config
    record = plans.last_record(toy.store, "toy")
    assert record["config"] == key
    assert record["plans"].keys() == set(ALL)
    assert made.addresses.config.pinned
    assert record["run"] == made.addresses.config.pinned.run


@pytest.mark.parametrize("name", ["my table (1).yaml", "données.yaml", "..yaml", f"{'x' * 200}.yaml", "=+.yaml"])
def test_a_config_may_have_any_name(toy: Pipeline, name: str) -> None:
    toy.config = toy.config.rename(toy.config.with_name(name))
    planned(toy)
    assert states(planned(toy))["toy-a"] == "run"
    assert why(planned(toy))["toy-a"] == (), "the record of the run before was found"


def test_a_damaged_record_is_no_dead_end(toy: Pipeline) -> None:
    planned(toy)
    for key in toy.store.list("runs/"):
        path = toy.store.local(key)
        assert path
        path.write_bytes(path.read_bytes().replace(b'"run"', b'"ruN"'))
    assert why(planned(toy))["toy-a"] == ("never run",)


def test_the_newest_record_of_a_config_is_taken(toy: Pipeline) -> None:
    for stamp, value in (("20260101T000000Z", 1), ("20260102T000000Z", 2), ("20260103T000000Z", 3)):
        record: dict[str, Any] = {"run": stamp, "name": "toy" if value < 3 else "other", "plans": {}}
        toy.store.create(key := f"runs/{stamp}-toy/record.json", artifact.seal(key, record))
        toy.store.create(f"runs/{stamp}-toy/report.html", b"")
    assert plans.last_record(toy.store, "toy")["run"] == "20260102T000000Z"
    assert plans.last_record(toy.store, "none") == {}


def test_the_program_hands_on_config_and_todo(toy: Pipeline, tmp_path: Path) -> None:
    """Here the real pipeline is planned: only plan itself is a program without the toy."""
    ended = programs.python(
        "-m", "stages.plan", "--config", tmp_path / "toy.yaml", "--store", toy.store.address, "--outputs", tmp_path / "out",
        "--set", "prepare.generated_rows=500", "--run", "the-run",
    )  # fmt: skip
    assert ended.code == 78, "the toy's section is unknown there"
    (tmp_path / "real.yaml").write_text("")
    ended = programs.python(
        "-m",
        "stages.plan",
        "--config",
        tmp_path / "real.yaml",
        "--store",
        toy.store.address,
        "--outputs",
        tmp_path / "out",
        "--run",
        "the-run",
    )
    assert ended.code == 0
    answer = ended.answer
    assert answer.keys() == {"config", "todo", "locks", "memos", "families", "workers"}
    assert answer["locks"].keys() == {"prepare", "search-collect/xgboost", "train/xgboost", "evaluate", "validate", "deploy"}
    assert answer["families"] == [{"family": "xgboost"}]
    assert answer["workers"] == ["0"]
    assert set(answer["todo"].values()) == {"run"}
    assert json.loads((tmp_path / "out" / "workers").read_text()) == answer["workers"]
    assert (tmp_path / "out" / "config").read_text() == answer["config"]
    assert [key for key in toy.store.list("runs/") if "the-run" in key]


# --- what must be there ---


def test_too_little_room_is_refused_with_the_numbers(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")  # noqa: PYI024 - as shutil's
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(300_000_000))
    with pytest.raises(ConfigError, match=r"0\.3 GB are free, plan\.disk_space_required_gb asks for 1\.0\. Free some, or lower it\.$"):
        planned(toy)
    assert states(planned(toy, "plan.disk_space_required_gb=0.2"))


def test_a_table_that_does_not_fit_into_memory_is_refused_before_it_is_read(toy: Pipeline) -> None:
    table = toy.config.parent / "table.csv"
    table.write_bytes(b"x,y\n1,0\n" * 1000)
    sets = (f"prepare.path={table}", "prepare.source=file", "prepare.label=y", "prepare.split=order")
    assert planned(toy, *sets)
    with pytest.raises(
        ConfigError,
        match=r"table\.csv: training needs about 0\.0 GB of memory, plan\.memory_limit_gb allows 1e-05\. Raise it, or take fewer rows",
    ):
        planned(toy, *sets, "plan.memory_limit_gb=0.00001")


S3 = type("Store", (), {"address": "s3://bucket/x"})()


@pytest.mark.parametrize("given", ["", "sqlite:///study.db"])
def test_an_s3_store_needs_postgres(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("SUREFOOT_STUDY", given)
    with pytest.raises(ConfigError, match="SUREFOOT_STUDY: an s3 store needs a Postgres database"):
        database.url(S3)


def test_a_database_is_named_by_the_environment_or_stands_in_the_store(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUREFOOT_STUDY", raising=False)
    assert database.url(toy.store) == f"sqlite:///{toy.store.address}/study.db"
    monkeypatch.setenv("SUREFOOT_STUDY", "postgresql://host/db")
    assert database.url(toy.store) == database.url(S3) == "postgresql://host/db"
    monkeypatch.setenv("SUREFOOT_STUDY", "mysql://host/db")
    with pytest.raises(ConfigError, match="SUREFOOT_STUDY: neither postgresql://"):
        database.url(toy.store)


def test_a_database_that_does_not_answer_is_not_now(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_STUDY", "postgresql://someone:secret@127.0.0.1:1/db")
    with pytest.raises(NotNow, match=r"the study database at 127\.0\.0\.1:1/db does not answer: .*refused") as raised:
        planned(toy)
    assert "secret" not in str(raised.value)
    assert toy.store.list("config/") == []


def test_a_plan_changes_nothing_that_is_there(toy: Pipeline) -> None:
    toy.do_all()
    before = {key: toy.store.read(key) for key in toy.store.list("")}
    planned(toy)
    assert {key: toy.store.read(key) for key in toy.store.list("") if key in before} == before
    assert {key.split("/")[0] for key in toy.store.list("") if key not in before} == {"config", "runs"}


def test_a_step_of_a_planned_run_goes_by_what_was_pinned(toy: Pipeline) -> None:
    made = planned(toy)
    assert run_step("toy-a", item("a"), made.addresses)["state"] == "made"
    assert made.addresses.config.pinned
    assert toy.find("a").document["run"] == made.addresses.config.pinned.run


def modules(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([*programs.PYTHON, "-c", code], env=programs.environment(), capture_output=True, check=True, text=True)
    return set(done.stdout.split())


HEAVY = {"pandas", "numpy", "xgboost", "optuna", "sklearn", "pyarrow", "sqlalchemy", "minio", "hera", "psycopg2"}


@pytest.mark.parametrize(
    "statement", ["from stages.plan import plan", "from stages.common import step", "from workflows import cli, local"]
)
def test_what_looks_whether_work_is_done_imports_nothing_that_works(statement: str) -> None:
    loaded: Any = {name.split(".")[0] for name in modules(statement)}
    assert loaded & HEAVY == set()
