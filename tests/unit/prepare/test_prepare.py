"""The table that prepare leaves: the same bytes for the same values, split as asked, nothing fitted on what comes later."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from stages.common.errors import DataError, MissingInput
from stages.prepare import prepare as module
from stages.prepare.raw import Raw
from stages.prepare.read import read as read_table

Prepare = Callable[..., Any]
Csv = Callable[[pd.DataFrame], Path]
ROLES = {"label": "is_fraud", "time": "time", "id": "transaction", "entity": "customer"}


def test_generated_and_written_tables_are_prepared_alike(prepare: Prepare, payments: pd.DataFrame, csv: Csv) -> None:
    """The table that the project makes is also one that anybody could bring."""
    made = prepare(generated_rows=2_000, generated_seed=3)
    brought = prepare(csv(payments), **ROLES)

    assert made.outputs["rows"] == brought.outputs["rows"] == 2_000
    assert {name: made.files[name] for name in made.files if name.endswith(".parquet")} == {
        name: brought.files[name] for name in brought.files if name.endswith(".parquet")
    }


def test_all_that_is_written(prepare: Prepare, payments: pd.DataFrame, csv: Csv) -> None:
    made = prepare(csv(payments), **ROLES, drop=["age"])

    assert sorted(made.files) == ["calibration.parquet", "data.json", "features.json", "test.parquet", "train.parquet", "valid.parquet"]
    assert made.outputs == {"state": "made", "rows": 2_000, "positives": int(payments["is_fraud"].sum()), "features": 23}
    for table in made[4:]:
        assert list(table.X.columns) == made.features.names
        assert table.y.dtype == np.int8
        assert table.row.dtype == table.time.dtype == np.int64
        assert table.y.tolist() == payments["is_fraud"].iloc[table.row].tolist()
        assert table.entity.tolist() == payments["customer"].iloc[table.row].tolist()
        assert table.time.tolist() == payments["time"].astype("datetime64[ns]").astype("int64").iloc[table.row].tolist()
    assert sorted(np.concatenate([table.row for table in made[4:]])) == list(range(2_000))
    assert {name for name, _ in made.features.dropped} == {"is_fraud", "time", "transaction", "customer", "age"}
    assert made.data["splits"]["test"]["rows"] == len(made.test.y)
    assert made.data["positives"] == made.outputs["positives"]
    assert next(one.missing for one in made.features.columns if one.name == "device") == made.train.X["device"].isna().mean()


@pytest.mark.parametrize("split", ["time", "order", "random"])
def test_twice_the_same_bytes(prepare: Prepare, split: str) -> None:
    assert prepare(split=split, generated_rows=2_000).files == prepare(split=split, generated_rows=2_000).files


def test_a_change_of_the_file_that_changes_no_value_changes_no_byte(prepare: Prepare, payments: pd.DataFrame, tmp_path: Path) -> None:
    plain, quoted, blank, parquet = (tmp_path / name for name in ("plain.csv", "quoted.csv", "blank.csv", "table.parquet"))
    payments.to_csv(plain, index=False)
    payments.to_csv(quoted, index=False, quoting=1, lineterminator="\r\n")
    blank.write_bytes(plain.read_bytes() + b"\n\n")
    payments.to_parquet(parquet)

    first, *others = (prepare(path, **ROLES).files for path in (plain, quoted, blank, parquet))
    assert others == [first] * 3


def test_csv_and_parquet_of_one_frame_are_prepared_alike(prepare: Prepare, payments: pd.DataFrame, csv: Csv, tmp_path: Path) -> None:
    """Text that is a time, words that mean missing, integers and truths with some missing, keys beyond a float's digits."""
    third = payments.index % 3 == 0
    frame = payments.assign(
        time=payments["time"].astype("str"),
        day=payments["time"].dt.date.astype("str"),
        region=pd.Series(["NA", "EU", "None", "n/a"] * 500),
        visits=payments["failed_attempts"].astype("Int64").mask(third),
        known=pd.Series([True, False] * 1_000, dtype="boolean").mask(third),
        score=pd.Series(["0.25", "0.5"] * 1_000),
        customer=(2**60 + pd.Series(pd.factorize(payments["customer"])[0], dtype="Int64")).mask(third),
    )
    parquet = tmp_path / "table.parquet"
    frame.to_parquet(parquet)

    for split in ("time", "random"):
        one, other = (prepare(path, **ROLES, split=split) for path in (csv(frame), parquet))
        assert one.files == other.files
    assert set(one.train.entity) <= {None, *frame["customer"].dropna().astype("str")}
    assert {"region", "visits", "known", "score"} < set(one.features.names)


