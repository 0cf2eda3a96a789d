"""Readers, given what a generator makes up: each case ends soon, with a result or with one line and a documented exit code.

A case is known by seed, reader and number: ``python -m tests.fuzz 1 tables 17`` does it again, with its traceback.
"""

import datetime as dt
import decimal
import io
import json
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from stages.common import artifact, config, contract, log, raw, step
from stages.common.address import Addresses
from stages.common.errors import SurefootError
from stages.common.store import open_store
from stages.prepare import generate
from tests.damage import DOCUMENTS

CODES = {2, 65, 66, 75, 76, 78}
SECONDS = 10  # of the processor, for one case
GROWTH = 1 << 19  # kilobytes that one case may add to the most that the process had
LONGEST = 1500  # letters of a line

WORDS = (
    *("", "0", "1", "-1", "1.5", "-0.0", "1e308", "-1e-320", "1e999", "9" * 400, "0x1F", "1_000", "٣", "NaN", ".nan", "inf", "-Infinity"),
    *("null", "~", "true", "False", "yes", "2026-01-01", "2026-13-45T99:99", "12:30", "1970-01-01T00:00:00+25:00", "x", "x" * 300, "é"),
    *("\u202e", "a b", "'", '"', '""', "a\nb", "a,b", ";", "\t", "#", "%", "@", "`", "|", "../..", "/dev/zero", "raw/" + "0" * 64, "=1+1"),
)
YAMLS = (
    *("[]", "{}", "[1, 2]", "[2, 1]", "[0, 1, log]", "[[1]]", "[a, a]", "{a: 1}", "{a: [x, 1]}", "{a: {b: {c: 1}}}", "[null]", "{a: }"),
    *("{xgboost: {max_depth: [3, 8]}}", "{xgboost: {max_depth: [a, b]}}", "{amount: 1}", "{missed: amount, false_alarm: 1}", "!!int 1"),
    *(
        "&a 1",
        "*a",
        "? a",
        "- a",
        "|\n  a\n",
        '"\\u0000"',
        '"\\ud800"',
        "[" * 30,
        "{" * 5,
        "<<: 1",
        "[xgboost, logistic]",
        "[1e300, 2e300]",
    ),
)


# --- configs ---


