# ruff: noqa: T201 - a script that prints
"""Print how one XGBoost fares on the generated IEEE-CIS beside the published figures: ``python tests/accept_ieee_cis.py [rows] [seeds]``.

At full size (590,540 rows) a seed takes about ten minutes on one core: four fits. Means over the seeds.
"""

import sys
import time
from typing import Any

import numpy as np
import pandas as pd
import xgboost
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from stages.prepare import ieee_cis

SETTINGS = {"objective": "binary:logistic", "eta": 0.08, "max_depth": 8, "min_child_weight": 5, "subsample": 0.8, "colsample_bytree": 0.4}
SETTINGS |= {"lambda": 3, "nthread": 1, "max_bin": 128, "tree_method": "hist"}
TARGETS = {
    "time": "AUC .90 +-.01, AP about .53",
    "random - time": "+.04 to +.06",
    "past - time": "+.01 to +.02",
    "future - past": "+.010 to +.025",
}
AMONG = [*(f"C{n}" for n in (1, 2, 5, 6, 9, 11, 13, 14)), "D3", "D4", "D10", "D15", "M2", "M3", "M5", "M6", "TransactionAmt"]
AMONG += [f"V{n}" for n in (36, 45, 54, 76, 96, 147, 171, 222, 258, 283, 294, 308)]


def features(transaction: pd.DataFrame, identity: pd.DataFrame) -> pd.DataFrame:
    """Give the raw columns and the hour; text as numbers."""
    whole = transaction.merge(identity, on="TransactionID", how="left")
    columns: dict[str, Any] = {"hour": whole["TransactionDT"] // 3600 % 24}
    for name, values in whole.drop(columns=["TransactionID", "TransactionDT", "isFraud"]).items():
        columns[str(name)] = pd.factorize(values)[0] if values.dtype == "str" else values
    return pd.DataFrame(columns).astype(np.float32)


def aggregates(raw: pd.DataFrame, client: NDArray[np.int64], *, future: bool) -> pd.DataFrame:
    """Give a client's number of rows and its means and spreads, over its earlier rows or over all of them."""
    groups = raw[AMONG].fillna(0).astype(np.float64).groupby(client)
    squares = (raw[AMONG].fillna(0).astype(np.float64) ** 2).groupby(client)
    if future:
        number = groups["C1"].transform("size").to_numpy()[:, None]
        sums, powers = groups.transform("sum").to_numpy(), squares.transform("sum").to_numpy()
    else:
        number = groups.cumcount().to_numpy()[:, None]
        own = raw[AMONG].fillna(0).to_numpy(dtype=np.float64)
        sums, powers = groups.cumsum().to_numpy() - own, squares.cumsum().to_numpy() - own**2
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(number > 0, sums / number, np.nan)
        spread = np.sqrt(np.maximum(np.where(number > 0, powers / number, np.nan) - mean**2, 0))
    made = np.hstack([number, mean, spread, raw[AMONG].to_numpy() - mean]).astype(np.float32)
    made[client < 0] = np.nan
    return pd.DataFrame(made, columns=[f"client {place}" for place in range(made.shape[1])])


def score(x: pd.DataFrame, y: NDArray[np.int64], train: NDArray[np.bool_], rounds: int) -> tuple[float, float]:
    """Fit one model, and give its AUC and average precision on the other rows."""
    model = xgboost.train(SETTINGS, xgboost.QuantileDMatrix(x[train], y[train], max_bin=128), rounds)
    found = model.predict(xgboost.DMatrix(x[~train]))
    return float(roc_auc_score(y[~train], found)), float(average_precision_score(y[~train], found))


def one_seed(rows: int, seed: int) -> dict[str, tuple[float, float]]:
    """Make a table and score it four ways: by time, at random, with aggregates over the past, and over all."""
    transaction, identity = ieee_cis.tables(rows, seed)
    raw, y = features(transaction, identity), transaction["isFraud"].to_numpy()
    first = transaction["TransactionDT"] // 86_400 - transaction["D1"]
    names = transaction["card1"] * 10_000_000.0 + transaction["addr1"] * 10_000 + first
    client = pd.factorize(names)[0]
    del transaction, identity
    early = np.arange(rows) < int(rows * 0.8)
    chosen = np.random.default_rng(0).random(rows) < 0.8
    rounds = 300 if rows > 300_000 else 200
    found = {}
    for name, train in (("time", early), ("random", chosen), ("past", early), ("future", early)):
        started = time.monotonic()
        x = raw if name in {"time", "random"} else pd.concat([raw, aggregates(raw, client, future=name == "future")], axis=1)
        found[name] = score(x, y, train, rounds)
        print(f"seed {seed} {name:7} AUC {found[name][0]:.4f} AP {found[name][1]:.4f} {time.monotonic() - started:.0f} s", flush=True)
    return found


def main(rows: int = 590_540, seeds: int = 3) -> None:
    """Print a table of means."""
    each = [one_seed(rows, seed) for seed in range(seeds)]
    mean = {name: np.mean([found[name] for found in each], axis=0) for name in each[0]}
    print(f"\n{rows:,} rows, {seeds} seeds   AUC     AP      published")
    for name, target in TARGETS.items():
        what, _, less = name.partition(" - ")
        auc, precision = mean[what] - (mean[less] if less else 0)
        print(f"{name:23} {auc:+.4f} {precision:+.4f}  {target}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
