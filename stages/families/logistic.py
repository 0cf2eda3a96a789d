"""Logistic regression: the baseline that a boosted family has to beat, and a family for those who need a model they can read.

A fit is one border: it takes seconds, and begins again after a kill.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse, special
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from stages.common import contract
from stages.families import Fit
from stages.families.borders import Borders
from stages.features.features import Table

FILE = "model.json"
SPACE: dict[str, list[Any]] = {"C": [1e-4, 100.0, "log"]}
FIRST: dict[str, Any] = {"C": 1.0}  # what a search tries first, if nothing else
ROWS = 50_000  # of train, at most: a baseline may be a little lower for it, and is there in seconds, not in minutes
BATCH = 50_000  # rows that are scored at a time: each value of them takes 60 bytes meanwhile
FEWEST = 100  # of each label, where there are so many
FARTHEST = 10.0  # standard deviations; one wild value must not own the fit


@dataclass(frozen=True)
class Model:
    """Weights of the design's columns, and what standardised the numbers on train."""

    centre: pd.Series  # per number column
    spread: pd.Series
    marked: list[str]  # number columns whose missing values are marked
    weights: NDArray[np.float64]
    owners: list[str]  # the table's column that each weight belongs to
    intercept: float


def has_cuda() -> bool:
    """Tell whether this family can use a GPU."""
    return False


def boost(fit: Fit, borders: Borders) -> tuple[Model, str]:
    """Fit, in one round; give the model and the device that was used."""
    weight = {0: 1.0, 1: fit.positive_weight}
    saved = borders.load()
    model = _read(saved) if saved else regress(fit.train, seed=fit.seed, class_weight=weight, **fit.params)
    if not saved:
        borders.reach(1, predict(model, fit.valid.X) if fit.valid else None, lambda: _written(model))
    return model, "cpu"


def regress(train: Table, *, seed: int, **options: Any) -> Model:
    """Fit on standardised numbers, their missing marks and one-hot categories; of many rows, on some by chance."""
    order = np.random.default_rng(seed).permutation(len(train.y))
    rare = [order[train.y[order] == kind][:FEWEST] for kind in (0, 1)]  # rows by chance may have none of a rare label
    rows = np.unique(np.concatenate([order[:ROWS], *rare]))
    matrix, label = train.X.iloc[rows], train.y[rows]
    numbers = matrix.select_dtypes("number").astype("float64")
    with np.errstate(over="ignore", invalid="ignore"):  # the spread of 1e300 is inf, and its column then says nothing
        centre, spread = numbers.mean().fillna(0), numbers.std(ddof=0).fillna(1).replace(0, 1)  # of none of these rows' values
    gaps = {numbers[name].isna().to_numpy().tobytes(): str(name) for name in numbers}
    marked = [name for gap, name in gaps.items() if True in gap]  # one of those that are missing together
    with threadpool_limits(1), warnings.catch_warnings():  # sums in one order, so that every host gets the same bytes
        warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline that is nearly there is a baseline
        fitted = LogisticRegression(random_state=seed, **options).fit(_design(matrix, centre, spread, marked), label)
    words = matrix.columns.difference(centre.index, sort=False)
    owners = [*map(str, centre.index), *marked, *(str(name) for name in words for _ in matrix[name].cat.categories)]
    return Model(centre, spread, marked, fitted.coef_[0], owners, float(fitted.intercept_[0]))


def predict(model: Model, X: pd.DataFrame) -> NDArray[np.float64]:  # noqa: N803 - the field's name for it
    """Give each row's probability of the positive label."""
    parts = [X.iloc[first : first + BATCH] for first in range(0, len(X), BATCH)]
    with threadpool_limits(1):
        odds = [_design(part, model.centre, model.spread, model.marked) @ model.weights + model.intercept for part in parts]
    found: NDArray[np.float64] = special.expit(np.concatenate([np.zeros(0), *odds]))
    return found


def save(model: Model, path: Path) -> None:
    """Write the model; equal models are equal bytes."""
    path.write_bytes(_written(model))


def load(path: Path) -> Model:
    """Read a model."""
    return _read(path.read_bytes())


def _written(model: Model) -> bytes:
    numbers = {str(name): [model.centre[name], model.spread[name]] for name in model.centre.index}
    weights = [[owner, weight] for owner, weight in zip(model.owners, model.weights.tolist(), strict=True)]
    told = {"names": [*numbers], "numbers": numbers, "marked": model.marked, "weights": weights, "intercept": model.intercept}
    return contract.dump(told)


def _read(document: bytes) -> Model:
    told = json.loads(document)
    centre, spread = (pd.Series({name: told["numbers"][name][place] for name in told["names"]}, dtype="float64") for place in (0, 1))
    owners, weights = [owner for owner, _ in told["weights"]], np.array([weight for _, weight in told["weights"]])
    return Model(centre, spread, told["marked"], weights, owners, told["intercept"])


def contributions(model: Model, X: pd.DataFrame) -> NDArray[np.float64]:  # noqa: N803 - the field's name for it
    """Give what each column adds to each row's log-odds, beside the mean of these rows: rows x columns."""
    terms = _design(X, model.centre, model.spread, model.marked) @ sparse.diags_array(model.weights)
    places = {str(name): place for place, name in enumerate(X.columns)}
    owners = np.array([places[owner] for owner in model.owners])
    sums = sparse.csr_array((np.ones(len(owners)), (np.arange(len(owners)), owners)), shape=(len(owners), X.shape[1]))
    found: NDArray[np.float64] = (terms @ sums).toarray()
    return found - found.mean(axis=0)


def importance(model: Model) -> dict[str, float]:
    """Give the weights of each column: of its standard deviations, of its gap, of its categories."""
    found: dict[str, float] = {}
    for owner, weight in zip(model.owners, np.abs(model.weights).tolist(), strict=True):
        found[owner] = found.get(owner, 0.0) + weight
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
