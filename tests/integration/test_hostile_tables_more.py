"""More tables as they go wrong in life, and some that only look wrong: those are prepared, whole.

Half of them are real tables, changed at a place drawn by SUREFOOT_TEST_SEED (printed). What is expected was written down first.
"""

import functools
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from stages.common import config, step
from stages.common.address import Addresses
from stages.common.artifact import Artifact
from stages.common.errors import DataError, SurefootError
from stages.common.store import open_store
from stages.features.features import Features
from stages.prepare import generate, ieee_cis
from tests.integration.test_hostile_tables import ADULT, BANK, DATA, PAYMENTS, SEED, Spoil, at, files, frame, in_a_line
from workflows.init import guess

REAL = {"adult": "adult.csv", "bank": "bank-marketing.csv", "cards": "card-transactions.parquet"}
CARDS = {
    "label": "TX_FRAUD",
    "time": "TX_DATETIME",
    "id": "TRANSACTION_ID",
    "entity": "CUSTOMER_ID",
    "label_delay_days": 7,
    "drop": ["TX_FRAUD_SCENARIO", "TX_TIME_SECONDS", "TX_TIME_DAYS"],
}
SECONDS = {**CARDS, "time": "TX_TIME_SECONDS", "drop": ["TX_FRAUD_SCENARIO", "TX_DATETIME", "TX_TIME_DAYS"]}
KAGGLE = {"label": "isFraud", "time": "TransactionDT", "id": "TransactionID", "min_per_class": 1}
ALONE = {"label": "is_fraud", "time": "time", "entity": "customer", "drop": ["transaction"]}


class Refused(NamedTuple):
    """A table, how it is spoilt, and what must be said of it; of ``ieee-cis`` it is the second file that is spoilt."""

    table: str
    spoil: Spoil
    line: str  # a piece of the line
    options: dict[str, Any]
    code: int = 65
    init: bool = False  # `surefoot init` says the same
    file: str = "table"  # which the line is about


class Passed(NamedTuple):
    """A table that looks wrong and is not: how many rows and positives are prepared, which features there are, what is noted."""

    table: str
    change: Spoil
    rows: int
    positives: int
    features: set[str]
    options: dict[str, Any]
    note: str = ""


# --- how tables are changed -----------------------------------------------------------------------


def with_two_headers(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True)
    place = int(rng.integers(2, len(lines)))
    return b"".join([*lines[:place], lines[0], *lines[place:]])


def with_the_sum(content: bytes, _: np.random.Generator) -> bytes:
    return content + b"Total" + b"," * content[: content.index(b"\n")].count(b",") + b"\n"


def texts(column: str, written: Callable[[Any], str]) -> Spoil:
    """Write a column in another way."""
    return frame(lambda table, _: table.assign(**{column: table[column].map(written)}))


def with_decimal_commas(content: bytes, _: np.random.Generator) -> bytes:
    return re.sub(rb"(?<=;)(-?\d+)\.(\d+)(?=;)", rb"\1,\2", content.replace(b",", b";"))


def with_mixed_line_ends(content: bytes, rng: np.random.Generator) -> bytes:
    return b"".join(
        line + (b"\r\n" if odd else b"\n") for line, odd in zip(content.splitlines(), rng.integers(2, size=10**6), strict=False)
    )


def with_mixed_truths(content: bytes, rng: np.random.Generator) -> bytes:
    table = pyarrow.csv.read_csv(pyarrow.BufferReader(content)).to_pandas()
    words = np.array([["0", "False"], ["1", "True"]])
    label = words[(table["income"] == ">50K").astype(int), rng.integers(2, size=len(table))]
    changed: str = table.assign(income=label).to_csv(index=False)
    return changed.encode()


def with_copies(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True)
    return content + lines[int(rng.integers(1, len(lines)))] * 7


def as_parquet(change: Callable[[pd.DataFrame, int], Any]) -> Spoil:
    def spoil(content: bytes, rng: np.random.Generator) -> bytes:
        table = pyarrow.csv.read_csv(pyarrow.BufferReader(content)).to_pandas()
        changed = change(table, int(rng.integers(len(table))))
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(changed if isinstance(changed, pa.Table) else pa.Table.from_pandas(changed), sink)
        return bytes(sink.getvalue())

    return spoil


def number_in_parquet(column: str, value: float) -> Spoil:
    """Put a number at a row of a column that is one of floats then."""
    return as_parquet(lambda table, row: at(table, row, column, value).astype({column: float}))


