"""Whatever fails, and whoever races: the next run ends with the same digests, and every byte is as its name says."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.common import artifact, contract, database, registry
from stages.common.errors import NotNow
from stages.common.store import Store, open_store
from tests import faults, programs, small
from tests.faults import Fault
from tests.small import finished, finished_once
from tests.toy import work
from tests.toy.fixtures import toy
from tests.toy.pipeline import Pipeline, copy, digests

__all__ = ["finished", "finished_once", "toy"]

New = Callable[[], str]


@pytest.fixture(params=["folder", "s3"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> New:
    """Give addresses of new stores: in folders, or in one bucket."""
    bucket = request.getfixturevalue("s3_address") if request.param == "s3" else ""
    return lambda: f"{bucket}/{secrets.token_hex(6)}" if bucket else str(tmp_path / secrets.token_hex(6))


# --- the toy: every call ---


def attempt(config: Path, address: str, fault: Fault) -> None:
    """Do all steps; what goes wrong must be told as something that passes."""
    try:
        with faults.at(address, fault):
            Pipeline(config, open_store(address)).do_all()
    except NotNow as error:
        assert "\n" not in str(error)  # noqa: PT017 - it may also pass


def check_all(toy: Pipeline, new: New, mode: str, numbers: Callable[[int], Any]) -> int:
    """Let calls fail, each in a store of its own; give how many."""
    whole = Pipeline(toy.config, open_store(new()))
    seen = Fault(0)
    with faults.at(whole.store.address, seen):
        whole.do_all()
    expected = digests(whole.store)
    tried = 0
    for nth in numbers(len(seen.calls) + 4):  # the store's own opening is among them
        address = new()
        Path(os.environ["TOY_CALLS"]).unlink(missing_ok=True)
        fault = Fault(nth, mode)
        attempt(toy.config, address, fault)
        again = Pipeline(toy.config, open_store(address))
        again.do_all()
        where = f"{mode}: call {nth} of {fault.calls[nth - 1 : nth]}"
        assert digests(again.store) == expected, where
        assert artifact.verify(again.store) == [], where
        calls = work.calls()
        assert sorted(set(calls)) == ["toy-a", "toy-b", "toy-c"], where
        assert len(calls) <= 4, f"{where}: a finished step was done again: {calls}"
        assert not [key for key in again.store.list("") if "void" in key], where
        tried += 1
    return tried


@pytest.mark.parametrize("mode", faults.MODES)
def test_whichever_call_fails_the_next_run_ends_with_the_same_digests(toy: Pipeline, new: New, mode: str) -> None:
    """Here some of the calls; all of them under the marker faults."""
    in_s3 = new().startswith("s3://")
    assert check_all(toy, new, mode, lambda last: range(1, last + 1, 5 if in_s3 else 7)) >= 5


@pytest.mark.faults
@pytest.mark.parametrize("mode", faults.MODES)
def test_whichever_of_all_calls_fails_the_next_run_ends_with_the_same_digests(
    toy: Pipeline, new: New, mode: str, record_property: Callable[[str, object], None]
) -> None:
    tried = check_all(toy, new, mode, lambda last: range(1, last + 1))
    record_property("injected", tried)
    sys.stderr.write(f"\n{tried} calls failed, one after the other\n")
    assert tried > 40


def test_a_request_that_fails_once_is_not_even_noticed(toy: Pipeline, s3_address: str) -> None:
    with faults.on_the_way(Fault(7)) as fault:
        Pipeline(toy.config, open_store(s3_address)).do_all()
    assert len(fault.calls) > 20
    assert work.calls() == ["toy-a", "toy-b", "toy-c"]


# --- every real stage: the first, the middle and the last call ---


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the store as it was before each step, and at the end."""
    folder = tmp_path_factory.mktemp("before")
    planned = small.addresses(small.lay_out(folder), open_store(str(folder / "store")))
    for name in contract.STEPS:
        shutil.copytree(folder / "store", folder / name)
        small.do(name, planned)
    return folder


