"""`surefoot init` guesses as a person would, says why, and what it writes is a config that prepare takes."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stages.common import config, yaml
from stages.common.errors import DataError, MissingInput, UsageError
from stages.prepare import generate
from workflows.init import guess, init_file

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


@pytest.fixture
def table(tmp_path: Path) -> Any:
    """Give ``table(columns)``, which writes a CSV file of 100 rows, more or less, and gives its path."""

    def table(columns: dict[str, Any], name: str = "my.csv") -> Path:
        path = tmp_path / name
        pd.DataFrame(columns).to_csv(path, index=False)
        return path

    return table


def guessed(path: Path, **asked: Any) -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(guess(path, **asked), "guess")["prepare"]
    return document


def real(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not beside the checkout ({DATA})")
    return DATA / name


def test_adult() -> None:
    found = guessed(real("adult.csv"))

    assert {name: found[name] for name in ("label", "positive", "time", "id", "entity", "split", "drop")} == {
        "label": "income",
        "positive": ">50K",
        "time": None,
        "id": None,
        "entity": None,
        "split": "random",
        "drop": [],
    }


def test_bank_marketing() -> None:
    found = guessed(real("bank-marketing.csv"), drop=("duration",))

    assert (found["label"], found["positive"], found["split"], found["drop"]) == ("y", "yes", "random", ["duration"])


def test_card_transactions() -> None:
    """The time stands there three times: it is one time and two columns to drop."""
    found = guessed(real("card-transactions.parquet"), drop=("TX_FRAUD_SCENARIO",))

    assert (found["label"], found["positive"], found["split"]) == ("TX_FRAUD", 1, "time")
    assert (found["time"], found["id"], found["entity"]) == ("TX_DATETIME", "TRANSACTION_ID", "CUSTOMER_ID")
    assert found["drop"] == ["TX_FRAUD_SCENARIO", "TX_TIME_SECONDS", "TX_TIME_DAYS"]


def test_the_generated_table(tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    generate.table(1_000, seed=0).to_csv(path, index=False)
    found = guessed(path)

    assert (found["label"], found["time"], found["id"], found["entity"]) == ("is_fraud", "time", "transaction", "customer")
    assert found["drop"] == []


def test_each_guess_gives_its_reason(table: Any) -> None:
    path = table({"id": range(100), "x": [1, 2, 3, 4] * 25, "y": [0, 1] * 50, "note": ["a"] * 100})
    lines = guess(path, drop=("note",)).splitlines()

    assert all("  # " in line or line.endswith(":") for line in lines[1:])
    assert [line.split("  # ")[1] for line in lines if line.startswith(("  label", "  id", "    - "))] == [
        "a usual name for a label, with two values",
        "has another value in each row",
        "given as --drop",
    ]


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        ({"a": [1, 2, 3] * 30, "default": [0, 1, 2] * 30, "fraud_bool": [0, 1, 0] * 30}, "fraud_bool"),
        ({"flag": [0, 1, 0] * 30, "isFraud": [0, 0, 1] * 30}, "isFraud"),
        ({"won": ["a", "b", "a"] * 30, "n": [1, 2, 3] * 30}, "won"),
        ({"sex": ["m", "f", "f"] * 30, "n": [1, 2, 3] * 30, "ended": [0, 1, 1] * 30}, "ended"),
    ],
    ids=["two values before a usual name", "a usual name before the others", "the only one", "the last one"],
)
def test_the_label(table: Any, columns: dict[str, Any], label: str) -> None:
    assert guessed(table(columns))["label"] == label


@pytest.mark.parametrize(
    ("values", "positive", "reason"),
    [
        ([1, 2, 2], 1, "the rarer value"),
        ([2, 1, 1], 2, "the rarer value"),
        ([0, 1, 1], 1, "a usual word for it"),
        ([True, False, True], True, "a usual word for it"),
        ([0.5, 1.5, 1.5], 0.5, "the rarer value"),
        (["2024-01-01", "2024-01-02", "2024-01-02"], "2024-01-01 00:00:00", "the rarer value"),
    ],
)
def test_the_positive_value(table: Any, values: list[Any], positive: Any, reason: str) -> None:
    path = table({"x": [5, 6, 7] * 30, "won": values * 30})

    assert guessed(path, label="won")["positive"] == positive
    assert f"# {reason}: " in guess(path, label="won")


def test_a_label_that_cannot_be_told_is_asked_for(table: Any) -> None:
    path = table({"a": [0, 1] * 50, "b": ["u", "v"] * 50, "n": range(100)})

    with pytest.raises(UsageError, match=r"cannot tell which column is the label. Those with two values: a, b. Name it: --label COLUMN"):
        guess(path)
    assert guessed(path, label="b")["label"] == "b"


@pytest.mark.parametrize(
    ("columns", "time"),
    [
        ({"birth_date": pd.date_range("1980-01-01", periods=100)}, None),
        ({"TransactionDT": range(0, 1_000, 10)}, "TransactionDT"),
        ({"TransactionDT": [*range(99), 5]}, None),
        ({"settled_at": ["2024-02-01"] * 50 + ["2024-01-05"] * 50, "paid_at": pd.date_range("2024-01-01", periods=100)}, "paid_at"),
    ],
    ids=["a date of birth is no event", "rising numbers of a good name", "numbers that fall", "the one that rises"],
)
def test_the_time(table: Any, columns: dict[str, Any], time: str | None) -> None:
    found = guessed(table({**columns, "y": [0, 1] * 50}))

    assert (found["time"], found["split"]) == (time, "time" if time else "random")


def test_all_that_names_rows_is_kept_out(table: Any) -> None:
    found = guessed(table({"order_no": range(7, 700, 7)[:99], "uuid": [f"u{n}" for n in range(99)], "y": [0, 1, 1] * 33}))

    assert (found["id"], found["drop"]) == ("order_no", ["uuid"])


def test_the_delimiter(table: Any, tmp_path: Path) -> None:
    path = tmp_path / "semicolons.csv"
    path.write_text("a;y\n" + "1,5;no\n2,5;yes\n" * 20)
    found = guessed(path)

    assert (found["delimiter"], found["label"], found["positive"]) == (";", "y", "yes")
    assert "delimiter" not in guessed(table({"a": [1, 2], "y": [0, 1]}))


def test_keys_are_told_apart_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("id, x,y\n00007,1,0\n7,2,1\n8,3,1\n")

    assert guessed(path, id="id")["id"] == "id"


def test_hyphens_are_read_as_underscores(table: Any) -> None:
    found = guessed(table({"card-id": [1, 2, 3, 4] * 25, "is-bad": [0, 1] * 50, "a-b": range(100)}), label="is-bad", drop=("a-b",))

    assert (found["label"], found["drop"]) == ("is_bad", ["a_b"])


def test_text_times_in_parquet_are_the_time_as_in_csv(table: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame({"when": pd.date_range("2024-01-01", periods=100).astype("str"), "n": [1, 2] * 50, "y": [0, 1] * 50})
    frame.to_parquet(tmp_path / "my.parquet")

    found, other = guessed(tmp_path / "my.parquet"), guessed(table(frame))
    assert (found["time"], found["split"]) == ("when", "time")
    assert {**found, "path": ""} == {**other, "path": ""}


def test_what_the_user_names_is_taken(table: Any) -> None:
    path = table({"who": ["a", "b"] * 50, "when": range(100), "key": range(100), "later": [0] * 100, "y": [0, 1] * 50, "z": [0, 1] * 50})
    found = guessed(path, label="z", time="when", id="key", entity="who", drop=("later",), split="order")

    assert [found[name] for name in ("label", "time", "id", "entity", "split", "drop")] == ["z", "when", "key", "who", "order", ["later"]]


@pytest.mark.parametrize("option", ["label", "time", "id", "entity"])
def test_a_wrong_name_is_answered_with_the_nearest(table: Any, option: str) -> None:
    named: dict[str, Any] = {option: "amuont"}
    with pytest.raises(UsageError, match=f"--{option} 'amuont' is no column of .*; nearest: 'amount'"):
        guess(table({"amount": [1, 2], "y": [0, 1]}), **named)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "is empty"),
        (b"a,y\n1,0\n2,1", "ends without a newline"),
        (b"a,label\n1,0\n2,1\n3,2\n", "the label 'label' has 3 values, not two"),
        (b"a,label\n1,0\n2,0\n", "the label 'label' is the same in all rows"),
        (b"a,y\n1,0\ninf,1\n", "column 'a' has 1 infinite values, the first in data row 2"),
        (b"a,y\n1,0\n1,inf\n", "column 'y' has 1 infinite values, the first in data row 2"),
        (b"a,y\n1,0\n1e300,1\n", r"column 'a' has 1 numbers beyond 3.4028235e\+38"),
        (b"a,y\n" + b"".join(b"%d,%d\n" % (n, n % 2) for n in range(40)) + b"-,1\n", "column 'a' holds numbers, but 1 values are none"),
    ],
)
def test_a_bad_table_is_refused_as_prepare_would(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)

    with pytest.raises(DataError, match=line) as caught:
        guess(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(("option", "line"), [("id", "the id 'x' is not unique"), ("time", "the event time 'x': 100 values are no times")])
def test_a_role_that_a_column_cannot_have_is_refused(table: Any, option: str, line: str) -> None:
    named: dict[str, Any] = {option: "x"}
    with pytest.raises(DataError, match=line):
        guess(table({"x": ["a", "b"] * 50, "y": [0, 1] * 50}), **named)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    for place, problem in ((tmp_path / "none.csv", "there is no such file"), (tmp_path, "the folder holds no file")):
        with pytest.raises(MissingInput, match=f"{place}: {problem}"):
            guess(place)


def test_a_folder_of_daily_files(tmp_path: Path) -> None:
    for day in (1, 2):
        folder = tmp_path / "in" / f"day={day}"
        folder.mkdir(parents=True)
        pd.DataFrame({"n": range(100), "y": [0, 1] * 50}).to_csv(folder / "part.csv", index=False, sep=";")
    found = guessed(tmp_path / "in", beside=tmp_path)

    assert (found["path"], found["delimiter"], found["label"]) == ("in", ";", "y")


def test_odd_names_and_values_survive_the_config(table: Any) -> None:
    odd = "a: \"b\" # c\\ 'é' 😀\t"
    found = guessed(table({odd: ["- no", "{x}"] * 50, "n": range(100)}), label=odd.strip())

    assert (found["label"], found["positive"]) == (odd.strip(), "- no")


def test_what_is_written_is_a_config(table: Any, tmp_path: Path) -> None:
    path = table({"x": range(100), "y": [0, 1] * 50})
    out = tmp_path / "configs" / "my.yaml"
    init_file(path, out)

    section = config.load(out, environment={})["prepare"]
    assert Path(section.path).resolve() == path
    assert (section.source, section.label, section.split) == ("file", "y", "random")


def test_a_config_that_was_edited_is_kept(table: Any, tmp_path: Path) -> None:
    path = table({"x": range(100), "y": [0, 1] * 50})
    out = tmp_path / "my.yaml"
    init_file(path, out)
    init_file(path, out)  # nothing would change
    out.write_text("edited")

    with pytest.raises(UsageError, match="is there and differs from what would be written"):
        init_file(path, out)
    assert out.read_text() == "edited"
    init_file(path, out, force=True)
    assert out.read_text() != "edited"
