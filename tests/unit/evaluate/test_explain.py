"""What moves the winner's answers."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages import families
from stages.evaluate import explain as module
from stages.evaluate.calibration import Scored
from stages.evaluate.explain import explain
from stages.families import xgboost
from stages.features.features import Table

SETTINGS: dict[str, Any] = {"rounds": 40, "early_stopping_rounds": 40, "seed": 0, "metric": "auc", "threads": 1}


def table(rows: int, seed: int = 0) -> Table:
    """One column that raises the risk, one that lowers it, a category that raises it, and one that says nothing."""
    rng = np.random.default_rng(seed)
    more, less, nothing = rng.normal(size=(3, rows)).astype("float32")
    shop = rng.choice(["web", "store"], rows)
    label = (2 * more - less + 1.5 * (shop == "web") + rng.logistic(0, 1, rows) > 2).astype(np.int8)
    columns = {"more": more, "less": less, "shop": pd.Categorical(shop, categories=["store", "web"]), "nothing": nothing}
    matrix = pd.DataFrame(columns)
    matrix.loc[matrix.index % 9 == 0, "less"] = np.nan
    return Table(matrix, label, np.arange(rows))


@pytest.fixture(scope="module")
def fitted() -> Any:
    return families.fit("xgboost", {"max_depth": 3, "learning_rate": 0.2}, table(2000), None, **SETTINGS).model


def scored(model: Any, rows: int = 600) -> Scored:
    test = table(rows, seed=1)
    return Scored(test, xgboost.predict(model, test.X))


def test_contributions_add_up_to_the_log_odds(fitted: Any) -> None:
    """But for what is the same for all rows."""
    test = scored(fitted)
    probability = test.probability.astype(np.float64)
    rest = np.log(probability / (1 - probability)) - xgboost.contributions(fitted, test.table.X).sum(axis=1)

    assert xgboost.contributions(fitted, test.table.X).shape == (600, 4)
    assert np.ptp(rest) < 1e-4


def test_columns_are_ranked_and_have_a_direction(fitted: Any) -> None:
    found = explain(xgboost, fitted, 40, scored(fitted), seed=0)
    told = {one["feature"]: one for one in found["importance"]}

    assert [one["feature"] for one in found["importance"]][0::3] == ["more", "nothing"]
    assert {name: one["direction"] for name, one in told.items() if name != "nothing"} == {"more": "up", "less": "down", "shop": None}
    assert told["more"]["gain"] == xgboost.importance(fitted)["more"]
    assert told["more"]["shap"] > told["less"]["shap"] > told["nothing"]["shap"] > 0
    assert found == explain(xgboost, fitted, 40, scored(fitted), seed=0)


def test_the_highest_scored_rows_are_told_by_names_and_signs_alone(fitted: Any) -> None:
    test = scored(fitted)
    first = xgboost.contributions(fitted, test.table.X.iloc[[int(test.probability.argmax())]])[0]
    found = explain(xgboost, fitted, 40, test, seed=0)["highest"]

    assert len(found) == 10
    assert [one["feature"] for one in found[0]] == [test.table.X.columns[place] for place in np.argsort(-np.abs(first))[:3]]
    assert {key for row in found for one in row for key in one} == {"feature", "moves"}
    assert found[0][0] == {"feature": "more", "moves": "up"}


@pytest.mark.parametrize(("rounds", "rows"), [(40, 2000), (1000, 400), (100_000, 200)])
def test_long_models_are_explained_on_fewer_rows(fitted: Any, rounds: int, rows: int) -> None:
    """Where they are many and deep, explaining would take longer than training."""
    assert explain(xgboost, fitted, rounds, scored(fitted, 2500), seed=0)["explained_rows"] == rows


def test_few_rows_are_all_explained(fitted: Any) -> None:
    found = explain(xgboost, fitted, 40, scored(fitted, 4), seed=0)

    assert (found["explained_rows"], len(found["highest"])) == (4, 4)


def test_a_column_that_is_not_used_is_not_told() -> None:
    model = families.fit("xgboost", {"max_depth": 1}, table(2000), None, **{**SETTINGS, "rounds": 1}).model
    found = explain(xgboost, model, 1, scored(model), seed=0)

    assert [one["feature"] for one in found["importance"]] == ["more"]
    assert [[one["feature"] for one in row] for row in found["highest"]] == [["more"]] * 10


@pytest.mark.parametrize("column", [[np.nan] * 4, [1.0] * 4])
def test_a_column_of_one_value_has_no_direction(column: list[float]) -> None:
    assert module._direction(pd.Series(column), np.arange(4.0)) is None


def test_one_wild_value_turns_no_direction() -> None:
    assert module._direction(pd.Series([1.0, 2, 3, 4, -1e300]), np.array([0.1, 0.2, 0.3, 0.4, 0.25])) == "up"
