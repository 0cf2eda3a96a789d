"""The generated table is like one that a person would bring: mixed, drawn, and never separable."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.metrics import roc_auc_score

from stages.features.features import Table
from stages.prepare import generate

Prepare = Callable[..., Any]


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second, other = (hashlib.sha256(generate.table(2_000, seed).to_csv().encode()).digest() for seed in (1, 1, 2))

    assert first == second != other


def test_its_shape() -> None:
    frame = generate.table(20_000, seed=0)

    assert len(frame.columns) - 5 >= 12  # without label, time, id, entity
    assert 0.03 < frame["is_fraud"].mean() < 0.05
    assert frame["time"].is_monotonic_increasing
    assert frame["transaction"].is_unique
    assert frame["customer"].duplicated().any()
    assert sum(frame[column].dtype == "str" for column in frame) >= 5
    assert frame.isna().any().sum() >= 5


def test_some_missing_values_tell_something() -> None:
    frame = generate.table(20_000, seed=0)
    online = frame[~frame["in_shop"]]

    fraud = online["is_fraud"].groupby(online["device"].isna()).mean()
    assert fraud[True] > 1.5 * fraud[False]


@pytest.mark.parametrize("seed", range(5))
def test_a_booster_tells_fraud_well_but_never_for_sure(prepare: Prepare, seed: int) -> None:
    made = prepare(generated_seed=seed)

    assert 0.87 < auc(made.train, made.valid, made.test) < 0.95


def test_no_single_column_carries_it(prepare: Prepare) -> None:
    made = prepare()
    splits = (made.train, made.valid, made.test)
    whole = auc(*splits)

    falls = {name: whole - auc(*(without(table, name) for table in splits)) for name in made.train.X}
    assert max(falls.values()) < 0.05, falls


def without(table: Table, name: str) -> Table:
    return Table(table.X.drop(columns=name), table.y, table.row)


def auc(train: Table, valid: Table, test: Table) -> float:
    settings = {"objective": "binary:logistic", "eval_metric": "auc", "eta": 0.1, "max_depth": 4, "min_child_weight": 5, "nthread": 1}
    settings |= {"subsample": 0.8, "colsample_bytree": 0.6, "lambda": 5.0}
    data, scored, last = (xgboost.DMatrix(table.X, table.y, enable_categorical=True) for table in (train, valid, test))
    model = xgboost.train(settings, data, 200, evals=[(scored, "valid")], early_stopping_rounds=20, verbose_eval=False)
    found: np.floating = roc_auc_score(test.y, model.predict(last, iteration_range=(0, model.best_iteration + 1)))
    return float(found)


def test_a_small_table_is_possible() -> None:
    assert isinstance(generate.table(100, seed=0), pd.DataFrame)
