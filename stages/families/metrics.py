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
    """Give AUC, average precision and log loss (here not negated), as people read them."""
    found = {metric: score(metric, label, probability) for metric in METRICS}
    return {**found, "log_loss": -found["log_loss"]}