def test_one_changed_value_changes_only_its_split(prepare: Prepare, payments: pd.DataFrame, csv: Csv) -> None:
    before = prepare(csv(payments), **ROLES)
    after = prepare(csv(payments.assign(amount=payments["amount"] + (payments.index == 1_999))), **ROLES)

    changed = {name for name in before.files if before.files[name] != after.files[name]}
    assert changed == {"test.parquet"}


def test_nothing_is_fitted_on_what_comes_later(prepare: Prepare, payments: pd.DataFrame, csv: Csv) -> None:
    """A category, a decimal and a label share that only the last rows have leave no trace in the features."""
    before = prepare(csv(payments), **ROLES)
    later = payments.copy()
    last = later.index[-150:]
    later.loc[last, "merchant"] = "casino"
    later.loc[last, "failed_attempts"] = 16_777_217  # beyond float32
    after = prepare(csv(later), **ROLES)

    assert before.files["features.json"] == after.files["features.json"]
    assert before.files["train.parquet"] == after.files["train.parquet"]
    assert after.test.X["merchant"].iloc[-150:].isna().all()


def test_split_by_time_keeps_order_and_equal_times_together(prepare: Prepare, payments: pd.DataFrame, csv: Csv) -> None:
    shuffled = payments.sample(frac=1, random_state=0)
    shuffled["time"] = shuffled["time"].dt.floor("D")
    made = prepare(csv(shuffled), **ROLES)

    assert made.train.time.max() < made.valid.time.min() <= made.valid.time.max() < made.calibration.time.min()
    assert made.calibration.time.max() < made.test.time.min()
    assert [len(table.y) / 2_000 for table in made[4:]] == pytest.approx([0.7, 0.15, 0.05, 0.1], abs=0.01)


def test_a_number_can_be_the_time(prepare: Prepare, payments: pd.DataFrame, csv: Csv) -> None:
    """Numbers order rows; hour and weekday are taken from real times only."""
    made = prepare(csv(payments.assign(time=np.arange(2_000)[::-1] / 10)), **ROLES)

    assert made.train.row.tolist() == list(range(600, 2_000))
    assert not any(name.startswith("time") for name in made.features.names)


def test_split_by_order_goes_by_the_file(prepare: Prepare) -> None:
    made = prepare(split="order", generated_rows=2_000)

    assert [(table.row[0], table.row[-1]) for table in made[4:]] == [(0, 1399), (1400, 1699), (1700, 1799), (1800, 1999)]


def test_nothing_may_be_kept_back_for_the_calibration(prepare: Prepare, payments: pd.DataFrame, csv: Csv) -> None:
    """By its option, or since all of valid is of one time: then its file is there, and has no row."""
    asked = prepare(calibration_share=0, generated_rows=2_000)
    days = pd.Series(np.repeat([0, 1, 2], [1400, 400, 200]), index=payments.index)
    forced = prepare(csv(payments.assign(time=days)), **ROLES, min_per_class=1)

    for made in (asked, forced):
        assert [len(table.y) for table in made[4:]] == [1400, 400, 0, 200]
        assert made.data["splits"]["calibration"] == {"rows": 0, "positives": 0}


def test_random_split_is_seeded_and_keeps_entities_together(prepare: Prepare) -> None:
    made, other = (prepare(split="random", generated_rows=2_000, seed=seed) for seed in (1, 2))
    customers = [set(table.entity) for table in made[4:]]

    assert not any(one & another for one, another in itertools.combinations(customers, 2))
    assert len(made.test.y) == pytest.approx(200, abs=20)
    assert made.test.row.tolist() != other.test.row.tolist()
    assert made.test.row.tolist() != list(range(1_800, 2_000))


def test_rows_without_entity_stand_for_themselves(prepare: Prepare, payments: pd.DataFrame, csv: Csv) -> None:
    half = payments.assign(customer=payments["customer"].where(payments.index % 2 == 0))
    made = prepare(csv(half), **ROLES, split="random")

    unknown = [sum(name is None for name in table.entity) for table in made[4:]]
    assert sum(unknown) == 1_000
    assert min(unknown) > 25


