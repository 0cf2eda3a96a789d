"""What gives the label or the future away, by values alone: names play no part in it."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.common.errors import DataError
from stages.features import features as feature
from stages.features.features import Column, Features

ROWS = 100_000  # of train, at most, to score each column by
BINS, EDGE_ROWS = 64, 20_000  # bins of a number's values, at equal counts among that many, drawn by chance: rows may alternate
FEWEST = 20  # positives, and negatives, below which an AUC says nothing
AS_TIME = 0.95  # rank correlation with the event time from which a column is the time again; three steps reach .943
NEAR_TIME, FEW_TIMES = 0.9, 2_000  # what has no such correlation in so many rows is not looked at in all
TIME_ROWS, FEWEST_TIMES = 20_000, 100  # rows at most, and values at least, from which a correlation says something


def check_columns(matrix: pd.DataFrame, label: NDArray[np.int8], highest: float, allowed: list[str], features: Features) -> None:
    """Refuse a column that tells the label alone, or a copy of it with some noise; of train, ``ROWS`` rows are enough.

    Each value's (or bin's) share of positives is taken from one half of the train rows and scored on the other, so that a value
    that stands once tells nothing. A copy with slips has a lower AUC than what is as sharp and goes by degrees: so a column is
    refused, too, when by one cut it tells the classes apart better than normal values of the highest AUC would.

    Raises:
        DataError: the first such column, with its AUC.

    """
    y, half = label.astype(np.intp), np.random.default_rng(0).permutation(len(label)) % 2
    if np.bincount(2 * half + y, minlength=4).min() < FEWEST:
        return
    sharpest = _sharpness(highest)
    raw = {column.name: column.raw for column in features.columns}
    for name in matrix:
        if raw[str(name)] in allowed:
            continue
        bins = _binned(matrix[name])
        found, hits, misses = told(np.bincount(4 * bins + 2 * half + y, minlength=4 * (int(bins.max()) + 1)).reshape(-1, 2, 2))
        if found > highest or hits - misses > sharpest:
            raise DataError(
                f"column {raw[str(name)]!r} alone tells the label with an AUC of {found:.3f} (prepare.max_column_auc: {highest:g}): "
                f"it finds {hits:.1%} of the positives at {misses:.1%} of the others. It is a copy of the label, or known only after. "
                "Name it in prepare.drop; if it is honest, in prepare.allow."
            )


def told(counts: NDArray[np.intp]) -> tuple[float, float, float]:
    """Give AUC, and the shares of positives and of others above the mean, from rows by bin, half and label.

    A row's score is its bin's share of positives in the other half, drawn towards the whole's by one row.
    """
    other = counts[:, ::-1]
    mean = other[:, :, 1].sum(axis=0) / other.sum(axis=(0, 2))
    score = (other[:, :, 1] + mean) / (other.sum(axis=2) + 1)
    _, place = np.unique(score, return_inverse=True)
    misses, hits = (np.bincount(place.ravel(), counts[:, :, label].ravel()) for label in (0, 1))
    found = float((hits * (np.cumsum(misses) - misses / 2)).sum() / (hits.sum() * misses.sum()))
    is_above = score > counts[:, :, 1].sum() / counts.sum()
    above, both = (np.where(is_above[:, :, None], counts, 0).sum(axis=(0, 1)), counts.sum(axis=(0, 1)))
    return found, float(above[1] / both[1]), float(above[0] / both[0])


def _sharpness(highest: float) -> float:
    """Give by how much the share found of one class exceeds that of the other, at the best cut through two normals of that AUC."""
    normal = NormalDist()
    return 2 * normal.cdf(normal.inv_cdf(highest) / 2**0.5) - 1 if highest < 1 else 1.0


def _binned(values: pd.Series) -> NDArray[np.intp]:
    """Give the number of each value, or of its bin; missing has its own."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.cat.codes.to_numpy().astype(np.intp) + 1
    numbers = values.to_numpy()
    known = numbers[~np.isnan(numbers)]
    some = np.sort(known[np.random.default_rng(0).integers(0, len(known), EDGE_ROWS)] if len(known) > EDGE_ROWS else known)
    edges = np.unique(some[np.linspace(0, len(some), BINS + 1)[1:-1].astype(np.intp)]) if len(some) else some
    return np.where(np.isnan(numbers), 0, np.searchsorted(edges, numbers, side="left") + 1)


def check_future(features: Features, frame: pd.DataFrame, matrix: pd.DataFrame, times: NDArray[Any] | None) -> None:
    """Make columns that see the past again with all that is later than some time cut off: not one earlier value may move.

    A user's own are cut at several times, for nothing else is known of them.

    Raises:
        DataError: a feature saw the future.

    """
    if times is None or not any(column.is_history for column in features.columns):
        return
    is_own = features.columns[0].of.startswith("own:")
    for share in (0.2, 0.5, 0.8, 0.95) if is_own else (0.5,):
        early = times <= np.quantile(times, share, method="lower")
        again = feature.apply(features, frame[early])
        for column in features.columns:
            if not (was := matrix.loc[early, column.name]).equals(now := again[column.name]):
                moved = int(((was != now) & ~(was.isna() & now.isna())).sum())
                raise DataError(
                    f"feature {_said(column)!r} sees the future: {moved} of {len(now)} values change when later rows are cut off."
                )
    if is_own:
        again = feature.apply(features, frame[::-1])[::-1]
        for column in features.columns:  # sums of equal rows may differ in their last bits
            alike = np.isclose(matrix[column.name], again[column.name], rtol=1e-4, equal_nan=True)
            if not alike.all():
                raise DataError(
                    f"feature {_said(column)!r} sees rows of the same time: {(~alike).sum()} of {len(alike)} values change when these are "
                    "turned round, for none is before the other. Let it see strictly earlier times alone."
                )


def _said(column: Column) -> str:
    return column.of.removeprefix("own:") if column.of.startswith("own:") else column.name


def times_again(matrix: pd.DataFrame, times: NDArray[Any] | None, features: Features) -> list[str]:
    """Name raw columns that rise or fall with the event time alone: a model cannot carry them beyond its last day.

    A word stands for the mean time of its rows, taken from one half of the rows and looked at in the other.
    """
    if times is None or len(np.unique(times)) < FEWEST:
        return []
    rows = np.random.default_rng(0).permutation(len(times))[:TIME_ROWS]
    order = pd.Series(times[rows]).rank()
    is_first = order.index < len(order) // 2
    found = []
    for column in features.columns:
        if column.of:
            continue
        values = matrix[column.name].iloc[rows].reset_index(drop=True)
        if column.dtype == "category":
            codes = values.cat.codes
            values = codes.map(order[is_first & (codes >= 0)].groupby(codes).mean()).mask(is_first)
        there = np.flatnonzero(values.notna())
        if len(there) < FEWEST_TIMES or values.min() == values.max():
            continue
        few = there[:FEW_TIMES]
        if _correlation(values.iloc[few], order.iloc[few]) > NEAR_TIME and _correlation(values.iloc[there], order.iloc[there]) > AS_TIME:
            found.append(column.raw)
    return found


def _correlation(one: pd.Series, other: pd.Series) -> float:
    """Give the size of the rank correlation (Spearman)."""
    first, second = (ranks - ranks.mean() for ranks in (one.rank().to_numpy(), other.rank().to_numpy()))
    sizes = (first**2).sum() * (second**2).sum()
    return float(abs((first * second).sum()) / np.sqrt(sizes)) if sizes else 0.0