@pytest.mark.faults
@pytest.mark.parametrize("mode", [faults.FOR_GOOD, faults.DONE])
@pytest.mark.parametrize("name", contract.STEPS)
def test_whichever_call_of_a_stage_fails_the_next_run_ends_with_the_same_digests(
    before: Path, new: New, name: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digests(open_store(str(before / "store")))

    def start() -> Store:
        """Lay out a store as it was before the step; where it is in S3, the study is in a file beside."""
        address = new()
        beside = tmp_path / secrets.token_hex(6)
        if not address.startswith("s3://"):
            shutil.copytree(before / name, address)
            return open_store(address)
        beside.mkdir()
        for file in (before / name).glob("study.db*"):  # with its write-ahead log
            shutil.copy(file, beside)
        monkeypatch.setattr(database, "url", lambda _: f"sqlite:///{beside}/study.db")
        return copy(open_store(str(before / name)), open_store(address), but=("tmp/", "study.db"))

    seen = Fault(0)
    store = start()
    planned = small.addresses(before / "small.yaml", store)
    with faults.at(store.address, seen):
        small.do(name, planned)
    for nth in sorted({1, len(seen.calls) // 2, len(seen.calls)}):
        store = start()
        planned = small.addresses(before / "small.yaml", store)
        try:
            with faults.at(store.address, Fault(nth, mode)):
                small.do(name, planned)
        except NotNow as error:
            assert "\n" not in str(error)  # noqa: PT017
        small.do(name, small.addresses(before / "small.yaml", store))
        made = digests(store)
        where = f"{name}: call {nth} of {len(seen.calls)} {mode}"
        assert set(made) <= set(expected), where
        label = contract.label(name, {"family": "xgboost"})
        if not contract.STEPS[name].effect_of:
            assert [one for one in made if one[0] == label] == [one for one in expected if one[0] == label], where
        assert artifact.verify(store) == [], where
        assert len(registry.history(store)) == (1 if name == "deploy" else 0), where


# --- races ---


def race(toy: Pipeline, address: str, pairs: int) -> None:
    """Let two processes make the same results at once, with random bytes in each artifact."""
    command = [sys.executable, "-m", "tests.toy.race", str(toy.config), address]
    racers = [
        subprocess.Popen(command, env=programs.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    contended = 0
    try:
        for pair in range(pairs):
            # Each step in turn is the one whose bytes differ.
            line = f"toy.value={pair + 10} toy.act={'abc'[pair % 3]}:file-random.bin common.checkpoint_interval_minutes={pair % 2}\n"
            for racer in racers:
                assert racer.stdin
                racer.stdin.write(line.encode())
                racer.stdin.flush()
            answers = [json.loads((racer.stdout and racer.stdout.readline()) or "[]") for racer in racers]
            for racer, answer in zip(racers, answers, strict=True):
                assert len(answer) == 3, f"pair {pair}: {racer.stderr and racer.stderr.read().decode()}"
            states = [outputs.pop("state") for answer in answers for outputs in answer]
            contended += any(states[step] == states[step + 3] == "made" for step in range(3))
            assert answers[0] == answers[1], f"pair {pair}"
    finally:
        for racer in racers:
            racer.communicate()
    assert [racer.returncode for racer in racers] == [0, 0]
    sys.stderr.write(f"\n{contended} of {pairs} pairs did the same work at once\n")
    assert contended > pairs / 4
    store = open_store(address)
    manifests = [key for key in store.list("toy/") if "manifest-" in key]
    assert len(manifests) == 3 * pairs, "one winner each"
    assert not [key for key in store.list("toy/") if "void-" in key]
    assert artifact.verify(store) == []


def test_of_two_racers_one_wins_and_both_hand_out_its_result(toy: Pipeline, new: New) -> None:
    race(toy, new(), 9)


@pytest.mark.faults
def test_of_500_pairs_of_racers_one_wins_and_both_hand_out_its_result(toy: Pipeline, new: New) -> None:
    race(toy, new(), 500)


# --- damage that the server tells of ---


def test_a_blob_of_other_bytes_is_noticed_by_its_checksum_alone(toy: Pipeline, s3_address: str) -> None:
    """S3 keeps each object's SHA-256: HEAD is enough, where a folder needs to be read."""
    there = Pipeline(toy.config, open_store(s3_address))
    there.do_all()
    before = digests(there.store)
    blob = there.blob("a")
    there.store.replace(blob, there.store.read(blob)[:-2] + b" \n")
    assert [outputs["state"] for outputs in there.do_all()] == ["made", "done", "done"]
    assert digests(there.store) == before
    assert artifact.verify(there.store) == []


# --- damage in the real pipeline: healed in the same run ---


@pytest.mark.faults
@pytest.mark.parametrize("how", ["deleted", "cut", "flipped"])
@pytest.mark.parametrize(
    ("step", "name", "reader"),
    [("prepare", "valid.parquet", "evaluate"), ("train", "judged.ubj", "evaluate"), ("evaluate", "evaluation.json", "validate")],
)
def test_a_damaged_blob_is_made_again_in_the_same_run(finished: Path, how: str, step: str, name: str, reader: str) -> None:
    """Let a reader be undone, so that the bytes are looked at."""
    store = open_store(str(finished / "store"))
    before = digests(store)
    found = {manifest.document["step"]: manifest for manifest in artifact.all_manifests(store)}
    path = store.local(f"blobs/{found[step].files[name]['sha256']}")
    assert path
    data = path.read_bytes()
    path.chmod(0o644)
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(data[:-7] if how == "cut" else data[:50] + bytes([data[50] ^ 4]) + data[51:])
    artifact.void(store, found[reader], "for the test")

    ended = programs.surefoot("run", finished / "small.yaml", "--store", finished / "store", "--json", limit=300)

    assert ended.code == 0, ended.err
    made = {row["step"].split("/")[0] for row in json.loads(ended.out)["steps"] if row["outcome"] == "made"}
    assert made == {step, reader}
    assert digests(store) == before
    assert artifact.verify(store) == []
