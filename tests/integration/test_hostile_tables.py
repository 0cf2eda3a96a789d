"""Tables as they go wrong in life: each is refused with its exit code and one line that a person can act on.

Half of them are real tables, spoilt at a place drawn by SUREFOOT_TEST_SEED (printed). What is expected was written down first.
"""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.csv
import pyarrow.parquet
import pytest

from stages.common.errors import DataError
from stages.prepare import generate
from workflows.init import guess

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
SEED = int(os.environ.get("SUREFOOT_TEST_SEED", "1"))

Spoil = Callable[[bytes, np.random.Generator], bytes]
ADULT = {"label": "income", "split": "random"}
BANK = {"label": "y", "split": "order", "drop": ["duration"]}
PAYMENTS = {"label": "is_fraud", "time": "time", "id": "transaction", "entity": "customer"}


class Hostile(NamedTuple):
    """A table, how it is spoilt, and what must be said of it."""

    table: str
    spoil: Spoil
    line: str  # a piece of the line
    options: dict[str, Any] = {}  # noqa: RUF012 - read only
    code: int = 65
    init: bool = False  # `surefoot init` says the same


# --- how tables are spoilt ------------------------------------------------------------------------


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    places = (int(place) for place in rng.integers(len(content) // 2, len(content), 99))
    return content[: next(place for place in places if content[place - 1 : place] != b"\n")]


def cut_after_a_line(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: content.index(b"\n", int(rng.integers(len(content) // 2))) + 1]


def in_a_line(change: Callable[[bytes], bytes]) -> Spoil:
    """Change one line that is not the header."""

    def spoil(content: bytes, rng: np.random.Generator) -> bytes:
        lines = content.split(b"\n")
        place = int(rng.integers(1, len(lines) - 1))
        return b"\n".join([*lines[:place], change(lines[place]), *lines[place + 1 :]])

    return spoil


def at_a_byte(byte: bytes) -> Spoil:
    def spoil(content: bytes, rng: np.random.Generator) -> bytes:
        place = int(rng.integers(1_000, len(content) - 1))
        return content[:place] + byte + content[place + 1 :]

    return spoil


def frame(change: Callable[[pd.DataFrame, int], pd.DataFrame]) -> Spoil:
    """Change the table as rows and columns, at a row."""

    def spoil(content: bytes, rng: np.random.Generator) -> bytes:
        table = pyarrow.csv.read_csv(pyarrow.BufferReader(content)).to_pandas()
        return change(table, int(rng.integers(len(table)))).to_csv(index=False).encode()

    return spoil


def at(table: pd.DataFrame, row: int, column: str, value: Any) -> pd.DataFrame:
    return table.assign(**{column: table[column].astype(object).where(np.arange(len(table)) != row, value)})


def as_parquet(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(pyarrow.BufferReader(content)), sink, write_page_checksum=True)
    return bytes(sink.getvalue())


def parquet_with_a_flipped_bit(content: bytes, rng: np.random.Generator) -> bytes:
    spoilt = bytearray(as_parquet(content))
    group = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(bytes(spoilt))).metadata.row_group(0)
    column = group.column(int(rng.integers(group.num_columns)))
    spoilt[column.data_page_offset + column.total_compressed_size // 2] ^= 1 << int(rng.integers(8))
    return bytes(spoilt)


def few_positives(content: bytes, _: np.random.Generator) -> bytes:
    """Keep eight of the positive rows."""
    lines = content.splitlines(keepends=True)
    positive = [line for line in lines if line.endswith(b">50K\n")]
    return b"".join(line for line in lines if not line.endswith(b">50K\n")) + b"".join(positive[:8])


def widened(line: bytes) -> bytes:
    return line + b",1"


def narrowed(line: bytes) -> bytes:
    return line[: line.rindex(b",")]


def unclosed(line: bytes) -> bytes:
    return line.replace(b",", b',"', 1)


def swollen(line: bytes) -> bytes:
    return re.sub(rb"[^,]+$", b"x" * 5_000_000, line)


def doubled(table: pd.DataFrame, row: int) -> pd.DataFrame:
    numbered = table.assign(call=range(len(table)))
    return pd.concat([numbered, numbered[row : row + 1]])


def renamed(old: bytes, new: bytes) -> Spoil:
    return lambda content, _: content.replace(old + b",", new + b",", 1)


NO_TABLE = {"label": "y", "split": "order"}
COUNTED = {**BANK, "expected_rows": 41_188}
HOSTILE = {
    # Real tables, spoilt at random places.
    "cut in a line": Hostile("adult", cut, "ends without a newline after", ADULT, init=True),
    "cut between lines": Hostile("bank", cut_after_a_line, "rows where prepare.expected_rows says 41188", COUNTED),
    "latin-1": Hostile("adult", at_a_byte(b"\xe9"), "is not UTF-8. Convert the file", ADULT, init=True),
    "UTF-16": Hostile("bank", lambda content, _: content.decode().encode("utf-16"), "is UTF-16, not UTF-8", BANK, init=True),
    "a NUL byte": Hostile("bank", at_a_byte(b"\0"), "has a NUL byte", BANK, init=True),
    "a field too many": Hostile("adult", in_a_line(widened), ": Expected 15 columns, got 16", ADULT, init=True),
    "a field too few": Hostile("bank", in_a_line(narrowed), ": Expected 21 columns, got 20", BANK, init=True),
    "a quote not closed": Hostile("adult", in_a_line(unclosed), "has 1 double quotes, an odd number", ADULT, init=True),
    "no label": Hostile("adult", frame(lambda t, _: t.drop(columns="income")), "prepare.label names column 'income', which is not", ADULT),
    "a row twice": Hostile("bank", frame(doubled), "'call' is not unique: 1 of 41189 rows repeat one", {**BANK, "id": "call"}),
    "one label": Hostile("adult", frame(lambda t, _: t.assign(income="<=50K")), "same in all rows: '<=50K' in 32561", ADULT, init=True),
    "three labels": Hostile("adult", frame(lambda t, row: at(t, row, "income", "?")), "'income' has 3 values, not", ADULT, init=True),
    "a label missing": Hostile("bank", frame(lambda t, row: at(t, row, "y", None)), "'y' is missing in 1 of 41188 rows", BANK, init=True),
    "infinity": Hostile("adult", frame(lambda t, row: at(t, row, "age", "inf")), "'age' has 1 infinite values", ADULT, init=True),
    "a slip": Hostile(
        "bank", frame(lambda t, row: at(t, row, "euribor3m", "-")), "'euribor3m' holds numbers, but 1 values", BANK, init=True
    ),
    "beyond float32": Hostile("adult", frame(lambda t, row: at(t, row, "age", "1e300")), "'age' has 1 numbers beyond", ADULT, init=True),
    "Parquet, a bit flipped": Hostile("adult", parquet_with_a_flipped_bit, "is a damaged Parquet file", ADULT, init=True),
    "Parquet, cut": Hostile("bank", lambda content, rng: cut(as_parquet(content), rng), "is a damaged Parquet file", BANK, init=True),
    "too few positives": Hostile("adult", few_positives, "positives in ", ADULT),
    # Others.
    "not there": Hostile("nothing", lambda *_: b"", "the table is not there. Set prepare.path in the config.", NO_TABLE, 66),
    "an empty folder": Hostile("folder", lambda *_: b"", "the folder holds no file", NO_TABLE, 66),
    "empty": Hostile("payments", lambda *_: b"", "is empty", PAYMENTS, init=True),
    "header only": Hostile("payments", lambda content, _: content[: content.index(b"\n") + 1], "not one row", PAYMENTS, init=True),
    "semicolons": Hostile("payments", lambda content, _: content.replace(b",", b";"), "holds ';'. Set prepare.delimiter", PAYMENTS),
    "a name twice": Hostile("payments", renamed(b"age", b"card"), "has 2 columns of the name 'card'", PAYMENTS, init=True),
    "pandas' index": Hostile("payments", renamed(b"transaction", b""), "column 1 has no name", PAYMENTS, init=True),
    "a reserved name": Hostile("payments", renamed(b"age", b"_row"), "column '_row' has a name that Surefoot uses", PAYMENTS),
    "binary junk": Hostile("payments", lambda _, rng: rng.bytes(10_000), "is not UTF-8", PAYMENTS, init=True),
    "gzip": Hostile("payments", lambda content, _: gzip.compress(content), "is compressed by gzip", PAYMENTS, init=True),
    "a huge field": Hostile("payments", in_a_line(swollen), "has a value of 5000000 characters", PAYMENTS, init=True),
    "no time": Hostile("payments", frame(lambda t, row: at(t, row, "time", "31/12/24")), "no times, such as '31/12/24' in", PAYMENTS),
    "one time": Hostile("payments", frame(lambda t, _: t.assign(time=t["time"].iloc[0])), "the split by time leaves", PAYMENTS),
}


@pytest.fixture(scope="session")
def payments() -> bytes:
    return generate.table(2_000, seed=0).to_csv(index=False).encode()


def spoilt(case: Hostile, folder: Path, payments: bytes) -> Path:
    print(f"SUREFOOT_TEST_SEED={SEED}")  # noqa: T201 - seen when the test fails
    path = folder / "table"
    real = DATA / {"adult": "adult.csv", "bank": "bank-marketing.csv"}.get(case.table, "")
    if case.table in {"adult", "bank"} and not real.exists():
        pytest.skip(f"{real} is not beside the checkout")
    if case.table == "folder":
        path.mkdir()
    elif case.table != "nothing":
        content = payments if case.table == "payments" else real.read_bytes()
        changed = case.spoil(content, np.random.default_rng(SEED))
        assert changed != content
        path.write_bytes(changed)
    return path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_table_is_refused(name: str, tmp_path: Path, payments: bytes) -> None:
    case = HOSTILE[name]
    path, temporary = spoilt(case, tmp_path, payments), tmp_path / "tmp"
    temporary.mkdir()
    config, store = tmp_path / "config.yaml", tmp_path / "store"
    config.write_text(json.dumps({"prepare": {"source": "file", "path": str(path), **case.options}}))

    before = os.times()
    command = [sys.executable, "-m", "stages.prepare", "--config", str(config), "--store", str(store)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(temporary)}, capture_output=True, text=True, check=False)
    after = os.times()

    lines = [json.loads(line) for line in done.stderr.splitlines()]  # a traceback is no JSON
    errors = [line["message"] for line in lines if line["level"] not in {"info", "debug"}]
    assert done.returncode == case.code, done.stderr
    assert len(errors) == 1, done.stderr
    assert case.line in errors[0]
    assert errors[0].startswith(str(path))
    assert "\n" not in errors[0]
    assert done.stdout == ""
    assert {name for name in files(store) if not name.startswith("scratch/raw/")} <= {"store.json"}
    assert files(temporary) == set()
    # Of the processor: what the clock says depends on what else this machine does.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 5


@pytest.mark.parametrize("name", [name for name, case in HOSTILE.items() if case.init])
def test_init_says_the_same(name: str, tmp_path: Path, payments: bytes) -> None:
    path = spoilt(HOSTILE[name], tmp_path, payments)

    with pytest.raises(DataError) as caught:
        guess(path)
    assert HOSTILE[name].line in str(caught.value)
