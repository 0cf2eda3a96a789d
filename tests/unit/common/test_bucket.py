"""Raw tables in a bucket: looked at by each plan, copied into the store once, and read from there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.common import artifact, config, log, raw, s3, step
from stages.common import store as store_module
from stages.common.errors import ConfigError, DataError, MissingInput, NotNow
from stages.common.store import Store, open_store
from stages.plan import plan as plans
from tests import programs, servers, small
from tests.toy.fixtures import toy
from tests.toy.pipeline import Pipeline
from workflows import cli

__all__ = ["toy"]

ROWS = b"x,y\n1,0\n"


class Objects:
    """Somebody's bucket."""

    def __init__(self, server: servers.S3, folder: Path) -> None:
        self.client = server.client()
        self.name, self.folder = server.bucket(), folder

    def put(self, name: str, data: bytes = ROWS) -> str:
        """Put an object; give its place."""
        (self.folder / "object").write_bytes(data)
        self.client.fput_object(self.name, name, str(self.folder / "object"))
        return f"s3://{self.name}/{name}"


@pytest.fixture
def objects(minio: str, s3_server: servers.S3, tmp_path: Path) -> Objects:
    assert minio
    return Objects(s3_server, tmp_path)


@pytest.fixture
def pipeline(toy: Pipeline, store: Store) -> Pipeline:
    """Give the toy over a folder, and over S3."""
    return Pipeline(toy.config, store)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Give what is logged of copies."""
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(log, "info", lambda event, **fields: lines.append(fields) if event == "raw.copied" else None)
    return lines


def given(place: str, *more: str) -> tuple[str, ...]:
    return ("prepare.source=file", f"prepare.path={place}", "prepare.label=y", "prepare.split=order", *more)


def pinned(pipeline: Pipeline, place: str, *more: str) -> config.Config:
    return pipeline.addresses(*given(place, *more)).config


def test_what_is_looked_at_is_not_copied(pipeline: Pipeline, objects: Objects) -> None:
    """Status, plan and report know a copy again; what changed since stands for bytes that no run has seen."""
    one, folder = objects.put("daily/day=1/a.csv"), f"s3://{objects.name}/daily/"

    def looked(place: str) -> str:
        resolved = config.load(pipeline.config, given(place), {})
        pinned = step.pin(resolved, pipeline.store, copy=False)
        assert pinned.pinned
        assert pinned["prepare"].path == f"raw/{pinned.pinned.raw['table']}"
        return f"raw/{pinned.pinned.raw['table']}"

    for place in (one, folder):
        there = pipeline.store.list("raw/")
        unseen = looked(place)
        assert unseen == looked(place)
        assert pipeline.store.list("raw/") == there
        copied = pinned(pipeline, place)["prepare"].path
        assert looked(place) == copied != unseen
        objects.put("daily/day=1/a.csv", b"x,y\n2,1\n" + place.encode())
        there = pipeline.store.list("raw/")
        assert looked(place) not in {copied, unseen}
        assert pipeline.store.list("raw/") == there


@pytest.mark.parametrize("name", ["daily/a.csv", "daily/a.parquet", "daily/"])
def test_a_table_that_does_not_fit_into_memory_is_refused_before_it_is_copied(
    pipeline: Pipeline, objects: Objects, postgres: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By its size in the bucket, or where it was submitted to: 25 times as much for Parquet, 4 times for CSV and for what has no name."""
    monkeypatch.setenv("SUREFOOT_STUDY", postgres)
    size, kept = 27_000, pipeline.store.list("raw/")
    place = f"s3://{objects.name}/{name}"
    for part in range(3) if name.endswith("/") else [""]:
        objects.put(f"{name}{part}{'.csv' if part else ''}", ROWS * (size // len(ROWS) // (3 if name.endswith("/") else 1)))

    def plan(place: str, limit: float) -> plans.Plan:
        return plans.plan(config.load(pipeline.config, given(place, f"plan.memory_limit_gb={limit:.9f}"), {}), pipeline.store)

    need = size * (25 if name.endswith(".parquet") else 4) / 1e9
    with pytest.raises(ConfigError, match=rf"{name}: training needs about 0\.0 GB of memory, plan\.memory_limit_gb allows"):
        plan(place, need * 0.99)
    assert pipeline.store.list("raw/") == kept
    copied = plan(place, need * 1.01).addresses.config["prepare"].path
    assert copied.startswith("raw/")
    assert plan(copied, need * 1.01)
    with pytest.raises(ConfigError, match=rf"{copied}: training needs about 0\.0 GB of memory, plan\.memory_limit_gb allows"):
        plan(copied, size * 4 * 0.99 / 1e9)


def test_a_folder_that_holds_the_store_is_refused(toy: Pipeline, objects: Objects, tmp_path: Path) -> None:
    """Each run would find more in it."""
    objects.put("table.csv")
    within = Pipeline(toy.config, open_store(f"s3://{objects.name}/some/store"))
    for place in (f"s3://{objects.name}/", f"s3://{objects.name}/some/"):
        with pytest.raises(ConfigError, match=r"/: the store is in that folder \(s3://.*/some/store\)\. Set prepare\.path to"):
            pinned(within, place)
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "table.csv").write_bytes(ROWS)
    within = Pipeline(toy.config, open_store(str(tmp_path / "all" / "store")))
    with pytest.raises(ConfigError, match=r"all: the store is in that folder \(.*/all/store\)\. Set prepare\.path to"):
        pinned(within, str(tmp_path / "all"))


def test_a_run_reads_a_copy_of_what_the_bucket_held(pipeline: Pipeline, objects: Objects, tmp_path: Path) -> None:
    """What is put there meanwhile is the next run's."""
    place = objects.put("some day/table=1.csv")
    addresses = pipeline.addresses(*given(place))
    objects.put("some day/table=1.csv", b"x,y\n1,1\n")

    raw = f"raw/{artifact.sha256(ROWS)}"
    assert addresses.config["prepare"].path == raw
    (tmp_path / "run").mkdir()
    run = step.Run("toy-a", {}, addresses, tmp_path / "run", {}, "")
    assert run.source("table").read_bytes() == ROWS
    assert pinned(pipeline, place)["prepare"].path != raw


def test_a_table_is_the_same_in_a_bucket_and_in_a_file(pipeline: Pipeline, objects: Objects, tmp_path: Path) -> None:
    place = objects.put("table.csv")
    (tmp_path / "table.csv").write_bytes(ROWS)
    assert [outputs["state"] for outputs in pipeline.do_all(*given(place))] == ["made"] * 3
    assert [outputs["state"] for outputs in pipeline.do_all(*given(str(tmp_path / "table.csv")))] == ["done"] * 3


def test_what_did_not_change_is_not_read_again(pipeline: Pipeline, objects: Objects, copies: list[dict[str, Any]]) -> None:
    place = objects.put("table.csv")
    first = pinned(pipeline, place)
    assert pinned(pipeline, place) == first
    assert copies == [{"path": place, "to": f"raw/{artifact.sha256(ROWS)}"}]
    objects.put("table.csv", b"x,y\n1,1\n")
    assert pinned(pipeline, place) != first
    assert len(copies) == 2


@pytest.mark.parametrize("name", ["daily/1.csv", "table.csv"])
def test_a_copy_that_is_lost_or_damaged_is_made_again(pipeline: Pipeline, objects: Objects, tmp_path: Path, name: str) -> None:
    """It is found when it is read, and the next plan copies it anew."""
    objects.put(name)
    place = f"s3://{objects.name}/" + ("daily/" if "/" in name else name)
    addresses = pipeline.addresses(*given(place))
    pipeline.store.replace(f"raw/{artifact.sha256(ROWS)}", ROWS.replace(b"0", b"1"))
    (tmp_path / "run").mkdir()
    with pytest.raises(MissingInput, match="its bytes are damaged"):
        step.Run("toy-a", {}, addresses, tmp_path / "run", {}, "").source("table")

    assert pipeline.addresses(*given(place)).config == addresses.config
    assert artifact.verify(pipeline.store) == []
    if local := pipeline.store.local(f"raw/{artifact.sha256(ROWS)}"):
        local.unlink()
        pipeline.addresses(*given(place))
        assert local.read_bytes() == ROWS


def test_a_folder_is_one_table_as_a_folder_of_this_machine_is(pipeline: Pipeline, objects: Objects, tmp_path: Path) -> None:
    for name in ("day=1/a.csv", "day=2/a.csv", "_SUCCESS", "day=2/.part", "day=3/"):
        objects.put(f"daily/{name}", b"" if name.endswith("/") else ROWS)
        if not name.endswith("/"):
            (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "here" / name).write_bytes(ROWS)

    here = pinned(pipeline, str(tmp_path / "here"))
    there = pipeline.addresses(*given(f"s3://{objects.name}/daily/"))
    assert here.pinned
    assert there.config.pinned
    assert there.config.pinned.raw == here.pinned.raw
    (tmp_path / "run").mkdir()
    source = step.Run("toy-a", {}, there, tmp_path / "run", {}, "").source("table")
    assert [path.relative_to(source).as_posix() for path in raw.shown(source)] == ["day=1/a.csv", "day=2/a.csv"]


def test_a_second_table_may_lack_in_a_bucket_too(pipeline: Pipeline, objects: Objects) -> None:
    place = objects.put("table.csv")
    found = pinned(pipeline, place, f"prepare.join_path=s3://{objects.name}/no.csv", "prepare.id=x")
    assert found.raw().keys() == {"table"}
    assert found["prepare"].join_path is None


def test_all_that_names_a_file_may_name_an_object(pipeline: Pipeline, objects: Objects) -> None:
    place = objects.put("table.csv")
    options = ("prepare.join_path", "prepare.features_file", "evaluate.outside_scores")
    found = pinned(pipeline, place, *(f"{option}={place}" for option in options), "prepare.id=x")
    assert found.pinned
    assert found.pinned.raw == dict.fromkeys(("table", "joined", "features", "outside"), artifact.sha256(ROWS))


def test_a_submit_leaves_a_bucket_to_the_cluster(pipeline: Pipeline, objects: Objects) -> None:
    place = objects.put("table.csv")
    loaded = config.load(pipeline.config, given(place, f"prepare.join_path={place}", "prepare.id=x"), {})
    address = cli.upload(loaded, pipeline.store)
    assert step.resolve(address, pipeline.store, []) == loaded
    assert pipeline.store.list("raw/") == []


# --- refusals ---


NO_OBJECT = "the table is not there. Set prepare.path to an object, or to a folder with a slash at its end."
NO_PLACE = "no place of a bucket. Set prepare.path to s3://bucket/name, or to s3://bucket/folder/ with a slash."


@pytest.mark.parametrize(
    ("place", "error", "line"),
    [
        ("s3://{b}/no.csv", MissingInput, NO_OBJECT),
        ("s3://{b}/daily", MissingInput, NO_OBJECT),
        ("s3://none-such/x", MissingInput, NO_OBJECT),
        ("s3://{b}/none/", MissingInput, "the folder holds no file. Set prepare.path to a table, or to a folder of tables."),
        ("s3://{b}", ConfigError, NO_PLACE),
        ("s3://{b}/../x", ConfigError, NO_PLACE),
        ("s3://{b}/a//x", ConfigError, NO_PLACE),
        ("s3://B/x", ConfigError, None),
        ("s3:///x", ConfigError, None),
        ("s3://none-such/x/", ConfigError, None),
        ("s3://{b}/" + "x" * 2000, ConfigError, None),
    ],
    ids=str,
)
def test_a_place_that_cannot_be_read_is_told_in_one_line(
    toy: Pipeline, objects: Objects, place: str, error: type[Exception], line: str | None
) -> None:
    objects.put("daily/1.csv")
    place = place.format(b=objects.name)
    with pytest.raises(error) as raised:
        pinned(toy, place)
    assert line is None or str(raised.value) == f"{place}: {line}"
    assert "\n" not in str(raised.value)


def test_a_name_that_no_file_has_is_refused(toy: Pipeline, objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS keeps such names; MinIO does not."""
    place = f"s3://{objects.name}/odd/"
    for names in (["a//b"], ["a", "a/b"], ["x" * 300]):
        seen = {f"odd/{name}": s3.Seen("tag", 1, 1) for name in names}
        monkeypatch.setattr(s3.Bucket, "under", lambda *_, seen=seen: seen)
        with pytest.raises(DataError, match=rf"^{place}: '{names[0]}' can be no file of a folder\. Rename it\.$"):
            pinned(toy, place)


def test_an_object_that_changes_while_it_is_copied_is_not_taken(toy: Pipeline, objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    place, download = objects.put("table.csv"), s3.Bucket.download

    def changing(act: Callable[[], Any]) -> Any:
        def downloads(*words: Any) -> str:
            found = download(*words)
            act()
            return found

        return downloads

    for act in (lambda: objects.put("table.csv", b"other"), lambda: objects.client.remove_object(objects.name, "table.csv")):
        monkeypatch.setattr(s3.Bucket, "download", changing(act))
        with pytest.raises(NotNow, match=r"table\.csv: it changed while it was copied\. Run the same command again\.$"):
            pinned(toy, place)
    assert toy.store.list("raw/") == []
    objects.put("table.csv")

    def gone(*words: Any) -> str:
        objects.client.remove_object(objects.name, "table.csv")
        return download(*words)

    monkeypatch.setattr(s3.Bucket, "download", gone)
    with pytest.raises(NotNow, match="it changed while it was copied"):
        pinned(toy, place)


def test_a_server_that_is_away_is_not_now(toy: Pipeline, objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    place = objects.put("table.csv")
    monkeypatch.setattr(store_module, "PAUSES", (0.01,))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(NotNow, match=rf"^head {place}: gave up after 2 tries .*refused"):
        pinned(toy, place)


def test_a_stage_reads_a_bucket_and_says_where_it_may_not(objects: Objects, s3_server: servers.S3, tmp_path: Path) -> None:
    """A folder as the store: only the table is in a bucket."""
    path = small.lay_out(tmp_path)
    place = objects.put("table.csv", (tmp_path / "table.csv").read_bytes())
    environment = s3_server.environment

    def ended(place: str, **more: str) -> tuple[int, str]:
        words = ("--config", path, "--store", tmp_path / "store", "--set", f"prepare.path={place}")
        done = programs.python("-m", "stages.prepare", *words, more={**environment, **more})
        return done.code, done.answer["state"] if done.code == 0 else done.events[-1]["message"]

    assert ended(place) == (0, "made")
    code, line = ended(place, AWS_SECRET_ACCESS_KEY="another one")
    assert (code, "what they may do in bucket" in line) == (78, True), line


def test_without_credentials_it_says_so(toy: Pipeline, objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    place = objects.put("table.csv")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match=rf"^s3://{objects.name}: AWS_SECRET_ACCESS_KEY must be set in the environment\.$"):
        pinned(toy, place)
