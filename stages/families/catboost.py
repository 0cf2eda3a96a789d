"""CatBoost: trained in one way only, which a kill cannot change.

Its own snapshot holds all that goes on, random choices too: each border is the end of a fit that began at the snapshot of the last one.
Beyond the library's promise, its sums depend on the number of threads.
"""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import catboost
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.families import Fit, device
from stages.families.borders import Borders
from stages.families.codes import categories
from stages.features.features import Table

FILE = "model.cbm"
BINS = {"cpu": 254, "cuda": 128}  # the library's own
KINDS = {"cpu": "CPU", "cuda": "GPU"}  # the library's words for them
SMALL = 256_000_000  # bytes of a GPU
PASSING = ("train_dir", "snapshot_file", "save_snapshot", "snapshot_interval", "thread_count", "gpu_ram_part")  # not of its model
SPACE: dict[str, list[Any]] = {  # [low, high], integers or numbers; "log": drawn on a log scale; words: one of them
    "depth": [4, 8],
    "learning_rate": [0.03, 0.3, "log"],
    "l2_leaf_reg": [1.0, 30.0, "log"],
    "random_strength": [0.1, 10.0, "log"],
    "subsample": [0.5, 1.0],
}
# What a search tries first, if nothing else: the library's defaults, as near as SPACE holds them, and a rate for some hundred rounds.
FIRST: dict[str, Any] = {"depth": 6, "learning_rate": 0.1, "l2_leaf_reg": 3.0, "random_strength": 1.0, "subsample": 0.8}


@functools.cache
def has_cuda() -> bool:
    """Tell whether a fit comes to a GPU: all published wheels can use one."""
    return device.works(_used_by_a_small_fit)


def _used_by_a_small_fit() -> str:
    rows, free = np.arange(40.0).reshape(-1, 1), device.free()
    if free is not None and free < 2 * SMALL:
        return "cuda"  # it is full, not broken, and the library would abort the process
    part = device.MOST if free is None else min(device.MOST, SMALL / free)
    small = {"task_type": "GPU", "iterations": 1, "gpu_ram_part": part, "logging_level": "Silent", "allow_writing_files": False}
    return _used(catboost.CatBoostClassifier(**small).fit(rows, rows[:, 0] > 20))


def _used(model: catboost.CatBoost) -> str:
    return next(name for name, kind in KINDS.items() if kind == model.get_all_params()["task_type"])


def boost(fit: Fit, borders: Borders) -> tuple[catboost.CatBoost, str]:
    """Boost from border to border; give the model, cut at the best one, and the device that was used."""
    place = "cpu" if fit.monotone else fit.place  # the library keeps to monotone columns on a CPU alone
    train = _pool(fit.train, fit, place)
    valid = _pool(fit.valid, fit) if fit.valid else None
    with tempfile.TemporaryDirectory(prefix="surefoot-") as folder:
        snapshot = Path(folder) / "snapshot"
        settings = {
            **fit.params,
            "loss_function": "Logloss",
            "boosting_type": "Plain",
            "bootstrap_type": "Bernoulli",
            "leaf_estimation_iterations": 10,  # the library's own of fits of 200 rounds and more; of fewer rounds it would be other ones
            "max_ctr_complexity": 4,
            "scale_pos_weight": fit.positive_weight,
            "task_type": KINDS[place],
            "random_seed": fit.seed,
            "thread_count": fit.threads,
            "logging_level": "Silent",
            "train_dir": folder,
            "save_snapshot": True,
            "snapshot_file": str(snapshot),
            "snapshot_interval": 10**6,  # beside the one at the end
        }
        if fit.monotone:
            settings["monotone_constraints"] = fit.monotone
        if place == "cuda":
            settings["gpu_ram_part"] = device.part()

        def boosted(rounds: int) -> catboost.CatBoost:
            return catboost.CatBoost({**settings, "iterations": rounds}).fit(train)

        if saved := borders.load():
            snapshot.write_bytes(saved)
        model = None
        while ahead := borders.ahead():
            model = boosted(ahead)
            state = snapshot.read_bytes()  # now: it is asked for after the folder is gone, where a signal comes late
            borders.reach(ahead, _probability(model, valid) if valid else None, functools.partial(bytes, state))
        model = model or boosted(borders.rounds)  # it was killed after its last border: that one is read, not fitted
    used = _used(model)
    model.shrink(borders.best_rounds)
    return model, used


def _probability(model: catboost.CatBoost, rows: Any) -> NDArray[np.float64]:
    return np.asarray(model.predict(rows, prediction_type="Probability")[:, 1], dtype=np.float64)


_pools: WeakKeyDictionary[Table, dict[Any, catboost.Pool]] = WeakKeyDictionary()


def _pool(table: Table, fit: Fit, place: str = "") -> catboost.Pool:
    """Make a pool of a table once, however many fits use it; for a fit at a place, binned."""
    bins = (fit.bins or BINS[place]) if place else 0
    made = _pools.setdefault(table, {})
    if bins not in made:
        made.clear()  # what did not fit into memory must not stay there
        made[bins] = catboost.Pool(_codes(table.X), table.y, cat_features=_named(table.X), thread_count=fit.threads)
        if bins:
            made[bins].quantize(border_count=bins, task_type=KINDS[place])
    return made[bins]


def _codes(X: pd.DataFrame) -> pd.DataFrame:  # noqa: N803 - the field's name for it
    """Give each category's number; what is missing is one of its own."""
    columns = {
        name: X[name].cat.codes.astype("int32") if is_category else X[name] for name, is_category in zip(X, categories(X), strict=True)
    }
    return pd.DataFrame(columns, index=X.index)


def _named(X: pd.DataFrame) -> list[str]:  # noqa: N803
    return [str(name) for name, is_category in zip(X.columns, categories(X), strict=True) if is_category]


def predict(model: catboost.CatBoost, X: pd.DataFrame) -> NDArray[np.float64]:  # noqa: N803 - the field's name for it
    """Give each row's probability of the positive label."""
    return _probability(model, catboost.Pool(_codes(X), cat_features=_named(X))) if len(X) else np.zeros(0)


def save(model: catboost.CatBoost, path: Path) -> None:
    """Write the model; equal models are equal bytes, since what names the moment and the folder of a fit is left out."""
    told = model.get_metadata()
    for name in ("model_guid", "train_finish_time", "training", "output_options"):
        told[name] = "{}"
    params = json.loads(told["params"])
    params["system_options"].pop("thread_count", None)
    params["flat_params"] = {name: value for name, value in params["flat_params"].items() if name not in PASSING}
    told["params"] = json.dumps(params, sort_keys=True)
    model.save_model(str(path), format="cbm")


def load(path: Path) -> catboost.CatBoost:
    """Read a model whose digest was checked."""
    return catboost.CatBoost().load_model(str(path), format="cbm")


def contributions(model: catboost.CatBoost, X: pd.DataFrame) -> NDArray[np.float64]:  # noqa: N803 - the field's name for it
    """Give what each column adds to each row's log-odds: SHAP values (Lundberg et al. 2018), rows x columns."""
    found = model.get_feature_importance(catboost.Pool(_codes(X), cat_features=_named(X)), type="ShapValues")
    return np.asarray(found[:, :-1], dtype=np.float64)  # the last one is the same for all rows


def importance(model: catboost.CatBoost) -> dict[str, float]:
    """Give each used column's share, in per cent, in what moves the predictions: the library keeps no gains."""
    gains = model.get_feature_importance(type="PredictionValuesChange")
    return {name: float(gain) for name, gain in zip(model.feature_names_, gains, strict=True) if gain}