def nested(table: pd.DataFrame, _: int) -> pa.Table:
    return pa.Table.from_pandas(table).append_column("who", pa.array([{"a": 1}] * len(table)))


def card_twice(table: pd.DataFrame, _: int) -> pa.Table:
    return pa.Table.from_pandas(table).rename_columns(["card" if name == "age" else name for name in table])


def without_row_groups(content: bytes, _: np.random.Generator) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.ParquetWriter(sink, pyarrow.csv.read_csv(pyarrow.BufferReader(content)).schema).close()
    return bytes(sink.getvalue())


def milliseconds_from(table: pd.DataFrame, row: int) -> pd.DataFrame:
    """From a row on, in the middle of the table, another program wrote the times."""
    place = len(table) // 4 + row // 2
    return table.assign(TX_TIME_SECONDS=table["TX_TIME_SECONDS"].where(np.arange(len(table)) < place, table["TX_TIME_SECONDS"] * 1_000))


def unripe(table: pd.DataFrame, row: int) -> pd.DataFrame:
    """No fraud is known of the last eight days or a little more."""
    days = 8 + row % 3
    return table.assign(TX_FRAUD=table["TX_FRAUD"].where(table["TX_TIME_DAYS"] < 40 - days, 0))


def unripe_from_may(table: pd.DataFrame, _: int) -> pd.DataFrame:
    return table.assign(is_fraud=table["is_fraud"].where(table["time"] < "2024-05-10", 0))


def refunds(table: pd.DataFrame, row: int) -> pd.DataFrame:
    """Turn some payments back, and let some be of nothing."""
    amount = table["amount"].where(table.index % 7 != row % 7, -table["amount"])
    return table.assign(amount=amount.where(table.index % 5 > 0, 0))


def renamed(**names: str) -> Spoil:
    """Rename columns in the header alone."""

    def spoil(content: bytes, _: np.random.Generator) -> bytes:
        header, rest = content.split(b"\n", 1)
        return ",".join(names.get(name, name) for name in header.decode().split(",")).encode() + b"\n" + rest

    return spoil


def hyphens(content: bytes, _: np.random.Generator) -> bytes:
    header, rest = content.split(b"\n", 1)
    return header.replace(b"_", b"-") + b"\n" + rest


def leap_day(table: pd.DataFrame, row: int) -> pd.DataFrame:
    return at(table, row, "time", "2023-02-29 12:00:00")


def around_the_clock_change(table: pd.DataFrame, _: int) -> pd.DataFrame:
    """Write times as of Berlin's clocks in 2024, which were put back on 27 October: an hour stands twice."""
    start = pd.to_datetime(table["time"]).iloc[0]
    moved = pd.to_datetime(table["time"]) - start + pd.Timestamp("2024-10-01", tz="UTC")
    return table.assign(time=moved.dt.tz_convert("Europe/Berlin").dt.tz_localize(None))


def excel_days(table: pd.DataFrame, _: int) -> pd.DataFrame:
    return table.assign(time=(pd.to_datetime(table["time"]) - pd.Timestamp("1899-12-30")) / pd.Timedelta(days=1))


def wide(table: pd.DataFrame, _: int) -> pd.DataFrame:
    values = np.random.default_rng(0).integers(0, 9, (len(table), 2_000))
    return pd.concat([table, pd.DataFrame(values, columns=[f"v{number}" for number in range(2_000)])], axis=1)


def odd_words(table: pd.DataFrame, row: int) -> pd.DataFrame:
    """Faces, accents, both directions, a family of one letter; and a name over two lines, with quotes."""
    words = np.array(["😀", "🏳️‍🌈", "شراء", "Ægir", "購入", "e\u0301"])
    return table.assign(**{"🛒": words[(np.arange(len(table)) + row) % len(words)], 'size\n("cm")': np.arange(len(table)) % 7})


def second(change: Callable[[pd.DataFrame, int], pd.DataFrame]) -> Spoil:
    """Change the second file of IEEE-CIS, its words as they are written."""

    def spoil(content: bytes, rng: np.random.Generator) -> bytes:
        table = pd.read_csv(pa.BufferReader(content), dtype=str, keep_default_na=False)
        changed: str = change(table, int(rng.integers(len(table)))).to_csv(index=False)
        return changed.encode()

    return spoil


def of_the_test(table: pd.DataFrame, _: int) -> pd.DataFrame:
    """Give rows the numbers of those in Kaggle's test, after those of its train."""
    return table.assign(TransactionID=table["TransactionID"].astype(int) + 676_550)


