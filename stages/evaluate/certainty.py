"""How sure a score is, and where it holds: intervals by resampling who acts, and scores per slice of the rows."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.families import metrics
from stages.features.features import Table

RESAMPLES = 1000
TINY = float(np.finfo(np.float64).eps)  # as log loss is scored elsewhere
FEWEST = 10  # positives, and negatives, of a slice that is scored
MOST = 12  # values of a column by which rows are sliced; the rest, the rarer, count as one
MONTH = 30 * 86_400 * 10**9  # ns


def intervals(label: NDArray[np.int8], probability: NDArray[np.floating], entity: NDArray[Any] | None, seed: int) -> dict[str, list[float]]:
    """Give 95 % intervals of AUC and average precision by the percentile bootstrap over entities (each row its own where there is none).

    Rows of one entity are alike: resampled one by one they would promise too much.
    """
    groups = _groups(label, entity)
    order = np.argsort(-probability, kind="stable")
    y, group = label[order].astype(np.float64), groups[order]
    last = np.append(np.flatnonzero(np.diff(probability[order])), len(order) - 1)  # of rows of equal probability
    found = []
    for drawn in _resamples(groups, seed):
        weight = drawn[group]
        hits, rows = np.cumsum(weight * y)[last], np.cumsum(weight)[last]
        if 0 < hits[-1] < rows[-1]:
            found.append(_areas(hits, rows))
    if not found:
        return {}
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    return {name: [float(low[place]), float(high[place])] for place, name in enumerate(("auc", "average_precision"))}


def paired(
    metric: str, label: NDArray[np.int8], one: NDArray[np.floating], other: NDArray[np.floating], entity: NDArray[Any] | None, seed: int
) -> dict[str, Any]:
    """Give by how much one model is better than another on the same rows, with the 95 % interval of that over the same resamples."""
    groups = _groups(label, entity)
    first, second = (_weighted(metric, label, probability) for probability in (one, other))
    found = []
    for drawn in _resamples(groups, seed):
        weight = drawn[groups]
        if 0 < weight[label == 1].sum() < weight.sum():
            found.append(first(weight) - second(weight))
    difference = metrics.score(metric, label, one) - metrics.score(metric, label, other)
    return {"difference": difference, "interval": [float(end) for end in np.percentile(found, [2.5, 97.5])]}


def _groups(label: NDArray[np.int8], entity: NDArray[Any] | None) -> NDArray[np.intp]:
    """Give each row the number of who acts; without a name, it is one of its own."""
    groups = pd.factorize(entity)[0] if entity is not None else np.arange(len(label))
    alone = groups < 0
    groups[alone] = groups.max(initial=-1) + 1 + np.arange(alone.sum())
    return groups


def _resamples(groups: NDArray[np.intp], seed: int) -> Iterator[NDArray[np.float64]]:
    """Give how often each group is drawn, once per resample."""
    rng, count = np.random.default_rng(seed), int(groups.max()) + 1
    for _ in range(RESAMPLES):
        yield np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)


def _weighted(metric: str, label: NDArray[np.int8], probability: NDArray[np.floating]) -> Callable[[NDArray[np.float64]], float]:
    """Give the function that scores rows by how often each was drawn; the larger, the better."""
    if metric == "log_loss":
        sure = np.asarray(probability, dtype=np.float64).clip(TINY, 1 - TINY)
        gain = np.where(label == 1, np.log(sure), np.log1p(-sure))
        return lambda weight: float((weight * gain).sum() / weight.sum())
    order = np.argsort(-probability, kind="stable")
    y, last = label[order].astype(np.float64), np.append(np.flatnonzero(np.diff(probability[order])), len(order) - 1)
    place = ("auc", "average_precision").index(metric)
    return lambda weight: _areas(np.cumsum(weight[order] * y)[last], np.cumsum(weight[order])[last])[place]


def _areas(hits: NDArray[np.float64], rows: NDArray[np.float64]) -> tuple[float, float]:
    """AUC (by trapezes) and average precision from cumulated positives and rows, best first."""
    misses = rows - hits
    auc = np.trapezoid(np.append(0, hits), np.append(0, misses)) / (hits[-1] * misses[-1])
    precision = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
    return float(auc), float((np.diff(hits, prepend=0) * precision).sum() / hits[-1])


def slices(train: Table, test: Table, probability: NDArray[np.floating], names: list[str]) -> list[dict[str, Any]]:
    """Score the test rows by who acts (seen in train or not), by month, and by the values of the named columns."""
    found = []
    for by, values in _cuts(train, test, names):
        counts = values.value_counts()
        kept = values.where(values.isin(counts.index[:MOST]), "others")
        for value in sorted(kept.unique()):
            rows = (kept == value).to_numpy()
            positives = int(test.y[rows].sum())
            entry: dict[str, Any] = {"by": by, "value": value, "rows": int(rows.sum()), "positives": positives}
            if min(positives, entry["rows"] - positives) >= FEWEST:
                entry |= {metric: metrics.score(metric, test.y[rows], probability[rows]) for metric in ("auc", "average_precision")}
            found.append(entry)
    return found


def _cuts(train: Table, test: Table, names: list[str]) -> Iterator[tuple[str, pd.Series]]:
    if test.entity is not None and train.entity is not None:
        seen = pd.Series(test.entity).isin({*train.entity} - {None})
        yield "entity", seen.map({True: "seen in train", False: "new"})
    if test.time is not None and np.ptp(test.time) > MONTH:
        yield "month", pd.Series(pd.to_datetime(test.time)).dt.strftime("%Y-%m")
    for name in names:
        column = test.X[name].reset_index(drop=True)
        if not isinstance(column.dtype, pd.CategoricalDtype) and column.nunique() > MOST:
            edges = np.unique(np.nanquantile(column.to_numpy("float64"), [0.25, 0.5, 0.75]))
            column = pd.cut(column, [-np.inf, *edges, np.inf])
        yield name, column.astype("str").where(column.notna(), "missing")
