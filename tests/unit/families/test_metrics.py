"""Curves and bins that the report draws."""

import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score

from stages.families import metrics


def rows(count: int) -> tuple["np.ndarray[tuple[int], np.dtype[np.int8]]", "np.ndarray[tuple[int], np.dtype[np.float64]]"]:
    rng = np.random.default_rng(0)
    label = (rng.random(count) < 0.1).astype(np.int8)
    return label, np.round(rng.normal(1.2 * label, 1), 2)


def test_a_curve_is_short_and_has_the_same_area() -> None:
    label, probability = rows(20_000)
    found = metrics.curves(label, probability)
    roc = np.array(found["roc"])

    assert len(roc) < 205
    assert auc(roc[:, 0], roc[:, 1]) == pytest.approx(roc_auc_score(label, probability), abs=2e-3)
    assert (found["roc"][0], found["roc"][-1]) == ([0, 0], [1, 1])
    assert found["precision_recall"][-1] == [1, pytest.approx(label.mean(), abs=1e-4)]
    assert (np.diff(np.array(found["precision_recall"])[:, 0]) >= 0).all()


def test_a_curve_of_one_value_for_all_rows() -> None:
    found = metrics.curves(np.array([0, 0, 0, 1], dtype=np.int8), np.full(4, 0.5))

    assert found == {"roc": [[0, 0], [1, 1]], "precision_recall": [[1, 0.25]]}


def test_few_rows_make_few_bins() -> None:
    label, probability = np.array([0, 1, 1], dtype=np.int8), np.array([0.1, 0.9, 0.4], dtype=np.float32)

    assert [(one["rows"], round(one["probability"], 3), one["share"]) for one in metrics.reliability(label, probability)] == [
        (1, 0.1, 0),
        (1, 0.4, 1),
        (1, 0.9, 1),
    ]
