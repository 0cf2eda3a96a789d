"""Features are decided by train alone and mean the same for one row as for all."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.common import contract
from stages.common.errors import DataError
from stages.features import features as feature
from stages.features.features import Features, Roles, Table
from stages.prepare import generate

ROLES = Roles("is_fraud", "1", "0", "time", "transaction", "customer")


def fitted(columns: dict[str, Any], max_categories: int = 10, **roles: Any) -> Features:
    return feature.fit(pd.DataFrame(columns), Roles("y", "1", "0", **roles), max_categories)


@pytest.fixture(scope="module")
def payments() -> pd.DataFrame:
    return generate.table(1_000, seed=1)


def test_a_row_alone_comes_out_as_among_others(payments: pd.DataFrame) -> None:
    features = feature.fit(payments[:500], ROLES, 10)
    together = feature.apply(features, payments)

    alone = pd.concat([feature.apply(features, payments.loc[[row]]) for row in payments.index[::20]])
    pd.testing.assert_frame_equal(alone, together[::20])


def test_a_row_from_json_comes_out_as_from_the_table(payments: pd.DataFrame) -> None:
    """What a caller sends has None for missing, text for times, and no types."""
    features = feature.fit(payments, ROLES, 10)
    for row in range(20):
        sent = {name: None if pd.isna(value) else str(value) if name == "time" else value for name, value in payments.loc[row].items()}
        received = pd.DataFrame([sent], index=[row], dtype=object)

        pd.testing.assert_frame_equal(feature.apply(features, received), feature.apply(features, payments.loc[[row]]))


def test_the_contract_survives_json(payments: pd.DataFrame) -> None:
    features = feature.fit(payments, ROLES, 10)

    assert Features.from_json(features.to_json()) == features
    assert contract.dump(features.to_json()) == contract.dump(Features.from_json(features.to_json()).to_json())


def test_a_split_survives_its_file(payments: pd.DataFrame, tmp_path: Path) -> None:
    features = feature.fit(payments[:100], ROLES, 3)
    times = payments["time"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    names = payments["customer"].to_numpy(dtype=object)
    table = Table(feature.apply(features, payments), payments["is_fraud"].to_numpy(dtype=np.int8), np.arange(1_000), times, names)

    for name in ("one", "two"):
        feature.write(table, tmp_path / name)
    back = feature.read(tmp_path / "one", features)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    pd.testing.assert_frame_equal(back.X, table.X)
    for mine, theirs in ((back.y, table.y), (back.row, table.row), (back.time, table.time), (back.entity, table.entity)):
        np.testing.assert_array_equal(mine, theirs)


def test_a_split_may_have_neither_time_nor_entity(tmp_path: Path) -> None:
    features = fitted({"x": [1.0, 2.0], "y": [0, 1]})
    feature.write(Table(pd.DataFrame({"x": [1, 2]}, dtype="float32"), np.array([0, 1], dtype=np.int8), np.array([5, 3])), tmp_path / "file")

    back = feature.read(tmp_path / "file", features)
    assert back.time is None
    assert back.entity is None
    assert back.row.tolist() == [5, 3]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2, 2**24], "float32"),
        ([1, 2, 2**24 + 1], "float64"),
        ([0.5, np.nan], "float32"),
        ([0.1, 0.2], "float64"),
        ([1e300, 1.0], "float64"),
        (pd.array([True, False, None], dtype="boolean"), "float32"),
    ],
)
def test_numbers_are_as_narrow_as_loses_nothing(values: Any, dtype: str) -> None:
    features = fitted({"x": values})

    assert feature.apply(features, pd.DataFrame({"x": values}))["x"].dtype == dtype


def test_categories_are_the_most_frequent_and_then_by_name() -> None:
    features = fitted({"x": ["b", "a", "c", "c", None, "d"] * 5}, max_categories=3)
    matrix = feature.apply(features, pd.DataFrame({"x": ["b", "d", "new", None, "c"]}))

    assert features.columns[0].categories == ("c", "a", "b")
    assert matrix["x"].cat.codes.tolist() == [2, -1, -1, -1, 0]
    assert matrix["x_frequency"].tolist() == [5, 5, 0, 0, 10], "what was cut off is told by how often it stands in train"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([7] * 40, "the same value in all train rows"),
        (["a"] * 40, "the same value in all train rows"),
        ([np.nan] * 40, "always missing in train"),
        ([f"name {number}" for number in range(40)], "text that names rows: 40 values in 40 train rows"),
        (pd.date_range("2024-01-01", periods=40), "a time, but not the event time"),
    ],
)
def test_what_cannot_help_is_dropped_with_its_reason(values: Any, reason: str) -> None:
    features = fitted({"x": values, "z": [1, 2] * 20})

    assert features.dropped == (("x", reason),)
    assert features.names == ["z"]


def test_a_value_or_nothing_is_kept() -> None:
    """That something is missing can tell."""
    assert fitted({"x": [7, np.nan], "text": [None, "a"]}).names == ["x", "text"]


def test_roles_are_no_features() -> None:
    columns: dict[str, Any] = {name: [1, 2] for name in ("y", "when", "key", "who", "later", "x")}
    features = fitted(columns, time="when", id="key", entity="who", drop=("later",))

    assert features.names == ["x"]
    assert dict(features.dropped) == {
        "y": "the label",
        "when": "the event time",
        "key": "the row's id",
        "who": "the entity",
        "later": "named in prepare.drop",
    }


def test_an_event_time_gives_hour_and_weekday() -> None:
    when = pd.to_datetime(["2024-01-01 23:59:59", "2024-01-07 00:00:00"])  # a Monday, a Sunday
    features = fitted({"when": when, "when_hour": [1, 2]}, time="when")

    assert features.names == ["when_hour", "when_hour_2", "when_weekday"]
    assert feature.apply(features, pd.DataFrame({"when": when, "when_hour": [1, 2]})).to_numpy().tolist() == [[1, 23, 0], [2, 0, 6]]


def test_days_have_no_hour() -> None:
    assert fitted({"when": pd.date_range("2024-01-01", periods=9)}, time="when").names == ["when_weekday"]


def test_names_are_such_that_every_booster_takes_them() -> None:
    features = fitted({"a[0]": [1, 2], "a(0)": [1, 2], "a<0>": [1, 2], "a.b c": [1, 2]})

    assert features.names == ["a_0_", "a(0)", "a_0__2", "a.b_c"]
    assert [column.raw for column in features.columns] == ["a[0]", "a(0)", "a<0>", "a.b c"]


def test_a_name_made_safe_does_not_overwrite_what_stands_beside_the_features() -> None:
    features = fitted({":label": [1, 2], "[row": [1, 2], "{time": [1, 2], '"entity': [1, 2], "y": [0, 1]})

    assert features.names == ["_label_2", "_row_2", "_time_2", "_entity_2"]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="column 'x' is missing: the model was trained with it"):
        feature.apply(fitted({"x": [1, 2]}), pd.DataFrame({"z": [1]}))


@pytest.mark.parametrize(
    ("columns", "sent", "line"),
    [
        ({"x": [1, 2]}, {"x": ["many"]}, "column 'x' should hold numbers"),
        ({"x": pd.date_range("2024-01-01", periods=9)}, {"x": ["soon"]}, "column 'x' should hold times"),
    ],
)
def test_values_of_another_kind_are_refused(columns: dict[str, Any], sent: dict[str, Any], line: str) -> None:
    with pytest.raises(DataError, match=line):
        feature.apply(fitted(columns, time="x" if "times" in line else None), pd.DataFrame(sent))


@pytest.mark.parametrize("value", ["12", 12, 12.0, np.float32(12)])
@pytest.mark.parametrize("beside", [[], [None], ["12a"]])
def test_a_category_is_told_by_what_a_person_would_name_it(value: Any, beside: list[Any]) -> None:
    """As text or as a number, alone or beside a gap."""
    features = fitted({"x": ["12", "12a", "true", "12"]})
    assert feature.apply(features, pd.DataFrame({"x": [value, *beside]}))["x"].iloc[0] == "12"


def test_times_with_decimals_are_not_rounded() -> None:
    """As float32 they would stand still for seconds."""
    times = pd.Series(15_000_001.0 + np.arange(8)).astype("float32")
    assert np.diff(feature.moments(times, "s")).tolist() == [10**9] * 7