def whole(content: bytes) -> Spoil:
    return lambda *_: content


HTML = b'<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n<body>\n<a href="/login">Sign in, please</a>\n</body></html>\n'
POINTER = b"version https://git-lfs/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 3514344\n"
LINES = b'{"amount": 12.5, "is_fraud": 0}\n{"amount": 99.0, "is_fraud": 1}\n'
REFUSED = {
    # Real tables, spoilt at random places.
    "a header amid": Refused("adult", with_two_headers, "is the header again", ADULT, init=True),
    "a byte order mark amid": Refused("bank", in_a_line(b"\xef\xbb\xbf".__add__), "begins with a byte order mark", BANK, init=True),
    "a sum below": Refused("bank", with_the_sum, "'y' is missing in 1 of 41189 rows, the first in data row 41189", BANK, init=True),
    "thousands": Refused("adult", texts("fnlwgt", "{:,}".format), "numbers, but 32561 values are written with a comma", ADULT, init=True),
    "decimal commas": Refused("bank", with_decimal_commas, "are written with a comma", {**BANK, "delimiter": ";"}, init=True),
    "percent": Refused("adult", texts("hours_per_week", "{}%".format), "32561 values are written with a percent sign", ADULT, init=True),
    "no header": Refused("adult", lambda content, _: content.split(b"\n", 1)[1], "numbers, as if the header were missing", ADULT),
    "a lone CR": Refused("bank", in_a_line(lambda line: line.replace(b",", b"\r", 1)), ": Expected 21 columns, got", BANK, init=True),
    "a blank in a label": Refused("bank", frame(lambda t, row: at(t, row, "y", " yes")), "' yes' in 1 rows", BANK, init=True),
    "sorted by label": Refused("bank", frame(lambda t, _: t.sort_values("y", kind="stable")), "train has 0 positives in 28832", BANK),
    "all rows twice": Refused(
        "adult", frame(lambda t, _: pd.concat([t, t])), "32585 of 65122 rows are copies of earlier ones", ADULT, init=True
    ),
    "a label alone": Refused("adult", frame(lambda t, _: t[["income"]]), "no column is left to learn from", ADULT),
    "day first": Refused(
        "cards", texts("TX_DATETIME", lambda t: t.strftime("%d/%m/%Y %H:%M:%S")), "such as '01/04/2018 00:00:31' in data row 1", CARDS
    ),
    "time zero": Refused(
        "cards", frame(lambda t, row: at(t, row, "TX_DATETIME", "1970-01-01")), "1 of 48006 rows lie far from the others", CARDS
    ),
    "two units": Refused("cards", frame(milliseconds_from), "jumps by a factor of 10", SECONDS),
    "an infinite time": Refused("cards", number_in_parquet("TX_TIME_SECONDS", np.inf), "'TX_TIME_SECONDS' has 1 infinite values", SECONDS),
    "months": Refused("cards", texts("TX_DATETIME", lambda t: t.strftime("%Y-%m-01")), "the split by time leaves", CARDS),
    "labels too young": Refused("cards", frame(unripe), "the last 7 days hold 0 positives in", CARDS),
    "a label's reason": Refused(
        "cards",
        lambda content, _: content.replace(b"_SCENARIO", b"_KIND"),
        "'TX_FRAUD_KIND' alone tells the label",
        {**CARDS, "drop": ["TX_TIME_SECONDS"]},
    ),
    "Parquet, no label": Refused(
        "cards", number_in_parquet("TX_FRAUD", np.nan), "'TX_FRAUD' is missing in 1 of 48006 rows, the first in", CARDS
    ),
    "Parquet, nested": Refused("cards", as_parquet(nested), "'who' is of the type struct", CARDS),
    # Others.
    "HTML": Refused("payments", whole(HTML), "is a page of HTML", PAYMENTS, init=True),
    "a pointer": Refused("payments", whole(POINTER), "is a pointer of Git LFS", PAYMENTS, init=True),
    "JSON lines": Refused("payments", whole(LINES), "is JSON", PAYMENTS, init=True),
    "xz": Refused("payments", lambda content, _: lzma.compress(content), "is compressed by xz", PAYMENTS, init=True),
    "newlines": Refused("payments", whole(b"\r\n" * 50), "holds nothing but empty lines", PAYMENTS, init=True),
    "currency": Refused("payments", texts("amount", "€{:.2f}".format), "2000 values are written with a currency", PAYMENTS, init=True),
    "29 February": Refused("payments", frame(leap_day), "1 values are no times, such as '2023-02-29 12:00:00' in data row", PAYMENTS),
    "year 9999": Refused(
        "payments", frame(lambda t, row: at(t, row, "time", "9999-12-31")), "to 9999-12-31 00:00:00: not all of these", PAYMENTS
    ),
    "years of two digits": Refused("payments", texts("time", lambda t: t.strftime("00%y-%m-%d")), "runs from 0024-", PAYMENTS),
    "ids by Excel": Refused("payments", texts("transaction", "{:.2E}".format), "'transaction' is not unique: 1999 of 2000", PAYMENTS),
    "nobody": Refused(
        "payments", frame(lambda t, _: t.assign(customer=None)), "the entity 'customer' is missing in all 2000 rows", PAYMENTS
    ),
    "a name with nothing": Refused(
        "payments", renamed(amount="amount\u200b"), r"nearest: 'amount\u200b'", {**PAYMENTS, "amount": "amount"}
    ),
    "Parquet, a name twice": Refused("payments", as_parquet(card_twice), "has 2 columns of the name 'card'", PAYMENTS, init=True),
    "Parquet, no rows": Refused("payments", without_row_groups, "has columns, but not one row", PAYMENTS, init=True),
    "a join key twice": Refused(
        "ieee-cis", second(lambda t, row: pd.concat([t, t[row : row + 1]])), "'TransactionID' is not unique: 1 of", KAGGLE, file="second"
    ),
    "zeros before keys": Refused(
        "ieee-cis", second(lambda t, _: t.assign(TransactionID="00" + t["TransactionID"])), "'00", KAGGLE, file="second"
    ),
    "the test's second file": Refused("ieee-cis", second(of_the_test), "has an id of the first table, such as", KAGGLE, file="second"),
    "both spellings": Refused(
        "ieee-cis",
        second(lambda t, _: t.assign(**{"id-01": "0"})),
        "has the columns 'id_01' and 'id-01', which are read as one name",
        KAGGLE,
        file="second",
    ),
    "a join by nothing": Refused(
        "ieee-cis", second(lambda t, _: t[1:]), "join_path needs an id to join by", {**KAGGLE, "id": None}, 78, file="config.yaml"
    ),
}
HIGH = {"age", "fnlwgt", "hours_per_week", "education_num", "workclass"}
CALLS = {"age", "job", "euribor3m", "emp.var.rate"}
PAID = {"amount", "merchant", "entity_count", "time_hour"}
PASSED = {
    # Real tables.
    "mixed line ends": Passed("bank", with_mixed_line_ends, 41_188, 4_640, CALLS, BANK, "12 of 41188 rows are copies of earlier ones"),
    "some copies": Passed("bank", with_copies, 41_195, -1, CALLS, BANK, "19 of 41195 rows are copies of earlier ones"),
    "blanks after commas": Passed("adult", lambda content, _: content.replace(b",", b", "), 32_561, 7_841, HIGH, ADULT),
    "mixed truths": Passed("adult", with_mixed_truths, 32_561, 7_841, HIGH, ADULT, "'true' was taken for the positive label"),
    "hyphens": Passed(
        "adult",
        hyphens,
        32_561,
        7_841,
        HIGH - {"fnlwgt"},
        {**ADULT, "drop": ["fnlwgt"], "allow": ["hours-per-week"]},
        "6 names: education-num",
    ),
    "empty and constant": Passed("adult", frame(lambda t, _: t.assign(nothing=None, one=1)), 32_561, 7_841, HIGH, ADULT, "nothing, one"),
    # Others.
    "an hour twice": Passed("payments", frame(around_the_clock_change), 2_000, 88, PAID, PAYMENTS),
    "refunds": Passed("payments", frame(refunds), 2_000, 88, PAID, {**PAYMENTS, "amount": "amount"}),
    "Excel's days": Passed("payments", frame(excel_days), 2_000, 88, PAID - {"time_hour"}, PAYMENTS, "by prepare.time_unit ('s')"),
    "everybody once": Passed(
        "payments",
        frame(lambda t, _: t.assign(customer=t.index)),
        2_000,
        88,
        {"amount", "merchant"},
        PAYMENTS,
        "the entity 'customer' has another value in each of 2000 rows",
    ),
    "odd words": Passed("payments", frame(odd_words), 2_000, 88, PAID | {"🛒", "size_(_cm_)"}, PAYMENTS),
    "capitals": Passed("payments", renamed(age="Amount"), 2_000, 88, PAID | {"Amount"}, PAYMENTS),
    "2,000 columns": Passed(
        "few payments", frame(wide), 300, -1, {"amount", "v0", "v1999"}, {**PAYMENTS, "min_per_class": 1, "engineered": []}
    ),
    "few positives": Passed(
        "payments",
        frame(lambda t, row: t.assign(age=t["age"].fillna(row % 90))),
        2_000,
        88,
        PAID,
        PAYMENTS,
        "positives: an AUC of 0.9 is known to about",
    ),
    "labels a little young": Passed(
        "payments", frame(unripe_from_may), 2_000, -1, PAID, {**PAYMENTS, "split": "random", "label_delay_days": 45}, "hold 0 positives in"
    ),
    "ids without hyphens": Passed(
        "ieee-cis",
        second(lambda t, _: t.rename(columns=lambda name: name.replace("_", "-"))),
        3_000,
        89,
        {"id_01", "id_38", "joined"},
        KAGGLE,
        "38 names: id-01",
    ),
}


