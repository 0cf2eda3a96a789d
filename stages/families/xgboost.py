"""XGBoost: trained in one way only, which a kill cannot change.

``seed_per_iteration`` makes round i's random choices depend on i alone, so a booster that is loaded from a saved border
and goes on gives the same bytes as one left alone. What is computed depends on rounds; which borders are saved, on time.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import xgboost
from numpy.typing import NDArray

from stages.common.checkpoint import Checkpoint, held
from stages.common.errors import OutOfMemory
from stages.families import device, metrics
from stages.features.features import Table

FILE = "model.ubj"
BORDER = 10  # rounds between two looks at the valid score: early stopping, pruning and checkpoints happen there
BATCH = 50_000  # rows that are scored at a time: beside the table lies a copy of so many
SPACE: dict[str, list[Any]] = {  # [low, high], integers or numbers; "log": drawn on a log scale; words: one of them
    "max_depth": [3, 10],
    "learning_rate": [0.02, 0.3, "log"],
    "min_child_weight": [1.0, 100.0, "log"],
    "subsample": [0.5, 1.0],
    "colsample_bytree": [0.4, 1.0],
    "reg_lambda": [0.01, 100.0, "log"],
}


@dataclass
class Fitted:
    """A fitted model, cut at its best round."""

    model: xgboost.Booster
    rounds: int
    score: float | None  # on valid, by the metric asked for; None without valid
    device: str


def fit(
    params: dict[str, Any],
    train: Table,
    valid: Table | None,
    *,
    rounds: int,
    early_stopping_rounds: int,
    seed: int,
    metric: str,
    threads: int,
    gpu: bool = False,
    checkpoint: Checkpoint | None = None,
    report: Callable[[int, float | None], None] | None = None,
) -> Fitted:
    """Boost up to ``rounds`` rounds; with ``valid``, stop early and cut at the best border.

    ``report(rounds, score)`` is called at each border and may raise to stop the fit.

    Raises:
        OutOfMemory: the GPU's or the machine's memory did not suffice.

    """
    place = "cuda" if gpu and xgboost.build_info()["USE_CUDA"] and device.gpus() else "cpu"
    settings = {
        **params,
        "objective": "binary:logistic",
        "tree_method": "hist",
        "device": place,
        "seed": seed,
        "seed_per_iteration": True,
        "nthread": threads,
        "verbosity": 0,
    }
    try:
        return _boost(settings, train, valid, rounds, early_stopping_rounds, metric, checkpoint, report)
    except xgboost.core.XGBoostError as error:
        if "out of memory" in str(error).lower() or "bad_alloc" in str(error):
            raise OutOfMemory(f"xgboost on {place}: {str(error).strip().splitlines()[-1]}") from error
        raise


@dataclass
class _State:
    """Everything beside the booster that the next border needs."""

    rounds: int = 0
    best_rounds: int = 0
    best: float | None = None
    scores: list[tuple[int, float | None]] = field(default_factory=list)

    def dump(self, booster: xgboost.Booster) -> bytes:
        return json.dumps(vars(self)).encode() + b"\n" + booster.save_raw("ubj")


def _boost(
    settings: dict[str, Any],
    train: Table,
    valid: Table | None,
    rounds: int,
    patience: int,
    metric: str,
    checkpoint: Checkpoint | None,
    report: Callable[[int, float | None], None] | None,
) -> Fitted:
    train_matrix = _matrix(train, settings["nthread"])
    valid_matrix = _matrix(valid, settings["nthread"], train_matrix) if valid else None
    booster = xgboost.Booster(settings, cache=[train_matrix, *([valid_matrix] if valid_matrix else [])])
    state = _State()
    if saved := checkpoint.load() if checkpoint else None:
        head, _, model = saved.partition(b"\n")
        state = _State(**json.loads(head))
        booster.load_model(bytearray(model))
        booster.set_param(settings)
        if report:
            for earlier, score in state.scores:
                report(earlier, score)
    while state.rounds < rounds and (valid is None or state.rounds - state.best_rounds < patience):
        for i in range(state.rounds, min(state.rounds + BORDER, rounds)):
            booster.update(train_matrix, i)
        state.rounds = min(state.rounds + BORDER, rounds)
        value = metrics.score(metric, valid.y, booster.predict(valid_matrix)) if valid else None
        if value is None or state.best is None or value > state.best:
            state.best_rounds, state.best = state.rounds, value
        state.scores.append((state.rounds, value))
        if report:
            report(state.rounds, value)
        if checkpoint:
            checkpoint.border(lambda: state.dump(booster))
    used = str(json.loads(booster.save_config())["learner"]["generic_param"]["device"])
    return Fitted(booster[: state.best_rounds], state.best_rounds, state.best, used)


_matrices: WeakKeyDictionary[Table, xgboost.DMatrix] = WeakKeyDictionary()


def _matrix(table: Table, threads: int, reference: xgboost.DMatrix | None = None) -> xgboost.DMatrix:
    """Bin a table once, however many fits use it."""
    if table not in _matrices:
        with held():  # the table is read through callbacks
            _matrices[table] = xgboost.QuantileDMatrix(table.X, table.y, ref=reference, enable_categorical=True, nthread=threads)
    return _matrices[table]


def predict(model: xgboost.Booster, X: pd.DataFrame) -> NDArray[np.float32]:  # noqa: N803 - the field's name for it
    """Give each row's probability of the positive label."""
    parts = [X.iloc[first : first + BATCH] for first in range(0, len(X), BATCH)]
    return np.concatenate([np.zeros(0, dtype=np.float32), *(model.inplace_predict(_coded(part)) for part in parts)])


def _coded(X: pd.DataFrame) -> NDArray[np.float32]:  # noqa: N803 - the field's name for it
    """Give rows as the trees know them: a category is its number. A table of hundreds of columns takes XGBoost 35 ms for one row."""
    kinds = [isinstance(dtype, pd.CategoricalDtype) for dtype in X.dtypes]
    coded = np.empty(X.shape, dtype=np.float32)
    with np.errstate(over="ignore"):  # 1e300 is infinite, and goes where all large numbers go
        coded[:, np.logical_not(kinds)] = X.loc[:, np.logical_not(kinds)].to_numpy("float32")
    for place, name in enumerate(X.columns):
        if kinds[place]:
            codes = X[name].cat.codes
            coded[:, place] = np.where(codes < 0, np.nan, codes)
    return coded


def save(model: xgboost.Booster, path: Path) -> None:
    """Write the model; equal models are equal bytes."""
    path.write_bytes(model.save_raw("ubj"))


def load(path: Path) -> xgboost.Booster:
    """Read a model whose digest was checked: a damaged file can crash the library or answer wrongly."""
    model = xgboost.Booster()
    model.load_model(bytearray(path.read_bytes()))
    return model


def contributions(model: xgboost.Booster, X: pd.DataFrame) -> NDArray[np.float64]:  # noqa: N803 - the field's name for it
    """Give what each column adds to each row's log-odds: SHAP values (Lundberg et al. 2018), rows x columns."""
    found = model.predict(xgboost.DMatrix(X, enable_categorical=True), pred_contribs=True)
    return np.asarray(found[:, :-1], dtype=np.float64)  # the last one is the same for all rows


def importance(model: xgboost.Booster) -> dict[str, float]:
    """Give each used column's total gain."""
    return {name: float(np.sum(gain)) for name, gain in model.get_score(importance_type="total_gain").items()}
