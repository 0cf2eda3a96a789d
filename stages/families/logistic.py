"""Logistic regression: the baseline that a searched family has to beat. No FILE: it is not searched, saved or shipped."""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse, special
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from stages.features.features import Table

ROWS = 50_000  # of train, at most: a baseline may be a little lower for it, and is there in seconds, not in minutes
FEWEST = 100  # of each label, where there are so many
FARTHEST = 10.0  # standard deviations; one wild value must not own the fit


@dataclass(frozen=True)
class Model:
    """Weights of the design's columns, and what standardised the numbers on train."""

    centre: pd.Series  # per number column
    spread: pd.Series
    marked: list[str]  # number columns whose missing values are marked
    weights: NDArray[np.float64]
    intercept: float


def fit(train: Table, *, seed: int) -> Model:
    """Fit on standardised numbers, their missing marks and one-hot categories; of many rows, on some by chance."""
    order = np.random.default_rng(seed).permutation(len(train.y))
    rare = [order[train.y[order] == kind][:FEWEST] for kind in (0, 1)]  # rows by chance may have none of a rare label
    rows = np.unique(np.concatenate([order[:ROWS], *rare]))
    matrix, label = train.X.iloc[rows], train.y[rows]
    numbers = matrix.select_dtypes("number").astype("float64")
    with np.errstate(over="ignore", invalid="ignore"):  # the spread of 1e300 is inf, and its column then says nothing
        centre, spread = numbers.mean(), numbers.std(ddof=0).replace(0, 1)
    gaps = {numbers[name].isna().to_numpy().tobytes(): str(name) for name in numbers}
    marked = [name for gap, name in gaps.items() if True in gap]  # one of those that are missing together
    with threadpool_limits(1), warnings.catch_warnings():  # sums in one order, so that every host gets the same bytes
        warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline that is nearly there is a baseline
        fitted = LogisticRegression(random_state=seed).fit(_design(matrix, centre, spread, marked), label)
    return Model(centre, spread, marked, fitted.coef_[0], float(fitted.intercept_[0]))


def predict(model: Model, X: pd.DataFrame) -> NDArray[np.float64]:  # noqa: N803 - the field's name for it
    """Give each row's probability of the positive label."""
    with threadpool_limits(1):
        found: NDArray[np.float64] = special.expit(_design(X, model.centre, model.spread, model.marked) @ model.weights + model.intercept)
    return found


def _design(matrix: pd.DataFrame, centre: pd.Series, spread: pd.Series, marked: list[str]) -> sparse.csr_array:
    """Numbers in standard deviations, missing ones 0 and marked; then one column per category, none for a missing one."""
    values = matrix[centre.index].to_numpy("float64")
    missing = matrix[marked].isna().to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.nan_to_num((values - centre.to_numpy()) / spread.to_numpy(), nan=0, posinf=FARTHEST, neginf=-FARTHEST)
    blocks = [sparse.csr_array(scaled.clip(-FARTHEST, FARTHEST)), sparse.csr_array(missing.astype("float64"))]
    for name in matrix.columns.difference(centre.index, sort=False):
        codes = matrix[name].cat.codes.to_numpy()
        known = np.flatnonzero(codes >= 0)
        shape = (len(matrix), len(matrix[name].cat.categories))
        blocks.append(sparse.csr_array((np.ones(len(known)), (known, codes[known])), shape=shape))
    return sparse.hstack(blocks, format="csr")
