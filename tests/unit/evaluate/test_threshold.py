"""The threshold: what it is chosen by, on which rows, and what it does on test."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.common import config as configs
from stages.common.errors import ConfigError
from stages.evaluate import threshold
from stages.evaluate.calibration import Scored
from stages.evaluate.config import Config, Costs
from stages.families import metrics
from stages.features.features import Column, Features, Roles, Table
from tests.unit.pipelines import Pipeline, honest_table, new_pipeline

DAY = 86_400 * 10**9
START = 20_000 * DAY  # in 2024


def scored(count: int, seed: int, first_day: int = 0, days: int = 10) -> Scored:
    """Draw rows over some days, one in ten a positive, with an amount of their own."""
    rng = np.random.default_rng(seed)
    label = (rng.random(count) < 0.1).astype(np.int8)
    label[:2] = 0, 1
    amount = rng.lognormal(3, 1, count).astype(np.float32)
    time = START + np.linspace(first_day, first_day + days, count) * DAY
    probability = 1 / (1 + np.exp(2 - rng.normal(2 * label, 1)))
    return Scored(Table(pd.DataFrame({"sum": amount}), label, np.arange(count), time.astype(np.int64)), probability)


def features(amount: str | None = "sum", dtype: str = "float32") -> Features:
    return Features((Column("sum", ("sum",), dtype),), (), Roles("fraud", "1", "0", time="when", amount=amount))


SPLITS = {"valid": scored(2000, 1, 0, 20), "calibration": scored(1000, 2, 20, 10), "test": scored(1000, 3, 30, 10)}


TRAIN = scored(6000, 4, 0, 40).table


def decide(config: Config, split: str = "time", splits: dict[str, Scored] = SPLITS, fitted: Features | None = None) -> dict[str, Any]:
    return threshold.decide(config, fitted or features(), splits, TRAIN, split)


def test_without_a_word_it_is_that_of_one_percent_false_alarms() -> None:
    part, found = SPLITS["calibration"], decide(Config())
    false_alarms = (part.probability[part.table.y == 0] >= found["threshold"]).mean()

    assert (found["rule"], found["chosen_on"], found["reason"]) == ("1 % false alarms", "calibration", None)
    assert 0.005 < false_alarms <= 0.01
    assert found["alert_rate"] == (part.probability >= found["threshold"]).mean()
    assert set(found["test"]) == {"alerts", "alerts_per_day", "precision", "recall"}


def test_alerts_a_day_are_kept_on_the_part_and_applied_as_they_are_on_test() -> None:
    found, test = decide(Config(alerts_per_day=5)), SPLITS["test"]
    alarmed = test.probability >= found["threshold"]

    assert found["alert_rate"] == 0.05, "50 alarms in the part's 10 days, of 1,000 rows"
    assert found["test"]["alerts"] == alarmed.sum()
    assert found["test"]["alerts_per_day"] == pytest.approx(alarmed.sum() / 10)
    assert found["test"]["precision"] == test.table.y[alarmed].mean()
    assert found["test"]["recall"] == test.table.y[alarmed].sum() / test.positives


def test_a_day_of_a_random_split_has_all_rows_of_that_day() -> None:
    """Each part spans all days: ten alarms a day of all rows are as many of the part as its share of the rows."""
    spread = {name: one._replace(table=scored(len(one.probability), 9, 0, 40).table) for name, one in SPLITS.items()}
    spread = {name: Scored(one.table, SPLITS[name].probability) for name, one in spread.items()}
    found = decide(Config(alerts_per_day=10), "random", spread)

    assert found["alert_rate"] == 0.04, "10,000 rows in 40 days: 250 a day"
    assert found["test"]["alerts_per_day"] == pytest.approx(found["test"]["alerts"] / 1000 * 250)


@pytest.mark.parametrize("missed", [30.0, "amount"])
def test_costs_choose_what_saves_most(missed: Any) -> None:
    part, found = SPLITS["calibration"], decide(Config(costs=Costs(missed=missed, false_alarm=4)))

    def saved(one: Scored, least: float) -> float:
        worth = one.table.X["sum"].to_numpy("float64") if missed == "amount" else np.full(len(one.table.y), 30.0)
        return float(np.where(one.table.y == 1, worth, -4.0)[one.probability >= least].sum())

    best = max(saved(part, least) for least in part.probability)
    assert found["rule"] == "costs"
    assert saved(part, found["threshold"]) == pytest.approx(best)
    assert found["test"]["saved"] == pytest.approx(saved(SPLITS["test"], found["threshold"]))
    assert 0 < found["test"]["saved"] < found["test"]["lost_without"]


def test_costs_within_a_budget_of_alarms() -> None:
    found = decide(Config(costs=Costs(missed=1000, false_alarm=1), alerts_per_day=2))

    assert found["rule"] == "costs and alerts per day"
    assert found["alert_rate"] <= 0.02


def test_where_no_alarm_pays_nobody_is_alarmed() -> None:
    upside_down = {name: Scored(one.table, 1 - one.probability) for name, one in SPLITS.items()}
    found = decide(Config(costs=Costs(missed=0.01, false_alarm=1_000_000)), splits=upside_down)

    assert (found["threshold"], found["alert_rate"]) == (None, 0)
    assert found["test"] == {"alerts": 0, "alerts_per_day": 0, "precision": None, "recall": 0, "saved": 0} | {
        "lost_without": pytest.approx(0.01 * SPLITS["test"].positives)
    }


def test_test_rows_choose_nothing() -> None:
    other = {**SPLITS, "test": scored(1000, 99, 30, 10), "valid": scored(50, 98, 0, 20)}
    for config in (Config(), Config(alerts_per_day=3), Config(costs=Costs(missed="amount", false_alarm=5))):
        assert decide(config)["threshold"] == decide(config, splits=other)["threshold"]


def test_too_small_a_part_gives_way_to_valid_and_it_is_said() -> None:
    found = decide(Config(), splits={**SPLITS, "calibration": scored(60, 4)})

    assert found["chosen_on"] == "valid"
    assert "and 20 of each are needed" in found["reason"]
    assert found["threshold"] == decide(Config(), splits={**SPLITS, "calibration": SPLITS["valid"]})["threshold"]


def test_a_missing_amount_is_worth_nothing() -> None:
    table = Table(pd.DataFrame({"sum": [np.nan, -3.0, 7.0]}), np.ones(3, dtype=np.int8), np.arange(3))
    assert threshold._missed(Config(costs=Costs(missed="amount", false_alarm=1)), features(), table).tolist() == [0, 0, 7]


def test_an_amount_that_is_not_at_hand_is_refused() -> None:
    config = Config(costs=Costs(missed="amount", false_alarm=1))
    with pytest.raises(ConfigError, match=r"prepare\.amount names no column.*give a number"):
        decide(config, fitted=features(None))
    with pytest.raises(ConfigError, match="'sum', which is no feature of numbers"):
        decide(config, fitted=features(dtype="category"))


def test_alerts_a_day_need_a_day() -> None:
    timeless = {name: one._replace(table=Table(one.table.X, one.table.y, one.table.row)) for name, one in SPLITS.items()}
    with pytest.raises(ConfigError, match="needs an event time"):
        decide(Config(alerts_per_day=1), splits=timeless)
    assert decide(Config(), splits=timeless)["test"]["alerts_per_day"] is None


def test_times_that_are_numbers_are_days_by_their_unit() -> None:
    table = Table(pd.DataFrame({"sum": [1.0] * 5}), np.zeros(5, dtype=np.int8), np.arange(5), np.arange(5) * 43_200)
    assert threshold._rows_per_day(table, [], "time", features()) == pytest.approx(5 / 2)
    dated = Table(table.X, table.y, table.row, START + np.arange(5) * DAY)
    assert threshold._rows_per_day(dated, [], "time", features()) == pytest.approx(5 / 4)


def test_recall_at_a_budget_of_alerts() -> None:
    label = np.array([1, 0, 1, 0, 0, 0, 0, 0, 0, 1], dtype=np.int8)
    probability = np.array([0.9, 0.8, 0.8, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1])

    assert [metrics.recall_at_alert_rate(label, probability, most) for most in (0.05, 0.1, 0.2, 0.3, 1.0)] == pytest.approx(
        [0, 1 / 3, 1 / 3, 2 / 3, 1]
    ), "rows of equal probability are alarmed together"


def test_it_is_part_of_the_evaluation(pipeline: Pipeline) -> None:
    sets = ("prepare.amount=amount", "evaluate.costs={missed: amount, false_alarm: 2.5}")
    pipeline.until("evaluate", *sets)
    found = json.loads(pipeline.read("evaluate", "evaluation.json", *sets))

    assert found["threshold"]["rule"] == "costs"
    assert found["threshold"]["test"]["saved"] > 0
    assert pipeline.do("evaluate", *sets)["state"] == "done"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            ("evaluate.alerts_per_day=5", "prepare.time=null", "prepare.split=random"),
            r"--set.*evaluate\.alerts_per_day needs an event time",
        ),
        (("evaluate.costs={missed: amount, false_alarm: 1}",), r"--set.*evaluate\.costs names the amount.*prepare\.amount"),
    ],
)
def test_what_a_threshold_goes_by_is_asked_for_before_anything_is_trained(tmp_path: Path, sets: tuple[str, ...], message: str) -> None:
    new_pipeline(tmp_path, honest_table(100))
    with pytest.raises(ConfigError, match=message):
        configs.load(tmp_path / "config.yaml", sets, {})


@pytest.mark.parametrize("costs", ["{missed: lots, false_alarm: 1}", "{missed: -1, false_alarm: 1}", "{missed: true, false_alarm: 1}"])
def test_costs_that_are_none_are_refused(tmp_path: Path, costs: str) -> None:
    new_pipeline(tmp_path, honest_table(100))
    with pytest.raises(ConfigError, match=r"evaluate\.costs\.missed: give a number above 0, or the word amount"):
        configs.load(tmp_path / "config.yaml", [f"evaluate.costs={costs}"], {})
