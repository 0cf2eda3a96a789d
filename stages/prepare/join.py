"""A second table beside the first: at most one row per id."""

import pandas as pd

from stages.common.errors import DataError
from stages.prepare.check import nearest

FOUND = "joined"  # the column that tells whether a row was found in the second table


def join(frame: pd.DataFrame, other: pd.DataFrame, key: str) -> tuple[pd.DataFrame, str]:
    """Put the second table's columns beside the first's rows; say how many were found.

    Raises:
        DataError: the second table lacks the key, repeats one, has a column of the first, or not one row that fits.

    """
    if key not in other:
        raise DataError(f"prepare.id names column {key!r}, which is not there; nearest: {nearest(key, map(str, other))!r}.")
    if missing := int(other[key].isna().sum()):
        raise DataError(f"the id {key!r} is missing in {missing} of {len(other)} rows. Complete or remove them.")
    if twice := int(other[key].duplicated().sum()):
        raise DataError(f"the id {key!r} is not unique: {twice} of {len(other)} rows repeat one. Keep one row per id.")
    if shared := [column for column in other if column in frame and column != key] or [FOUND] * (FOUND in frame or FOUND in other):
        raise DataError(f"column {shared[0]!r} stands in the first table, too. Rename it.")
    place = pd.Index(other[key]).get_indexer(pd.Index(frame[key]))
    if (found := int((place >= 0).sum())) == 0:
        raise DataError(f"none of its {len(other)} rows has an id of the first table. Is it the file that belongs to it?")
    beside = other.drop(columns=key).reset_index(drop=True).reindex(place).set_axis(frame.index)
    beside[FOUND] = place >= 0
    lost = len(other) - found
    note = f"{found} of {len(frame)} rows were found in the second table" + (f"; {lost} of its rows belong to none" if lost else "")
    return pd.concat([frame, beside], axis=1), note
