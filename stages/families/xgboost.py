"""XGBoost: trained in one way only, which a kill cannot change.

``seed_per_iteration`` makes round i's random choices depend on i alone, so a booster that is loaded from a saved border
and goes on gives the same bytes as one left alone.
"""

import functools
import json
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import xgboost
from numpy.typing import NDArray

from stages.common.checkpoint import held
from stages.families import Fit, device
from stages.families.borders import Borders
from stages.families.codes import coded, has_unseen
from stages.features.features import Table

FILE = "model.ubj"
BINS = 256  # the library's own
BATCH = 50_000  # rows that are scored at a time: beside the table lies a copy of so many
SPACE: dict[str, list[Any]] = {  # [low, high], integers or numbers; "log": drawn on a log scale; words: one of them
    "max_depth": [3, 10],
    "learning_rate": [0.02, 0.3, "log"],
    "min_child_weight": [1.0, 100.0, "log"],
    "subsample": [0.5, 1.0],
    "colsample_bytree": [0.4, 1.0],
    "reg_lambda": [0.01, 100.0, "log"],
}
# What a search tries first, if nothing else: the library's defaults, as near as SPACE holds them, and a rate for some hundred rounds.
FIRST: dict[str, Any] = {
    "max_depth": 6,
    "learning_rate": 0.1,
    "min_child_weight": 1.0,
    "subsample": 1.0,
    "colsample_bytree": 1.0,
    "reg_lambda": 1.0,
}


@functools.cache
def has_cuda() -> bool:
    """Tell whether this build can use a GPU, and comes to it: the library would take a CPU without a word."""
    return bool(xgboost.build_info()["USE_CUDA"]) and device.works(_used_by_a_small_fit)


def _used_by_a_small_fit() -> str:
    rows = np.arange(40.0).reshape(-1, 1)
    return _used(xgboost.train({"device": "cuda", "verbosity": 0}, xgboost.DMatrix(rows, rows[:, 0] > 20), 1))


def _used(booster: xgboost.Booster) -> str:
    return str(json.loads(booster.save_config())["learner"]["generic_param"]["device"])


def boost(fit: Fit, borders: Borders) -> tuple[xgboost.Booster, str]:
    """Boost from border to border; give the model, cut at the best one, and the device that was used."""
    settings = {
        **fit.params,
        "objective": "binary:logistic",
        "tree_method": "hist",
        "device": fit.place,
        "max_bin": fit.bins or BINS,
        "scale_pos_weight": fit.positive_weight,
        "monotone_constraints": tuple(fit.monotone.get(name, 0) for name in fit.train.X.columns) if fit.monotone else "()",
        "seed": fit.seed,
        "seed_per_iteration": True,
        "nthread": fit.threads,
        "verbosity": 0,
    }
    train = _matrix(fit.train, fit)
    valid = _matrix(fit.valid, fit, train) if fit.valid else None
    booster = xgboost.Booster(settings, cache=[train, *([valid] if valid else [])])
    if saved := borders.load():
        booster.load_model(bytearray(saved))
        booster.set_param(settings)
    while ahead := borders.ahead():
        for i in range(borders.rounds, ahead):
            booster.update(train, i)
        borders.reach(ahead, booster.predict(valid) if valid else None, lambda: bytes(booster.save_raw("ubj")))
    model = booster[: borders.best_rounds]
    model.set_param({"device": "cpu"})  # rows that are scored lie in main memory
    used = _used(booster)
    borders.is_exact = used == "cpu" and (fit.valid is None or not has_unseen(fit.train.X, fit.valid.X))
    return model, used


_matrices: WeakKeyDictionary[Table, dict[int, xgboost.DMatrix]] = WeakKeyDictionary()


def _matrix(table: Table, fit: Fit, reference: xgboost.DMatrix | None = None) -> xgboost.DMatrix:
    """Bin a table once, however many fits use it."""
    bins = fit.bins or BINS
    made = _matrices.setdefault(table, {})
    if bins not in made:
        made.clear()  # what did not fit into memory must not stay there
        with held():  # the table is read through callbacks
            made[bins] = xgboost.QuantileDMatrix(
                table.X, table.y, ref=reference, max_bin=bins, enable_categorical=True, nthread=fit.threads
            )
    return made[bins]


def predict(model: xgboost.Booster, X: pd.DataFrame) -> NDArray[np.float32]:  # noqa: N803 - the field's name for it
    """Give each row's probability of the positive label. A table of hundreds of columns takes XGBoost 35 ms for one row, its codes 11."""
    parts = [X.iloc[first : first + BATCH] for first in range(0, len(X), BATCH)]
    return np.concatenate([np.zeros(0, dtype=np.float32), *(model.inplace_predict(coded(part)) for part in parts)])


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
