"""What a table must be to learn from; each function refuses with the numbers and what to do."""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.common.errors import DataError
from stages.features import history
from stages.features.features import RESERVED, UNITS, spoken
from stages.prepare.config import Config
from stages.prepare.raw import Raw
from stages.prepare.split import SPLITS

POSITIVE = ("1", "true", "yes", "y", "t", "fraud", "bad", "positive")  # lower case, the first that is there
LARGEST = float(np.finfo(np.float32).max)  # boosters compute in float32
ODD = {  # numbers as they are written for people, which no one counts with
    "with a comma": r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?|[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+",
    "with a percent sign": r"[+-]?\d[\d.,]*\s?%",
    "with a currency": r"[+-]?\s?(CUR)\s?[+-]?\d[\d.,]*|[+-]?\d[\d.,]*\s?(CUR)".replace("CUR", "[$€£¥₹]|USD|EUR|GBP|CHF|JPY|INR"),
    "with gaps between digits": r"[+-]?\d{1,3}([ '\u00a0\u2009\u202f]\d{3})+([.,]\d+)?",
    "in brackets": r"\(\d[\d.,]*\)",
}
NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"
MOSTLY_NUMBERS = 0.95  # of a text column's distinct values, and at least FEWEST_NUMBERS: the others are slips, not words
FEWEST_NUMBERS = 20
YEARS = (pd.Timestamp("1900-01-01"), pd.Timestamp("2200-01-01"))  # of an event
YEAR = 366 * history.DAY
FAR = 10  # times what nine of ten rows span: a time that lies farther from them is none
UNIT_STEP = 300  # from which factor on neighbouring times are in two units, of which the next is 1000 times the first
UNRIPE = 0.25  # share of the positives that were to be expected, below which labels are not all known yet
FEWEST_EXPECTED = 20  # positives to be expected, below which their lack says nothing
COPIES = 0.5  # of the rows, above which a table is not what it seems
FEW_POSITIVES = 50  # in valid or test, below which an AUC says little


@contextmanager
def about(table: str) -> Iterator[None]:
    """Say of a refusal which table it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{table}: {error}") from error


def nearest(name: str, names: Iterable[str]) -> str:
    """Give the name that is most like the given one."""
    return difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)[0]


def check_names(columns: Sequence[str], config: Config) -> None:
    """Columns that the config names are there, and none has a name that prepare itself uses."""
    named = {"label": config.label, "time": config.time, "id": config.id, "entity": config.entity, "amount": config.amount}
    several = {
        "drop": config.drop,
        "allow": config.allow,
        "start_days": config.start_days,
        **{f"keys.{name}": key for name, key in config.keys.items()},
    }
    for option, column in [*named.items(), *((option, column) for option, columns in several.items() for column in columns)]:
        if column is not None and column not in columns:
            said = f"prepare.{option} names column {column!r}, which is not there; nearest: {nearest(column, columns)!r}."
            raise DataError(said + headless(columns))
    if taken := [column for column in columns if column in RESERVED]:
        raise DataError(f"column {taken[0]!r} has a name that Surefoot uses itself ({', '.join(RESERVED)}). Rename it.")


def headless(columns: Sequence[str]) -> str:
    """Say so where names are numbers that no program counts columns by."""
    numbers = [column for column in columns if re.fullmatch(NUMBER, column)]
    if not numbers or {*numbers} <= {*map(str, range(len(columns)))}:
        return ""
    return f" Some names, such as {numbers[0]!r}, are numbers, as if the header were missing."


def check_copies(table: Raw, split: str) -> str:
    """Give a note where rows stand more than once; refuse when most do, unless there are few values that could stand together.

    All columns count. Where rows have ids, there is no need to look: an id that stands twice is refused.
    """
    hashes, left = np.zeros(len(table), np.uint64), np.arange(len(table))
    for frame in table.groups(table.names):
        hashes[left] = hashes[left] * np.uint64(1_000_003) + pd.util.hash_pandas_object(frame.iloc[left], index=False).to_numpy()
        left = left[pd.Series(hashes[left]).duplicated(keep=False).to_numpy()]
        if not len(left):
            return ""
    copies = int(pd.Series(hashes[left]).duplicated().sum())
    said = f"{copies} of {len(table)} rows are copies of earlier ones"
    if copies > COPIES * len(table) and _possible(table) > FAR * len(table):
        raise DataError(f"{said}, as if a file stood behind itself. Remove them, or name what tells rows apart in prepare.id.")
    return said + ("; some may stand in train and in test" if split == "random" else "")


def _possible(table: Raw) -> float:
    """Give how many different rows the columns' values could make."""
    return math.prod(float(max(1, count)) for frame in table.groups(table.names) for count in frame.nunique())


def check_label(values: pd.Series, positive: Any) -> tuple[str, str, NDArray[np.int8]]:
    """Give the label's positive and negative value, and each row's answer: 1 or 0."""
    counts = {spoken(value): int(count) for value, count in values.value_counts().items()}
    said = ", ".join(f"{value[:40]!r} in {count} rows" for value, count in list(counts.items())[:4])
    if missing := int(values.isna().sum()):
        first = int(values.index[int(values.isna().to_numpy().argmax())]) + 1
        said = f"the label {values.name!r} is missing in {missing} of {len(values)} rows, the first in data row {first}"
        raise DataError(f"{said}. Remove or complete them.")
    if len(counts) == 1:
        raise DataError(f"the label {values.name!r} is the same in all rows: {said}. There is nothing to learn.")
    if len(counts) > 2:
        raise DataError(f"the label {values.name!r} has {len(counts)} values, not two: {said}. Name another column in prepare.label.")
    if positive is not None and spoken(positive) not in counts:
        raise DataError(f"prepare.positive is {spoken(positive)!r}, but the label {values.name!r} has {said}.")
    wanted = spoken(positive) if positive is not None else likely_positive(counts)
    other = next(value for value in counts if value != wanted)
    codes, found = pd.factorize(values)
    return wanted, other, np.array([spoken(value) == wanted for value in found], dtype=np.int8)[codes]


def likely_positive(counts: dict[str, int]) -> str:
    """Give the value that is looked for, of two: 1, true, yes and the like, else the rarer one."""
    one, other = counts
    usual = [value for value, against in ((one, other), (other, one)) if is_usual(value, against)]
    if usual:
        return min(usual, key=lambda value: POSITIVE.index(value.lower()))
    return min(counts, key=lambda value: (counts[value], value))


def is_usual(value: str, other: str) -> bool:
    """Tell whether a label's value is a usual word for what is looked for; of 1 and 2, 1 is only a number."""
    return other in {"0", "-1"} if value == "1" else value.lower() in POSITIVE


def check_ids(values: pd.Series) -> None:
    """No id is missing or stands twice."""
    if missing := int(values.isna().sum()):
        raise DataError(f"the id {values.name!r} is missing in {missing} of {len(values)} rows. Complete them, or set prepare.id to null.")
    if twice := int(values.duplicated().sum()):
        first = values[values.duplicated(keep=False)].iloc[0]
        raise DataError(f"the id {values.name!r} is not unique: {twice} of {len(values)} rows repeat one, such as {spoken(first)[:40]!r}.")


def check_entity(values: pd.Series) -> str:
    """Someone acts; give a note where nobody does so twice."""
    known, distinct = int(values.notna().sum()), values.nunique()
    if not known:
        said = f"the entity {values.name!r} is missing in all {len(values)} rows"
        raise DataError(f"{said}. Name another column in prepare.entity, or set it to null.")
    return f"the entity {values.name!r} has another value in each of {known} rows: nobody has a past" if distinct == known else ""


def check_amounts(frame: pd.DataFrame, config: Config) -> None:
    """Amounts and days are numbers, which features count with."""
    for option, column in [("amount", config.amount), *(("start_days", column) for column in config.start_days)]:
        if column and not pd.api.types.is_numeric_dtype(frame[column]):
            raise DataError(
                f"prepare.{option} names column {column!r}, whose values are no numbers, such as {spoken(frame[column].iloc[0])[:40]!r}."
            )


def check_finite(frame: pd.DataFrame) -> None:
    """No number is infinite, or becomes so in a booster."""
    for column in (column for column in frame if pd.api.types.is_float_dtype(frame[column])):
        values = np.abs(frame[column].to_numpy())
        if np.fmax.reduce(values, initial=0) <= LARGEST:
            continue
        for kind, wrong in (("infinite values", np.isinf(values)), (f"numbers beyond {LARGEST:.7e} (float32)", values > LARGEST)):
            if wrong.any():
                row = int(frame.index[int(wrong.argmax())]) + 1
                raise DataError(f"column {column!r} has {wrong.sum()} {kind}, the first in data row {row}. Correct or empty them.")


def check_numbers(frame: pd.DataFrame) -> None:
    """No column of numbers is read as text for a few slips: its numbers would count as words."""
    for column in (column for column in frame if pd.api.types.is_string_dtype(frame[column])):
        distinct = pd.Series(frame[column].dropna().unique(), dtype="str")
        others = distinct[~distinct.str.fullmatch(NUMBER)]
        odd = others[others.str.fullmatch("|".join(ODD.values()))]
        slips = others.drop(odd.index)
        if others.empty or len(distinct) - len(slips) < max(FEWEST_NUMBERS, MOSTLY_NUMBERS * len(distinct)):
            continue
        how, found = "none", slips
        if not odd.empty:
            how = next(name for name, written in ODD.items() if re.fullmatch(written, odd.iloc[0]))
            how, found = f"written {how}", odd[odd.str.fullmatch(ODD[how])]
        wrong = frame[column].isin(found).to_numpy()
        row = int(frame.index[int(wrong.argmax())]) + 1
        said = " and ".join(repr(value[:40]) for value in found[:2])
        raise DataError(
            f"column {column!r} holds numbers, but {wrong.sum()} values are {how}, such as {said}, the first in data row {row}. "
            f"{'Correct or empty them' if odd.empty else 'Write them as 1234.5'}, or name the column in prepare.drop."
        )


def event_times(values: pd.Series) -> NDArray[Any]:
    """Give event times as nanoseconds since 1970 (UTC), or as the numbers that they are."""
    if missing := int(values.isna().sum()):
        raise DataError(f"the event time {values.name!r} is missing in {missing} of {len(values)} rows. Complete or remove them.")
    if pd.api.types.is_string_dtype(values) or pd.api.types.is_bool_dtype(values):
        wrong = pd.to_datetime(values.astype("str"), format="ISO8601", errors="coerce", utc=True).isna().to_numpy()
        first = int(wrong.argmax())
        found = f"{wrong.sum()} values are no times, such as {spoken(values.iloc[first])[:40]!r} in data row {values.index[first] + 1}"
        if not wrong.any():
            found = "the times are written in several ways (some with a zone, some without), or in one that is not read"
            found += f", such as {spoken(values.iloc[0])[:40]!r}"
        raise DataError(f"the event time {values.name!r}: {found}. Write them as 2024-01-31 23:59:59, or as numbers.")
    if not pd.api.types.is_datetime64_any_dtype(values):
        numbers = values.to_numpy("int64" if pd.api.types.is_integer_dtype(values) else "float64")
        _check_unit(values.name, numbers)
        _check_near(values, numbers, 0)
        return numbers
    if values.min() < YEARS[0] or values.max() >= YEARS[1]:
        said = f"the event time {values.name!r} runs from {values.min()} to {values.max()}: not all of these can be"
        raise DataError(f"{said}. Correct or remove what lies outside of {YEARS[0].year} to {YEARS[1].year}.")
    times = values.to_numpy(dtype="datetime64[ns]").astype(np.int64)
    _check_near(values, times, YEAR)
    return times


def _check_near(values: pd.Series, times: NDArray[Any], least: float) -> None:
    """Refuse times that are none, such as 1970 among 2024: they lie far from all others, and few do."""
    low, high = np.quantile(times, [0.05, 0.95])
    reach = max(FAR * (high - low), least)
    wrong = (times < low - reach) | (times > high + reach)
    if reach and wrong.any():
        first, one, other = (values.iloc[np.abs(times - place).argmin()] for place in (times[wrong.argmax()], low, high))
        raise DataError(
            f"the event time {values.name!r}: {wrong.sum()} of {len(values)} rows lie far from the others, such as {first} "
            f"in data row {values.index[int(wrong.argmax())] + 1}; most lie between {one} and {other}. Correct or remove them."
        )


def _check_unit(name: Any, times: NDArray[Any]) -> None:
    """Refuse numbers that are seconds first and milliseconds later: between these no time is."""
    ordered = np.sort(times[times > 0])
    if len(ordered) < 2:
        return
    steps = ordered[1:] / ordered[:-1]
    place = int(steps.argmax())
    if steps[place] >= UNIT_STEP and 0.05 * len(times) <= place + 1 <= 0.95 * len(times):
        said = f"the event time {name!r} jumps by a factor of {steps[place]:.0f}, from {ordered[place]} to {ordered[place + 1]}"
        raise DataError(f"{said}: it is written in two units. Write it in one, and name that in prepare.time_unit.")


def check_unit(values: pd.Series, unit: str) -> str:
    """Give a note where the times, as numbers in their unit, span less than a day, or more than anybody keeps."""
    if not pd.api.types.is_numeric_dtype(values):
        return ""
    days = (float(values.max()) - float(values.min())) * UNITS[unit] / history.DAY
    if 1 <= days <= 50 * 365:
        return ""
    span = f"{days * 86_400:.6g} seconds" if days < 1 else f"{days / 365:.0f} years"
    return f"the event time {values.name!r} spans {span} in all by prepare.time_unit ({unit!r}): is that its unit?"


def check_ripe(config: Config, is_number: bool, times: NDArray[Any], y: NDArray[np.int8], part: NDArray[np.intp]) -> str:
    """Give a note where the last rows' labels are not all known yet; refuse where they make up test."""
    is_young = times > times.max() - config.label_delay_days * history.DAY / UNITS[config.time_unit if is_number else "ns"]
    young, old = y[is_young], y[~is_young]
    if not len(old) or old.mean() * len(young) < FEWEST_EXPECTED or young.sum() >= UNRIPE * old.mean() * len(young):
        return ""
    said = (
        f"the last {config.label_delay_days:g} days hold {young.sum()} positives in {len(young)} rows, all before {old.sum()} in {len(old)}"
    )
    test = y[part == SPLITS.index("test")]
    if len(test) and test.sum() < UNRIPE * old.mean() * len(test):
        raise DataError(
            f"{said}: their labels are not known yet (prepare.label_delay_days), and test has {test.sum()} positives in {len(test)} rows. "
            "Leave these rows out, or wait for their labels; if all are known, say label_delay_days: 0."
        )
    return f"{said}: their labels may not be known yet (prepare.label_delay_days)"


def few_positives(y: NDArray[np.int8], name: str) -> str:
    """Give a note where there are so few positives that scores say little (half an interval of 95 % by Hanley and McNeil, of .9)."""
    count = int(y.sum())
    half = 1.96 * ((0.9 / 1.1 - 0.81) / max(count, 1)) ** 0.5
    return f"{name} has {count} positives: an AUC of 0.9 is known to about ±{half:.2f} by them" if count < FEW_POSITIVES else ""


def check_splits(labels: dict[str, NDArray[np.int8]], split: str, min_per_class: int) -> None:
    """Each split has rows, and enough of both classes."""
    sizes = ", ".join(f"{name} {len(label)}" for name, label in labels.items())
    if empty := [name for name, label in labels.items() if not len(label)]:
        raise DataError(f"the split by {split} leaves {empty[0]} without a row ({sizes}): too few rows, or too many at one time.")
    for name, label in labels.items():
        positives = int(label.sum())
        for count, kind in ((positives, "positives"), (len(label) - positives, "negatives")):
            if count < min_per_class:
                raise DataError(
                    f"{name} has {count} {kind} in {len(label)} rows where prepare.min_per_class asks for {min_per_class}. "
                    f"Give more rows, or change prepare.split or the shares of the splits (prepare.calibration_share is taken from valid)."
                )


def check_features(names: list[str]) -> None:
    """Something is left to learn from."""
    if not names:
        raise DataError("no column is left to learn from: all are constant, name rows, or were given another role.")
