"""Features that prepare fits on the train rows and every scorer applies: for a table as for one row."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from stages.common.errors import DataError

CLOCK: dict[str, Callable[[Any], Any]] = {"hour": lambda when: when.dt.hour, "weekday": lambda when: when.dt.day_of_week}  # Monday is 0
RESERVED = ("_label", "_row", "_time", "_entity")  # what a split's file holds beside the features
MOSTLY_DISTINCT = 0.9  # of a text column's values: it names rows and says nothing of a new one


@dataclass(frozen=True)
class Roles:
    """Which raw columns are no ordinary features, and what the label's two values mean."""

    label: str
    positive: str
    negative: str
    time: str | None = None
    id: str | None = None
    entity: str | None = None
    drop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column of the model's matrix, made from one raw column."""

    name: str
    raw: str
    dtype: str  # category, or of a number: float32 where that loses nothing on train, else float64
    categories: tuple[str, ...] = ()  # those kept, by how frequent they are in train
    of: str | None = None  # what is taken from the event time: hour, weekday

    def values(self, raw: pd.Series) -> pd.Series:
        """Bring raw values into the model's form; a category that train did not hold is missing."""
        if self.dtype == "category":
            codes = pd.Index(self.categories, dtype="str").get_indexer(pd.Index(raw.astype("str")))
            return pd.Series(pd.Categorical.from_codes(codes, dtype=self.pandas_type()), index=raw.index)
        numbers: pd.Series = CLOCK[self.of](pd.to_datetime(raw)) if self.of else raw
        return numbers.astype(self.pandas_type())

    def pandas_type(self) -> Any:
        """Give the type of the matrix's column; a category's type has all that were kept, in their order."""
        return pd.CategoricalDtype(pd.Index(self.categories, dtype="str")) if self.dtype == "category" else self.dtype

    def to_json(self) -> dict[str, Any]:
        """Give this column's entry in features.json."""
        kind = {"kind": "category", "categories": list(self.categories)} if self.dtype == "category" else {"kind": "number"}
        return {"name": self.name, "from": [self.raw], "history": False, "dtype": self.dtype, "of": self.of, **kind}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Column":
        """Read what ``to_json`` gave."""
        return cls(entry["name"], entry["from"][0], entry["dtype"], tuple(entry.get("categories", ())), entry["of"])


