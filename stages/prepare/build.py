"""Fit the features and make the model's matrix, a few columns at a time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.features import features as feature
from stages.features.features import Column, Features, Found, Roles
from stages.prepare import check, leaks, select
from stages.prepare.config import Config
from stages.prepare.matrix import Matrix, Place
from stages.prepare.raw import Raw
from stages.prepare.read import in_order


@dataclass(frozen=True)
class Rows:
    """What is known of all rows before there are features."""

    known: pd.DataFrame  # raw columns that have a role, or name who acts
    y: NDArray[np.int8]
    times: NDArray[Any] | None
    entities: NDArray[np.object_] | None
    part: NDArray[np.intp]  # number of each row's split


@dataclass(frozen=True)
class Built:
    """The features, where each stands in the matrix, and raw columns that are the event time again."""

    features: Features
    places: dict[str, Place]
    again: list[str]


def build(
    config: Config, roles: Roles, table: Raw, rows: Rows, matrix: Matrix, progress: Callable[[int, int], None], own: str = ""
) -> Built:
    """Fit on train alone, raw columns first, then what is made of them; refuse what gives the label or the future away."""
    train = _train(rows.part)
    found: list[Found] = []
    places: list[Place] = []
    again: list[str] = []

    rng = np.random.default_rng(0)
    mixed, times = rng.permutation(np.flatnonzero(rows.part == 0)), np.sort(rng.permutation(len(table))[: leaks.TIME_ROWS])
    few, judged = np.sort(mixed[: select.ROWS]), np.sort(mixed[: leaks.ROWS])
    ranked: dict[str, NDArray[np.float32]] = {}

    def check_leaks(features: Features, frame: pd.DataFrame, values: pd.DataFrame) -> None:
        leaks.check_columns(values.iloc[judged], rows.y[judged], config.max_column_auc, config.allow, features)
        leaks.check_future(features, frame, values, rows.times)

    def work(frame: pd.DataFrame) -> tuple[list[Found], list[Place], list[str]]:
        looked = feature.look(frame.iloc[train], roles, config.max_categories)
        check.check_finite(frame.drop(columns=[*config.drop], errors="ignore"))
        check.check_numbers(frame[[one.raw for one in looked if not feature.role(one.raw, roles)]])
        plain = Features(tuple(one.column for one in looked if one.column), (), roles)
        values = feature.apply(plain, frame)
        check_leaks(plain, frame, values)
        is_time = leaks.times_again(values.iloc[times], rows.times[times], plain) if rows.times is not None else []
        columns = {column.raw: feature.describe(column, values[column.name].iloc[train]) for column in plain.columns}
        if config.max_correlation < 1:
            ranked.update(select.ranks(values.iloc[few], looked))
        return [replace(one, column=columns.get(one.raw)) for one in looked], matrix.add(values), is_time

    for some, here, is_time in in_order(work, table.groups(table.names)):
        found += some
        places += here
        again += is_time
        progress(len(found), len(table.names))
    if gone := select.repeated(found, ranked, config.max_correlation):
        places = [place for one, place in zip((one for one in found if one.column), places, strict=True) if one.raw not in gone]
        found = [replace(one, column=None, reason=gone[one.raw], gaps="") if one.raw in gone else one for one in found]
    named = feature.decide(found, feature.made(found, rows.known.iloc[train], roles, own), roles, own)
    fitted = [*named.columns[: len(places)]]

    def make(some: tuple[Column, ...]) -> tuple[list[Column], list[Place]]:
        # What is missing together is read as one of them.
        narrow = replace(named, columns=tuple(replace(one, sources=one.sources[:1]) if one.of == "missing" else one for one in some))
        frame = _sources(narrow, table, rows.known)
        values = feature.apply(narrow, frame)
        check_leaks(narrow, frame, values)
        described = [feature.describe(one, values[one.name].iloc[train]) for one in some]
        kept = [one for one in described if feature.is_telling(one)]
        return kept, matrix.add(values[[one.name for one in kept]])

    batches = groupby(named.columns[len(places) :], key=lambda column: column.key or column.name)  # one key's past at once
    for kept, here in in_order(make, [tuple(batch) for _, batch in batches]):
        fitted += kept
        places += here
    features = replace(named, columns=tuple(fitted))
    return Built(features, dict(zip(features.names, places, strict=True)), again)


def _train(part: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Give the train rows; as a slice, which copies nothing, where they stand together."""
    rows = np.flatnonzero(part == 0)
    return slice(int(rows[0]), int(rows[-1]) + 1) if rows[-1] - rows[0] + 1 == len(rows) else rows


def _sources(features: Features, table: Raw, known: pd.DataFrame) -> pd.DataFrame:
    names = list(dict.fromkeys(raw for column in features.columns for raw in column.sources))
    return known if set(names) <= set(known.columns) else table.columns(names)
