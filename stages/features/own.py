"""A user's own features: the public functions of one Python file, each from a table to one value per row.

    COLUMNS = ["amount", "card"]          # raw columns that they read; the event time comes along


    def amount_to_last(table):            # rows in order of time
        \"\"\"This amount less the card's last one.\"\"\"
        return table["amount"] - table.groupby("card")["amount"].shift()

A value may use its own row and what came strictly before it: prepare cuts the table off at several times, and turns rows of the same
time round, and refuses a feature whose values move. The label is not in the table. Infinite values are refused; nan is missing.
"""

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.common.errors import DataError

FILE = "prepare.features_file"
LARGEST = float(np.finfo(np.float32).max)


def columns(source: str) -> tuple[str, ...]:
    """Name the raw columns that a file's functions read."""
    found = _loaded(source).get("COLUMNS")
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        raise DataError(f'{FILE}: say which raw columns its functions read: COLUMNS = ["amount", "card"].')
    return tuple(found)


def names(source: str) -> list[str]:
    """Name a file's features in their order: its public functions."""
    found = [*_functions(_loaded(source))]
    if not found:
        raise DataError(f"{FILE}: has no function without a leading underscore. Each one is a feature: def name(table): ...")
    return found


def values(source: str, table: pd.DataFrame, moments: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Give each feature's value per row of ``table``, whatever its order.

    Raises:
        DataError: a function fails, or gives something else than a number per row.

    """
    order = np.argsort(moments, kind="stable")
    rows = _wide(table.iloc[order].reset_index(drop=True))
    made = {}
    for name, function in _functions(_loaded(source)).items():
        given = rows.copy()
        try:
            found = pd.Series(function(given))
            numbers = found.to_numpy("float64", na_value=np.nan)
        except (Exception, SystemExit) as error:
            place = next((frame.lineno for frame in reversed(traceback.extract_tb(error.__traceback__)) if frame.filename == FILE), "?")
            raise DataError(f"{FILE}: feature {name!r} fails in line {place}: {type(error).__name__}: {str(error)[:200]}") from error
        if len(found) != len(rows):
            raise DataError(f"{FILE}: feature {name!r} gives {len(found)} values for {len(rows)} rows.")
        if not found.index.equals(rows.index):
            raise DataError(f"{FILE}: feature {name!r} gives values in another order than the table's rows. Keep the table's index.")
        if (wrong := np.abs(numbers) > LARGEST).any():
            said = f"is infinite or beyond float32 in {wrong.sum()} rows. Give nan there"
            raise DataError(f"{FILE}: feature {name!r} {said}, say by .replace([float('inf'), -float('inf')], float('nan')).")
        made[name] = np.empty(len(rows))
        made[name][order] = numbers
    return made


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    """Give numbers in full width: a table is kept in half of it where that loses nothing, but products and sums would."""
    kinds = {name: "int64" if pd.api.types.is_integer_dtype(kind) else "float64" for name, kind in table.dtypes.items() if _is_number(kind)}
    return table.astype(kinds)


def _is_number(kind: Any) -> bool:
    return bool(pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind))


def _functions(loaded: dict[str, Any]) -> dict[str, Callable[[pd.DataFrame], Any]]:
    return {
        name: value
        for name, value in loaded.items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", "") == FILE and not isinstance(value, type)
    }


def _loaded(source: str) -> dict[str, Any]:
    loaded: dict[str, Any] = {"__name__": FILE}
    try:
        exec(compile(source, FILE, "exec"), loaded)  # noqa: S102 - the user's own file, by its digest
    except (Exception, SystemExit) as error:
        line = error.lineno if isinstance(error, SyntaxError) else traceback.extract_tb(error.__traceback__)[-1].lineno
        raise DataError(f"{FILE}: fails in line {line}: {type(error).__name__}: {str(error)[:200]}") from error
    return loaded
