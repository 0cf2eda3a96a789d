"""What gives the label or the future away, by values alone: names play no part in it."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.common.errors import DataError
from stages.features import features as feature
from stages.features.features import Features

ROWS = 100_000  # of train, at most, to look at each column by
BINS = 64  # of a number's values, at equal counts
FEWEST = 20  # positives, and negatives, below which an AUC says nothing
AS_TIME = 0.999  # rank correlation with the event time from which a column is the time again


def check_columns(matrix: pd.DataFrame, label: NDArray[np.int8], highest: float, allowed: list[str], features: Features) -> None:
    """Refuse a column that tells the label alone, or a copy of it with some noise.

    Each value's (or bin's) share of positives is taken from half of the train rows and scored by AUC on the other half, so that
    a value that stands once tells nothing.

    Raises:
        DataError: the first such column, with its AUC.

    """
    rows = np.random.default_rng(0).permutation(len(label))[:ROWS]
    half = len(rows) // 2
    y = label[rows]
    if min(np.bincount(y[half:], minlength=2)) < FEWEST:
        return
    raw = {column.name: column.raw for column in features.columns}
    for name in matrix:
        if raw[str(name)] in allowed:
            continue
        bins = _binned(matrix[name].iloc[rows])
        found = auc(y[half:], _shares(bins[:half], y[:half], int(bins.max()) + 1)[bins[half:]])
        if found > highest:
            raise DataError(
                f"column {raw[str(name)]!r} alone tells the label with an AUC of {found:.3f} (prepare.max_column_auc: {highest:g}): "
                "it is a copy of it, or known only after. Name it in prepare.drop; if it is honest, in prepare.allow."
            )


def _binned(values: pd.Series) -> NDArray[np.intp]:
    """Give the number of each value, or of its bin; missing has its own."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.cat.codes.to_numpy().astype(np.intp) + 1
    numbers = values.to_numpy("float64")
    edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1])) if not np.isnan(numbers).all() else np.empty(0)
    return np.where(np.isnan(numbers), 0, np.searchsorted(edges, numbers, side="left") + 1)


def _shares(bins: NDArray[np.intp], label: NDArray[np.int8], count: int) -> NDArray[np.float64]:
    """Share of positives per bin, drawn towards the whole's by one row."""
    positives, rows = np.bincount(bins, label, count), np.bincount(bins, minlength=count)
    found: NDArray[np.float64] = (positives + label.mean()) / (rows + 1)
    return found


def auc(label: NDArray[np.int8], score: NDArray[np.float64]) -> float:
    """Area under the ROC curve, ties counted half (the Mann-Whitney statistic)."""
    ranks = pd.Series(score).rank().to_numpy()
    positives = int(label.sum())
    negatives = len(label) - positives
    return float((ranks[label == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def check_future(features: Features, frame: pd.DataFrame, matrix: pd.DataFrame, times: NDArray[Any] | None) -> None:
    """Make all columns again for the first half of the time, with the rest cut off: not one value may move.

    Raises:
        DataError: a feature saw the future.

    """
    if times is None or not any(column.is_history for column in features.columns):
        return
    early = times <= np.quantile(times, 0.5, method="lower")
    again = feature.apply(features, frame[early])
    for column in features.columns:
        was, now = matrix.loc[early, column.name], again[column.name]
        if not was.equals(now):
            moved = int(((was != now) & ~(was.isna() & now.isna())).sum())
            raise DataError(f"feature {column.name!r} sees the future: {moved} of {len(now)} values change when later rows are cut off.")


def times_again(matrix: pd.DataFrame, times: NDArray[Any] | None, features: Features) -> list[str]:
    """Name raw columns that rise or fall with the event time alone: a model cannot carry them beyond its last day."""
    if times is None or len(np.unique(times)) < FEWEST:
        return []
    rows = np.random.default_rng(0).permutation(len(times))[:ROWS]
    order = pd.Series(times[rows]).rank()
    found = []
    for column in features.columns:
        if column.of or column.dtype == "category":
            continue
        values = matrix[column.name].iloc[rows].reset_index(drop=True)
        if values.notna().mean() > 0.5 and abs(values.rank().corr(order)) > AS_TIME:
            found.append(column.raw)
    return found
