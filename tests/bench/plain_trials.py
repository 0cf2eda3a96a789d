"""The trials that a search recorded, fitted anew by a plain loop: python -m tests.bench.plain_trials FOLDER."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pyarrow.parquet
import xgboost
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

Part = tuple[Any, NDArray[Any]]
THREADS = len(os.sched_getaffinity(0))


def with_xgboost(trials: list[tuple[dict[str, Any], int]], train: Part, valid: Part) -> None:
    """Boost with a look at valid every ten rounds."""
    data = xgboost.QuantileDMatrix(*train)
    seen = xgboost.QuantileDMatrix(*valid, ref=data)
    for params, rounds in trials:
        booster = xgboost.Booster({**params, "objective": "binary:logistic", "tree_method": "hist", "nthread": THREADS}, cache=[data, seen])
        for i in range(rounds):
            booster.update(data, i)
            if i % 10 == 9:
                average_precision_score(valid[1], booster.predict(seen))
        booster.save_raw("ubj")


def with_lightgbm(trials: list[tuple[dict[str, Any], int]], train: Part, valid: Part) -> None:
    """Boost with a look at valid every ten rounds."""
    of_data = {"feature_pre_filter": False, "force_col_wise": True, "verbosity": -1, "num_threads": THREADS}
    data = lightgbm.Dataset(*train, params=of_data).construct()
    for params, rounds in trials:
        settings = {**params, **of_data, "objective": "binary", "metric": "average_precision", "bagging_freq": 1}
        booster = lightgbm.Booster(settings, data)
        booster.add_valid(lightgbm.Dataset(*valid, reference=data, params=of_data), "valid")
        for i in range(rounds):
            booster.update()
            if i % 10 == 9:
                booster.eval_valid()
        booster.model_to_string()


def with_catboost(trials: list[tuple[dict[str, Any], int]], train: Part, valid: Part) -> None:
    """Boost with a look at valid every ten rounds."""
    data, seen = catboost.Pool(*train), catboost.Pool(*valid)
    for params, rounds in trials:
        settings = {**params, "loss_function": "Logloss", "bootstrap_type": "Bernoulli", "boosting_type": "Plain", "thread_count": THREADS}
        settings |= {"eval_metric": "PRAUC", "metric_period": 10, "iterations": rounds}
        settings |= {"logging_level": "Silent", "allow_writing_files": False}
        catboost.CatBoost(settings).fit(data, eval_set=seen, use_best_model=False)


KINDS: dict[str, Callable[..., None]] = {"xgboost": with_xgboost, "lightgbm": with_lightgbm, "catboost": with_catboost}


def main(folder: Path) -> None:
    """Read the splits and the trials, and fit."""
    family, trials = json.loads((folder / "trials.json").read_bytes())
    parts = []
    for split in ("train", "valid"):
        table = pyarrow.parquet.read_table(folder / f"{split}.parquet").to_pandas()
        names = [name for name in table.columns if name.startswith("f")]
        parts.append((table[names].astype(np.float32), table["_label"].to_numpy()))
    KINDS[family]([(params, rounds) for params, rounds in trials], *parts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
