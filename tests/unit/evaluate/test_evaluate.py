"""Candidates and baseline are scored, the winner is chosen on valid, and a column that gives the label away is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.common import log
from stages.evaluate import evaluate as module
from tests.unit.pipelines import Pipeline, honest_table, new_pipeline


def evaluation(pipeline: Pipeline, *sets: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pipeline.read("evaluate", "evaluation.json", *sets))
    return found


def leaky(table: pd.DataFrame) -> pd.DataFrame:
    """Add a column that knows the label but for one row in fifty."""
    rng = np.random.default_rng(5)
    known = np.where(rng.random(len(table)) < 0.02, 1 - table["fraud"], table["fraud"])
    return table.assign(seconds=known * 3 + rng.random(len(table)))


def test_the_winner_and_the_baseline_are_scored(pipeline: Pipeline) -> None:
    outputs = pipeline.do("evaluate")
    found = evaluation(pipeline)

    assert found["winner"] == outputs["winner"] == "xgboost"
    assert found["valid"]["xgboost"]["auc"] > 0.75
    assert found["baseline"]["logistic"]["auc"] > 0.75
    assert {name: outputs[name] for name in found["test"]} == found["test"]
    assert outputs["suspicious"] == found["suspicious"] == []
    assert {one["feature"] for one in found["importance"]} == {"amount", "age", "shop"}


def test_valid_scores_are_those_that_train_told(pipeline: Pipeline) -> None:
    pipeline.do("evaluate")

    assert evaluation(pipeline)["valid"]["xgboost"] == json.loads(pipeline.read("train", "model.json"))["valid"]


@pytest.mark.parametrize("metric", ["auc", "log_loss"])
def test_the_winner_is_chosen_by_the_metric_of_the_search(metric: str, tmp_path: Path) -> None:
    pipeline = new_pipeline(tmp_path, honest_table(400))
    pipeline.until("evaluate", f"search.metric={metric}")

    assert evaluation(pipeline, f"search.metric={metric}")["metric"] == metric


def test_the_bytes_do_not_depend_on_the_threads(tmp_path: Path) -> None:
    """The whole evaluation, refits included."""
    made = []
    for threads in (1, 2):
        pipeline = new_pipeline(tmp_path / str(threads), leaky(honest_table()))
        pipeline.until("evaluate", f"common.threads={threads}")
        made.append(pipeline.read("evaluate", "evaluation.json"))

    assert made[0] == made[1]


def test_a_column_that_gives_the_label_away_is_named_whatever_its_name(tmp_path: Path) -> None:
    table = leaky(honest_table())
    names = {name: f"c{number}" for number, name in enumerate(table.columns) if name != "fraud"}
    plain, renamed = new_pipeline(tmp_path / "plain", table), new_pipeline(tmp_path / "renamed", table.rename(columns=names))

    assert plain.until("evaluate")["evaluate"]["suspicious"] == ["seconds"]
    assert renamed.until("evaluate")["evaluate"]["suspicious"] == [names["seconds"]]
    (found,) = evaluation(plain)["suspicious"]
    assert found["auc"] > 0.93
    assert found["auc_without"] < found["auc"] - 0.05


def test_a_time_is_one_column_however_many_features_come_from_it(tmp_path: Path) -> None:
    """Hour and weekday are both taken away when the event time is."""
    table = honest_table(700).drop(columns=["shop"])
    hour = 8 * table["fraud"] + np.random.default_rng(2).integers(0, 8, len(table)) + 2
    table["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(table)) // 24 * 24 + hour, unit="h")
    pipeline = new_pipeline(tmp_path, table)

    assert pipeline.until("evaluate", "prepare.time=when")["evaluate"]["suspicious"] == ["when"]


def test_a_column_alone_is_compared_with_no_column(tmp_path: Path) -> None:
    pipeline = new_pipeline(tmp_path, leaky(honest_table())[["seconds", "fraud"]])

    assert pipeline.until("evaluate")["evaluate"]["suspicious"] == ["seconds"]
    assert evaluation(pipeline)["suspicious"][0]["auc_without"] == 0.5


def test_a_column_that_others_can_stand_for_is_not_named(tmp_path: Path) -> None:
    """Shuffled, each of the two costs much; left out, nothing."""
    table = leaky(honest_table())
    pipeline = new_pipeline(tmp_path, table.assign(again=table["seconds"] + 0.01 * np.random.default_rng(3).random(len(table))))

    assert pipeline.until("evaluate")["evaluate"]["suspicious"] == []


def test_of_many_rows_some_are_enough_to_name_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fits with and without it learn from the same rows."""
    whole = new_pipeline(tmp_path / "whole", leaky(honest_table(3000)))
    whole.until("evaluate")
    monkeypatch.setattr(module, "REFIT_ROWS", 600)
    some = new_pipeline(tmp_path / "some", leaky(honest_table(3000)))

    assert some.until("evaluate")["evaluate"]["suspicious"] == ["seconds"]
    assert evaluation(some)["suspicious"][0]["auc"] != evaluation(whole)["suspicious"][0]["auc"]


def test_of_many_rows_those_of_a_rare_label_are_not_overlooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 900 rows of valid, 20 at random may hold none of its positives."""
    table = leaky(honest_table(6000))
    rare = table[(table["fraud"] == 0) | (np.arange(len(table)) % 12 == 0)]
    monkeypatch.setattr(module, "SHUFFLED_ROWS", 20)
    monkeypatch.setattr(module, "REFIT_ROWS", 300)
    pipeline = new_pipeline(tmp_path, rare)

    assert pipeline.until("evaluate")["evaluate"]["suspicious"] == ["seconds"]


@pytest.mark.parametrize(("rests", "named"), [([0.8, 0.8, 0.8], ["seconds"]), ([0.89, 0.92], []), ([0.89, 0.89, 0.93], [])])
def test_one_fits_luck_names_no_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rests: list[float], named: list[str]) -> None:
    """The mean of three fits falls from .95 by more than .05, or one of the first says that it does not."""
    pipeline, left = new_pipeline(tmp_path, leaky(honest_table())), iter(rests)
    monkeypatch.setattr(module, "_short_list", lambda *_: ["seconds"])
    monkeypatch.setattr(module, "_auc_without", lambda names, *_: next(left) if names else 0.95)

    assert pipeline.until("evaluate")["evaluate"]["suspicious"] == named
    assert list(left) == []


def test_nothing_is_refitted_below_the_high_auc(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_auc_without", None)

    assert pipeline.do("evaluate")["auc"] < 0.9


def test_a_second_run_does_no_work(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pipeline.do("evaluate")
    events: list[str] = []
    monkeypatch.setattr(log, "info", lambda event, **_: events.append(event))

    assert pipeline.do("evaluate") == {**first, "state": "done"}
    assert events == ["step.already_done"]
