"""A user's own features: functions of a table in order of time, which must not see what comes later, nor the label."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.common.errors import DataError, SurefootError
from stages.features import features as feature
from stages.features.features import Features

Prepare = Callable[..., Any]
NAMES = {"amount": "amount", "customer": "customer", "time": "time", "is_fraud": "is_fraud"}
RENAMED = {name: f"c{number}" for number, name in enumerate(NAMES)}
HONEST = """
COLUMNS = ["{amount}", "{customer}"]


def to_last(table):
    return table["{amount}"] / table.groupby("{customer}")["{amount}"].shift()


def _helper(values):
    return values * 2


def doubled(table):
    return _helper(table["{amount}"])
"""
FUTURE_MEAN = """
COLUMNS = ["{amount}", "{customer}"]


def usual(table):
    return table.groupby("{customer}")["{amount}"].transform("mean")
"""
NEXT_ONE = """
COLUMNS = ["{customer}"]


def until_next(table):
    return -table.groupby("{customer}")["{time}"].diff(-1)
"""
PEEKS = """
COLUMNS = ["{amount}", "{is_fraud}"]


def rate(table):
    return table["{is_fraud}"].expanding().mean()
"""
PEEKS_UNASKED = """
COLUMNS = ["{amount}"]


def rate(table):
    return table["{is_fraud}"]
