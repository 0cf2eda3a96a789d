"""Who learns from which row: train, valid, calibration and test."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.prepare.config import Config

SPLITS = ("train", "valid", "calibration", "test")


def split(config: Config, times: NDArray[Any] | None, entities: NDArray[Any] | None, rows: int) -> NDArray[np.intp]:
    """Give each row's split as its number in ``SPLITS``: train comes first in time or order, test last.

    Rows of the same time stay together, and in a random split those of the same entity.
    """
    kept_back = config.validation_split * config.calibration_share
    shares = np.cumsum([1 - config.validation_split - config.test_split, config.validation_split - kept_back, kept_back])
    if config.split == "time":
        assert times is not None
        keys = times
    elif config.split == "order" or entities is None:
        keys = np.arange(rows)
    else:
        keys = pd.factorize(entities)[0]
        keys = np.where(keys < 0, keys.max() + 1 + np.arange(rows), keys)  # without an entity, each row is its own
    if config.split == "random":
        groups, keys = np.unique(keys, return_inverse=True)
        keys = np.random.default_rng(config.seed).permutation(len(groups))[keys]
    return _cut(keys, shares * rows)


def _cut(keys: NDArray[Any], wanted: NDArray[np.floating]) -> NDArray[np.intp]:
    """Cut rows in order of their keys where the wanted counts are nearest, never within a key."""
    values, counts = np.unique(keys, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])  # rows before each value, and all of them
    places = [int(np.abs(before - count).argmin()) for count in wanted]
    if places[0] == places[1]:  # one time is all of valid: then nothing is kept back for the calibration
        places[1] = places[2]
    return np.searchsorted(places, np.searchsorted(values, keys), side="right")
