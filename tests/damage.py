"""Damage by the thousand: one stored object at a time gets other bytes, and is read as the product reads it."""

import os
import pickle
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stages import families
from stages.common import artifact, config, contract, log, raw, registry, step
from stages.common.address import Addresses
from stages.common.artifact import Artifact, Manifest
from stages.common.checkpoint import Checkpoint
from stages.common.errors import SurefootError
from stages.common.step import Run
from stages.common.store import Store, open_store
from stages.evaluate import report as reports
from stages.plan import plan as plans
from stages.search import study as studies
from stages.train import train
from tests import small
from tests.unit.families.test_families import PARAMS, table
from workflows import cli

HOW = "one bit, a cut, more bytes, none; another object, a YAML bomb, a pickle, a hostile document or noise in its place"
LOST = ("believed", "broken", "unsaid")  # other bytes were taken for whole; broke their reader; verify says that all is well
BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%b]\n" % (b, b, b", ".join([b"*%c" % a] * 9)) for a, b in zip(b"abcdefgh", b"bcdefghi", strict=True)
)
DOCUMENTS = (
    b"[" * 100_000,
    b'{"seal": ' + b"9" * 5000 + b"}",
    b'{"a": NaN, "seal": "x"}',
    b'{"a": "\\ud800", "seal": "x"}',
    b"[]",
    b"null\n",
)


@dataclass(frozen=True)
class Object:
    """A stored object and how the product reads it: the first right answer is that of the whole object; a refusal is always right."""

    kind: str
    key: str
    read: Callable[[], Any]
    right: tuple[Any, ...]
    is_named: bool = True  # by surefoot verify, where it is damaged


class Harm:
    """What a pickle does to whoever loads it."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def damage(count: int, seed: int) -> list[dict[str, Any]]:
    """Damage so many times an object of a finished run; count by kind what was refused, believed, and broke the reader."""
    rng = random.Random(seed)
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objects = [*finished(folder)]
        store = open_store(str(folder / "store"))
        whole = {key: store.read(key) for key in keys(store)}
        by_kind: dict[str, list[Object]] = {}
        for one in objects:
            by_kind.setdefault(one.kind, []).append(one)
            assert tried(store, one, whole[one.key], whole) == "unharmed", one
        assert named(store) == []
        log.setup("CRITICAL")
        while sum(counts["runs"] for counts in found.values()) < count:
            one = rng.choice(by_kind[rng.choice([*by_kind])])
            near = by_kind[one.kind] if rng.random() < 0.7 else objects
            how, data = damaged(rng, whole[one.key], [whole[other.key] for other in near], folder / "harm")
            if data == whole[one.key]:
                continue
            outcome = tried(store, one, data, whole)
            found.setdefault(one.kind, Counter()).update([outcome, "runs"])
            if outcome in LOST:
                sys.stderr.write(f"{outcome}: {one.kind} {one.key}: {how}\n")
        assert not (folder / "harm").exists(), "a pickle was loaded"
    return [
        {
            "fault": f"damage: {kind}",
            "how": HOW,
            "runs": counts["runs"],
            "lost": sum(counts[outcome] for outcome in LOST),
            "verdict": ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("refused", "unharmed", *LOST) if counts[outcome]),
        }
        for kind, counts in sorted(found.items())
    ]


def damaged(rng: random.Random, data: bytes, others: list[bytes], harm: Path) -> tuple[str, bytes]:
    """Give other bytes in place of an object's, and what they are."""
    at = rng.randrange(len(data) or 1)
    ways: dict[str, Callable[[], bytes]] = {
        "flipped": lambda: data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else b"\1",
        "cut": lambda: data[:at],
        "extended": lambda: data * rng.randint(1, 2) + rng.randbytes(rng.randint(1, 9)),
        "emptied": lambda: b"",
        "exchanged": lambda: rng.choice(others),
        "bomb": lambda: BOMB,
        "pickle": lambda: pickle.dumps(Harm(harm)),
        "document": lambda: rng.choice(DOCUMENTS),
        "noise": lambda: rng.randbytes(rng.choice([1, 64, len(data)])),
    }
    how = rng.choice([*ways, "flipped", "exchanged"])
    return how, ways[how]()


