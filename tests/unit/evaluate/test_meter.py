"""A random split that boasts, rows that drifted and labels that leak are told; honest tables are not accused."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from stages.common import contract
from stages.evaluate import meter
from stages.families import metrics
from stages.features.features import Table
from stages.prepare import generate
from tests.unit.pipelines import Pipeline, new_pipeline

FITS = meter.Fits(seed=0, threads=1)
Splits = tuple[Table, Table, Table]


def cut(matrix: pd.DataFrame, label: NDArray[Any], entity: NDArray[Any] | None = None) -> Splits:
    """Cut rows in their order, which is that of time: 70 % train, 10 % valid, 20 % test."""
    row, ends = np.arange(len(label)), [0, len(label) * 7 // 10, len(label) * 8 // 10, len(label)]
    first, second, third = (
        Table(matrix[start:end], label[start:end].astype(np.int8), row[start:end], entity=None if entity is None else entity[start:end])
        for start, end in itertools.pairwise(ends)
    )
    return first, second, third


def honest(rows: int = 4000, seed: int = 0) -> Splits:
    """Draw rows that have nothing to do with each other, with a label that follows from two columns."""
    rng = np.random.default_rng(seed)
    matrix = pd.DataFrame({name: rng.normal(size=rows) for name in ("amount", "age", "noise")})
    return cut(matrix, 2 * matrix["amount"].to_numpy() - matrix["age"].to_numpy() + rng.logistic(size=rows) > 2)


def repeated(named: bool = True, rows: int = 4000) -> Splits:
    """Draw customers who come eight times within days, each with a label of its own that nothing but who it is tells."""
    rng = np.random.default_rng(1)
    who = np.arange(rows) // 8
    traits = rng.normal(size=(rows // 8, 3))[who] + 0.01 * rng.normal(size=(rows, 3))
    label = (rng.random(rows // 8) < 0.3)[who]
    return cut(
        pd.DataFrame(traits, columns=["height", "weight", "age"]),
        label,
        np.char.add("c", who.astype(str)).astype(object) if named else None,
    )


def renamed(splits: Splits) -> Splits:
    """Give the same tables with columns that say nothing."""
    names = {name: f"c{number}" for number, name in enumerate(splits[0].X)}
    first, second, third = (replace(table, X=table.X.rename(columns=names)) for table in splits)
    return first, second, third


@pytest.mark.parametrize("named", [True, False])
def test_a_random_split_boasts_where_rows_of_one_customer_are_alike(named: bool) -> None:
    found = meter.random_split(FITS, repeated(named))

    assert found["random"] > 0.9
    assert abs(found["time"] - 0.5) < 0.1
    assert found["gap"] == found["random"] - found["time"]
    assert found["rows"] == 4000
    assert found == meter.random_split(FITS, renamed(repeated(named)))


@pytest.mark.parametrize("seed", range(5))
def test_a_random_split_does_not_boast_where_rows_are_strangers(seed: int) -> None:
    found = meter.random_split(FITS, honest(seed=seed))

    assert found["time"] > 0.85
    assert abs(found["gap"]) < 3 * found["standard_error"] < 0.07


def test_of_many_rows_whole_entities_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows of each would hide what they give away."""
    monkeypatch.setattr(meter, "ROWS", 1001)
    splits = repeated()
    rows = meter._chosen(meter._groups(splits), meter.ROWS, np.random.default_rng(0))

    counts = pd.Series(np.concatenate([table.entity for table in splits if table.entity is not None])[rows]).value_counts()
    assert sorted(counts.unique()) == [1, 8]  # the last is cut
    found = meter.random_split(FITS, splits)
    assert found["rows"] == 1001
    assert found["gap"] > 0.25


def test_what_does_not_follow_time_has_no_gap() -> None:
    for split in ("random", "order"):
        assert meter.measure(FITS, *honest(), split=split)["random_split"] == {"not_measured": "the split does not follow time"}
    assert "gap" in meter.measure(FITS, *honest(), split="time")["random_split"]


@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_column_that_drifts_is_named_first(is_renamed: bool) -> None:
    train, valid, test = honest()
    moved = replace(test, X=test.X.assign(age=test.X["age"] + 1.5))
    train, _, test = renamed((train, valid, moved)) if is_renamed else (train, valid, moved)
    found = meter.drift(FITS, train, test)

    assert found["auc"] > 0.8
    assert found["drifted"]
    assert found["features"][0] == ("c1" if is_renamed else "age")


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_one_kind_do_not_drift(seed: int) -> None:
    train, _, test = honest(seed=seed)
    found = meter.drift(FITS, train, test)

    assert abs(found["auc"] - 0.5) < 3 * found["standard_error"]
    assert found["features"] == []