@pytest.mark.parametrize("role", ["drop", "entity"])
def test_a_slip_among_numbers_is_no_matter_where_they_are_no_feature(prepare: Prepare, payments: pd.DataFrame, csv: Csv, role: str) -> None:
    frame = payments.assign(amount=payments["amount"].astype("str").where(payments.index != 41, "?"))
    options = {"drop": ["amount"]} if role == "drop" else {"entity": "amount"}

    assert "amount" not in prepare(csv(frame), **{**ROLES, **options}).features.names


def test_codes_of_digits_and_letters_are_categories(prepare: Prepare, payments: pd.DataFrame, csv: Csv) -> None:
    code = pd.Series([f"{number % 20:05}" if number % 2 else f"A{number % 20:04}" for number in range(2_000)])
    few = pd.Series([str(number % 15) if number % 30 else "?" for number in range(2_000)])
    made = prepare(csv(payments.assign(code=code, few=few)), **ROLES)

    kinds = {column.name: column.dtype for column in made.features.columns}
    assert kinds["code"] == kinds["few"] == "category"


def test_a_sample_keeps_its_row_numbers(prepare: Prepare, payments: pd.DataFrame, csv: Csv) -> None:
    made = prepare(csv(payments), **ROLES, sample_size=1_000, min_per_class=1)

    rows = np.concatenate([table.row for table in made[4:]])
    assert len(rows) == len(set(rows)) == made.outputs["rows"] == 1_000
    assert rows.max() > 1_500
    assert made.test.y.tolist() == payments["is_fraud"].iloc[made.test.row].tolist()


@pytest.mark.parametrize(
    ("values", "positive", "means"),
    [
        (("yes", "no"), None, "yes"),
        (("1", "0"), None, "1"),
        (("True", "False"), None, "true"),
        (("rare", "usual"), None, "rare"),
        (("rare", "usual"), "usual", "usual"),
        (("2.0", "1.0"), 1, "1"),
        (("2", "1"), None, "2"),
        (("1", "-1"), None, "1"),
        (("0.0", "1.0"), None, "1"),
        (("true", "false"), False, "false"),
    ],
)
def test_the_positive_value_is_named_or_found(
    prepare: Prepare, payments: pd.DataFrame, csv: Csv, values: tuple[str, str], positive: Any, means: str
) -> None:
    made = prepare(csv(payments.assign(is_fraud=np.where(payments["is_fraud"] == 1, *values))), **ROLES, positive=positive)

    frauds = int(payments["is_fraud"].sum())
    assert made.features.roles.positive == means
    assert made.outputs["positives"] == (frauds if means == values[0].lower().removesuffix(".0") else 2_000 - frauds)
    assert any("was taken for the positive label" in note for note in made.data["notes"]) == (positive is None)


def test_a_flipped_bit_of_the_result_is_found_on_reading(prepare: Prepare, tmp_path: Path) -> None:
    """Pages carry checksums, for readers who do not know the digest."""
    made = prepare(generated_rows=2_000)
    blob = next(tmp_path.glob(f"store-1/blobs/{made.files['test.parquet']}"))
    path = tmp_path / "copy.parquet"
    shutil.copy(blob, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)

    with pytest.raises(OSError, match="CRC"):
        pyarrow.parquet.read_table(path, page_checksum_verification=True)


