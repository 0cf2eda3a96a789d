"""What moves the winner's answers: SHAP values over the test rows, by the booster's own means."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.evaluate.calibration import Scored

TOP = 20  # columns whose importance is told
ROWS = 2000  # of test, at most
WORK = 400_000  # rows times rounds, at most: deep trees are slow to explain
FEWEST_ROWS = 200
HIGHEST = 10  # rows that are explained one by one
REASONS = 3  # columns told of each


def explain(family: Any, model: Any, rounds: int, test: Scored, seed: int) -> dict[str, Any]:
    """Give the columns by their mean absolute SHAP value, and what moved the highest-scored rows: names and signs alone."""
    matrix = test.table.X
    count = min(ROWS, max(FEWEST_ROWS, WORK // rounds))
    rows = matrix.iloc[np.sort(np.random.default_rng(seed).permutation(len(matrix))[:count])]
    values = family.contributions(model, rows)
    gains, size = family.importance(model), np.abs(values).mean(axis=0)
    ranked = sorted(zip(-size, map(str, matrix.columns), range(len(size)), strict=True))[:TOP]
    importance = [
        {"feature": name, "shap": float(-weight), "gain": gains.get(name, 0.0), "direction": _direction(rows[name], values[:, place])}
        for weight, name, place in ranked
        if weight
    ]
    return {"importance": importance, "explained_rows": len(rows), "highest": _highest(family, model, test)}


def _direction(column: pd.Series, values: NDArray[np.float64]) -> str | None:
    """Tell whether more of a number means more risk, by the sign of their rank correlation; None of a category, or where there is none."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return None
    known = column.notna().to_numpy()
    ranks = [pd.Series(one[known]).rank().to_numpy() for one in (column.to_numpy(), values)]
    if not known.any() or any(np.ptp(one) == 0 for one in ranks):
        return None
    together = ((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).sum()
    return None if together == 0 else "up" if together > 0 else "down"


def _highest(family: Any, model: Any, test: Scored) -> list[list[dict[str, str]]]:
    """Name per row the columns that moved it most, and whether up or down."""
    matrix = test.table.X
    first = np.argsort(-test.probability, kind="stable")[:HIGHEST]
    told = []
    for values in family.contributions(model, matrix.iloc[first]):
        places = [place for place in np.argsort(-np.abs(values), kind="stable")[:REASONS] if values[place]]
        told.append([{"feature": str(matrix.columns[place]), "moves": "up" if values[place] > 0 else "down"} for place in places])
    return told
