"""The challenger against what is in production, on rows that neither has seen.

The shipped champion was fitted on all rows of its table, so that only later ones are news to it. Both score the same rows, and the
same resamples of who acts; the champion gets its own columns, where this run's table holds them as it was given them.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from stages import families
from stages.common import contract, registry
from stages.common.errors import MissingInput
from stages.common.step import Run
from stages.common.store import Unreadable
from stages.evaluate import certainty
from stages.evaluate.calibration import Scored
from stages.evaluate.config import Config
from stages.evaluate.threshold import A_DATE
from stages.families import metrics
from stages.features import features as feature
from stages.features.features import Column, Features, Roles

NONE, UNSURE = "no champion", "cannot tell"


@dataclass(frozen=True)
class Champion:
    """What is in production, as its package holds it."""

    family: ModuleType
    model: Any  # the shipped one
    features: Features
    trained_until: Any  # the last event time of its table: ns since 1970, or the table's own number; None where that is not known


class _Unsure(Exception):
    """The two cannot be compared; the message says why."""


def compare(config: Config, run: Run, features: Features, test: Scored, metric: str) -> dict[str, Any]:
    """Answer better, not worse, worse, cannot tell, or no champion; with what it rests on."""
    pinned = run.pinned.champion
    if pinned is None:
        return {"answer": NONE}
    told = {"version": pinned["version"], "metric": metric, "min_gain": config.min_gain}
    try:
        champion = _champion(run, pinned["generation"])
        return {**told, "trained_until": champion.trained_until, **_compared(config, champion, features, test, metric)}
    except _Unsure as unsure:
        return {**told, "answer": UNSURE, "reason": str(unsure)}


def _compared(config: Config, champion: Champion, features: Features, test: Scored, metric: str) -> dict[str, Any]:
    until, roles, mine = champion.trained_until, champion.features.roles, features.roles
    if (roles.label, roles.positive, roles.negative) != (mine.label, mine.positive, mine.negative):
        raise _Unsure("the champion answers another question: its label is another one")
    if until is None or test.table.time is None or (roles.time, roles.time_unit) != (mine.time, mine.time_unit):
        raise _Unsure("without the same event time in both, nobody knows which rows the champion has not seen")
    if (abs(until) > A_DATE) != (float(np.abs(test.table.time).max(initial=0)) > A_DATE):
        raise _Unsure("the champion's event times were numbers and this table's are dates, or the other way round")
    is_later = test.table.time > until
    rows = replace(
        test.table,
        X=test.table.X[is_later],
        y=test.table.y[is_later],
        row=test.table.row[is_later],
        time=test.table.time[is_later],
        entity=None if test.table.entity is None else test.table.entity[is_later],
    )
    later = Scored(rows, test.probability[is_later])
    told = {"rows": len(rows.y), "positives": later.positives}
    if not later.is_enough:
        return {**told, "answer": UNSURE, "reason": f"of the test rows later than the champion's last one, there are {later.shortage}"}
    theirs = champion.family.predict(champion.model, matrix(champion.features, features, rows.X))
    found = certainty.paired(metric, rows.y, later.probability, theirs, rows.entity, config.seed)
    scores = {name: metrics.score(metric, rows.y, one) for name, one in (("challenger", later.probability), ("champion", theirs))}
    low, high = found["interval"]
    return {**told, **scores, **found, "answer": answer(low, high, config.min_gain)}


def answer(low: float, high: float, min_gain: float) -> str:
    """Say what a 95 % interval of the difference allows to say."""
    if low > min_gain:
        return "better"
    if low > -min_gain:
        return "not worse"
    return "worse" if high < -min_gain else UNSURE


# --- what is in production ------------------------------------------------------------------------


def _champion(run: Run, generation: int) -> Champion:
    files = next(one for one in registry.history(run.store) if one["generation"] == generation)["files"]
    shipped = next((name for name in files if name.startswith("shipped.")), None)
    if shipped is None or not {"features.json", "package.json"} <= files.keys():
        raise _Unsure("the champion's package holds no model with its features")
    package, told = (json.loads(_fetch(run, name, files[name]).read_bytes()) for name in ("package.json", "features.json"))
    try:
        family, features = families.load(package["family"]), Features.from_json(told)
    except (LookupError, TypeError, ValueError) as error:
        raise _Unsure("this version of the code does not know the champion's family, or reads no features of its kind") from error
    return Champion(family, family.load(_fetch(run, shipped, files[shipped])), features, package["trained_until"])


def _fetch(run: Run, name: str, sha256: str) -> Path:
    """Give a file of the champion whose bytes match their digest."""
    key = f"blobs/{sha256}"
    local = run.store.local(key)
    try:
        path = local or run.folder / sha256
        found = contract.file_digest(path) if local else run.store.download(key, path)
    except (KeyError, FileNotFoundError, Unreadable):
        found = ""
    if found != sha256:
        raise MissingInput(f"the champion's {name} ({key}) is lost or damaged. Put it back from a backup, or go back: surefoot rollback.")
    return path


# --- its columns ----------------------------------------------------------------------------------


def matrix(theirs: Features, ours: Features, made: pd.DataFrame) -> pd.DataFrame:
    """Give the champion its own columns from this run's matrix: made in the same way, or to be made of what is there."""
    own = {column.name: column for column in ours.columns}
    found: dict[str, pd.Series] = {}
    for their in theirs.columns:
        our = own.get(their.name)
        is_alike = our is not None and _is_alike(their, our, theirs, ours)
        values = _recast(their, made[their.name]) if is_alike else _again(their, theirs, ours, made)
        if values is not None:
            found[their.name] = values
    if unlike := [one.name for one in theirs.columns if one.name not in found]:
        raise _Unsure(f"this run makes {len(unlike)} of the champion's columns in another way, or not at all: {', '.join(unlike[:5])}")
    return pd.DataFrame(found, index=made.index)