# --- running --------------------------------------------------------------------------------------


@functools.cache
def content(table: str) -> tuple[bytes, bytes]:
    """Give a table as CSV, and the second one, if there is one."""
    if table in REAL:
        if not (DATA / REAL[table]).exists():
            pytest.skip(f"{DATA / REAL[table]} is not beside the checkout")
        if table != "cards":
            return (DATA / REAL[table]).read_bytes(), b""
        return pd.read_parquet(DATA / REAL[table])[::8].to_csv(index=False).encode(), b""
    if table == "ieee-cis":
        first, other = ieee_cis.tables(3_000, seed=0)
        return first.to_csv(index=False).encode(), other.to_csv(index=False).encode()
    return generate.table(300 if table == "few payments" else 2_000, seed=0).to_csv(index=False).encode(), b""


def lay_out(table: str, change: Spoil, options: dict[str, Any], folder: Path) -> Path:
    """Write the changed table and its config; give the config's path."""
    print(f"SUREFOOT_TEST_SEED={SEED}")  # noqa: T201 - seen when the test fails
    first, other = content(table)
    changed = change(other or first, np.random.default_rng(SEED))
    assert changed != (other or first)
    (folder / "table").write_bytes(first if other else changed)
    joined = {"join_path": "second"} if other else {}
    if other:
        (folder / "second").write_bytes(changed)
    written = {"source": "file", "path": "table", **joined, **options}
    (folder / "config.yaml").write_text(json.dumps({"prepare": written}))
    return folder / "config.yaml"


