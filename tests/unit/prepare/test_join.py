"""A second table: one row per id, found or not, and gone without."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stages.common.errors import DataError
from stages.prepare.join import join
from stages.prepare.raw import in_memory

Prepare = Callable[..., Any]
FIRST = pd.DataFrame({"id": ["3", "1", "2"], "x": [30, 10, 20]})
SECOND = pd.DataFrame({"id": ["1", "3", "9"], "os": ["ios", None, "mac"], "score": [0.5, 1.5, 2.5]})


def test_each_row_finds_its_own() -> None:
    table, note = join(in_memory(FIRST), in_memory(SECOND), "id")
    joined = table.columns(["joined", "score", "x", "os"])

    assert table.names == ("id", "x", "os", "score", "joined")
    assert joined.columns.tolist() == ["joined", "score", "x", "os"]
    assert joined["x"].tolist() == [30, 10, 20]
    assert joined["os"].fillna("-").tolist() == ["-", "ios", "-"]
    assert joined["score"].fillna(-1).tolist() == [1.5, 0.5, -1]
    assert joined["joined"].tolist() == [True, True, False]
    assert note == "2 of 3 rows were found in the second table; 1 of its rows belong to none"


@pytest.mark.parametrize(
    ("second", "line"),
    [
        (SECOND.rename(columns={"id": "key"}), "prepare.id names column 'id', which is not there; nearest: '"),
        (SECOND.assign(id=["1", "1", "2"]), "the id 'id' is not unique: 1 of 3 rows repeat one. Keep one row per id."),
        (SECOND.assign(id=SECOND["id"].mask(SECOND["id"] == "3")), "the id 'id' is missing in 1 of 3 rows."),
        (SECOND.assign(x=0), "column 'x' stands in the first table, too. Rename it."),
        (SECOND.assign(joined=0), "column 'joined' stands in the first table, too. Rename it."),
        (
            SECOND.assign(id=["7", "8", "9"]),
            "none of its 3 rows has an id of the first table, such as '3'; its own are such as '7'. Give the file that belongs to it,",
        ),
    ],
)
def test_a_second_table_that_does_not_fit_is_refused(second: pd.DataFrame, line: str) -> None:
    with pytest.raises(DataError) as refused:
        join(in_memory(FIRST), in_memory(second), "id")
    assert str(refused.value).startswith(line)


@pytest.fixture
def two(payments: pd.DataFrame, tmp_path: Path) -> dict[str, Any]:
    """Cut the payments into two files, as Kaggle's are: the second has half of the rows."""
    beside = ["device", "age"]
    payments.drop(columns=beside).to_csv(tmp_path / "first.csv", index=False)
    payments.loc[::2, ["transaction", *beside]].to_csv(tmp_path / "second.csv", index=False)
    roles = {"label": "is_fraud", "time": "time", "id": "transaction", "entity": "customer"}
    return {"path": tmp_path / "first.csv", "join_path": str(tmp_path / "second.csv"), **roles}


def test_two_files_are_prepared_as_one(prepare: Prepare, two: dict[str, Any], payments: pd.DataFrame) -> None:
    made = prepare(**two)

    assert {"device", "age", "joined"} < set(made.features.names)
    assert made.train.X["joined"].tolist() == [float(row % 2 == 0) for row in made.train.row]
    assert made.train.X["device"].isna().tolist() == [
        row % 2 == 1 or pd.isna(device) for row, device in zip(made.train.row, payments["device"].iloc[made.train.row], strict=True)
    ]
    assert "1000 of 2000 rows were found in the second table" in made.data["notes"]


def test_without_the_second_file_a_run_goes_on_and_says_so(prepare: Prepare, two: dict[str, Any]) -> None:
    Path(two["join_path"]).unlink()
    made = prepare(**two)

    assert not {"device", "age", "joined"} & set(made.features.names)
    assert "the second table, prepare.join_path, was not there: its columns are missing" in made.data["notes"]


def test_a_refusal_names_the_file_that_it_is_about(prepare: Prepare, two: dict[str, Any]) -> None:
    Path(two["join_path"]).write_text("transaction,device\nt1,ios\nt1,mac\n")
    with pytest.raises(DataError, match=r"second\.csv: the id 'transaction' is not unique: 1 of 2 rows repeat one"):
        prepare(**two)
