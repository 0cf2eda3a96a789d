"""The same work as `surefoot run configs/example.yaml`, as a plain script: no store, no processes, no checks.

python tests/bench/plain.py TRIALS.json
"""

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost
from sklearn.metrics import average_precision_score, roc_auc_score

from stages.prepare import generate


def main(trials: list[dict[str, Any]]) -> None:
    """Fit the trials that a run recorded, round for round, then the final models, and score."""
    table = generate.table(20_000, 0)
    time = pd.to_datetime(table["time"])
    table["hour"], table["weekday"] = time.dt.hour, time.dt.weekday
    label = table.pop("is_fraud").to_numpy()
    table = table.drop(columns=["time", "transaction", "customer"])
    for name in table.columns[table.dtypes.map(pd.api.types.is_string_dtype)]:
        table[name] = table[name].astype("category")
    cuts = [0, int(0.7 * len(table)), int(0.9 * len(table)), len(table)]
    parts = [(table.iloc[a:b], label[a:b]) for a, b in itertools.pairwise(cuts)]
    train = xgboost.QuantileDMatrix(*parts[0], enable_categorical=True)
    valid = xgboost.QuantileDMatrix(*parts[1], ref=train, enable_categorical=True)
    best: tuple[float, dict[str, Any], int] = (-1.0, {}, 0)
    for trial in trials:
        rounds = max(map(int, trial["reports"]))
        booster = fit(trial["params"], train, rounds, valid, parts[1][1])
        value = float(average_precision_score(parts[1][1], booster.predict(valid)))
        best = max(best, (value, trial["params"], rounds), key=lambda one: one[0])
    judged = fit(best[1], train, best[2], valid, parts[1][1])
    fit(best[1], xgboost.QuantileDMatrix(table, label, enable_categorical=True), best[2])
    found = judged.predict(xgboost.DMatrix(parts[2][0], enable_categorical=True))
    sys.stdout.write(f"{roc_auc_score(parts[2][1], found):.4f}\n")


def fit(params: dict[str, Any], train: Any, rounds: int, valid: Any = None, label: Any = None) -> Any:
    """Boost, with a look at the valid score every ten rounds."""
    settings = {**params, "objective": "binary:logistic", "tree_method": "hist", "nthread": len(os.sched_getaffinity(0))}
    booster = xgboost.Booster(settings, cache=[train, *([valid] if valid is not None else [])])
    for i in range(rounds):
        booster.update(train, i)
        if valid is not None and i % 10 == 9:
            average_precision_score(label, np.asarray(booster.predict(valid)))
    return booster


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_bytes()))
