"""LightGBM: trained in one way only, which a kill cannot change.

Its random choices cannot be carried over a kill, so each stretch between two borders is a booster of its own, seeded by the round it
begins at, over the scores that the trees so far gave the train rows; a checkpoint holds these scores. The trees are put together by the
library's own merge.
"""

import functools
import hashlib
import re
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from stages.families import Fit
from stages.families.borders import Borders
from stages.families.codes import categories, coded
from stages.features.features import Table

FILE = "model.txt"
BINS = 255  # the library's own
BATCH = 50_000  # rows that are scored at a time: beside the table lies a copy of so many
CERTAIN = 1 - 2**-53  # the largest probability whose log-odds are finite
SPACE: dict[str, list[Any]] = {  # [low, high], integers or numbers; "log": drawn on a log scale; words: one of them
    "num_leaves": [15, 255, "log"],
    "learning_rate": [0.02, 0.3, "log"],
    "min_data_in_leaf": [10, 500, "log"],
    "bagging_fraction": [0.5, 1.0],
    "feature_fraction": [0.4, 1.0],
    "lambda_l2": [0.01, 100.0, "log"],
}
# What a search tries first, if nothing else: the library's defaults, as near as SPACE holds them, and a rate for some hundred rounds.
FIRST: dict[str, Any] = {
    "num_leaves": 31,
    "learning_rate": 0.1,
    "min_data_in_leaf": 20,
    "bagging_fraction": 1.0,
    "feature_fraction": 1.0,
    "lambda_l2": 0.01,
}


@functools.cache
def has_cuda() -> bool:
    """Tell whether this build can use a GPU; the published wheels cannot, and say so only when asked to fit."""
    rows = np.arange(40.0).reshape(-1, 1)
    try:
        lightgbm.train({"device_type": "cuda", "verbosity": -1}, lightgbm.Dataset(rows, rows[:, 0] > 20), 1)
    except lightgbm.basic.LightGBMError:
        return False
    return True


def boost(fit: Fit, borders: Borders) -> tuple[lightgbm.Booster, str]:
    """Boost from border to border; give the model, cut at the best one, and the device that was used."""
    settings = {
        **fit.params,
        **_of_data(fit),
        "objective": "binary",
        "metric": "None",
        "bagging_freq": 1,
        "scale_pos_weight": fit.positive_weight,
        "device_type": fit.place,
        "deterministic": True,
        "num_threads": fit.threads,
    }
    if fit.monotone:
        settings["monotone_constraints"] = [fit.monotone.get(name, 0) for name in fit.train.X.columns]
    data = _dataset(fit)
    valid = coded(fit.valid.X) if fit.valid else None
    trees: lightgbm.Booster | None = None
    best = 0  # trees at the best border: a round that finds nothing to split makes none
    known: NDArray[np.float64] | None = None  # log-odds of the train rows
    scores = np.zeros(0 if valid is None else len(valid))  # log-odds of the valid rows
    if saved := borders.load():
        head, _, rest = saved.partition(b"\n")
        best, learned, scored = map(int, head.split())
        known = np.frombuffer(rest[:learned])
        scores = np.frombuffer(rest[learned : learned + scored]).copy()
        trees = lightgbm.Booster(model_str=rest[learned + scored :].decode())

    def dump() -> bytes:
        parts = [one.tobytes() for one in (known, scores) if one is not None]
        head = " ".join(map(str, [counted(), *map(len, parts)]))
        return b"".join([head.encode(), b"\n", *parts, _text(trees).encode()])

    def counted() -> int:
        return trees.num_trees() if trees and borders.best_rounds == borders.rounds else best

    while ahead := borders.ahead():
        data.set_field("init_score", known)
        stretch = lightgbm.Booster({**settings, "seed": _seed(fit.seed, borders.rounds)}, data)
        for _ in range(borders.rounds, ahead):
            if stretch.update():
                break
        known = _log_odds(stretch)
        stretch = lightgbm.Booster(model_str=stretch.model_to_string())
        if valid is not None:
            scores = scores + stretch.predict(valid, raw_score=True, num_threads=fit.threads)
        trees = _merged(trees, stretch)
        borders.reach(ahead, None if valid is None else special.expit(scores), dump)
        best = counted()
    assert trees
    return lightgbm.Booster(model_str=_text(trees, best)), fit.place


