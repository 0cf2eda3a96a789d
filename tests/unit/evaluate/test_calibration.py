"""Platt scaling: two numbers from rows that nothing else uses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression

from stages.evaluate import calibration
from stages.evaluate.calibration import Scored
from stages.families import metrics
from stages.features.features import Table
from tests.unit.pipelines import Pipeline, honest_table, new_pipeline


def rows(count: int, seed: int = 0, slope: float = 0.5, intercept: float = -1.0) -> Scored:
    """Draw labels, and probabilities whose log-odds are off by a slope and an intercept."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1, 2, count)
    label = (rng.random(count) < special.expit(slope * log_odds + intercept)).astype(np.int8)
    return Scored(Table(pd.DataFrame({"x": log_odds}), label, np.arange(count)), special.expit(log_odds).astype(np.float32))


def test_it_finds_the_two_numbers_that_were_wrong() -> None:
    part = rows(20_000)
    slope, intercept = calibration.platt(part.table.y, part.probability)

    assert [slope, intercept] == pytest.approx([0.5, -1], abs=0.04)
    assert (slope, intercept) == calibration.platt(part.table.y, part.probability)


def test_it_is_a_logistic_regression() -> None:
    """His targets make no difference where there are many rows."""
    part = rows(20_000)
    plain = LogisticRegression(C=np.inf).fit(part.table.X, part.table.y)

    assert calibration.platt(part.table.y, part.probability) == pytest.approx((plain.coef_[0, 0], plain.intercept_[0]), abs=2e-3)


@pytest.mark.parametrize(
    "probability",
    [np.array([0.0, 1.0] * 30), np.array([1.0, 0.0] * 30), np.full(60, 0.3), np.array([1e-30, 1 - 1e-12] * 30)],
    ids=["perfect", "upside down", "one value", "beyond float32"],
)
def test_it_stays_finite_and_no_probability_becomes_sure(probability: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> None:
    label = np.array([0, 1] * 30, dtype=np.int8)
    slope, intercept = calibration.platt(label, probability)
    found = special.expit(slope * calibration._log_odds(probability) + intercept)

    assert np.isfinite([slope, intercept]).all()
    assert found.min() > 0
    assert found.max() < 1
    assert abs(float(found.sum()) - 30) < 0.1


def test_what_it_does_is_told_on_test() -> None:
    told = calibration.calibrate(rows(4000), test := rows(8000, seed=1))

    before, after = told["before"], told["after"]
    assert before["calibration_error"] == metrics.calibration_error(test.table.y, test.probability) > 0.05
    assert after["calibration_error"] < 0.02
    assert after["log_loss"] < before["log_loss"]
    assert [one["rows"] for one in after["bins"]] == [800] * 10
    assert sum(one["rows"] * one["share"] for one in before["bins"]) == pytest.approx(test.positives)
    assert "reason" not in told


def test_too_few_rows_are_told_and_give_no_numbers() -> None:
    told = calibration.calibrate(rows(40, seed=2), rows(500))

    assert not {"slope", "intercept", "after"} & told.keys()
    assert "not calibrated: the calibration part has " in told["reason"]
    assert "20 of each are needed (prepare.calibration_share)" in told["reason"]


@pytest.mark.parametrize("share", [0, 0.6])
def test_the_part_is_prepares_and_may_be_empty(tmp_path: Path, share: float) -> None:
    pipeline, sets = new_pipeline(tmp_path, honest_table(900)), (f"prepare.calibration_share={share}",)
    pipeline.until("evaluate", *sets)
    told = json.loads(pipeline.read("evaluate", "evaluation.json", *sets))

    assert told["calibration"]["rows"] == round(180 * share)
    assert ("after" in told["calibration"]) == (share > 0)
    assert told["threshold"]["chosen_on"] == ("calibration" if share else "valid")
    if not share:
        assert told["threshold"]["reason"] == "the calibration part has 0 positives and 0 negatives, and 20 of each are needed"


def test_nothing_is_fitted_or_chosen_by_the_calibration_part(pipeline: Pipeline, tmp_path: Path) -> None:
    """Other labels there: the same judged model, valid scores and test scores; another shipped model, calibration and threshold."""
    pipeline.do("evaluate")
    table, part = honest_table(), tmp_path / "part.parquet"
    part.write_bytes(pipeline.read("prepare", "calibration.parquet"))
    kept = pd.read_parquet(part)["_row"]
    table.loc[kept, "fraud"] = 1 - table.loc[kept, "fraud"]
    other = new_pipeline(tmp_path / "other", table)
    other.until("evaluate")

    ours, theirs = (json.loads(one.read("evaluate", "evaluation.json")) for one in (pipeline, other))
    assert pipeline.read("train", "judged.ubj") == other.read("train", "judged.ubj")
    assert pipeline.read("train", "shipped.ubj") != other.read("train", "shipped.ubj")
    assert {key for key in ours if ours[key] != theirs[key]} == {"calibration", "threshold"}
