"""Probabilities that can be taken at their word: Platt scaling, fitted on rows that nothing else uses."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from stages.families import metrics
from stages.features.features import Table

FEWEST = 20  # positives, and negatives, without which two numbers would be a guess
FARTHEST = 1e-7  # from 0 and 1: a float32 can be either, which has no log-odds
STEPS = 100
CLOSE = 1e-10


class Scored(NamedTuple):
    """Rows, and the probability that a model gives each."""

    table: Table
    probability: NDArray[np.floating]

    @property
    def positives(self) -> int:
        """Count the rows of the label to look for."""
        return int(self.table.y.sum())

    @property
    def is_enough(self) -> bool:
        """Tell whether there are enough rows of both classes to fit something on."""
        return min(self.positives, len(self.table.y) - self.positives) >= FEWEST

    @property
    def shortage(self) -> str:
        """Say how few there are."""
        return f"{self.positives} positives and {len(self.table.y) - self.positives} negatives, and {FEWEST} of each are needed"


def calibrate(part: Scored, test: Scored) -> dict[str, Any]:
    """Fit the two numbers on the calibration part, and tell on test what they do."""
    told: dict[str, Any] = {"rows": len(part.table.y), "positives": part.positives, "before": _told(test.table.y, test.probability)}
    if not part.is_enough:
        return {**told, "reason": f"not calibrated: the calibration part has {part.shortage} (prepare.calibration_share)"}
    slope, intercept = platt(part.table.y, part.probability)
    after = special.expit(slope * _log_odds(test.probability) + intercept)
    return {**told, "slope": slope, "intercept": intercept, "after": _told(test.table.y, after)}


def _told(label: NDArray[np.int8], probability: NDArray[np.floating]) -> dict[str, Any]:
    return {
        "calibration_error": metrics.calibration_error(label, probability),
        "log_loss": -metrics.score("log_loss", label, probability),
        "bins": metrics.reliability(label, probability),
    }


def platt(label: NDArray[np.int8], probability: NDArray[np.floating]) -> tuple[float, float]:
    """Fit slope and intercept of the log-odds by logistic regression: Platt (1999), "Probabilistic outputs for support vector machines".

    With his targets, a little inside of 0 and 1, and Newton's method as of Lin, Lin and Weng (2007).
    """
    x, positives = _log_odds(probability), float(label.sum())
    negatives = len(label) - positives
    target = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(at: NDArray[np.float64]) -> float:
        z = at[0] * x + at[1]
        return float((np.logaddexp(0, z) - target * z).sum())

    at = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
    for _ in range(STEPS):
        fitted = special.expit(at[0] * x + at[1])
        off, weight = fitted - target, fitted * (1 - fitted)
        gradient = np.array([(off * x).sum(), off.sum()])
        mixed = (weight * x).sum()
        curvature = np.array([[(weight * x * x).sum(), mixed], [mixed, weight.sum()]]) + CLOSE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while loss(at - step) > loss(at) and np.abs(step).max() > CLOSE:
            step = step / 2
        at = at - step
        if np.abs(step).max() <= CLOSE:
            break
    return float(at[0]), float(at[1])


def _log_odds(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(special.logit(probability.astype(np.float64).clip(FARTHEST, 1 - FARTHEST)))
