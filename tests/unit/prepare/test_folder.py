"""A folder of files is one table: daily CSV files, Parquet partitions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.common import config, step
from stages.common.address import Addresses
from stages.common.errors import DataError, MissingInput
from stages.common.store import open_store
from workflows import cli

Prepare = Callable[..., Any]
ROLES = {"label": "is_fraud", "time": "time", "id": "transaction", "entity": "customer"}


@pytest.fixture
def days(payments: pd.DataFrame, tmp_path: Path) -> Path:
    """Write the payments as ten CSV files, and two that are none of them."""
    folder = tmp_path / "days"
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(payments)), 10)):
        payments.iloc[part].to_csv(folder / f"2024-01-{number:02}.csv", index=False)
    (folder / "_SUCCESS").write_text("")
    (folder / ".part.csv.crc").write_bytes(b"\0")
    return folder


def test_daily_files_are_prepared_as_one_file(prepare: Prepare, days: Path, payments: pd.DataFrame, tmp_path: Path) -> None:
    payments.to_csv(tmp_path / "one.csv", index=False)
    assert prepare(days, **ROLES).files == prepare(tmp_path / "one.csv", **ROLES).files


def test_the_order_of_columns_may_differ(prepare: Prepare, days: Path) -> None:
    whole = prepare(days, **ROLES).files
    day = pd.read_csv(days / "2024-01-03.csv")
    day[day.columns[::-1]].to_csv(days / "2024-01-03.csv", index=False)
    assert prepare(days, **ROLES).files == whole


def test_what_a_path_says_is_a_column(prepare: Prepare, payments: pd.DataFrame, tmp_path: Path) -> None:
    """As Spark and pandas partition a table."""
    payments.assign(half=(np.arange(len(payments)) // 1000)).to_parquet(tmp_path / "parts", partition_cols=["half"], index=False)
    made = prepare(tmp_path / "parts", **ROLES)
    payments.assign(half=(np.arange(len(payments)) // 1000)).to_csv(tmp_path / "one.csv", index=False)

    assert "half" in made.features.names
    assert made.files == prepare(tmp_path / "one.csv", **ROLES).files


def test_a_column_that_one_file_lacks_is_refused_by_name(prepare: Prepare, days: Path) -> None:
    pd.read_csv(days / "2024-01-03.csv").drop(columns="age").assign(aeg=1).to_csv(days / "2024-01-03.csv", index=False)
    with pytest.raises(DataError, match=r"2024-01-03\.csv: lacks 'age' and has 'aeg' besides, compared with the folder's first file"):
        prepare(days, **ROLES)


def test_a_wrong_row_is_told_with_its_file(prepare: Prepare, days: Path) -> None:
    with (days / "2024-01-03.csv").open("a") as file:
        file.write("1,2\n")
    with pytest.raises(DataError, match=r"2024-01-03\.csv: is not a CSV file .*Row #202: Expected \d+ columns, got 2"):
        prepare(days, **ROLES)


def test_an_empty_folder_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(MissingInput, match="the folder holds no file"):
        prepare(tmp_path / "none", **ROLES)


def test_a_folder_travels_through_the_store(days: Path, tmp_path: Path) -> None:
    """Uploaded as a submit does it, prepared from there: the same address as on this machine."""
    given = tmp_path / "config.yaml"
    given.write_text(f"prepare: {{source: file, path: {days}, label: is_fraud, time: time, id: transaction, entity: customer}}\n")
    store = open_store(str(tmp_path / "store"))
    resolved = config.load(given, environment={})
    here = Addresses(step.pin(resolved, store), store)
    there = Addresses(step.pin(config.parse(store.read(cli.upload(resolved, store)), "uploaded"), store), store)

    assert there.plan_key("prepare", {}) == here.plan_key("prepare", {})
    for path in days.iterdir():
        path.unlink()
    assert step.run_step("prepare", {}, there)["rows"] == 2_000


def test_one_changed_file_is_another_table(prepare: Prepare, days: Path) -> None:
    first = prepare(days, **ROLES)
    day = pd.read_csv(days / "2024-01-03.csv")
    day.assign(amount=day["amount"] + 1).to_csv(days / "2024-01-03.csv", index=False)
    assert prepare(days, **ROLES).files != first.files


def test_a_paths_values_may_be_of_several_kinds(prepare: Prepare, payments: pd.DataFrame, tmp_path: Path) -> None:
    """Numbers in some, text in others, or missing: as a column of a file would be read."""
    regions = np.array(["1", "eu", "a b"])[np.arange(len(payments)) % 3]
    for as_csv, name in ((True, "csv"), (False, "parquet")):
        for region, part in payments.groupby(regions):
            folder = tmp_path / name / f"region={str(region).replace(' ', '%20')}"
            folder.mkdir(parents=True)
            part.to_csv(folder / "part", index=False) if as_csv else part.to_parquet(folder / "part", index=False)
    (tmp_path / "csv" / "region=1").rename(tmp_path / "csv" / "region=__HIVE_DEFAULT_PARTITION__")
    csv, parquet = (
        next(one for one in prepare(tmp_path / name, **ROLES).features.columns if one.name == "region") for name in ("csv", "parquet")
    )

    assert sorted(parquet.categories) == ["1", "a b", "eu"]
    assert sorted(csv.categories) == ["a b", "eu"]
    assert csv.missing > 0.3


def test_keys_in_a_path_stay_as_written(prepare: Prepare, payments: pd.DataFrame, tmp_path: Path) -> None:
    for customer, part in (("007", payments[:1000]), ("7", payments[1000:])):
        (tmp_path / "parts" / f"customer={customer}").mkdir(parents=True)
        part.drop(columns="customer").to_csv(tmp_path / "parts" / f"customer={customer}" / "part.csv", index=False)
    made = prepare(tmp_path / "parts", **ROLES)
    assert {*made.train.entity, *made.test.entity} == {"007", "7"}
