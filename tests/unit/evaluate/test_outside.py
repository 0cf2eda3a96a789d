"""Scores from outside: judged on the same rows, by the row's number, and part of what a result depends on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.common.errors import DataError, MissingInput
from stages.common.store import open_store
from stages.evaluate import outside, report
from stages.families import metrics
from tests.unit.pipelines import Pipeline, honest_table
from workflows import cli

SETS = ("evaluate.outside_scores=scores.csv",)


@pytest.fixture
def given(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Pipeline]:
    """Give ``given(scores)``, which lays a score per row beside the config."""
    monkeypatch.chdir(pipeline.folder)

    def given(scores: Any) -> Pipeline:
        table = pd.DataFrame({"row": np.arange(900), "score": scores})
        table.sample(frac=1, random_state=0).to_csv(pipeline.folder / "scores.csv", index=False)
        return pipeline

    return given


def told(pipeline: Pipeline) -> dict[str, Any]:
    pipeline.do("evaluate", *SETS)
    found: dict[str, Any] = json.loads(pipeline.read("evaluate", "evaluation.json", *SETS))["outside"]
    return found


def test_they_are_scored_on_the_same_rows_and_compared_on_test(given: Callable[[Any], Pipeline]) -> None:
    by_lot = np.random.default_rng(0).random(900)
    pipeline = given(by_lot)
    found, test = told(pipeline), _split(pipeline, "test")

    assert found["test"] == metrics.scores(test["_label"].to_numpy(), by_lot[test["_row"]])
    assert found["answer"] == "better", "than a lottery"
    assert 0.005 < found["interval"][0] < found["difference"] < found["interval"][1]
    assert "logistic" not in found
    assert pipeline.do("evaluate", *SETS)["winner"] == "xgboost", "they are never chosen"
    page = report.draw(pipeline.addresses(*SETS))
    assert "Against the outside scores on test, xgboost: better (+0." in page
    assert page.count("outside scores</td>") == 2


def _split(pipeline: Pipeline, name: str) -> pd.DataFrame:
    path = pipeline.folder / f"{name}.parquet"
    path.write_bytes(pipeline.read("prepare", f"{name}.parquet"))
    return pd.read_parquet(path)


def test_perfect_ones_beat_the_winner(given: Callable[[Any], Pipeline]) -> None:
    assert told(given(honest_table()["fraud"]))["answer"] == "worse"


def test_what_is_no_probability_is_ranked(given: Callable[[Any], Pipeline]) -> None:
    scores = np.random.default_rng(0).integers(0, 30, 900)
    found = told(given(scores * 100))
    likely = told(given(scores / 30))

    assert found["test"]["log_loss"] is found["test"]["calibration_error"] is None
    assert found["test"]["auc"] == likely["test"]["auc"]
    assert found["interval"] == likely["interval"]


def test_their_bytes_are_part_of_the_evaluation_alone(given: Callable[[Any], Pipeline]) -> None:
    pipeline = given(np.linspace(0, 1, 900))
    before = pipeline.addresses(*SETS)
    given(np.linspace(1, 0, 900))
    after = pipeline.addresses(*SETS)

    assert before.plan_key("evaluate", {}) != after.plan_key("evaluate", {})
    assert before.plan_key("prepare", {}) == after.plan_key("prepare", {}) == pipeline.addresses().plan_key("prepare", {})
    with pytest.raises(MissingInput, match=r"scores\.csv: its bytes changed since this run was planned"):
        pipeline.work("evaluate", before)
    assert [pipeline.do("evaluate", *SETS)["state"] for _ in range(2)] == ["made", "done"]


def test_they_go_to_the_cluster_with_the_table(given: Callable[[Any], Pipeline], tmp_path: Path) -> None:
    pipeline, store = given(np.linspace(0, 1, 900)), open_store(str(tmp_path / "cluster"))
    address = cli.upload(pipeline.addresses(*SETS).config, store)
    sections = json.loads(store.read(address))["sections"]

    assert sections["evaluate"]["outside_scores"] in store.list("raw/")
    assert len(store.list("raw/")) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "row,score\n1,0.5\n",
            r"13\d of the 135 rows of valid have no score there, first row \d+ \(from 0\)",
        ),
        ("id,score\n1,0.5\n", "give it the columns row and score; found: id, score"),
        ("row,score\n1,0.5\n1,0.6\n", "row 1 stands twice"),
        ("row,score\n1,high\n", "a row or a score is missing, or no finite number"),
        ("row,score\n1,\n", "a row or a score is missing, or no finite number"),
        ("row,score\n1,inf\n", "a row or a score is missing, or no finite number"),
        ("", "not a CSV file that can be read"),
        ("row,score\n1,2,3,4\n5\n1,2,3,4,5,6\n", "not a CSV file that can be read"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(given: Callable[[Any], Pipeline], text: str, said: str) -> None:
    pipeline = given(0.5)
    (pipeline.folder / "scores.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        pipeline.do("evaluate", *SETS)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_bytes(b"row,score\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="not a CSV file"):
        outside.read(tmp_path / "scores.csv", "scores.csv")