def _seed(seed: int, rounds: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{rounds}".encode()).digest()[:4]) >> 1


def _log_odds(booster: lightgbm.Booster) -> NDArray[np.float64]:
    """Give what the trees so far say of the train rows, as the library has it at hand, which no second pass over the rows has to find."""
    found: list[NDArray[Any]] = []

    def metric(probability: NDArray[Any], _data: lightgbm.Dataset) -> tuple[str, float, bool]:
        found.append(probability.copy())
        return "", 0.0, True

    booster.eval_train(metric)
    known: NDArray[np.float64] = special.logit(found[0].clip(1 - CERTAIN, CERTAIN))
    return known


def _merged(first: lightgbm.Booster | None, then: lightgbm.Booster) -> lightgbm.Booster:
    """Put the trees of one booster before those of the other, by the library's C interface."""
    if first is not None:
        merge = lightgbm.basic._LIB.LGBM_BoosterMerge  # type: ignore[attr-defined]
        lightgbm.basic._safe_call(merge(then._handle, first._handle))
    return then


def _text(model: lightgbm.Booster | None, trees: int | None = None) -> str:
    """Write a model without the parameters of its last fit, which name the threads."""
    if model is None:
        return ""
    text = model.model_to_string(num_iteration=trees)
    return re.sub(r"\nparameters:.*?end of parameters\n", "\n", text, flags=re.DOTALL)


def _of_data(fit: Fit) -> dict[str, Any]:
    """Give the parameters that a table is binned with: the same for all fits of a table."""
    return {
        "max_bin": fit.bins or BINS,
        "data_random_seed": 1,
        "feature_pre_filter": False,
        "force_col_wise": True,
        "verbosity": -1,
    }


_datasets: WeakKeyDictionary[Table, dict[int, lightgbm.Dataset]] = WeakKeyDictionary()


def _dataset(fit: Fit) -> lightgbm.Dataset:
    """Bin a table once, however many fits use it."""
    settings = {**_of_data(fit), "num_threads": fit.threads}
    made = _datasets.setdefault(fit.train, {})
    if settings["max_bin"] not in made:
        made.clear()  # what did not fit into memory must not stay there
        table = fit.train
        places = [place for place, is_category in enumerate(categories(table.X)) if is_category]
        names = [*map(str, table.X.columns)]
        data = lightgbm.Dataset(coded(table.X), table.y, feature_name=names, categorical_feature=places, params=settings)
        made[settings["max_bin"]] = data.construct()
    return made[settings["max_bin"]]


def predict(model: lightgbm.Booster, X: pd.DataFrame) -> NDArray[np.float64]:  # noqa: N803 - the field's name for it
    """Give each row's probability of the positive label."""
    parts = [X.iloc[first : first + BATCH] for first in range(0, len(X), BATCH)]
    return np.concatenate([np.zeros(0), *(model.predict(coded(part)) for part in parts)])


def save(model: lightgbm.Booster, path: Path) -> None:
    """Write the model; equal models are equal bytes."""
    path.write_text(_text(model), encoding="utf-8")


def load(path: Path) -> lightgbm.Booster:
    """Read a model whose digest was checked: a damaged file can abort the process or answer wrongly."""
    return lightgbm.Booster(model_str=path.read_text(encoding="utf-8"))


def contributions(model: lightgbm.Booster, X: pd.DataFrame) -> NDArray[np.float64]:  # noqa: N803 - the field's name for it
    """Give what each column adds to each row's log-odds: SHAP values (Lundberg et al. 2018), rows x columns."""
    found = np.asarray(model.predict(coded(X), pred_contrib=True), dtype=np.float64)
    return found[:, :-1]  # the last one is the same for all rows


def importance(model: lightgbm.Booster) -> dict[str, float]:
    """Give each used column's total gain."""
    gains = model.feature_importance("gain")
    return {name: float(gain) for name, gain in zip(model.feature_name(), gains, strict=True) if gain}
