"""How far to trust the score: fits that do well only where rows or labels give each other away."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages import families
from stages.common import log
from stages.families import metrics, xgboost
from stages.features.features import Table

SETTINGS = {"max_depth": 6, "learning_rate": 0.2, "colsample_bytree": 0.7, "subsample": 0.8, "reg_lambda": 3.0}
ROUNDS, ROWS = 60, 200_000  # of a random and a time split, at most; a gap needs many rows of the same entities
DRIFT_ROUNDS, DRIFT_ROWS = 50, 100_000
SHUFFLED_ROUNDS, SHUFFLED_ROWS = 50, 50_000  # rows of train, and of valid
FEWEST = 10  # positives, and negatives, of rows that are scored
DRIFTED = 0.7  # AUC above which test rows are told from train rows
NAMED = 5  # features that tell them apart
ERRORS = 3  # standard errors that are chance
TOO_FEW = "too few rows of one class"


@dataclass(frozen=True)
class Fits:
    """How to fit what is only measured: the same for every run, whatever its search found, so that figures can be compared."""

    seed: int
    threads: int

    def fit(self, table: Table, rounds: int) -> Any:
        """Fit for so many rounds."""
        fitted = families.fit(
            "xgboost",
            SETTINGS,
            table,
            None,
            rounds=rounds,
            early_stopping_rounds=rounds,
            seed=self.seed,
            metric="auc",
            threads=self.threads,
            gpu=False,  # what is told must not depend on the machine
        )
        return fitted.model

    def auc(self, table: Table, other: Table, rounds: int) -> float:
        """Fit on one table and score the other."""
        return metrics.score("auc", other.y, xgboost.predict(self.fit(table, rounds), other.X))


def measure(fits: Fits, train: Table, valid: Table, test: Table, split: str) -> dict[str, Any]:
    """Give all that the report tells of leaks by fitting; a part that cannot be measured says why."""
    return {
        "random_split": random_split(fits, (train, valid, test)) if split == "time" else _not("the split does not follow time"),
        "drift": drift(fits, train, test),
        "entities": entities_seen(train, test),
        "shuffled_labels": shuffled_labels(fits, train, valid),
    }


def random_split(fits: Fits, splits: tuple[Table, Table, Table]) -> dict[str, Any]:
    """Fit on rows at random and score the rest, and by the time split of the same rows: the difference is what a random split would boast.

    Both fits have the same number of rows and rounds. Of many rows, all those of some entities are taken, for a gap comes from rows
    that are alike.
    """
    rng = np.random.default_rng(fits.seed)
    rows = _chosen(_groups(splits), ROWS, rng)
    early = int((rows < len(splits[0].y)).sum())
    drawn = rng.permutation(rows)
    label = np.concatenate([table.y for table in splits])
    cuts = {"time": (rows[:early], rows[early:]), "random": (np.sort(drawn[:early]), np.sort(drawn[early:]))}
    if any(_is_rare(label[part]) for cut in cuts.values() for part in cut):
        return _not(TOO_FEW)
    found = {name: fits.auc(taken(splits, learn), taken(splits, rest), ROUNDS) for name, (learn, rest) in cuts.items()}
    at_random, by_time = (standard_error(found[name], label[cuts[name][1]]) for name in ("random", "time"))
    return {**found, "gap": found["random"] - found["time"], "standard_error": float(np.hypot(at_random, by_time)), "rows": len(rows)}


def drift(fits: Fits, train: Table, test: Table) -> dict[str, Any]:
    """Tell test rows from train rows by half of them, and score it on the others.

    Rows of one entity are in the same half: else their likeness would tell them, where nothing has changed.
    """
    rng = np.random.default_rng(fits.seed)
    groups = _groups((train, test))
    rows = _chosen(groups, DRIFT_ROWS, rng)
    is_first = (rng.random(int(groups.max()) + 1) < 0.5)[groups[rows]]
    both = taken((train, test), rows)
    both = replace(both, y=(rows >= len(train.y)).astype(np.int8))
    first, second = (taken((both,), np.flatnonzero(half)) for half in (is_first, ~is_first))
    if _is_rare(first.y) or _is_rare(second.y):
        return _not(TOO_FEW)
    model = fits.fit(first, DRIFT_ROUNDS)
    auc = metrics.score("auc", second.y, xgboost.predict(model, second.X))
    error = standard_error(0.5, second.y)
    has_drifted = auc > DRIFTED and auc > 0.5 + ERRORS * error
    gains = sorted(xgboost.importance(model).items(), key=lambda gain: (-gain[1], gain[0]))
    return {
        "auc": auc,
        "standard_error": error,
        "rows": len(rows),
        "drifted": has_drifted,
        "features": [name for name, _ in gains[:NAMED]] if has_drifted else [],
    }


def entities_seen(train: Table, test: Table) -> dict[str, float] | None:
    """Give the share of test rows, and of test entities, whose entity is in train; None where no entity is known."""
    if train.entity is None or test.entity is None:
        return None
    known = {*train.entity} - {None}
    mine = {*test.entity} - {None}
    if not mine:
        return None
    return {"rows": float(pd.Series(test.entity).isin(known).mean()), "entities": len(mine & known) / len(mine)}


def shuffled_labels(fits: Fits, train: Table, valid: Table) -> dict[str, Any]:
    """Fit and score with labels that were shuffled over train and valid: whatever is better than chance was told to the fit by a leak.

    With valid's true labels the score would scatter more than its standard error: a fit to noise is good or bad by chance
    where the label follows from the columns.
    """
    rng = np.random.default_rng(fits.seed)
    learn, other = (taken((table,), _chosen(_groups((table,)), SHUFFLED_ROWS, rng)) for table in (train, valid))
    label = rng.permutation(np.concatenate([learn.y, other.y]))
    learn, other = replace(learn, y=label[: len(learn.y)]), replace(other, y=label[len(learn.y) :])
    return null_score(fits, learn, other)


def null_score(fits: Fits, train: Table, valid: Table) -> dict[str, Any]:
    """Score a fit to labels that follow from nothing, and tell whether it is chance."""
    if _is_rare(train.y) or _is_rare(valid.y):
        return _not(TOO_FEW)
    auc, error = fits.auc(train, valid, SHUFFLED_ROUNDS), standard_error(0.5, valid.y)
    passed = abs(auc - 0.5) <= ERRORS * error
    if not passed:
        log.warning("evaluate.labels_leak", auc_of_shuffled_labels=round(auc, 4), standard_error=round(error, 4))
    return {"auc": auc, "standard_error": error, "rows": len(train.y) + len(valid.y), "passed": passed}


def standard_error(auc: float, label: NDArray[np.int8]) -> float:
    """Give an AUC's standard error (Hanley and McNeil 1982); at .5 it is exact for scores without ties."""
    positives = int(label.sum())
    negatives = len(label) - positives
    one, other = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (one - auc * auc) + (negatives - 1) * (other - auc * auc)
    return float(np.sqrt(max(variance, 0.0) / (positives * negatives)))


