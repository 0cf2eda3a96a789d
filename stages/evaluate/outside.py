"""Scores of a model from outside, such as one that rules or a vendor give: judged on the same rows, never shipped."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.common.errors import DataError
from stages.common.step import Run
from stages.evaluate import certainty
from stages.evaluate.calibration import Scored
from stages.evaluate.champion import answer
from stages.evaluate.config import Config
from stages.families import metrics
from stages.features.features import Table

COLUMNS = ["row", "score"]
OF_PROBABILITIES = ("log_loss", "calibration_error")


def judge(config: Config, run: Run, scored: dict[str, Scored], metric: str) -> dict[str, Any] | None:
    """Score the outside scores on valid and test, and compare the winner with them on test; None where there are none."""
    if config.outside_scores is None:
        return None
    given = read(run.source("outside"), config.outside_scores)
    run.confirm("outside")
    theirs = {split: _of_rows(given, scored[split].table, split, config.outside_scores) for split in ("valid", "test")}
    told: dict[str, Any] = {split: _scores(scored[split].table.y, one) for split, one in theirs.items()}
    if told["test"][metric] is None:
        return {**told, "answer": "cannot tell"}
    test = scored["test"]
    found = certainty.paired(metric, test.table.y, test.probability, theirs["test"], test.table.entity, config.seed)
    low, high = found["interval"]
    return {**told, **found, "answer": answer(low, high, config.min_gain)}


def read(path: Path, place: str) -> pd.Series:
    """Read a score per row of the table.

    Raises:
        DataError: it is no CSV file of rows and scores, or a row stands twice in it.

    """
    try:
        table = pd.read_csv(path, index_col=False, compression=None)
    except (ValueError, OSError) as error:
        raise DataError(f"{place}: not a CSV file that can be read ({(str(error).splitlines() or [''])[0][:80]}).") from error
    if list(table.columns) != COLUMNS:
        raise DataError(f"{place}: give it the columns row and score; found: {', '.join(map(str, table.columns[:10]))}.")
    if not all(pd.api.types.is_numeric_dtype(table[name]) for name in COLUMNS) or not np.isfinite(table.to_numpy("float64")).all():
        raise DataError(f"{place}: a row or a score is missing, or no finite number.")
    if table["row"].duplicated().any():
        raise DataError(f"{place}: row {table['row'][table['row'].duplicated()].iloc[0]} stands twice.")
    return table.set_index("row")["score"].astype("float64")


def _of_rows(given: pd.Series, table: Table, split: str, place: str) -> NDArray[np.float64]:
    found = given.reindex(table.row).to_numpy()
    if (missing := np.isnan(found)).any():
        first = int(table.row[missing][0])
        raise DataError(f"{place}: {missing.sum()} of the {len(found)} rows of {split} have no score there, first row {first} (from 0).")
    return found


def _scores(label: NDArray[np.int8], score: NDArray[np.float64]) -> dict[str, float | None]:
    """Score as the others are; what needs probabilities is None where a score is none."""
    are_probabilities = bool(score.min() >= 0 and score.max() <= 1)
    found = metrics.scores(label, score if are_probabilities else pd.Series(score).rank(pct=True).to_numpy())
    return {name: value if are_probabilities or name not in OF_PROBABILITIES else None for name, value in found.items()}