@dataclass(frozen=True)
class Features:
    """The feature contract: what a model is given, what was left out and why, and the roles of the raw columns."""

    columns: tuple[Column, ...]
    dropped: tuple[tuple[str, str], ...]  # raw column, reason
    roles: Roles

    @property
    def names(self) -> list[str]:
        """Names of the matrix's columns, in order."""
        return [column.name for column in self.columns]

    def to_json(self) -> dict[str, Any]:
        """Give the document that features.json holds."""
        roles = self.roles
        return {
            "columns": [column.to_json() for column in self.columns],
            "dropped": [{"name": name, "reason": reason} for name, reason in self.dropped],
            "label": {"column": roles.label, "positive": roles.positive, "negative": roles.negative},
            "roles": {"time": roles.time, "id": roles.id, "entity": roles.entity, "drop": list(roles.drop)},
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Features":
        """Read what ``to_json`` gave."""
        label, others = document["label"], document["roles"]
        return cls(
            tuple(map(Column.from_json, document["columns"])),
            tuple((entry["name"], entry["reason"]) for entry in document["dropped"]),
            Roles(label["column"], label["positive"], label["negative"], **{**others, "drop": tuple(others["drop"])}),
        )


def fit(frame: pd.DataFrame, roles: Roles, max_categories: int) -> Features:
    """Decide on the features by the train rows alone."""
    columns: list[Column] = []
    dropped: list[tuple[str, str]] = []
    for raw in map(str, frame.columns):
        role = _role(raw, roles)
        fitted = role or _fit_column(raw, frame[raw], max_categories)
        if isinstance(fitted, Column):
            columns.append(fitted)
        else:
            dropped.append((raw, fitted))
        if raw == roles.time and pd.api.types.is_datetime64_any_dtype(frame[raw]):
            clock = (Column(f"{raw}_{of}", raw, "float32", of=of) for of in CLOCK)
            columns += [column for column in clock if len(column.values(frame[raw]).unique()) > 1]
    return Features(tuple(_named_safely(columns)), tuple(dropped), roles)


def _role(raw: str, roles: Roles) -> str:
    named = {roles.label: "the label", roles.time: "the event time", roles.id: "the row's id", roles.entity: "the entity"}
    return named.get(raw, "named in prepare.drop" if raw in roles.drop else "")


def _fit_column(raw: str, values: pd.Series, max_categories: int) -> Column | str:
    """Fit one column, or give the reason to drop it."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return "a time, but not the event time"
    counts = values.value_counts()
    if counts.empty:
        return "always missing in train"
    if len(counts) == 1 and not values.hasnans:
        return "the same value in all train rows"
    if not pd.api.types.is_string_dtype(values):
        return Column(raw, raw, _narrowest(values))
    if len(counts) > max(2, MOSTLY_DISTINCT * counts.sum()):
        return f"text that names rows: {len(counts)} values in {counts.sum()} train rows"
    by_frequency = sorted((-count, value) for value, count in counts.items())
    return Column(raw, raw, "category", tuple(str(value) for _, value in by_frequency[:max_categories]))


def _narrowest(values: pd.Series) -> str:
    wide = values.astype("float64")
    with np.errstate(over="ignore"):
        return "float32" if wide.equals(wide.astype("float32").astype("float64")) else "float64"


def _named_safely(columns: list[Column]) -> Iterator[Column]:
    """Rename what some booster refuses in a column's name, and what would then stand twice."""
    taken = set(RESERVED)
    for column in columns:
        safe = re.sub(r'[\[\]<>{}":,\s\x00-\x1f]', "_", column.name)
        name = next(name for name in (safe, *(f"{safe}_{count}" for count in range(2, len(columns) + 2))) if name not in taken)
        taken.add(name)
        yield replace(column, name=name)


def apply(features: Features, frame: pd.DataFrame) -> pd.DataFrame:
    """Give the model's matrix for raw rows; a row alone comes out as it does among others.

    Raises:
        DataError: a column is missing, or its values cannot be what they were in train.

    """
    made = {}
    for column in features.columns:
        if column.raw not in frame.columns:
            raise DataError(f"column {column.raw!r} is missing: the model was trained with it.")
        try:
            made[column.name] = column.values(frame[column.raw])
        except (TypeError, ValueError) as error:
            wanted = "times" if column.of else "numbers"
            raise DataError(f"column {column.raw!r} should hold {wanted}, as in training ({str(error)[:100]!r}).") from error
    return pd.DataFrame(made, index=frame.index)


@dataclass(frozen=True, eq=False)
class Table:
    """One split as prepare left it: the model's matrix, and beside it what is no feature."""

    X: pd.DataFrame  # numbers as float32 or float64, categories as pandas categories of the contract
    y: NDArray[np.int8]  # 1: positive
    row: NDArray[np.int64]  # number of the row in the raw table, from 0
    time: NDArray[Any] | None = None  # event time: nanoseconds since 1970 (UTC), or the raw number
    entity: NDArray[Any] | None = None  # text; None where it is missing


def write(table: Table, path: Path) -> None:
    """Write a split as Parquet: equal tables are equal bytes, and a flipped bit is found on reading."""
    beside = dict(zip(RESERVED, (table.y, table.row, table.time, table.entity), strict=True))
    columns = {str(name): pa.array(table.X[name], from_pandas=True) for name in table.X.columns}
    columns |= {name: pa.array(values, from_pandas=True) for name, values in beside.items() if values is not None}
    pa.parquet.write_table(pa.table(columns), path, compression="zstd", write_page_checksum=True)


def read(path: Path, features: Features) -> Table:
    """Read a split that ``write`` wrote."""
    table = pa.parquet.read_table(path, page_checksum_verification=True)
    matrix = table.select(features.names).to_pandas().astype({column.name: column.pandas_type() for column in features.columns})
    time = table["_time"].to_numpy() if "_time" in table.column_names else None
    entity = np.array(table["_entity"].to_pylist(), dtype=object) if "_entity" in table.column_names else None
    return Table(matrix, table["_label"].to_numpy(), table["_row"].to_numpy(), time, entity)
