"""Other bytes in place of what was stored: never believed, never a traceback, and named by verify."""

import json
from pathlib import Path

import pytest

from stages.common import artifact, config, contract, raw, registry
from stages.common.address import Addresses
from stages.common.checkpoint import Checkpoint
from stages.common.errors import MissingInput
from stages.common.step import Run
from stages.common.store import open_store
from stages.train import train
from tests import damage
from tests.toy.fixtures import toy
from tests.toy.pipeline import Pipeline

__all__ = ["toy"]


@pytest.mark.faults
def test_300_damages_are_never_believed() -> None:
    found = damage.damage(300, 1)
    assert sum(kind["runs"] for kind in found) == 300
    assert len(found) == 16
    assert [kind for kind in found if kind["lost"]] == []


def test_a_sealed_document_counts_at_its_own_place_alone(toy: Pipeline) -> None:
    document = {"b": 1, "a": [None, "ü"]}
    there, elsewhere = "search/trials/x/0-1.json", "search/trials/x/1-1.json"
    data = artifact.seal(there, document)
    assert artifact.opened(there, data) == document
    assert artifact.opened(elsewhere, data) is None
    toy.store.create(elsewhere, data)
    assert artifact.unsealed(toy.store, elsewhere) is None
    assert artifact.verify(toy.store) == [f"{elsewhere} is damaged"]


def test_a_document_that_was_sealed_before_it_told_its_place_counts() -> None:
    document = {"version": "1"}
    assert artifact.opened("any", contract.dump({**document, "seal": contract.digest(document)})) == document


@pytest.mark.parametrize("data", [*damage.DOCUMENTS, damage.BOMB, b"", b"\xff", b'{"seal": null}'], ids=lambda data: repr(data[:12]))
def test_a_hostile_document_is_none(data: bytes) -> None:
    assert artifact.opened("any", data) is None


def test_another_steps_manifest_is_no_result(toy: Pipeline) -> None:
    """Its seal is whole, and it names files that are there."""
    toy.do_all()
    key, other = toy.find("a").key, toy.find("c").key
    damage.put(toy.store, key, toy.store.read(other))
    assert artifact.verify(toy.store) == [f"{key} is damaged"]
    assert [outputs["state"] for outputs in toy.do_all()] == ["made", "done", "done"]


def test_verify_names_a_trials_model(toy: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"trees")
    put = artifact.put(toy.store, tmp_path / "model")
    toy.store.create(key := "search/trials/x/0-1.json", artifact.seal(key, {"model": put}))
    assert artifact.verify(toy.store) == []
    damage.put(toy.store, blob := f"blobs/{put['sha256']}", b"tree")
    assert artifact.verify(toy.store) == [f"{key}: its model ({blob}) is lost or damaged"]


def test_an_earlier_generation_in_place_of_the_live_one_is_refused(toy: Pipeline) -> None:
    for number in (1, 2):
        registry.add(toy.store, {"generation": number, "version": str(number), "files": {}})
    damage.put(toy.store, "registry/production/00000002.json", toy.store.read("registry/production/00000001.json"))
    with pytest.raises(MissingInput, match=r"00000002\.json is damaged\. Put its bytes back from a backup"):
        registry.live(toy.store)


@pytest.mark.parametrize("left", [b"", b"\xff", b"0" * 64, None])
def test_a_remembered_digest_is_believed_of_its_own_file_alone(toy: Pipeline, tmp_path: Path, left: bytes | None) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    digests: list[str] = []
    keys: list[str] = []
    for path in (one, other):
        path.write_text(path.name)
        before = {*toy.store.list("scratch/raw/")}
        digests.append(raw.digest(toy.store, str(path)))
        keys += {*toy.store.list("scratch/raw/")} - before
    toy.store.replace(keys[0], toy.store.read(keys[1]) if left is None else left)
    assert raw.digest(toy.store, str(one)) == digests[0] == contract.file_digest(one)


def test_another_fits_checkpoint_is_not_gone_on_from(toy: Pipeline) -> None:
    for name, states in (("one", (b"1", b"2")), ("other", (b"3", b"4"))):
        saved = Checkpoint(toy.store, name, 0)
        for state in states:
            saved.save(state)
    toy.store.replace("scratch/one-1", toy.store.read("scratch/other-1"))
    assert Checkpoint(toy.store, "one", 0).load() == b"1"
    number, rest = toy.store.read("scratch/other-0").split(b" ", 1)
    toy.store.replace("scratch/other-0", number[:-1] + b"9 " + rest)
    assert Checkpoint(toy.store, "other", 0).load() == b"4", "an older state under a higher number"
    toy.store.replace("scratch/one-0", b"")
    assert Checkpoint(toy.store, "one", 0).load() is None


@pytest.mark.parametrize("left", [b"", b"x", b"3", b"9", b"[" * 10_000])
def test_a_damaged_rung_is_none(tmp_path: Path, left: bytes) -> None:
    store = open_store(str(tmp_path / "store"))
    run = Run("train", {"family": "xgboost"}, Addresses(config.load(config.CONFIGS / "base.yaml", (), {}), store), tmp_path, {}, "0" * 64)
    store.replace(train._place(run), left)
    assert train._rung(run, 1) == 1


@pytest.mark.parametrize("cut", [0, 40])
def test_a_folders_listing_is_read_after_its_digest(toy: Pipeline, tmp_path: Path, cut: int) -> None:
    listing = contract.dump({"files": {"a.csv": "0" * 64}})
    toy.store.create(key := f"raw/{artifact.sha256(listing)}", listing[: cut or None])
    if cut:
        assert raw.fetch(toy.store, key, tmp_path / "raw") == artifact.sha256(listing[:cut]) != key.removeprefix("raw/")
    else:
        with pytest.raises(MissingInput, match="the table is not there"):
            raw.fetch(toy.store, key, tmp_path / "raw")


def test_what_is_stored_says_where(toy: Pipeline) -> None:
    toy.do("a")
    manifest = toy.find("a")
    assert json.loads(toy.store.read(manifest.key))["key"] == manifest.key
    assert "key" not in manifest.document
