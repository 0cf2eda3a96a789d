"""The ``surefoot`` command over a finished pipeline of 500 rows, started as a user starts it."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.common import artifact, config, registry
from stages.common.store import Store, open_store
from tests import programs, small
from tests.programs import surefoot
from tests.small import finished, finished_once
from workflows import cli

__all__ = ["finished", "finished_once"]

GENERATION: dict[str, Any] = {"version": "older", "train": "", "over": None, "files": {}}


def test_a_finished_run_is_told_and_starts_nothing(finished: Path) -> None:
    ended = surefoot("run", finished / "small.yaml", "--store", finished / "store", "--json")
    assert ended.code == 0, ended.err
    told = ended.answer
    assert {one["outcome"] for one in told["steps"]} == {"done"}
    assert [one["step"] for one in told["steps"]][0::7] == ["prepare", "deploy"]
    assert told["verdict"] == "accepted"
    assert 0 < told["average_precision"] <= told["auc"] <= 1
    assert Path(told["report"]).read_text().startswith("<!doctype html>")
    assert not ended.named("step.started")

    for_people = surefoot("run", finished / "small.yaml", "--store", finished / "store")
    assert f"verdict  accepted, version {told['version']}" in for_people.out
    assert for_people.out.count(" done") == 8


def test_what_is_there_is_listed(finished: Path) -> None:
    plain, digests, documents = (surefoot("ls", "--store", finished / "store", *words) for words in ((), ("--digests",), ("--json",)))
    assert (plain.code, digests.code, documents.code) == (0, 0, 0)
    assert len(plain.out.splitlines()) == len(documents.answer) == 6
    lines = [line.split("  ") for line in digests.out.splitlines()]
    assert {line[0] for line in lines} == {"prepare", "search-collect", "train", "evaluate", "validate", "deploy"}
    assert all(len(line) == 5 and len(line[4]) == 64 for line in lines)


def test_status_names_production_and_the_last_run(finished: Path) -> None:
    nothing = surefoot("status", "--store", finished / "empty")
    assert nothing.out == "production  nothing yet\n"
    assert surefoot("run", finished / "small.yaml", "--store", finished / "store").code == 0
    ended = surefoot("status", finished / "small.yaml", "--store", finished / "store")
    assert ended.out.splitlines()[0].startswith("production  version ")
    assert ended.out.splitlines()[1].endswith("-small: Succeeded")


def test_options_are_explained(finished: Path) -> None:
    config_file = finished / "small.yaml"
    one = surefoot("explain", config_file, "search.n_trials", "common.threads", "--set", "search.n_trials=5")
    assert one.code == 0, one.err
    lines = one.out.splitlines()
    assert lines[:5] == [
        "search.n_trials = 5",
        "  finished trials (complete or pruned) of each family",
        "  a change of it makes its step, and what reads it, run again",
        "  by --set search.n_trials=5: 5",
        f"  over {config_file}: 2",
    ]
    assert lines[6:9] == ["common.threads = 0", "  CPU threads of one step; 0 takes all that it may use", "  it cannot change a result"]
    differ = surefoot("explain", config_file)
    assert {line.split(" = ")[0] for line in differ.out.splitlines()} >= {"prepare.label", "search.n_trials", "validate.auc_floor"}
    assert "search.seed" not in differ.out
    wrong = surefoot("explain", config_file, "search.trials")
    assert (wrong.code, wrong.named("step.failed")[0]["message"]) == (
        2,
        "search.trials: there is no such option; did you mean search.n_trials or search.metric or search.patience_trials?",
    )
    schema = surefoot("schema")
    assert schema.code == 0, schema.err
    assert json.loads(schema.out)["properties"]["train"]["properties"]["seed"]["type"] == "integer"


def test_verify_tells_by_its_exit_code(finished: Path) -> None:
    store = open_store(str(finished / "store"))
    whole = surefoot("verify", "--store", store.address)
    assert (whole.code, whole.out) == (0, f"{store.address}: every byte is as it was written\n")
    path = store.local(next(key for key in store.list("blobs/")))
    assert path
    path.chmod(0o644)
    path.write_bytes(b"")
    damaged = surefoot("verify", "--store", store.address)
    assert damaged.code == 66
    assert "is lost or damaged" in damaged.out


def test_rolling_back_bars_what_was_live(finished: Path) -> None:
    store = open_store(str(finished / "store"))
    live = registry.live(store)
    assert live
    none = surefoot("rollback", "--store", store.address)
    assert (none.code, len(none.err.splitlines())) == (66, 1)
    registry.add(store, {**GENERATION, "generation": 2, "version": "newer"})

    back = surefoot("rollback", "--store", store.address)
    assert (back.code, back.out) == (0, f"live: version {live['version']} (generation 3); barred: newer\n")


def test_a_report_needs_no_database(finished: Path, s3_address: str, tmp_path: Path) -> None:
    """From a laptop, of a run in the cluster: its Postgres cannot be reached from there."""
    ended = surefoot("report", finished / "small.yaml", "--store", s3_address, "--out", tmp_path / "page.html")
    assert (ended.code, ended.out) == (0, f"{tmp_path}/page.html (its numbers: {tmp_path}/page.json)\n"), ended.err
    assert "prepare is not there" in (tmp_path / "page.html").read_text()
    assert json.loads((tmp_path / "page.json").read_text())["evaluation"] is None


def test_table_and_config_are_uploaded_once_and_healed_by_the_next_submit(store: Store, tmp_path: Path) -> None:
    resolved = config.load(small.lay_out(tmp_path), (), {})
    address = cli.upload(resolved, store)
    (raw,) = store.list("raw/")
    assert cli.upload(resolved, store) == address
    assert config.parse(store.read(address), address)["prepare"].path == raw
    assert raw == f"raw/{artifact.sha256((tmp_path / 'table.csv').read_bytes())}"
    assert artifact.verify(store) == []

    store.replace(raw, b"other")
    store.replace(address, b"other")
    assert len(artifact.verify(store)) == 2
    assert cli.upload(resolved, store) == address
    assert artifact.verify(store) == []


def test_a_generated_table_can_be_planned_as_the_command_says(tmp_path: Path) -> None:
    made = surefoot("generate", "--rows", "500", "--out", tmp_path / "data", cwd=tmp_path)
    assert made.code == 0, made.err
    command = made.out.splitlines()[-1].split()
    assert command[:2] == ["surefoot", "run"]
    planned = surefoot("plan", *[str(programs.ROOT / word) if word.startswith("configs/") else word for word in command[2:]], cwd=tmp_path)
    assert planned.code == 0, planned.err
    assert planned.out.startswith("prepare                  will run")


@pytest.mark.parametrize("words", [(), ("fly",), ("run",), ("ls", "--fast")])
def test_a_wrong_command_ends_with_2(words: tuple[str, ...]) -> None:
    ended = surefoot(*words)
    assert ended.code == 2
    assert "usage: surefoot" in ended.err


def test_submit_needs_a_store_that_the_cluster_reaches(finished: Path) -> None:
    ended = surefoot("submit", finished / "small.yaml", "--store", finished / "store")
    assert ended.code == 2
    assert "submit needs a store that the cluster reaches" in ended.err
