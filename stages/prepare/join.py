"""A second table beside the first: at most one row per id."""

import pandas as pd

from stages.common.errors import DataError
from stages.features.features import spoken
from stages.prepare.check import nearest
from stages.prepare.raw import Raw

FOUND = "joined"  # the column that tells whether a row was found in the second table


def join(table: Raw, other: Raw, key: str) -> tuple[Raw, str]:
    """Put the second table's columns beside the first's rows; say how many were found.

    Raises:
        DataError: the second table lacks the key, repeats one, has a column of the first, or not one row that fits.

    """
    if key not in other.names:
        raise DataError(f"prepare.id names column {key!r}, which is not there; nearest: {nearest(key, other.names)!r}.")
    keys = other.columns([key])[key]
    if missing := int(keys.isna().sum()):
        raise DataError(f"the id {key!r} is missing in {missing} of {len(other)} rows. Complete or remove them.")
    if twice := int(keys.duplicated().sum()):
        raise DataError(f"the id {key!r} is not unique: {twice} of {len(other)} rows repeat one. Keep one row per id.")
    shared = [column for column in other.names if column in table.names and column != key]
    if shared := shared or [FOUND] * (FOUND in (*table.names, *other.names)):
        raise DataError(f"column {shared[0]!r} stands in the first table, too. Rename it.")
    mine = table.columns([key])[key]
    place = pd.Index(keys).get_indexer(pd.Index(mine))
    if (found := int((place >= 0).sum())) == 0:
        said = f"none of its {len(other)} rows has an id of the first table, such as {spoken(mine.iloc[0])[:40]!r}"
        raise DataError(f"{said}; its own are such as {spoken(keys.iloc[0])[:40]!r}. Give the file that belongs to it, ids written alike.")
    lost = len(other) - found
    note = f"{found} of {len(table)} rows were found in the second table" + (f"; {lost} of its rows belong to none" if lost else "")
    return table.beside(other, place, FOUND), note