def options(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """Give section, key and what somebody writes there; mostly there are such."""
    types = config.section_types()
    for _ in range(rng.choice([1, 1, 2, 4])):
        section = rng.choice([*types])
        key = rng.choice([*types[section].model_fields, *(["zebra"] if rng.random() < 0.1 else [])] or ["zebra"])
        usual = json.dumps(types[section]().model_dump(mode="json").get(key))
        yield section, key, rng.choice([usual, usual, usual, rng.choice(YAMLS), rng.choice(WORDS)])


def of_text(rng: random.Random, folder: Path) -> None:
    """Write a file with odd values, or scramble one that is shipped."""
    if rng.random() < 0.3:
        data = scrambled(rng, rng.choice(sorted(config.CONFIGS.glob("*.yaml"))).read_bytes())
    else:
        said = {section: (key, value) for section, key, value in options(rng)}
        data = "".join(f"{section}:\n  {key}: {value}\n" for section, (key, value) in said.items()).encode()
    _loaded(folder, data, [], {})


def of_sets(rng: random.Random, folder: Path) -> None:
    """Say it by ``--set``."""
    sets = [
        f"{section}.{key}={value}" if rng.random() < 0.9 else rng.choice(WORDS) + rng.choice(WORDS) for section, key, value in options(rng)
    ]
    _loaded(folder, b"", sets, {})


def of_environment(rng: random.Random, folder: Path) -> None:
    """Say it by the environment."""
    names = ("SUREFOOT__{}__{}", "SUREFOOT__{}__{}", "SUREFOOT__{}_{}", "SUREFOOT____{}{}", "SUREFOOT__{}__{}__")
    said = {rng.choice(names).format(section.upper(), key.upper()): value for section, key, value in options(rng)}
    _loaded(folder, b"", [], said)


def _loaded(folder: Path, text: bytes, sets: list[str], environment: dict[str, str]) -> None:
    """Resolve; what is taken must be written, read back, and make keys."""
    path = folder / "my.yaml"
    path.write_bytes(text)
    loaded = config.load(path, sets, environment)
    assert config.parse(loaded.dump(), "x") == loaded
    pinned = config.Config(loaded.name, loaded.sections, config.Pinned("", {}))
    for item in loaded.items("train"):
        contract.digest([loaded[section].results(item) for section in config.section_types()])
    loaded.raw()
    assert pinned.dump() != loaded.dump()


def scrambled(rng: random.Random, data: bytes) -> bytes:
    """Change bytes anyhow: flip, cut, repeat, leave out, put in."""
    made = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at, upto = sorted((rng.randrange(len(made) + 1), rng.randrange(len(made) + 1)))
        match rng.randrange(6):
            case 0 if at < len(made):
                made[at] ^= 1 << rng.randrange(8)
            case 1 if rng.random() < 0.2:
                del made[at:]
            case 2:
                made[at:at] = made[at : min(upto, at + 200)]
            case 3:
                del made[at : min(upto, at + rng.choice([1, 3, 50]))]
            case 4:
                made[at:at] = rng.choice(WORDS).encode()
            case 5:
                made[at:at] = rng.choice(
                    [b"\0", b"\xff", b"\r", b"\n", b'"', b"\xef\xbb\xbf", b"[", b"{", b": ", b"- ", b",", b"\t", b"1e99"]
                )
    return bytes(made)


# --- tables ---


def of_csv(rng: random.Random, folder: Path) -> None:
    """Write a CSV file with odd cells, columns, names and rows, sometimes scrambled."""
    table, mark = odd(rng, payments(rng)).astype("str"), rng.choice([",", ";", "\t", "|"])
    text = table.to_csv(index=rng.random() < 0.05, sep=mark, lineterminator=rng.choice(["\n", "\n", "\r\n"]), na_rep=rng.choice(["", "NA"]))
    data = scrambled(rng, text.encode()) if rng.random() < 0.3 else text.encode()
    _prepared(rng, folder, "t.csv", data, [*table], delimiter=mark if rng.random() < 0.95 else ",")


def of_parquet(rng: random.Random, folder: Path) -> None:
    """Write a Parquet file with columns of any type, sometimes scrambled."""
    table = payments(rng)
    made = pa.Table.from_pandas(table, preserve_index=rng.random() < 0.1)
    for _ in range(rng.choice([0, 1, 1, 3])):
        at, (kind, values) = rng.randrange(made.num_columns), rng.choice([*TYPES.items()])
        column = pa.array(
            [rng.choice([*values, None]) for _ in range(len(table))], pa.type_for_alias(kind) if isinstance(kind, str) else kind
        )
        made = made.set_column(at, made.column_names[at] if rng.random() < 0.8 else rng.choice([*WORDS, "_label", "amount"]), column)
    file = io.BytesIO()
    pa.parquet.write_table(made, file, row_group_size=rng.choice([1, 7, 1000]), compression=rng.choice(["none", "snappy", "zstd"]))
    data = file.getvalue()
    _prepared(rng, folder, "t.parquet", scrambled(rng, data) if rng.random() < 0.3 else data, made.column_names)


NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
TYPES: dict[Any, list[Any]] = {
    "int8": [-128, 0, 127],
    "uint64": [0, 1, 2**64 - 1],
    "int64": [-(2**63), 0, 2**63 - 1],
    "float32": [0.0, float("nan"), float("inf"), 3e38],
    "float64": [0.0, -0.0, float("nan"), -float("inf"), 1e308, 5e-324],
    "bool": [True, False],
    "string": [*WORDS],
    "large_string": ["a", "b"],
    "binary": [b"", b"\xff\0"],
    "date32": [dt.date(1, 1, 1), dt.date(9999, 12, 31)],
    "timestamp[ns]": [0, 2**62],
    "timestamp[s]": [0, 2**40, -(2**40)],
    pa.timestamp("us", "Europe/Berlin"): [NOW],
    pa.time64("us"): [dt.time(12, 30)],
    pa.duration("s"): [1, 2**40],
    pa.decimal128(38, 10): [decimal.Decimal("1.5"), decimal.Decimal("9" * 28)],
    pa.list_(pa.int8()): [[], [1, None]],
    pa.struct([("a", pa.int8())]): [{"a": 1}],
    pa.map_(pa.string(), pa.int8()): [[("a", 1)]],
    pa.null(): [],
    pa.float16(): [np.float16(1.5)],
}


def payments(rng: random.Random) -> pd.DataFrame:
    """Give a small table that could be learnt from."""
    table = generate.table(rng.choice([100, 150]), rng.randrange(5))
    table["is_fraud"] = [int(rng.random() < 0.3) for _ in range(len(table))]  # in each part of it
    return table


def odd(rng: random.Random, table: pd.DataFrame) -> pd.DataFrame:
    """Put odd values into a table's cells, columns and names, and its rows out of order."""
    table = table.astype("object")
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        column, word = rng.randrange(len(table.columns)), rng.choice(WORDS)
        rows = rng.sample(range(len(table)), min(rng.choice([1, 3, 1000]), len(table)))
        match rng.randrange(6):
            case 0 | 1:
                table.iloc[rows, column] = word
            case 2:
                table.iloc[rows, column] = [rng.choice(WORDS) for _ in rows]
            case 3:
                names = [*table]
                names[column] = rng.choice([word, "_label", "_row", "amount", "is-fraud", " time "])
                table.columns = pd.Index(names)
            case 4:
                table = table.iloc[rows]
            case 5:
                table = pd.concat([table, table.iloc[rows]])
    return table


def _prepared(rng: random.Random, folder: Path, name: str, data: bytes, columns: list[str], **more: Any) -> None:
    """Let prepare do all its work on it, with roles that mostly fit."""
    (folder / name).write_bytes(data)
    asked: dict[str, Any] = {"label": "is_fraud", "time": "time", "entity": "customer", "id": "transaction", "amount": "amount"}
    for role in asked:
        if rng.random() < 0.1:
            asked[role] = rng.choice([None, None, *columns])
    asked |= {"split": rng.choice(["time", "time", "order", "random"]), "min_per_class": 1, "time_unit": rng.choice(["s", "day", "ns"])}
    asked |= {"keys": {"k": rng.sample(columns, min(2, len(columns)))}} if rng.random() < 0.2 else {}
    asked |= {"start_days": [rng.choice(columns)]} if rng.random() < 0.1 else {}
    asked |= {"max_column_auc": 1, "max_categories": rng.choice([2, 256]), "positive": rng.choice([None, None, None, 1, "0"])}
    path = folder / "t.yaml"
    path.write_text(json.dumps({"prepare": {"source": "file", "path": name, "label_delay_days": 0, **asked, **more}}), encoding="utf-8")
    store = open_store(str(folder / "store"))
    step.run_step("prepare", {}, Addresses(step.pin(config.load(path, (), {}), store), store))


# --- records ---

RECORD = {
    "step": "prepare",
    "item": {},
    "files": {"a": {"sha256": "0" * 64, "size": 1}},
    "outputs": {"rows": 3},
    "é": [None, 1.5, True, "\n"],
}


def of_records(rng: random.Random, _folder: Path) -> None:
    """Open a sealed document whose bytes were changed: there is none."""
    data = artifact.seal("a/manifest-0", RECORD)
    given = rng.choice(DOCUMENTS) if rng.random() < 0.05 else scrambled(rng, data)
    found = artifact.opened("a/manifest-0", given)
    assert found in (None, RECORD)
    assert found is None or json.loads(given) == json.loads(data)


def of_stored_configs(rng: random.Random, folder: Path) -> None:
    """Read a config that somebody put into the store under its digest."""
    store = open_store(str(folder / "store"))
    data = changed(rng, config.load(config.CONFIGS / "base.yaml", (), {}).dump())
    store.create(key := f"config/{artifact.sha256(data)}.json", data)
    step.resolve(key, store, []).dump()


def of_listings(rng: random.Random, folder: Path) -> None:
    """Fetch by a listing of a folder's tables that somebody put into the store under its digest: nothing is written beside the folder."""
    store = open_store(str(folder / "store"))
    store.create(f"raw/{artifact.sha256(b'x')}", b"x")
    data = changed(rng, contract.dump({"files": {"a.csv": artifact.sha256(b"x"), "b/c.csv": artifact.sha256(b"x")}}))
    store.create(key := f"raw/{artifact.sha256(data)}", data)
    with tempfile.TemporaryDirectory() as empty:
        try:
            raw.fetch(store, key, Path(empty) / "raw")
        finally:
            assert {path.name for path in Path(empty).iterdir()} <= {"raw"}


def changed(rng: random.Random, data: bytes) -> bytes:
    """Change a JSON document's bytes, or put something else in place of one of its values or names."""
    if rng.random() < 0.3:
        return scrambled(rng, data)
    document = here = json.loads(data)
    while True:
        key = rng.choice([*here] if isinstance(here, dict) else [*range(len(here))])
        if isinstance(here[key], dict | list) and here[key] and rng.random() < 0.8:
            here = here[key]
            continue
        if isinstance(here, dict) and rng.random() < 0.3:
            here[rng.choice([*WORDS, "../x", "/x", "raw", "a.csv/b"])] = here.pop(key)
        else:
            here[key] = rng.choice([None, 1, -1.5, "x", [], {}, [1], {"a": 1}, True, 10**400, "../x", "", "\ud800", float("nan")])
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


# --- all of them ---

READERS: dict[str, Callable[[random.Random, Path], None]] = {
    "config files": of_text,
    "--set": of_sets,
    "environments": of_environment,
    "CSV tables": of_csv,
    "Parquet tables": of_parquet,
    "records": of_records,
    "stored configs": of_stored_configs,
    "listings": of_listings,
}


class Slow(BaseException):
    """A case took too long."""


def fuzz(count: int, seed: int) -> list[dict[str, Any]]:
    """Give so many cases to the readers, in turn; count what was read, refused, and broke the reader."""
    found: dict[str, Counter[str]] = {reader: Counter() for reader in READERS}
    log.setup("CRITICAL")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            reader = [*READERS][number % len(READERS)]
            outcome = case(seed, reader, number, Path(folder))
            found[reader].update([outcome])
            if outcome == "broken":
                sys.stderr.write(f"broken: python -m tests.fuzz {seed} {reader!r} {number}\n")
    return [
        {
            "fault": f"fuzz: {reader}",
            "how": "generated by a seed: odd values in their places, or bytes changed anyhow",
            "runs": counts.total(),
            "lost": counts["broken"],
            "verdict": f"{counts['read']} read, {counts['refused']} refused with one line",
        }
        for reader, counts in found.items()
    ]


def case(seed: int, reader: str, number: int, folder: Path) -> str:
    """Do one case; say how it ended."""

    def slow(*_: Any) -> None:
        raise Slow

    before, handler = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, signal.signal(signal.SIGPROF, slow)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        READERS[reader](random.Random(f"{seed}/{reader}/{number}"), folder)
        outcome = "read"
    except SurefootError as error:
        is_told = error.code in CODES and "\n" not in str(error) and 0 < len(str(error)) < LONGEST
        outcome = "refused" if is_told else "broken"
        sys.stderr.write("" if is_told else f"{error.code}: {error}\n")
    except (Exception, Slow):  # noqa: BLE001 - that is what is looked for
        sys.stderr.write(traceback.format_exc())
        outcome = "broken"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
    if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > GROWTH:
        sys.stderr.write(f"took {grown / 1e6:.1f} GB of memory\n")
        return "broken"
    return outcome


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        sys.stdout.write(case(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(place)) + "\n")
