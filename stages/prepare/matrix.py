"""The model's matrix on disk: it grows by columns, and is written out by rows, so that it need not fit into memory."""

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from stages.features import features as feature

CHUNK = 1 << 16  # rows of a block, and of a row group of what is written
Place = tuple[int, int]  # where a column is: its file, its number there


class Matrix:
    """Groups of columns, each in a file of its own, in blocks of rows."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.rows = rows
        self._folder = folder
        self._files: list[Path] = []
        self._adding = Lock()  # columns are made side by side
        folder.mkdir(parents=True)

    def add(self, columns: pd.DataFrame) -> list[Place]:
        """Keep columns of all rows; give their places."""
        if columns.empty:
            return []
        with self._adding:
            number = len(self._files)
            self._files.append(path := self._folder / f"{number}.arrow")
        table = pa.table([_arrow(columns[name]) for name in columns], names=[*columns])
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, CHUNK)
        return [(number, place) for place in range(len(columns.columns))]

    def write(self, path: Path, columns: dict[str, Place], rows: NDArray[np.int64], beside: dict[str, NDArray[Any]]) -> None:
        """Write some rows, in their order, of some columns as one split, with what stands beside them."""
        feature.write_parts(self._parts(columns, rows, beside), path)

    def _parts(self, columns: dict[str, Place], rows: NDArray[np.int64], beside: dict[str, NDArray[Any]]) -> Iterator[pa.Table]:
        ends = np.searchsorted(rows, np.arange(0, self.rows + CHUNK, CHUNK))
        for number in range(len(ends) - 1):
            mine = rows[ends[number] : ends[number + 1]]
            if len(mine) or (number == 0 and not len(rows)):  # a split without rows has columns all the same
                parts = dict(zip(columns, self._block(number, [*columns.values()], mine - number * CHUNK), strict=True))
                yield pa.table(parts | {name: pa.array(values[mine], from_pandas=True) for name, values in beside.items()})

    def _block(self, number: int, places: list[Place], rows: NDArray[np.int64]) -> list[pa.Array]:
        blocks = []
        for path in self._files:
            with pa.memory_map(str(path)) as file:
                blocks.append(pa.ipc.open_file(file).get_batch(number))
        found = [blocks[file].column(column) for file, column in places]
        if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
            return [column.slice(rows[0], len(rows)) for column in found]
        return [column.take(pa.array(rows)) for column in found]


def _arrow(values: pd.Series) -> pa.Array:
    """Give a column as Arrow; numbers are not copied, for NaN stands where one is missing."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return pa.array(values, from_pandas=True)
    numbers = np.ascontiguousarray(values.to_numpy())
    there = np.packbits(~np.isnan(numbers), bitorder="little")
    return pa.Array.from_buffers(pa.from_numpy_dtype(numbers.dtype), len(numbers), [pa.py_buffer(there), pa.py_buffer(numbers)])
