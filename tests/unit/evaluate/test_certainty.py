"""Intervals and slices."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from stages.evaluate import certainty
from stages.families import metrics
from stages.features.features import Table

Rows = tuple["np.ndarray[tuple[int], np.dtype[np.int8]]", "np.ndarray[tuple[int], np.dtype[np.float64]]"]


def rows(count: int, seed: int = 0) -> Rows:
    """Draw labels and probabilities with ties, of an AUC of about .8."""
    rng = np.random.default_rng(seed)
    label = (rng.random(count) < 0.1).astype(np.int8)
    return label, np.round(rng.normal(1.2 * label, 1), 1)


def test_areas_are_sklearns() -> None:
    label, score = rows(500)
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), 499)
    hits, counts = np.cumsum(label[order].astype(float))[last], np.arange(1.0, 501.0)[last]

    auc, precision = certainty._areas(hits, counts)
    assert auc == pytest.approx(roc_auc_score(label, score))
    assert precision == pytest.approx(average_precision_score(label, score))


def width(interval: list[float]) -> float:
    return interval[1] - interval[0]


def test_an_interval_holds_the_score_and_is_as_wide_as_scores_of_new_rows_scatter() -> None:
    label, score = rows(3000)
    found = certainty.intervals(label, score, None, seed=0)

    assert found["auc"][0] < roc_auc_score(label, score) < found["auc"][1]
    drawn = np.percentile([roc_auc_score(*rows(3000, seed)) for seed in range(1, 301)], [2.5, 97.5])
    assert width(found["auc"]) == pytest.approx(drawn[1] - drawn[0], rel=0.2)
    assert found == certainty.intervals(label, score, None, seed=0)


def test_rows_of_one_entity_are_no_news() -> None:
    """Ten copies of each row, under one name each: as sure as one copy, and not ten times as sure."""
    label, score = rows(400)
    names = np.repeat(np.arange(400).astype(str), 10).astype(object)
    one = certainty.intervals(label, score, None, seed=0)
    copies = certainty.intervals(label.repeat(10), score.repeat(10), names, seed=0)
    fooled = certainty.intervals(label.repeat(10), score.repeat(10), None, seed=0)

    assert width(copies["auc"]) == pytest.approx(width(one["auc"]), rel=0.1)
    assert width(fooled["auc"]) < 0.5 * width(one["auc"])


def test_rows_without_an_entity_stand_for_themselves() -> None:
    label, score = rows(300)
    nobody = np.full(300, None, dtype=object)
    assert certainty.intervals(label, score, nobody, seed=0) == certainty.intervals(label, score, None, seed=0)


def test_one_class_has_no_interval() -> None:
    assert certainty.intervals(np.zeros(9, dtype=np.int8), np.arange(9.0), None, seed=0) == {}


def test_slices_are_told_with_their_rows_and_scored_where_there_are_enough() -> None:
    label, score = rows(2000)
    shop = pd.Series(["web", "store", None, "web"] * 500, dtype="category")
    matrix = pd.DataFrame({"shop": shop, "amount": np.arange(2000.0)})
    who = np.array(["a", "b", None, "c"] * 500, dtype=object)
    when = np.arange(2000) * 10**15
    test = Table(matrix, label, np.arange(2000), when, who)
    train = Table(matrix[:4], label[:4], np.arange(4), when[:4], np.array(["a", "b", None, "a"], dtype=object))

    found = certainty.slices(train, test, score, ["shop", "amount"])

    by = {(one["by"], one["value"]): one for one in found}
    assert {value for name, value in by if name == "entity"} == {"new", "seen in train"}
    assert by["entity", "new"]["rows"] == 1000
    assert {value for name, value in by if name == "shop"} == {"missing", "store", "web"}
    assert sum(one["rows"] for one in found if one["by"] == "amount") == 2000
    assert len([name for name, _ in by if name == "month"]) >= 12
    web = (shop == "web").to_numpy()
    assert by["shop", "web"]["auc"] == pytest.approx(roc_auc_score(label[web], score[web]))
    few = certainty.slices(train, Table(matrix[:40], label[:40], np.arange(40)), score[:40], ["shop"])
    assert all("auc" not in one for one in few)


def test_recall_where_one_of_a_hundred_is_alarmed_for_nothing() -> None:
    label = np.array([0] * 200 + [1] * 10, dtype=np.int8)
    score = np.concatenate([np.linspace(0, 1, 200), [0.9949, 0.9951] * 5])
    assert metrics.recall_at_fpr(label, score, 0.01) == 1.0
    assert metrics.recall_at_fpr(label, score, 0.006) == 0.5
    assert metrics.recall_at_fpr(label, np.concatenate([np.ones(200), np.zeros(10)]), 0.01) == 0


def test_a_model_that_says_what_happens_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(20_000)
    label = (rng.random(20_000) < probability).astype(np.int8)
    assert metrics.calibration_error(label, probability) < 0.01
    assert metrics.calibration_error(label, probability * 0.5) == pytest.approx(0.25, abs=0.01)