def test_new_customers_of_the_old_kind_are_no_drift() -> None:
    """Each customer is in train or in test alone; by its likeness to its other rows it would be told at once."""
    train, _, test = repeated()
    found, fooled = (meter.drift(FITS, *tables) for tables in ((train, test), (replace(train, entity=None), replace(test, entity=None))))

    assert abs(found["auc"] - 0.5) < 0.1
    assert not found["drifted"]
    assert fooled["auc"] > 0.9


def test_entities_of_test_that_train_knows() -> None:
    train, _, test = honest(10)
    names = np.array(["a", "b", "a", None, "c", "a", "b"], dtype=object)
    assert meter.entities_seen(replace(train, entity=names), replace(test, entity=np.array(["a", "d"]))) == {"rows": 0.5, "entities": 0.5}
    assert meter.entities_seen(replace(train, entity=names), replace(test, entity=np.array([None, "c"]))) == {"rows": 0.5, "entities": 1}
    assert meter.entities_seen(replace(train, entity=names), replace(test, entity=np.array([None, None]))) is None
    assert meter.entities_seen(train, test) is None


@pytest.mark.parametrize("seed", range(20))
def test_shuffled_labels_score_as_chance_does(seed: int) -> None:
    """On a table of which the true labels are learned to an AUC of .9."""
    train, valid, _ = honest(seed=seed)
    found = meter.shuffled_labels(replace(FITS, seed=seed), train, valid)

    assert found["passed"]
    assert abs(found["auc"] - 0.5) <= 3 * found["standard_error"] < 0.11


@pytest.mark.parametrize("flips", [0, 0.2])
def test_labels_that_leak_through_the_pipeline_are_told(flips: float) -> None:
    """A column that is made from the very labels that the fit is given, shuffled or not."""
    rng = np.random.default_rng(0)
    train, valid, _ = honest()
    made = []
    for table in (train, valid):
        label = rng.permutation(table.y)
        made.append(replace(table, y=label, X=table.X.assign(rate=np.where(rng.random(len(label)) < flips, 1 - label, label))))
    found = meter.null_score(FITS, made[0], made[1])

    assert not found["passed"]
    assert found["auc"] > 0.7


def test_labels_shuffled_before_all_steps_score_as_chance_does(tmp_path: Path) -> None:
    """What prepare makes of earlier rows' labels gives no later label away."""
    table = generate.table(3000, 0)
    table["is_fraud"] = np.random.default_rng(0).random(len(table)) < 0.2
    settings = """
prepare: {source: file, path: table.csv, label: is_fraud, time: time, id: transaction, entity: customer, amount: amount, test_split: 0.3}
train: {rounds: 30}
"""
    pipeline = new_pipeline(tmp_path, table, settings)
    found = pipeline.until("evaluate")["evaluate"]
    label = table["is_fraud"].to_numpy()[-900:].astype(np.int8)

    assert abs(found["auc"] - 0.5) <= 3 * meter.standard_error(0.5, label) < 0.08


def test_a_part_without_enough_of_one_class_is_not_measured() -> None:
    found = meter.measure(FITS, *honest(60), split="time")
    few = {"not_measured": "too few rows of one class"}
    assert found == {"random_split": few, "drift": few, "entities": None, "shuffled_labels": few}


def test_the_standard_error_is_how_scores_scatter() -> None:
    label = np.repeat([0, 1], [900, 100]).astype(np.int8)
    assert meter.standard_error(0.5, label) == pytest.approx(np.sqrt(1001 / (12 * 900 * 100)))
    rng = np.random.default_rng(0)
    scores = [metrics.score("auc", label, rng.exponential(1 + 3 * label)) for _ in range(400)]
    assert np.mean(scores) == pytest.approx(0.8, abs=0.01)
    assert np.std(scores) == pytest.approx(meter.standard_error(0.8, label), rel=0.15)


def test_equal_tables_give_equal_bytes_on_any_number_of_threads() -> None:
    made = [contract.dump(meter.measure(replace(FITS, threads=threads), *repeated(), split="time")) for threads in (1, 1, 2)]
    assert made[0] == made[1] == made[2]


def test_evaluate_tells_it(pipeline: Pipeline) -> None:
    pipeline.do("evaluate")
    found = json.loads(pipeline.read("evaluate", "evaluation.json"))["leaks"]

    assert found["random_split"] == {"not_measured": "the split does not follow time"}
    assert found["entities"] is None
    assert found["shuffled_labels"]["passed"]
    assert not found["drift"]["drifted"]