def same(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


REFUSED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], dict[str, Any], str]] = {
    "label not there": (same, {"label": "is_frud"}, "prepare.label names column 'is_frud', which is not there; nearest: 'is_fraud'"),
    "dropped column not there": (same, {"drop": ["agge"]}, "prepare.drop names column 'agge', which is not there; nearest: 'age'"),
    "reserved name": (lambda f: f.assign(_row=1), {}, "column '_row' has a name that Surefoot uses itself"),
    "label constant": (lambda f: f.assign(is_fraud=0), {}, "the label 'is_fraud' is the same in all rows: '0' in 2000 rows"),
    "label of three values": (lambda f: f.assign(is_fraud=f.index % 3), {}, "the label 'is_fraud' has 3 values, not two"),
    "label missing": (lambda f: f.assign(is_fraud=f["is_fraud"].where(f.index > 6)), {}, "the label 'is_fraud' is missing in 7 of 2000"),
    "positive not there": (same, {"positive": "yes"}, "prepare.positive is 'yes', but the label 'is_fraud' has '0' in"),
    "ids twice": (lambda f: pd.concat([f, f[:3]]), {}, "'transaction' is not unique: 3 of 2003 rows repeat one, such as '1000000'"),
    "id missing": (lambda f: f.assign(transaction=f["transaction"].where(f.index > 0)), {}, "'transaction' is missing in 1 of 2000"),
    "infinite": (
        lambda f: f.assign(age=f["age"].where(f.index != 41, np.inf)),
        {},
        "'age' has 1 infinite values, the first in data row 4",
    ),
    "beyond float32": (
        lambda f: f.assign(age=f["age"].where(f.index != 41, -1e300)),
        {},
        "'age' has 1 numbers beyond 3.4028235e+38 (float32), the first in data row 42. Correct or empty them.",
    ),
    "a slip among numbers": (
        lambda f: f.assign(amount=f["amount"].astype("str").where(~f.index.isin([41, 77, 90]), pd.Series(["?", "-"] * 1_000))),
        {},
        "'amount' holds numbers, but 3 values are none, such as '-' and '?', the first in data row 42. Correct or empty them, or name",
    ),
    "time missing": (lambda f: f.assign(time=f["time"].where(f.index > 1)), {}, "the event time 'time' is missing in 2 of 2000 rows"),
    "no times": (
        lambda f: f.assign(time=f["time"].astype("str").where(f.index != 8, "soon")),
        {},
        "the event time 'time': 1 values are no times, such as 'soon' in data row 9",
    ),
    "times beyond": (lambda f: f.assign(time="9999-12-31"), {}, "the event time 'time' runs from 9999-12-31"),
    "times of two kinds": (
        lambda f: f.assign(time=f["time"].astype("str") + pd.Series(["", "Z"] * 1_000)),
        {},
        "the times are written in several ways",
    ),
    "times not read": (
        lambda f: f.assign(time=f["time"].dt.strftime("%Y/%m/%d")),
        {},
        "or in one that is not read, such as '2024/01/01'. Write them as",
    ),
    "one time": (lambda f: f.assign(time="2024-01-01"), {}, "the split by time leaves"),
    "one entity": (lambda f: f.assign(customer="c"), {"split": "random"}, "the split by random leaves"),
    "too few positives": (same, {"test_split": 0.002}, "test has 0 positives in 4 rows where prepare.min_per_class asks for 5"),
    "nothing to learn from": (
        lambda f: f[[*ROLES.values()]].assign(x=1),
        {"split": "order", "time": None, "drop": ["time"]},
        "no column is left to learn from",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_learnt_from_is_refused(prepare: Prepare, payments: pd.DataFrame, csv: Csv, name: str) -> None:
    change, options, line = REFUSED[name]
    path = csv(change(payments))

    with pytest.raises(DataError) as caught:
        prepare(path, **{**ROLES, **options})

    assert str(caught.value).startswith(f"{path}: ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_changes_while_it_is_read_is_not_published_as_the_one_that_was_planned(
    prepare: Prepare, csv: Csv, payments: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = csv(payments)

    def read(*arguments: Any, **options: Any) -> Raw:
        table = read_table(*arguments, **options)
        path.write_text(path.read_text() + "\n")
        return table

    monkeypatch.setattr(module, "read", read)
    with pytest.raises(MissingInput, match="its bytes changed since this run was planned"):
        prepare(path, label="is_fraud", time="time")


def test_without_an_entity_the_first_key_names_who_acts(prepare: Prepare, payments: pd.DataFrame, csv: Csv) -> None:
    """By which intervals, slices and overlap go; a split by time does not."""
    frame = payments.assign(
        card=payments["transaction"] % 10, since=payments["time"].astype("datetime64[ns]").dt.day.where(payments.index % 7 > 0)
    )
    roles = {**ROLES, "entity": None, "drop": ["customer"], "start_days": ["since"]}
    made = prepare(csv(frame), **roles, keys={"client": ["card", "since"], "device": ["device"]})
    mine = frame.iloc[made.test.row]
    began = payments["time"].astype("datetime64[ns]").astype("int64") // 86_400_000_000_000 - frame["since"]
    wanted = [None if pd.isna(day) else f"{card}|{day}" for card, day in zip(mine["card"], began.iloc[made.test.row], strict=True)]
    assert made.test.entity.tolist() == wanted
