"""A raw table that need not fit into memory: a few of its columns at a time come from disk."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

GROUP = 400_000_000  # bytes of raw columns that are in memory at a time
MOST = 32  # columns of a group


@dataclass(frozen=True)
class Raw:
    """Columns by name, and how to get some of them for all rows."""

    names: tuple[str, ...]
    row: NDArray[np.int64]  # number of each row in its file, from 0
    get: Callable[[Sequence[str]], pa.Table]
    renamed: tuple[str, ...] = ()  # names with hyphens, which were read as underscores

    def __len__(self) -> int:
        return len(self.row)

    def columns(self, names: Sequence[str]) -> pd.DataFrame:
        """Bring columns into memory: text as str, times as datetime64, booleans as boolean; the index is the row's number."""
        found: pd.DataFrame = self.get(names).to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get, ignore_metadata=True)
        return found.set_index(pd.Index(self.row))

    def groups(self, names: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Give the named columns in their order, as many at a time as memory is meant to hold."""
        width = min(MOST, max(1, GROUP // (8 * max(1, len(self)))))
        for start in range(0, len(names), width):
            yield self.columns(names[start : start + width])

    def take(self, rows: NDArray[np.int64]) -> "Raw":
        """Give some of the rows."""
        return Raw(self.names, self.row[rows], lambda names: self.get(names).take(pa.array(rows)))

    def beside(self, other: "Raw", place: NDArray[np.intp], found: str) -> "Raw":
        """Put another table's columns beside: its row at ``place``, missing where that is -1; ``found`` tells where it is not."""
        rows = pa.array(place, mask=place < 0)
        mine, theirs = [*self.names], [name for name in other.names if name not in self.names]

        def get(names: Sequence[str]) -> pa.Table:
            parts = dict(zip(mine_asked := [name for name in names if name in mine], self.get(mine_asked).columns, strict=True))
            asked = [name for name in names if name in theirs]
            parts |= dict(zip(asked, other.get(asked).take(rows).columns, strict=True))
            return pa.table({name: parts.get(name, pa.array(place >= 0)) for name in names})

        return Raw((*mine, *theirs, found), self.row, get)


def in_memory(frame: pd.DataFrame) -> Raw:
    """Take a table that is there already."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return Raw(tuple(map(str, frame.columns)), np.arange(len(frame), dtype=np.int64), lambda names: table.select([*names]))