def _not(reason: str) -> dict[str, Any]:
    return {"not_measured": reason}


def _is_rare(label: NDArray[np.int8]) -> bool:
    return bool(np.bincount(label, minlength=2).min() < FEWEST)


def _groups(tables: Sequence[Table]) -> NDArray[np.intp]:
    """Give the number of each row's entity, over all tables one after the other; a row without one is its own."""
    count = sum(len(table.y) for table in tables)
    named = [table.entity for table in tables if table.entity is not None]
    if len(named) < len(tables):
        return np.arange(count)
    groups = pd.factorize(np.concatenate(named))[0]
    alone = groups < 0
    groups[alone] = groups.max(initial=-1) + 1 + np.arange(alone.sum())
    return groups


def _chosen(groups: NDArray[np.intp], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Choose at most so many rows: those of groups at random, whole but for the last."""
    if len(groups) <= most:
        return np.arange(len(groups))
    place = rng.permutation(int(groups.max()) + 1)[groups]
    return np.sort(np.argsort(place, kind="stable")[:most])


def taken(tables: Sequence[Table], rows: NDArray[np.intp]) -> Table:
    """Take rows by their number over all tables one after the other, in rising order; without what is no feature."""
    starts = np.cumsum([0, *(len(table.y) for table in tables)])
    parts = [rows[(rows >= start) & (rows < end)] - start for start, end in itertools.pairwise(starts)]
    matrix = pd.concat([table.X.iloc[part] for table, part in zip(tables, parts, strict=True)], ignore_index=True)
    label = np.concatenate([table.y[part] for table, part in zip(tables, parts, strict=True)])
    return Table(matrix, label, rows)
