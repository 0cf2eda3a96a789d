"""Real tables, as `surefoot init` guesses them, prepared and given to a booster with plain settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xgboost
from sklearn.metrics import roc_auc_score

from stages.common import yaml
from workflows.init import guess

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
SETTINGS = {"objective": "binary:logistic", "eval_metric": "auc", "eta": 0.1, "max_depth": 4, "min_child_weight": 3, "nthread": 2}


@pytest.mark.parametrize(
    ("name", "drop", "rows", "least"),
    [("adult.csv", (), 32_561, 0.92), ("bank-marketing.csv", ("duration",), 41_188, 0.76)],
)
def test_a_guessed_config_gives_a_good_model(
    prepare: Callable[..., Any], name: str, drop: tuple[str, ...], rows: int, least: float
) -> None:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not beside the checkout")
    options: dict[str, Any] = yaml.load(guess(path, drop=drop), "guess")["prepare"]
    made = prepare(**{**options, "path": str(path)})

    assert made.outputs["rows"] == rows
    train, valid, test = (xgboost.DMatrix(one.X, one.y, enable_categorical=True) for one in (made.train, made.valid, made.test))
    model = xgboost.train(SETTINGS, train, 400, evals=[(valid, "valid")], early_stopping_rounds=30, verbose_eval=False)
    assert roc_auc_score(made.test.y, model.predict(test, iteration_range=(0, model.best_iteration + 1))) > least