def tried(store: Store, one: Object, data: bytes, whole: dict[str, bytes]) -> str:
    """Put bytes in an object's place, read them, ask verify, and put all back as it was; say what came of it."""
    put(store, one.key, data)
    try:
        try:
            answer = one.read()
        except SurefootError as error:
            assert "\n" not in str(error), error  # noqa: PT017
            answer = error
        clean(store, whole)  # else verify has nothing left to find
        lines = named(store) if one.is_named else []
    except Exception:  # noqa: BLE001 - that is what is looked for
        sys.stderr.write(traceback.format_exc())
        return "broken"
    finally:
        clean(store, whole)
        put(store, one.key, whole[one.key])
    if not isinstance(answer, SurefootError) and answer == one.right[0]:
        return "unharmed"
    if not isinstance(answer, SurefootError) and answer not in one.right:
        return "believed"
    return "refused" if not one.is_named or any(one.key in line for line in lines) else "unsaid"


def put(store: Store, key: str, data: bytes) -> None:
    """Write over an object, as rot or a careless hand does."""
    path = store.local(key)
    assert path
    path.write_bytes(data)


def clean(store: Store, whole: dict[str, bytes]) -> None:
    """Take away what was written meanwhile, such as voids."""
    for key in keys(store):
        if key not in whole and (path := store.local(key)):
            path.unlink()


def keys(store: Store) -> list[str]:
    """List what lies in a store, but the database, whose bytes are its own affair."""
    return [key for key in store.list("") if not key.startswith("study.db")]


def named(store: Store) -> list[str]:
    """Give what ``surefoot verify`` says."""
    return [*artifact.verify(store), *registry.verify(store)]


# --- one run, with at least two objects of each kind ---


def finished(folder: Path) -> Iterator[Object]:
    """Bring the small pipeline to its end, with what a run can leave besides; give its objects."""
    path, store = small.lay_out(folder), open_store(str(folder / "store"))
    resolved = config.load(path, (), {})
    plans.write(plans.plan(resolved, store, "first"))
    made = plans.plan(resolved, store, "second")
    plans.write(made)
    planned = made.addresses
    for name in contract.STEPS:
        small.do(name, planned)
    for name in ("evaluate", "validate"):
        manifest = planned.find(name, {})
        assert manifest
        artifact.void(store, manifest, "for the test")
        small.do(name, planned)
    for status in ("Failed", "Succeeded"):
        reports.close(planned, status)
    live = registry.live(store)
    assert live
    for number in (2, 3):
        registry.add(store, {**live, "generation": number, "version": f"{number:012d}"})
    yield Object("the store's marker", "store.json", lambda: open_store(store.address).address, (store.address,), is_named=False)
    yield from artifacts(store, planned, folder)
    yield from records(store, planned, folder)
    yield from of_runs(store, resolved)
    yield from submitted(store, folder)
    yield from scratch(store, folder)


def _blob(store: Store, manifest: Manifest, folder: Path, name: str) -> bytes:
    return Artifact(store, manifest, folder).path(name).read_bytes()


def artifacts(store: Store, planned: Addresses, folder: Path) -> Iterator[Object]:
    """Give blobs, manifests, voids and index entries, which ``Addresses.find`` goes by."""
    for name, stage in contract.STEPS.items():
        item = {"family": "xgboost"} if stage.item else {}
        if stage.effect_of:
            continue
        manifest = planned.find(name, item)
        assert manifest

        def find(name: str = name, item: dict[str, str] = item) -> Any:
            planned.forget()
            there = planned.find(name, item)
            return there and there.document

        yield Object("manifest", manifest.key, find, (manifest.document, None))
        yield Object(
            "index entry", f"index/{planned.plan_key(name, item)}/{manifest.document['address']}", find, (manifest.document,), False
        )
        for void in [key for key in store.list(f"{stage.folder}/") if "void-" in key]:
            yield Object("void", void, find, (manifest.document,), False)
        for file, told in manifest.files.items():
            key = f"blobs/{told['sha256']}"
            yield Object("blob", key, partial(_blob, store, manifest, folder, file), (store.read(key),))


def records(store: Store, planned: Addresses, folder: Path) -> Iterator[Object]:
    """Give the search's records, by which a lost database is made again, the models that they name, and what it tried first."""
    warm = config.load(folder / "small.yaml", ("search.warm_start=true",), {})
    live = registry._settings(store)
    for key in store.list("search/first/"):
        yield Object("search's beginning", key, lambda: registry.first(Addresses(step.pin(warm, store), store)), ({}, live))
    (folder / "search").mkdir()
    item = {"family": "xgboost"}
    run = Run("search-work", item, planned, folder / "search", planned.found("search-work", item), "")
    slots = studies.load(planned.config["search"], run)
    for slot, key in enumerate(store.list(studies.records(slots.study))):

        def known(slot: int = slot) -> Any:
            there = studies.known(planned.config["search"], run, slots, slot)
            return there and there[0]

        record = known()
        yield Object("trial record", key, known, (record, None))
        model = record["model"]["sha256"]
        yield Object("trial's model", f"blobs/{model}", partial(artifact.holds, store, f"blobs/{model}", model), (True, False))


