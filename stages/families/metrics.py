"""How a model is scored: the larger, the better."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

METRICS = ("auc", "average_precision", "log_loss")
BINS = 10
POINTS = 100  # of a curve, at most, along each of its axes


def score(metric: str, label: NDArray[np.int8], probability: NDArray[np.floating]) -> float:
    """Score probabilities against 0/1 labels; log loss is negated, so that the larger is always the better."""
    if metric == "auc":
        return float(metrics.roc_auc_score(label, probability))
    if metric == "average_precision":
        return float(metrics.average_precision_score(label, probability))
    return -float(metrics.log_loss(label, np.asarray(probability, dtype=np.float64), labels=[0, 1]))


def scores(label: NDArray[np.int8], probability: NDArray[np.floating]) -> dict[str, float]:
    """Give AUC, average precision, log loss (here not negated), recall at 1 % false positives and at 1 % alerts, and calibration error."""
    found = {metric: score(metric, label, probability) for metric in METRICS}
    rest = {
        "recall_at_1pct_fpr": recall_at_fpr(label, probability, 0.01),
        "recall_at_1pct_alerts": recall_at_alert_rate(label, probability, 0.01),
        "calibration_error": calibration_error(label, probability),
    }
    return {**found, "log_loss": -found["log_loss"], **rest}


def recall_at_fpr(label: NDArray[np.int8], probability: NDArray[np.floating], most: float) -> float:
    """Share of the positives that are found where at most that share of the negatives is alarmed for nothing."""
    false_alarms, recall, _ = metrics.roc_curve(label, probability)
    return float(recall[false_alarms <= most].max())


def recall_at_alert_rate(label: NDArray[np.int8], probability: NDArray[np.floating], most: float) -> float:
    """Share of the positives that are found where at most that share of the rows is alarmed."""
    _, alarmed, hits = ladder(label, probability)
    return float(hits[alarmed <= most * len(label)].max(initial=0) / hits[-1])


def ladder(label: NDArray[np.int8], probability: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Give each threshold that makes a difference, the highest first, with the rows and the positives that it alarms (equal or above)."""
    order = np.argsort(-probability, kind="stable")
    last = np.append(np.flatnonzero(np.diff(probability[order])), len(order) - 1)  # rows of equal probability are alarmed together
    return probability[order][last], last + 1, np.cumsum(label[order], dtype=np.int64)[last]


def calibration_error(label: NDArray[np.int8], probability: NDArray[np.floating]) -> float:
    """Give how far the mean probability is from the share of positives, over bins of equal counts (expected calibration error)."""
    gaps = [one["rows"] * abs(one["probability"] - one["share"]) for one in reliability(label, probability)]
    return float(sum(gaps) / len(label))


def reliability(label: NDArray[np.int8], probability: NDArray[np.floating]) -> list[dict[str, Any]]:
    """Give the rows, their mean probability and their share of positives, in bins of equal counts."""
    parts = np.array_split(np.argsort(probability, kind="stable"), BINS)
    return [
        {"rows": len(part), "probability": float(probability[part].mean(dtype=np.float64)), "share": float(label[part].mean())}
        for part in parts
        if len(part)
    ]


def curves(label: NDArray[np.int8], probability: NDArray[np.floating]) -> dict[str, list[list[float]]]:
    """Give points of the ROC curve (false alarms among negatives, recall) and of the precision-recall curve (recall, precision)."""
    _, alarmed, hits = ladder(label, probability)
    misses = alarmed - hits
    kept = np.unique([np.searchsorted(counts, np.linspace(0, counts[-1], POINTS)) for counts in (hits, misses)])
    recall, false_alarms, precision = hits[kept] / hits[-1], misses[kept] / misses[-1], hits[kept] / alarmed[kept]
    return {
        "roc": [[0.0, 0.0], *np.stack([false_alarms, recall], axis=1).round(4).tolist()],
        "precision_recall": np.stack([recall, precision], axis=1).round(4).tolist(),
    }
