"""Readers of configs, tables and records, given what a generator makes up: a result, or one line and a documented exit code."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.common import artifact, config, raw, step
from stages.common.errors import ConfigError, DataError
from stages.common.store import Store
from tests import fuzz


@pytest.mark.filterwarnings("ignore")  # of libraries, about what no person would write
def test_160_made_up_cases_end_with_a_result_or_one_line() -> None:
    found = fuzz.fuzz(160, 1)
    assert sum(reader["runs"] for reader in found) == 160
    assert [reader for reader in found if reader["lost"]] == []


def test_a_case_is_known_by_its_number(tmp_path: Path) -> None:
    made: list[bytes] = []
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        assert fuzz.case(1, "config files", 8, folder) in ("read", "refused")
        made.append((folder / "my.yaml").read_bytes())
    assert made[0] == made[1]
    assert len(made[0]) > 5


def test_what_breaks_a_reader_or_never_ends_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: Any) -> None:
        while True:
            pass

    def wordy(*_: Any) -> None:
        raise ConfigError("two\nlines")

    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    for reader in (endless, wordy, lambda *_: 1 / 0):
        monkeypatch.setitem(fuzz.READERS, "x", reader)
        assert fuzz.case(1, "x", 0, tmp_path) == "broken"


# --- what it found ---


def document(**changes: Any) -> bytes:
    whole = json.loads(config.load(config.CONFIGS / "base.yaml", (), {}).dump())
    return json.dumps({name: value for name, value in (whole | changes).items() if value is not ...}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        document(name=...),
        document(name="\ud800"),
        document(pinned="x"),
        document(pinned={"a": 1}),
        document(pinned={"raw": {"table": 1}}),
        document(pinned={"champion": {"generation": float("nan")}}),
        document(sections=[]),
        document(sections={}),
        document(sections={"train": {}}),
    ],
    ids=lambda data: repr(data[:40]),
)
def test_a_stored_config_that_nobody_submitted_is_refused(store: Store, data: bytes) -> None:
    """Its digest is right: somebody else, or another version, wrote it."""
    store.create(key := f"config/{artifact.sha256(data)}.json", data)
    with pytest.raises(
        ConfigError, match=r"^config/[0-9a-f]{64}\.json: (no config that was submitted or planned|section .* is missing or unknown)"
    ):
        step.resolve(key, store, [])


@pytest.mark.parametrize("data", [raw.LISTING, raw.LISTING + b'"a": 1}}', raw.LISTING + b'"a": "x"}}', b'{"files":{' * 30_000])
def test_json_that_begins_like_a_listing_is_left_to_prepare(store: Store, tmp_path: Path, data: bytes) -> None:
    """It is refused there, as JSON."""
    store.create(key := f"raw/{artifact.sha256(data)}", data)
    assert raw.fetch(store, key, tmp_path / "raw") == key.removeprefix("raw/")
    assert (tmp_path / "raw").read_bytes() == data


@pytest.mark.parametrize(
    "names", [["../x"], ["/x"], [""], ["a.csv", "a.csv/b"], ["a/b", "a"], ["x" * 300], ["a/" * 600], ["a\0b"], ["\ud800"]]
)
def test_a_listing_that_is_no_folders_is_left_to_prepare(store: Store, tmp_path: Path, names: list[str]) -> None:
    """Nothing is written beside the one file."""
    store.create(f"raw/{artifact.sha256(b'x')}", b"x")
    data = json.dumps({"files": dict.fromkeys(names, artifact.sha256(b"x"))}, separators=(",", ":")).encode()
    store.create(key := f"raw/{artifact.sha256(data)}", data)
    (tmp_path / "empty").mkdir()
    assert raw.fetch(store, key, tmp_path / "empty" / "raw") == key.removeprefix("raw/")
    assert [path.read_bytes() for path in (tmp_path / "empty").iterdir()] == [data]
    assert not (tmp_path / "x").exists()


def test_a_folder_in_which_a_name_is_no_text_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "daily").mkdir()
    (tmp_path / "daily" / "a\udcff.csv").write_text("x\n")
    with pytest.raises(DataError, match=r"daily: the name of 'a\\udcff\.csv' is no UTF-8\. Rename it\.$"):
        raw.digest(store, str(tmp_path / "daily"))
