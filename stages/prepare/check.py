"""What a table must be to learn from; each function refuses with the numbers and what to do."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.common.errors import DataError
from stages.features.features import RESERVED, spoken
from stages.prepare.config import Config

POSITIVE = ("1", "true", "yes", "y", "t", "fraud", "bad", "positive")  # lower case, the first that is there
LARGEST = float(np.finfo(np.float32).max)  # boosters compute in float32
NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"
MOSTLY_NUMBERS = 0.95  # of a text column's distinct values, and at least FEWEST_NUMBERS: the others are slips, not words
FEWEST_NUMBERS = 20


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
            raise DataError(f"prepare.{option} names column {column!r}, which is not there; nearest: {nearest(column, columns)!r}.")
    if taken := [column for column in columns if column in RESERVED]:
        raise DataError(f"column {taken[0]!r} has a name that Surefoot uses itself ({', '.join(RESERVED)}). Rename it.")


def check_label(values: pd.Series, positive: Any) -> tuple[str, str, NDArray[np.int8]]:
    """Give the label's positive and negative value, and each row's answer: 1 or 0."""
    counts = {spoken(value): int(count) for value, count in values.value_counts().items()}
    said = ", ".join(f"{value[:40]!r} in {count} rows" for value, count in list(counts.items())[:4])
    if missing := int(values.isna().sum()):
        raise DataError(f"the label {values.name!r} is missing in {missing} of {len(values)} rows. Remove or complete them.")
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
        slips = distinct[~distinct.str.fullmatch(NUMBER)]
        if slips.empty or len(distinct) - len(slips) < max(FEWEST_NUMBERS, MOSTLY_NUMBERS * len(distinct)):
            continue
        wrong = frame[column].isin(slips).to_numpy()
        row = int(frame.index[int(wrong.argmax())]) + 1
        said = " and ".join(repr(value[:40]) for value in slips[:2])
        raise DataError(
            f"column {column!r} holds numbers, but {wrong.sum()} values are none, such as {said}, the first in data row {row}. "
            f"Correct or empty them, or name the column in prepare.drop."
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
        return values.to_numpy("int64" if pd.api.types.is_integer_dtype(values) else "float64")
    if values.min() < pd.Timestamp.min or values.max() > pd.Timestamp.max:
        raise DataError(f"the event time {values.name!r} runs from {values.min()} to {values.max()}: not all of these can be.")
    return values.to_numpy(dtype="datetime64[ns]").astype(np.int64)


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
