"""Where to alarm: chosen on the calibration part alone, then applied once on test."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.errors import ConfigError
from stages.evaluate.calibration import Scored
from stages.evaluate.config import Config
from stages.families import metrics
from stages.features.features import UNITS, Features, Table

FALSE_ALARMS = 0.01  # share of the negatives, where the config says neither what alarms cost nor how many there may be
DAY = UNITS["day"]
A_DATE = 10**16  # event times beyond it are nanoseconds since 1970; below, the table's own numbers


def decide(config: Config, features: Features, scored: dict[str, Scored], train: Table, split: str) -> dict[str, Any]:
    """Choose the threshold on the calibration part, or on valid where that is too small, and tell what it does on test."""
    kept, test = scored["calibration"], scored["test"]
    part = "calibration" if kept.is_enough else "valid"
    chosen_on = scored[part]
    tables = [train, *(one.table for one in scored.values())]
    threshold = _choose(config, features, chosen_on, _rows_per_day(chosen_on.table, tables, split, features))
    alarmed = _alarmed(test, threshold)
    alerts, hits = int(alarmed.sum()), int(test.table.y[alarmed].sum())
    rows_a_day = _rows_per_day(test.table, tables, split, features)
    told = {
        "alerts": alerts,
        "alerts_per_day": None if rows_a_day is None else alerts / len(test.table.y) * rows_a_day,
        "precision": hits / alerts if alerts else None,
        "recall": hits / test.positives,
    }
    if config.costs:
        missed = _missed(config, features, test.table)
        told["saved"] = float(_worth(config, missed, test.table.y)[alarmed].sum())
        told["lost_without"] = float(missed[test.table.y == 1].sum())
    return {
        "chosen_on": part,
        "reason": None if part == "calibration" else f"the calibration part has {kept.shortage}",
        "rule": _rule(config),
        "threshold": threshold,  # None: alarm nobody
        "alert_rate": float(_alarmed(chosen_on, threshold).mean()),  # of the part it was chosen on: how it is carried to another model
        "test": told,
    }


def _rule(config: Config) -> str:
    words = [*(["costs"] if config.costs else []), *(["alerts per day"] if config.alerts_per_day is not None else [])]
    return " and ".join(words) or "1 % false alarms"


def _choose(config: Config, features: Features, part: Scored, rows_a_day: float | None) -> float | None:
    label = part.table.y
    thresholds, alarmed, hits = metrics.ladder(label, part.probability)
    allowed = np.ones(len(thresholds), dtype=bool)
    if config.alerts_per_day is not None:
        if rows_a_day is None:
            raise ConfigError("evaluate.alerts_per_day needs an event time to know a day by: set prepare.time, or evaluate.costs alone.")
        allowed = alarmed <= config.alerts_per_day / rows_a_day * len(label)
    elif config.costs is None:
        allowed = alarmed - hits <= FALSE_ALARMS * (len(label) - part.positives)
    worth: NDArray[Any] = alarmed  # the more, the more is found
    if config.costs:
        order = np.argsort(-part.probability, kind="stable")
        worth = np.cumsum(_worth(config, _missed(config, features, part.table), label)[order])[alarmed - 1]
    worth = np.where(allowed, worth, 0)
    best = int(worth.argmax())
    return float(thresholds[best]) if worth[best] > 0 else None


def _alarmed(scored: Scored, threshold: float | None) -> NDArray[np.bool_]:
    return np.zeros(len(scored.table.y), dtype=bool) if threshold is None else scored.probability >= threshold


def _worth(config: Config, missed: NDArray[np.float64], label: NDArray[np.int8]) -> NDArray[np.float64]:
    """Give what an alarm of each row saves, or costs."""
    assert config.costs
    return np.where(label == 1, missed, -config.costs.false_alarm)


def _missed(config: Config, features: Features, table: Table) -> NDArray[np.float64]:
    """Give what missing each row would cost; an amount that is missing or below 0 counts as 0."""
    assert config.costs
    if config.costs.missed != "amount":
        return np.full(len(table.y), config.costs.missed, dtype=np.float64)
    amount = features.roles.amount
    named = [one.name for one in features.columns if amount and one.raw == amount and not one.of and one.dtype != "category"]
    if not named:
        found = f"prepare.amount is {amount!r}, which is no feature of numbers" if amount else "prepare.amount names no column"
        raise ConfigError(f"evaluate.costs.missed is amount, but {found}. Name the amount's column there, or give a number.")
    missed: NDArray[np.float64] = np.nan_to_num(table.X[named[0]].to_numpy(dtype=np.float64), nan=0.0).clip(min=0)
    return missed


def _rows_per_day(table: Table, tables: list[Table], split: str, features: Features) -> float | None:
    """Give how many rows a day brings; of a random split's part, which holds only some of each day's, by all rows."""
    if table.time is None:
        return None
    counted = tables if split == "random" else [table]
    times = np.concatenate([one.time for one in counted if one.time is not None])
    span = float(times.max()) - float(times.min())
    unit = 1 if np.abs(times).max() > A_DATE else UNITS[features.roles.time_unit]
    return len(times) / (span * unit / DAY or 1.0)