def _is_alike(their: Column, our: Column, theirs: Features, ours: Features) -> bool:
    """Tell whether one column's values follow exactly from the other's."""
    if any(getattr(their, name) != getattr(our, name) for name in ("name", "sources", "of", "key", "counts")):
        return False
    if their.of and (_making(theirs.roles), theirs.own) != (_making(ours.roles), ours.own):
        return False
    if their.dtype == "category":
        return our.dtype == "category" and {*their.categories} <= {*our.categories}
    return our.dtype in {their.dtype, "float64"}


def _making(roles: Roles) -> Roles:
    """Keep of the roles what engineered columns are made by."""
    return replace(roles, id=None, entity=None, drop=(), engineered=())


def _recast(column: Column, values: pd.Series) -> pd.Series:
    if column.dtype == "category":  # the champion knows no other value than its own: the rest counts as missing
        return pd.Series(values.cat.set_categories(column.pandas_type().categories))
    with np.errstate(over="ignore"):
        return values.astype(column.pandas_type())


def _again(their: Column, theirs: Features, ours: Features, made: pd.DataFrame) -> pd.Series | None:
    """Make a count, or a mark of what is missing, as the champion's train fitted it; None where the raw values are not at hand."""
    raw = next((one for one in ours.columns if one.raw == their.raw and not one.of), None)
    if raw is None or their.of not in ("frequency", "missing"):
        return None
    values = made[raw.name]
    if raw.dtype == "category":  # what is not kept and what is missing look alike here
        if their.of == "missing" or not {value for value, _ in their.counts} <= {*raw.categories}:
            return None
        values = values.astype("str")
    elif their.of == "frequency" and {value for value, _ in their.counts} & {"true", "false"}:
        return None  # counted as truth values, which are 1 and 0 here
    elif their.of == "frequency" and not ((values.dropna() % 1 == 0) & (values.dropna().abs() < feature.EXACT)).all():
        return None
    frame = pd.DataFrame(dict.fromkeys(their.sources, values))
    return feature.apply(Features((their,), (), theirs.roles), frame)[their.name]