def planned(path: Path) -> Addresses:
    store = open_store(str(path.parent / "store"))
    return Addresses(step.pin(config.load(path, environment={}), store), store)


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_table_is_refused(name: str, tmp_path: Path) -> None:
    case = REFUSED[name]
    path = lay_out(case.table, case.spoil, case.options, tmp_path)

    with pytest.raises(SurefootError) as refused:
        step.run_step("prepare", {}, planned(path))

    said = str(refused.value)
    assert refused.value.code == case.code
    assert case.line in said
    assert said.startswith(str(tmp_path / case.file))
    assert "\n" not in said
    assert {name for name in files(tmp_path / "store") if not name.startswith("scratch/raw/")} <= {"store.json"}


@pytest.mark.parametrize("name", [name for name, case in REFUSED.items() if case.init])
def test_init_says_the_same(name: str, tmp_path: Path) -> None:
    case = REFUSED[name]
    lay_out(case.table, case.spoil, case.options, tmp_path)

    with pytest.raises(DataError) as caught:
        guess(tmp_path / case.file)
    assert case.line in str(caught.value)


@pytest.mark.parametrize("name", PASSED)
def test_what_only_looks_hostile_is_prepared(name: str, tmp_path: Path) -> None:
    case = PASSED[name]
    addresses = planned(lay_out(case.table, case.change, case.options, tmp_path))

    outputs = step.run_step("prepare", {}, addresses)

    manifest = addresses.find("prepare", {})
    assert manifest
    artifact = Artifact(addresses.store, manifest, tmp_path / "scratch")
    data, features = artifact.read_json("data.json"), Features.from_json(artifact.read_json("features.json"))
    assert outputs["rows"] == sum(split["rows"] for split in data["splits"].values()) == case.rows
    assert case.positives in {-1, outputs["positives"]}
    assert case.features <= set(features.names)
    assert any(case.note in note for note in data["notes"])