def of_runs(store: Store, resolved: config.Config) -> Iterator[Object]:
    """Give the history of production, and the records of runs."""
    for key in store.list(registry.FOLDER):
        now = registry.live(store), registry.history(store)
        yield Object("generation", key, lambda: (registry.live(store), registry.history(store)), (now,))
    first, second = [key for key in store.list("runs/") if key.endswith("record.json")]
    last = plans.last_record(store, resolved.name)
    earlier = artifact.unsealed(store, first)
    yield Object("run's record", first, lambda: plans.last_record(store, resolved.name), (last,))
    yield Object("run's record", second, lambda: plans.last_record(store, resolved.name), (last, earlier))
    closed = sorted(store.list(f"runs/{last['run']}/closed"), key=len)
    ends = [artifact.unsealed(store, key) for key in closed]
    for key in closed:
        right = tuple(reversed(ends)) if key == closed[-1] else (ends[-1],)
        yield Object("run's end", key, lambda: reports.closed(store, last["run"]), right)


def submitted(store: Store, folder: Path) -> Iterator[Object]:
    """Give what ``surefoot submit`` uploads: configs, a table, and a folder of tables with its listing."""
    (folder / "daily" / "day=1").mkdir(parents=True)
    (folder / "daily" / "day=1" / "part.csv").write_bytes((folder / "table.csv").read_bytes()[:5000])
    (folder / "daily" / "more.csv").write_bytes((folder / "table.csv").read_bytes()[:3000])
    for place in ("table.csv", "daily"):
        before = {*store.list("raw/")}
        key = cli.upload(config.load(folder / "small.yaml", [f"prepare.path={folder / place}"], {}), store)
        whole = step.resolve(key, store, [])
        yield Object("resolved config", key, partial(step.resolve, key, store, []), (whole,))
        planned = Addresses(step.pin(whole, store), store)
        for key in sorted({*store.list("raw/")} - before):
            yield Object("submitted table", key, partial(_table, planned), (_table(planned),))


def _table(planned: Addresses) -> list[bytes]:
    with tempfile.TemporaryDirectory() as empty:
        path = Run("prepare", {}, planned, Path(empty), {}, "").source("table")
        return [one.read_bytes() for one in (sorted(path.rglob("*.csv")) if path.is_dir() else [path])]


def scratch(store: Store, folder: Path) -> Iterator[Object]:
    """Give what only saves work: checkpoints of fits, the rung of a fit that lacked memory, remembered digests of raw files."""
    options: dict[str, Any] = {"rounds": 40, "early_stopping_rounds": 40, "metric": "auc", "threads": 1}
    for seed, name in enumerate(("fits/one", "fits/other")):
        saved = Checkpoint(store, name, 0)
        families.fit("xgboost", PARAMS["xgboost"], table(300, 0), table(200, 1), seed=seed, checkpoint=saved, **options)
        older, newer = sorted(saved._keys(), key=store.read)
        states = tuple(store.read(key).partition(b"\n")[2] for key in (newer, older))
        for key in (newer, older):
            yield Object("checkpoint", key, partial(_load, store, name), states if key == newer else states[:1], is_named=False)
    for seed in (0, 1):
        addresses = Addresses(config.load(folder / "small.yaml", (), {}), store)
        (folder / f"train-{seed}").mkdir()
        run = Run("train", {"family": "xgboost"}, addresses, folder / f"train-{seed}", {}, str(seed) * 64)
        store.replace(key := train._place(run), artifact.seal(key, {"rung": seed + 1}))
        yield Object("rung", key, partial(train._rung, run, 0), (seed + 1, 0), is_named=False)
    for path in (folder / "table.csv", folder / "daily" / "more.csv"):
        digest = contract.file_digest(path)
        (key,) = [key for key in store.list("scratch/raw/") if digest.encode() in store.read(key)]
        yield Object("remembered digest", key, partial(raw.digest, store, str(path)), (digest,), is_named=False)


def _load(store: Store, name: str) -> bytes | None:
    return Checkpoint(store, name, 0).load()
