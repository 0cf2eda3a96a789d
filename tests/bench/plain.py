"""The same work as `surefoot run configs/ieee-cis.yaml`, as a plain script: no store, no processes, no checks.

python tests/bench/plain.py FOLDER TRIALS.json
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.bench import plain_prepare


def main(folder: Path, trials: list[dict[str, Any]]) -> None:
    """Fit the trials that a run recorded, round for round, then the final models, and score."""
    seconds, started = {}, time.monotonic()
    table, part = plain_prepare.whole(folder)
    seconds["prepare"] = time.monotonic() - started
    label = table.pop("isFraud").to_numpy()
    table = table.drop(columns="TransactionDT")
    parts = [(table[part == number], label[part == number]) for number in range(3)]
    train = xgboost.QuantileDMatrix(*parts[0], enable_categorical=True)
    valid = xgboost.QuantileDMatrix(*parts[1], ref=train, enable_categorical=True)
    best: tuple[float, dict[str, Any], int] = (-1.0, {}, 0)
    for trial in trials:
        rounds = max(map(int, trial["reports"]))
        booster = fit(trial["params"], train, rounds, valid, parts[1][1])
        value = float(average_precision_score(parts[1][1], booster.predict(valid)))
        best = max(best, (value, trial["params"], rounds), key=lambda one: one[0])
    seconds["search"] = time.monotonic() - started - sum(seconds.values())
    judged = fit(best[1], train, best[2], valid, parts[1][1])
    fit(best[1], xgboost.QuantileDMatrix(table, label, enable_categorical=True), best[2])
    seconds["train"] = time.monotonic() - started - sum(seconds.values())
    found = judged.predict(xgboost.DMatrix(parts[2][0], enable_categorical=True))
    auc = float(roc_auc_score(parts[2][1], found))
    seconds["evaluate"] = time.monotonic() - started - sum(seconds.values())
    sys.stdout.write(json.dumps({"auc": auc, "seconds": seconds}))


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
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_bytes()))
