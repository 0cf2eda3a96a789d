"""What ``surefoot doctor`` says of real stores and databases, good and bad; and that nothing of it stays."""

import os
import sqlite3
from pathlib import Path

import pytest

from stages.common import config, store
from stages.common.store import open_store
from stages.plan import plan as plans
from tests import small
from tests.programs import surefoot
from workflows import doctor
from workflows.doctor import Finding

NOBODY = "127.0.0.1:1"


def examined(path: Path | None, address: Path | str, *sets: str) -> dict[str, Finding]:
    """Give the findings by name: of several, the last."""
    return {one.name: one for one in doctor.examine(str(path) if path else None, str(address), list(sets))}


def files(folder: Path) -> dict[str, int]:
    """Give all files and folders below one, and when they were written."""
    return {str(path): path.stat().st_mtime_ns if path.is_file() else 0 for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Begin a run: its table is prepared, and its study made."""
    folder = tmp_path_factory.mktemp("prepared")
    opened = open_store(str(folder / "store"))
    planned = plans.plan(config.load(small.lay_out(folder), (), {}), opened)
    plans.write(planned)
    for name in ("prepare", "search-create"):
        small.do(name, planned.addresses)
    return folder


def test_a_machine_on_which_all_is_well(prepared: Path) -> None:
    before, address = files(prepared), prepared / "store"
    ended = surefoot("doctor", prepared / "small.yaml", "--store", address, "--json")
    assert (ended.code, ended.answer["exit"]) == (0, 0), ended.out
    checks = [Finding(**one) for one in ended.answer["checks"]]
    names = ["config", "python", "libraries", "cores", "disk", "disk", "gpus", "store", "clock", "study", "memory", "tools"]
    assert [one.name for one in checks] == names
    assert {one.name for one in checks if one.state != "ok"} <= {"python", "tools"}
    found = {one.name: one.said for one in checks}
    assert found["store"] == f"{address} is written and read, and refuses a second write"
    assert found["study"] == f"SQLite: {address}/study.db, in WAL mode"
    assert "; xgboost needs about 0." in found["memory"]
    assert files(prepared) == before


def test_a_store_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    found = examined(None, tmp_path / "new" / "store")
    assert found["store"].state == "ok"
    assert found["study"].said.endswith("is not there yet, and is made by the first search")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("sets", "name", "code", "said"),
    [
        (["train.sed=1"], "config", 78, "unknown key train.sed; did you mean train.seed?"),
        (["prepare.path=gone.csv"], "config", 66, "gone.csv is not there"),
        (["plan.disk_space_required_gb=1000000"], "disk", 78, "GB are free in"),
    ],
)
def test_a_config_that_is_refused(tmp_path: Path, sets: list[str], name: str, code: int, said: str) -> None:
    found = examined(small.lay_out(tmp_path), tmp_path / "store", *sets)
    assert (found[name].state, found[name].code) == ("fail", code)
    assert said in found[name].said
    assert found["store"].state == "ok", "and the rest is looked at"


def test_a_table_in_a_bucket_is_looked_for(tmp_path: Path, s3_address: str) -> None:
    place = s3_address.removesuffix("/some/prefix") + "/table.csv"
    sets = f"prepare.path={place}"
    assert examined(small.lay_out(tmp_path), tmp_path / "store", sets)["config"].said.startswith(f"{place}: the table is not there.")
    open_store(place.removesuffix("/table.csv"), prove=False).create("table.csv", b"x,y")
    lacks = f"prepare.join_path={place}x"  # which may be
    assert examined(tmp_path / "small.yaml", tmp_path / "store", sets, lacks)["config"].state == "ok"


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    failed = surefoot("doctor", "--store", tmp_path / "store")
    assert failed.code == 78
    (line,) = [line for line in failed.out.splitlines() if line.startswith("fail  store      ")]
    assert line.endswith("A file stands where a folder is needed: move it away or set another store")


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_STUDY", f"postgresql://somebody@{NOBODY}/studies")
    found = examined(None, tmp_path / "store")["study"]
    assert (found.state, found.code) == ("fail", 75)
    assert f"the study database at {NOBODY}/studies does not answer" in found.said

    monkeypatch.setattr(store, "PAUSES", ())
    for name, value in (("ENDPOINT_URL", f"http://{NOBODY}"), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(f"AWS_{name}", value)
    found = examined(None, "s3://bucket/prefix")["store"]
    assert (found.state, found.code) == ("fail", 75)


def test_a_study_in_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir()
    path = tmp_path / "store" / "study.db"
    path.write_text("a text")
    assert (examined(None, tmp_path / "store")["study"].said, path.read_text()) == (f"{path} is no SQLite database", "a text")
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE one (number)")
    assert examined(None, tmp_path / "store")["study"].said == f"SQLite: {path} is not in WAL mode"
    monkeypatch.setattr(doctor, "NETWORK", (doctor._file_system(tmp_path),))
    found = examined(None, tmp_path / "store")["study"]
    assert (found.state, found.code) == ("fail", 78)
    assert f"{path} is on a network file system" in found.said


def test_s3_and_postgres(s3_address: str, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(None, s3_address)
    assert found["store"].said == f"{s3_address} is written and read, and refuses a second write"
    assert (found["study"].state, found["study"].code) == ("fail", 78), "SQLite beside S3"
    monkeypatch.setenv("SUREFOOT_STUDY", postgres)
    found = examined(None, s3_address)
    assert found["study"].state == "ok"
    assert found["study"].said.startswith("Postgres ")
    assert found["study"].said.endswith(" connections are used, 1 workers take up to 3")
    assert found["clock"].said == "the database's is ours"
    assert examined(None, s3_address, "search.workers=64")["study"].do == "Lower search.workers, or raise max_connections."
    assert open_store(s3_address, prove=False).list("") == []


@pytest.mark.parametrize(("mb", "state", "code"), [(100, "fail", 78), (280, "warn", 0)])
def test_too_little_memory_for_the_table_that_was_prepared(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, mb: int, state: str, code: int
) -> None:
    """It is as a step would say, which is refused only where no estimate is as wrong."""
    shares = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (mb * 1_000_000)
    monkeypatch.setenv("SUREFOOT_SHARES", str(shares))
    found = examined(prepared / "small.yaml", prepared / "store")["memory"]
    assert (found.state, found.code) == (state, code)
    assert found.said.startswith(f"{mb / 1000:.1f} GB are allowed by this machine, for each of {shares} workers; xgboost needs about 0.")


def test_the_clock_of_a_server_is_asked_where_the_store_is(minio: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS itself is known by its region alone."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert abs(doctor._server_skew(minio) or 99) < 5


@pytest.mark.parametrize(
    ("skew", "state", "said"),
    [(0.2, "ok", "its is ours"), (-60.0, "warn", "its is 60 s behind ours"), (901.0, "fail", "its is 901 s ahead of ours")],
)
def test_clocks(skew: float, state: str, said: str) -> None:
    (found,) = doctor._clock("its", skew)
    assert (found.state, found.said) == (state, said)