"""


@pytest.fixture
def table(tmp_path: Path) -> Callable[[dict[str, str]], dict[str, Any]]:
    """Give ``table(names)``: a table of 900 payments by 60 customers under those names, and the options that name its roles."""

    def table(names: dict[str, str]) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        amount = rng.lognormal(3, 1, 900).round(2)
        columns = {"amount": amount, "customer": rng.integers(0, 60, 900), "time": rng.integers(0, 10_000_000, 900)}
        frame = pd.DataFrame(columns | {"is_fraud": (rng.random(900) < 0.05 + 0.2 * (amount > 50)).astype(int)})
        frame.rename(columns=names).to_csv(tmp_path / "table.csv", index=False)
        roles = {"label": names["is_fraud"], "time": names["time"], "entity": names["customer"], "label_delay_days": 1}
        return {"path": tmp_path / "table.csv", **roles}

    return table


@pytest.mark.parametrize("names", [NAMES, RENAMED], ids=["named", "renamed"])
def test_an_honest_feature_is_made_for_a_row_alone_as_among_others(
    prepare: Prepare, table: Any, tmp_path: Path, names: dict[str, str]
) -> None:
    made = prepare(**table(names), features_file=own(tmp_path, HONEST, names))
    column = next(one for one in made.features.columns if one.name == "to_last")
    frame = pd.read_csv(tmp_path / "table.csv").sort_values(names["time"], kind="stable")
    expected = (frame[names["amount"]] / frame.groupby(names["customer"])[names["amount"]].shift()).astype("float32")

    assert column.is_history
    assert "_helper" not in made.features.names
    assert made.test.X["to_last"].tolist() == pytest.approx(expected[made.test.row].tolist(), nan_ok=True)
    features = Features.from_json(made.features.to_json())
    row = made.test.row[-1]
    earlier = frame[frame[names["time"]] < frame.loc[row, names["time"]]]
    pd.testing.assert_frame_equal(
        feature.apply(features, frame.loc[[row]].drop(columns=names["is_fraud"]), earlier).reset_index(drop=True),
        made.test.X.iloc[[-1]].reset_index(drop=True),
        check_exact=True,
    )


@pytest.mark.parametrize("names", [NAMES, RENAMED], ids=["named", "renamed"])
@pytest.mark.parametrize(
    ("source", "line"),
    [
        (FUTURE_MEAN, r"feature 'usual' sees the future: \d+ of \d+ values change"),
        (NEXT_ONE, r"feature 'until_next' sees the future: \d+ of \d+ values change"),
        (PEEKS, r"COLUMNS names '{is_fraud}', the label, which no feature is given"),
        (PEEKS_UNASKED, r"feature 'rate' fails in line 6: KeyError: '{is_fraud}'"),
    ],
    ids=["a mean over all", "the next one", "the label", "the label, unasked"],
)
def test_what_sees_the_future_or_the_label_is_named(
    prepare: Prepare, table: Any, tmp_path: Path, source: str, line: str, names: dict[str, str]
) -> None:
    with pytest.raises(DataError, match=line.replace("{is_fraud}", names["is_fraud"])):
        prepare(**table(names), features_file=own(tmp_path, source, names))


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("def f(table):\n    return 1 +\n", r"prepare\.features_file: fails in line 2: SyntaxError"),
        ("import nothing_of_the_kind\n", r"fails in line 1: ModuleNotFoundError"),
        ("def f(table):\n    return table['amount']\n", r"say which raw columns its functions read: COLUMNS = "),
        ('COLUMNS = ["amount"]\n', r"has no function without a leading underscore"),
        ('COLUMNS = ["amuont"]\n\n\ndef f(table):\n    return 1\n', r"COLUMNS names 'amuont', which is no column of the table"),
        ('COLUMNS = ["amount"]\n\n\ndef f(table):\n    return table["amount"].head(3)\n', r"feature 'f' gives 3 values for 900 rows"),
        ("", r"has no function without a leading underscore"),
        (
            'COLUMNS = ["amount"]\n\n\ndef f(table):\n    return table["amount"] / 0\n',
            r"feature 'f' is infinite or beyond float32 in \d+ rows",
        ),
        ('COLUMNS = ["amount"]\n\n\ndef f(table):\n    return table["amount"][::-1]\n', r"feature 'f' gives values in another order"),
        ('import sys\n\nCOLUMNS = ["amount"]\n\n\ndef f(table):\n    sys.exit(0)\n', r"feature 'f' fails in line 7: SystemExit"),
        ('COLUMNS = ["amount"]\n\n\ndef f(table):\n    return ["x"] * len(table)\n', r"feature 'f' fails in line \?: ValueError"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_line(prepare: Prepare, table: Any, tmp_path: Path, source: str, line: str) -> None:
    with pytest.raises(SurefootError, match=line):
        prepare(**table(NAMES), features_file=own(tmp_path, source, NAMES))


def test_a_change_of_the_file_makes_prepare_again(prepare: Prepare, table: Any, tmp_path: Path) -> None:
    first = prepare(**table(NAMES), features_file=own(tmp_path, HONEST, NAMES))
    second = prepare(**table(NAMES), features_file=own(tmp_path, HONEST.replace("* 2", "* 3"), NAMES))
    assert first.files["test.parquet"] != second.files["test.parquet"]


def own(folder: Path, source: str, names: dict[str, str]) -> str:
    path = folder / "own.py"
    for name, column in names.items():
        source = source.replace(f"{{{name}}}", column)
    path.write_text(source, encoding="utf-8")
    return str(path)


def test_products_of_whole_numbers_do_not_wrap(prepare: Prepare, table: Any, tmp_path: Path) -> None:
    """A table is kept in half the room; a user's function is given it in full."""
    options = table(NAMES)
    frame = pd.read_csv(options["path"])
    frame["amount"] = (frame["amount"] * 100_000).astype("int64")
    frame.to_csv(options["path"], index=False)
    made = prepare(
        **options, features_file=own(tmp_path, 'COLUMNS = ["amount"]\n\n\ndef square(t):\n    return t["amount"] * t["amount"]\n', NAMES)
    )

    assert made.test.X["square"].tolist() == pytest.approx((frame["amount"].astype(float) ** 2).iloc[made.test.row].tolist(), rel=1e-6)


def test_rows_of_the_same_time_do_not_see_each_other(prepare: Prepare, table: Any, tmp_path: Path) -> None:
    options = table(NAMES)
    frame = pd.read_csv(options["path"])
    frame.assign(time=frame["time"] // 1_000_000).to_csv(options["path"], index=False)
    with pytest.raises(DataError, match=r"feature 'to_last' sees rows of the same time: \d+ of 900 values change"):
        prepare(**options, features_file=own(tmp_path, HONEST, NAMES))
