"""What a table must be to learn from: what is refused or noted, by values alone, and what is let pass."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.common.errors import DataError
from stages.prepare import check
from stages.prepare.config import Config
from stages.prepare.raw import in_memory
from stages.prepare.split import SPLITS

DAY = 86_400 * 10**9  # ns
NAMES = ["amount", "colonne 7"]  # which play no part


def column(values: list[Any], name: str = "x") -> pd.Series:
    return pd.Series(values, name=name, index=pd.RangeIndex(10, 10 + len(values)))  # as if from a sample of a file


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("written", "how"),
    [
        ("{:,}", "with a comma"),
        ("{:,}.5", "with a comma"),
        ("{}.000,50", "with a comma"),
        ("{},5", "with a comma"),
        ("{}%", "with a percent sign"),
        ("{},5 %", "with a percent sign"),
        ("${}.00", "with a currency"),
        ("-€ {}", "with a currency"),
        ("{} EUR", "with a currency"),
        ("{} 000", "with gaps between digits"),
        ("{}'000.50", "with gaps between digits"),
        ("({}.5)", "in brackets"),
    ],
)
def test_numbers_written_for_people_are_no_words(name: str, written: str, how: str) -> None:
    """All of them are, or a few among others."""
    odd = [written.format(number) for number in (range(1_000, 1_040) if written.startswith("{:,}") else range(100, 140))]
    for values, count, row in ((odd, 40, 11), ([*map(str, range(400)), *odd[:3]], 3, 411)):
        with pytest.raises(DataError) as refused:
            check.check_numbers(column(values, name).to_frame())
        said = f"column {name!r} holds numbers, but {count} values are written {how}, such as {values[-len(odd[:count])]!r} and "
        assert str(refused.value).startswith(said)
        assert f"the first in data row {row}. Write them as 1234.5, or name the column in prepare.drop." in str(refused.value)


@pytest.mark.parametrize(
    "values",
    [
        [f"{one},{two},{three}" for one in range(3) for two in range(3) for three in range(3)],
        [f"v{number}%" for number in range(40)],
        [f"BMW {number}" for number in range(300, 340)],
        [f"1.{number}.2" for number in range(40)],
        ["10%", "20%", "30%"] * 20,
        [f"{number}-{number + 1}" for number in range(40)],
    ],
    ids=["several choices", "names", "kinds of cars", "versions", "few classes", "ranges"],
)
def test_words_with_digits_stay_words(values: list[str]) -> None:
    check.check_numbers(column(values).to_frame())


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["39", "State-gov", "77516"], " Some names, such as '39', are numbers, as if the header were missing."),
        (["0", "1", "2"], ""),
        (["id", "1", "2"], ""),
        (["id", "a1"], ""),
    ],
)
def test_a_missing_header_shows_by_numbers(columns: list[str], said: str) -> None:
    assert check.headless(columns) == said


def different(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    words = {f"w{number}": rng.choice(["a", "b", None], rows) for number in range(40)}
    return pd.DataFrame({**words, "x": rng.normal(size=rows), "known": pd.array(rng.random(rows) < 0.5, "boolean")})


def test_rows_that_differ_in_the_last_column_are_no_copies() -> None:
    frame = pd.concat([different(50).iloc[[0] * 50].reset_index(drop=True), pd.Series(range(50), name="y")], axis=1)

    assert check.check_copies(in_memory(frame), "random") == ""


def test_few_copies_are_noted_and_many_refused() -> None:
    frame = different(200)

    few, many = (in_memory(frame.iloc[[*range(200), *again]]) for again in ([3, 3, 7], [*range(200), 5]))
    assert check.check_copies(few, "time") == "3 of 203 rows are copies of earlier ones"
    assert check.check_copies(few, "random") == "3 of 203 rows are copies of earlier ones; some may stand in train and in test"
    with pytest.raises(DataError, match="201 of 401 rows are copies of earlier ones, as if a file stood behind itself"):
        check.check_copies(many, "time")


def test_few_values_make_copies_by_nature() -> None:
    frame = pd.DataFrame({"class": [1, 2, 3] * 300, "adult": [0, 1] * 450, "survived": [0, 0, 1] * 300})

    assert check.check_copies(in_memory(frame), "order") == "894 of 900 rows are copies of earlier ones"


ZERO = pd.Timestamp("1970-01-01")
DAYS = pd.date_range("2024-01-01", periods=400, freq="D")


@pytest.mark.parametrize(
    "times",
    [
        [*DAYS[:20], *DAYS[-380:]],
        [*DAYS[:2], *DAYS[-398:] + pd.Timedelta(days=3_000)],
        [pd.Timestamp("2024-01-01")] * 390 + [pd.Timestamp("2024-03-01")] * 10,
        list(range(400)),
        [86_400 * number for number in range(400)],
        [1_700_000_000 + 3_600 * number for number in range(400)],
        np.geomspace(1, 1e6, 400).round(3).tolist(),
        [7] * 400,
    ],
    ids=["days", "years before", "a day and a few later", "order", "an offset", "seconds", "ever faster", "one"],
)
def test_times_that_can_be_are_taken(times: list[Any]) -> None:
    assert len(check.event_times(column(times))) == 400


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("times", "line"),
    [
        ([*DAYS[:398], ZERO, ZERO], "2 of 400 rows lie far from the others, such as 1970-01-01 00:00:00 in data row 409;"),
        ([*DAYS[:399], pd.Timestamp("2099-01-01")], "1 of 400 rows lie far from the others, such as 2099-01-01 00:00:00 in data row 410;"),
        ([*DAYS[:399], pd.Timestamp("1899-12-30")], "runs from 1899-12-30 00:00:00 to 2025-02-02 00:00:00: not all of these can be."),
        ([*range(399), 1_700_000_000], "such as 1700000000 in data row 410; most lie between 20 and 379"),
        ([0, *range(1_700_000_000, 1_700_000_399)], "1 of 400 rows lie far from the others, such as 0 in data row 11;"),
        ([*range(100, 300), *range(300_000, 500_000, 1_000)], "jumps by a factor of 1003, from 299 to 300000: it is written in two units."),
    ],
    ids=["zero", "far on", "before all", "a number amid counts", "zero among seconds", "two units"],
)  # fmt: skip
def test_times_that_are_none_are_refused(name: str, times: list[Any], line: str) -> None:
    with pytest.raises(DataError) as refused:
        check.event_times(column(times, name))
    assert f"the event time {name!r}" in str(refused.value)
    assert line in str(refused.value)


@pytest.mark.parametrize(
    ("last", "unit", "said"),
    [
        (743, "s", "spans 743 seconds in all by prepare.time_unit ('s')"),
        (86_400 * 90_000, "s", "spans 247 years in all"),
        (86_400 * 90, "s", ""),
        (86_400 * 90_000, "ms", ""),
        (1, "day", ""),
    ],
)
def test_a_unit_that_can_hardly_be_is_noted(last: int, unit: str, said: str) -> None:
    assert said in check.check_unit(column([0, last], "t"), unit)
    assert bool(said) == bool(check.check_unit(column([0, last], "t"), unit))
    assert check.check_unit(column([*DAYS[:2]], "t"), unit) == ""


def ripe(y: np.ndarray[Any, Any], *, unit: str = "", test: slice | None = None, **options: Any) -> str:
    """Look at a row per hour of 100 days, at times as numbers in a unit, or as ns; test is the last tenth, or as given."""
    config = Config(label_delay_days=20, **({"time_unit": unit} if unit else {}), **options)
    times = np.arange(2_400) * ({"": DAY, "s": 86_400, "day": 1}[unit] / 24)
    part = np.zeros(2_400, dtype=np.intp)
    part[test or slice(-240, None)] = SPLITS.index("test")
    return check.check_ripe(config, bool(unit), times, y.astype(np.int8), part)


@pytest.mark.parametrize("unit", ["", "s", "day"])
def test_labels_that_are_not_known_yet_are_told(unit: str) -> None:
    """They come late: of the last 20 days few are known, so that a test by time would say nothing."""
    hours = np.arange(2_400)
    all_known = hours % 10 == 0
    late, gone = all_known & (hours < 1_950), all_known & (hours < 1_000)

    assert ripe(all_known, unit=unit) == ""
    with pytest.raises(
        DataError, match=r"the last 20 days hold 3 positives in 480 rows, all before 192 in 1920: .* test has 0 positives in 240"
    ):
        ripe(late, unit=unit)
    assert ripe(late, unit=unit, test=slice(240, 480)).startswith("the last 20 days hold 3 positives in 480 rows, all before 192 in 1920")
    assert ripe(all_known & (hours < 2_200), unit=unit) == ""  # half of what was to be expected
    assert ripe(gone & (hours % 100 == 0), unit=unit) == ""  # too few to tell


def test_labels_that_are_known_at_once_are_all_ripe() -> None:
    config = Config(label_delay_days=0)
    y = (np.arange(1_000) < 500).astype(np.int8)

    assert check.check_ripe(config, is_number=False, times=np.arange(1_000) * DAY, y=y, part=np.arange(1_000) // 400) == ""


def test_somebody_acts() -> None:
    assert check.check_entity(column(["a", "a", None])) == ""
    assert check.check_entity(column(["a", "b", None], "who")) == "the entity 'who' has another value in each of 2 rows: nobody has a past"
    with pytest.raises(DataError, match="the entity 'who' is missing in all 2 rows"):
        check.check_entity(column([None, None], "who"))


def test_few_positives_are_told_with_what_they_can_say() -> None:
    label = np.repeat(np.array([0, 1], dtype=np.int8), [900, 25])

    assert check.few_positives(label, "test") == "test has 25 positives: an AUC of 0.9 is known to about ±0.04 by them"
    assert check.few_positives(np.tile(label, 2), "test") == ""
