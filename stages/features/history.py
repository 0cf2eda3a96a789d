"""What an entity did before: of strictly earlier rows alone, and of labels only those that were known by then.

Sums run within one entity in order of time, so that a row alone, given its past, gets the same bits as among all others.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Per statistic what it says of the entity's earlier rows; missing where there is none.
STATISTICS = {
    "count": "how many",
    "since": "days since the last one",
    "mean": "mean amount",
    "spread": "standard deviation of the amount",
    "ratio": "this row's amount in multiples of the mean",
    "known": "how many of them had a label that was known",
    "rate": "share of positives among those",
}
OF_AMOUNTS = ("mean", "spread", "ratio")
OF_LABELS = ("known", "rate")
DAY = 86_400 * 10**9  # ns


@dataclass(frozen=True)
class Earlier:
    """Rows in order of entity and time, and where in that order each row's past begins and ends."""

    order: Integers  # row numbers
    entity: Integers  # per place in the order
    time: Integers  # ns
    first: Integers  # place of the entity's first row
    end: Integers  # place of the first row that is not strictly earlier

    @property
    def count(self) -> Integers:
        """Number of strictly earlier rows."""
        return self.end - self.first

    def back(self, values: Floats) -> Floats:
        """Bring values from this order into the rows' own; missing where a row has no entity."""
        made = np.empty(len(values))
        made[self.order] = np.where(self.entity < 0, np.nan, values)
        return made

    def before(self, values: Floats) -> Floats:
        """Sum values (in this order) over each row's past."""
        total = pd.Series(values).groupby(self.entity, sort=False).cumsum().to_numpy()
        return np.where(self.count > 0, total[self.end - 1], 0.0)


def earlier(entity: Integers, time: Integers) -> Earlier:
    """Order rows by entity (-1: none) and time (ns), and find each row's strict past."""
    order = np.lexsort((time, entity))
    entity, time = entity[order], time[order]
    place = np.arange(len(order))
    is_new = np.append(True, entity[1:] != entity[:-1])[: len(order)]
    is_later = is_new | np.append(True, time[1:] != time[:-1])[: len(order)]
    first, end = (np.maximum.accumulate(np.where(starts, place, 0)) for starts in (is_new, is_later))
    return Earlier(order, entity, time, first, end)


def statistics(past: Earlier, amount: Floats | None, label: NDArray[np.int8] | None, delay: int) -> dict[str, Floats]:
    """Give each statistic per row.

    Args:
        past: the rows, ordered.
        amount: per row, NaN where it is missing; None where no column is the amount.
        label: 1, 0, and -1 where it is not known; None where labels play no part.
        delay: nanoseconds after which a row's label is known.

    """
    made = {"count": past.count.astype(np.float64)}
    last = past.time[np.maximum(past.end - 1, 0)]
    made["since"] = np.where(past.count > 0, (past.time - last) / DAY, np.nan)
    if amount is not None:
        made |= _of_amounts(past, amount[past.order])
    if label is not None:
        made |= _of_labels(past, label[past.order], delay)
    return {name: past.back(values) for name, values in made.items()}


def _of_amounts(past: Earlier, amount: Floats) -> dict[str, Floats]:
    there = ~np.isnan(amount)
    count = past.before(there.astype(np.float64))
    # Around the entity's first amount, so that squares of large amounts do not drown the spread.
    near = np.where(there, amount, 0.0) - np.where(there, _first_amount(past, amount), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = past.before(near) / count
        spread = np.sqrt(np.maximum(past.before(near * near) / count - shift * shift, 0))
        mean = np.where(count > 0, shift + _first_amount(past, amount), np.nan)
        return {"mean": mean, "spread": np.where(count > 1, spread, np.nan), "ratio": np.where(mean > 0, amount / mean, np.nan)}


def _first_amount(past: Earlier, amount: Floats) -> Floats:
    filled: Floats = pd.Series(amount).groupby(past.entity, sort=False).transform("first").to_numpy(dtype=np.float64)
    return np.nan_to_num(filled)


def _of_labels(past: Earlier, label: NDArray[np.int8], delay: int) -> dict[str, Floats]:
    time = np.empty_like(past.time)
    time[past.order] = past.time  # tables mostly stand in order of time: there, places are found several times as fast
    known_from, width = np.sort(time), len(time) + 1
    rank = np.searchsorted(known_from, time)[past.order]  # of rows that are earlier; what is known was made before so many
    bound = np.searchsorted(known_from, time - delay, side="right")[past.order]
    numbered = past.entity - past.entity.min(initial=0)
    end = np.minimum(np.searchsorted(numbered * width + rank, numbered * width + bound), past.end)
    known = _between(label >= 0, past.first, end)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"known": known, "rate": np.where(known > 0, _between(label == 1, past.first, end) / known, np.nan)}


def _between(is_so: NDArray[np.bool_], first: Integers, end: Integers) -> Floats:
    total = np.append(0.0, np.cumsum(is_so))
    found: Floats = total[end] - total[first]
    return found


def entities(columns: list[pd.Series]) -> Integers:
    """Give a number to each combination of several columns' values; -1 where one of them is missing."""
    numbers = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        codes, found = pd.factorize(column)
        numbers = np.where((numbers < 0) | (codes < 0), -1, numbers * (len(found) + 1) + codes)
        numbers = np.where(numbers < 0, -1, pd.factorize(numbers)[0])
    return numbers
