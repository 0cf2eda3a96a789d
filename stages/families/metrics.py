"""How a model is scored: the larger, the better."""

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

METRICS = ("auc", "average_precision", "log_loss")


def score(metric: str, label: NDArray[np.int8], probability: NDArray[np.floating]) -> float:
    """Score probabilities against 0/1 labels; log loss is negated, so that the larger is always the better."""
    if metric == "auc":
        return float(metrics.roc_auc_score(label, probability))
    if metric == "average_precision":
        return float(metrics.average_precision_score(label, probability))
    return -float(metrics.log_loss(label, np.asarray(probability, dtype=np.float64), labels=[0, 1]))


def scores(label: NDArray[np.int8], probability: NDArray[np.floating]) -> dict[str, float]:
    """Give AUC, average precision, log loss (here not negated), recall at 1 % false positives and calibration error."""
    found = {metric: score(metric, label, probability) for metric in METRICS}
    rest = {"recall_at_1pct_fpr": recall_at_fpr(label, probability, 0.01), "calibration_error": calibration_error(label, probability)}
    return {**found, "log_loss": -found["log_loss"], **rest}


def recall_at_fpr(label: NDArray[np.int8], probability: NDArray[np.floating], most: float) -> float:
    """Share of the positives that are found where at most that share of the negatives is alarmed for nothing."""
    false_alarms, recall, _ = metrics.roc_curve(label, probability)
    return float(recall[false_alarms <= most].max())


def calibration_error(label: NDArray[np.int8], probability: NDArray[np.floating], bins: int = 10) -> float:
    """Give how far the mean probability is from the share of positives, over bins of equal counts (expected calibration error)."""
    parts = np.array_split(np.argsort(probability, kind="stable"), bins)
    gaps = [len(part) * abs(float(probability[part].mean(dtype=np.float64)) - float(label[part].mean())) for part in parts if len(part)]
    return float(sum(gaps) / len(label))
