"""Features that prepare fits on the train rows and every scorer applies: for a table as for one row."""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from stages.common.errors import DataError
from stages.features import history, own

RESERVED = ("_label", "_row", "_time", "_entity")  # what a split's file holds beside the features
EXACT = 2**24  # up to here float32 holds every integer
MOSTLY_DISTINCT = 0.9  # of a text column's values: it names rows and says nothing of a new one
UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1, "day": history.DAY}  # ns in one unit of a time that is a number
OWN = "a user's own"  # the key of a column whose past a user's function reads
KINDS = ("clock", "cents", "start_days", "frequency", "missing", "past", "label_rates")  # of engineered features


@dataclass(frozen=True)
class Roles:
    """Which raw columns are no ordinary features, what the label's two values mean, and what features are made of."""

    label: str
    positive: str
    negative: str
    time: str | None = None
    id: str | None = None
    entity: str | None = None
    drop: tuple[str, ...] = ()
    time_unit: str = "s"  # of a time that is a number
    amount: str | None = None
    keys: tuple[tuple[str, tuple[str, ...]], ...] = ()  # name: columns that together name who acts
    start_days: tuple[str, ...] = ()  # columns that count days since something began
    label_delay_days: float = 30.0
    engineered: tuple[str, ...] = KINDS

    def is_on(self, kind: str) -> bool:
        """Tell whether a kind of engineered features is asked for."""
        return kind in self.engineered

    def to_json(self) -> dict[str, Any]:
        """Give all but the label, as features.json holds it."""
        rest = {key: value for key, value in vars(self).items() if key not in ("label", "positive", "negative", "keys")}
        return {**{key: list(value) if isinstance(value, tuple) else value for key, value in rest.items()}, "keys": dict(self.keys)}

    @classmethod
    def from_json(cls, label: dict[str, Any], rest: dict[str, Any]) -> "Roles":
        """Read what ``to_json`` gave."""
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in rest.items()}
        values["keys"] = tuple((name, tuple(columns)) for name, columns in rest["keys"].items())
        return cls(label["column"], label["positive"], label["negative"], **values)


@dataclass(frozen=True)
class Column:
    """One column of the model's matrix."""

    name: str
    sources: tuple[str, ...]  # the raw columns that it is made of
    dtype: str  # category, or of a number: float32 where that loses nothing on train, else float64
    categories: tuple[str, ...] = ()  # those kept, by how frequent they are in train
    of: str = ""  # how it is made: hour, weekday, cents, start_day, missing, frequency, or a statistic of the past
    key: str = ""  # whose past
    counts: tuple[tuple[str, int], ...] = ()  # how often each value stands in train
    missing: float = 0.0  # share of the train rows
    span: tuple[float, ...] = ()  # of a number: least and most in train
    change: str = ""  # what was changed of the raw column, and why

    @property
    def raw(self) -> str:
        """The raw column that it stands for, or is made of first."""
        return self.sources[0]

    @property
    def is_raw_number(self) -> bool:
        """Tell whether it is a raw column of numbers as it stands."""
        return not self.of and self.dtype != "category"

    @property
    def is_history(self) -> bool:
        """Tell whether it needs the rows that came before."""
        return bool(self.key)

    def pandas_type(self) -> Any:
        """Give the type of the matrix's column; a category's type has all that were kept, in their order."""
        return self._categorical if self.dtype == "category" else self.dtype

    @cached_property
    def _categorical(self) -> pd.CategoricalDtype:
        return pd.CategoricalDtype(pd.Index(self.categories, dtype="str"))

    def to_json(self) -> dict[str, Any]:
        """Give this column's entry in features.json."""
        kind: dict[str, Any] = {"kind": "category", "categories": list(self.categories)} if self.dtype == "category" else {"kind": "number"}
        kind |= {"of": self.of} if self.of else {}
        kind |= {"key": self.key} if self.key else {}
        kind |= {"counts": [list(pair) for pair in self.counts]} if self.counts else {}
        kind |= {"range": list(self.span)} if self.span else {}
        kind |= {"change": self.change} if self.change else {}
        seen = {"history": self.is_history, "dtype": self.dtype, "missing": self.missing}
        return {"name": self.name, "from": list(self.sources), **seen, **kind}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Column":
        """Read what ``to_json`` gave."""
        counts = tuple((value, count) for value, count in entry.get("counts", ()))
        made = (entry.get("of", ""), entry.get("key", ""), counts, entry["missing"], tuple(entry.get("range", ())), entry.get("change", ""))
        return cls(entry["name"], tuple(entry["from"]), entry["dtype"], tuple(entry.get("categories", ())), *made)


@dataclass(frozen=True)
class Features:
    """The feature contract: what a model is given, what was left out and why, and the roles of the raw columns."""

    columns: tuple[Column, ...]
    dropped: tuple[tuple[str, str], ...]  # raw column, reason
    roles: Roles
    own: str = ""  # the source of a user's own features

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
            "roles": roles.to_json(),
            "own": self.own,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Features":
        """Read what ``to_json`` gave."""
        return cls(
            tuple(map(Column.from_json, document["columns"])),
            tuple((entry["name"], entry["reason"]) for entry in document["dropped"]),
            Roles.from_json(document["label"], document["roles"]),
            document["own"],
        )


# --- deciding, by train alone ---------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What train tells of one raw column."""

    raw: str
    column: Column | None  # None where it is dropped
    reason: str = ""  # why it is dropped
    gaps: str = ""  # digest of where it is missing; empty where it never is, or is dropped
    counts: tuple[tuple[str, int], ...] = ()  # of text with more values than are kept: rows of each value


def fit(frame: pd.DataFrame, roles: Roles, max_categories: int) -> Features:
    """Decide on the features by the train rows alone."""
    found = look(frame, roles, max_categories)
    features = decide(found, made(found, frame, roles), roles)
    matrix = apply(features, frame)
    described = [describe(column, matrix[column.name]) for column in features.columns]
    return replace(features, columns=tuple(column for column in described if is_telling(column)))


def look(frame: pd.DataFrame, roles: Roles, max_categories: int) -> list[Found]:
    """Look at some raw columns, which need not be all that there are, by the train rows."""
    return [_look(raw, frame[raw], roles, max_categories) for raw in map(str, frame.columns)]


def _look(raw: str, values: pd.Series, roles: Roles, max_categories: int) -> Found:
    if reason := role(raw, roles):
        return Found(raw, None, reason)
    fitted, counts = _fit_column(raw, values, max_categories)
    if isinstance(fitted, str):
        return Found(raw, None, fitted)
    is_missing = values.isna().to_numpy()
    gaps = hashlib.sha256(np.packbits(is_missing).tobytes()).hexdigest() if is_missing.any() else ""
    return Found(raw, fitted, "", gaps, counts if len(counts) > len(fitted.categories) else ())


def made(found: list[Found], frame: pd.DataFrame, roles: Roles, source: str = "") -> list[Column]:
    """Give the columns that are made besides the raw ones; ``frame`` has the train rows of those that have a role or name who acts."""
    rows = [column for kind in ROW_KINDS if roles.is_on(kind) for column in ROW_KINDS[kind](found, frame, roles)]
    return [*rows, *_past(roles), *_own(found, source, roles)]


def decide(found: list[Found], made: list[Column], roles: Roles, source: str = "") -> Features:
    """Put all columns together, under names that every booster takes."""
    columns = [one.column for one in found if one.column]
    dropped = tuple((one.raw, one.reason) for one in found if not one.column)
    return Features(tuple(_named_safely([*columns, *made])), dropped, roles, source)


def describe(column: Column, values: pd.Series) -> Column:
    """Say of a column what it is in train: how much is missing, and between which numbers it lies."""
    missing = float(values.isna().mean())
    span = () if column.dtype == "category" or missing == 1 else (float(np.fmin.reduce(values)), float(np.fmax.reduce(values)))
    return replace(column, missing=missing, span=span)


def is_telling(column: Column) -> bool:
    """Tell whether a made column has more than one value in train."""
    return not column.of or (column.missing < 1 and (column.missing > 0 or column.span[0] != column.span[1]))


def role(raw: str, roles: Roles) -> str:
    """Say what role takes a raw column out of the features; nothing where it has none."""
    named = {roles.label: "the label", roles.time: "the event time", roles.id: "the row's id", roles.entity: "the entity"}
    return named.get(raw, "named in prepare.drop" if raw in roles.drop else "")


def _fit_column(raw: str, values: pd.Series, max_categories: int) -> tuple[Column | str, tuple[tuple[str, int], ...]]:
    """Fit one column, or give the reason to drop it; of text, the rows of each value, too."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return "a time, but not the event time", ()
    if not values.notna().any():
        return "always missing in train", ()
    if not pd.api.types.is_string_dtype(values):
        is_constant = not values.hasnans and values.min() == values.max()
        return ("the same value in all train rows" if is_constant else Column(raw, (raw,), _narrowest(values))), ()
    counts = values.value_counts()
    if len(counts) == 1 and not values.hasnans:
        return "the same value in all train rows", ()
    if len(counts) > max(2, MOSTLY_DISTINCT * counts.sum()):
        return f"text that names rows: {len(counts)} values in {counts.sum()} train rows", ()
    by_frequency = sorted((-count, value) for value, count in counts.items())
    change = f"{max_categories} of {len(counts)} values are kept; the others count as missing" if len(counts) > max_categories else ""
    kept = Column(raw, (raw,), "category", tuple(str(value) for _, value in by_frequency[:max_categories]), change=change)
    return kept, tuple(sorted((str(value), int(count)) for value, count in counts.items()))


def _narrowest(values: pd.Series) -> str:
    """Give float32 where no value changes by it."""
    if values.dtype == np.float32:
        return "float32"
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iu":
        return "float32" if max(abs(int(values.min())), abs(int(values.max()))) <= EXACT or _is_kept(values) else "float64"
    return "float32" if _is_kept(values) else "float64"


def _is_kept(values: pd.Series) -> bool:
    wide = values.to_numpy("float64", na_value=np.nan)
    with np.errstate(over="ignore"):
        return bool(np.array_equal(wide, wide.astype(np.float32), equal_nan=True))


def _clock(_found: list[Found], _frame: pd.DataFrame, roles: Roles) -> list[Column]:
    """Hour and weekday of the event time."""
    return [Column(f"{roles.time}_{of}", (roles.time,), "float32", of=of) for of in CLOCK] if roles.time else []


def _cents(_found: list[Found], _frame: pd.DataFrame, roles: Roles) -> list[Column]:
    """Thousandths of the amount: they tell foreign currencies and round sums."""
    return [Column(f"{roles.amount}_cents", (roles.amount,), "float32", of="cents")] if roles.amount else []


def _start_days(_found: list[Found], _frame: pd.DataFrame, roles: Roles) -> list[Column]:
    """Turn days since something began into the day on which it began, which stays the same."""
    return [Column(f"{raw}_start", (raw, roles.time), "float32", of="start_day") for raw in roles.start_days if roles.time]


def _frequency(found: list[Found], frame: pd.DataFrame, roles: Roles) -> list[Column]:
    """Count a value's rows in train: for what names who acts, and for text with more values than are kept."""
    named = {raw for _, key in roles.keys for raw in key} - {*roles.start_days, roles.entity}
    counts = {one.raw: _counts(frame[one.raw]) if one.raw in named else one.counts for one in found}
    return [Column(f"{raw}_frequency", (raw,), "float32", of="frequency", counts=many) for raw, many in counts.items() if many]


def _missing(found: list[Found], _frame: pd.DataFrame, _roles: Roles) -> list[Column]:
    """Tell where several columns are missing together; of one alone, its own missing values tell it."""
    patterns: dict[str, tuple[str, ...]] = {}
    for one in found:
        if one.gaps:
            patterns[one.gaps] = (*patterns.get(one.gaps, ()), one.raw)
    return [Column(f"{raws[0]}_missing", raws, "float32", of="missing") for raws in patterns.values() if len(raws) > 1]


def _past(roles: Roles) -> list[Column]:
    """List the statistics of each key's past."""
    if roles.time is None:
        return []
    asked = [of for of in history.STATISTICS if roles.is_on("label_rates" if of in history.OF_LABELS else "past")]
    amount = (roles.amount,) if roles.amount else ()
    made = []
    for name, key in roles.keys:
        for of in asked:
            if of not in history.OF_AMOUNTS or amount:
                sources = (*key, roles.time, *(amount if of in history.OF_AMOUNTS else ()))
                made.append(Column(f"{name}_{of}", sources, "float32", of=of, key=name))
    return made


def _own(found: list[Found], source: str, roles: Roles) -> list[Column]:
    """List a user's own features; they may look at earlier rows."""
    if not source:
        return []
    if roles.time is None:
        raise DataError(f"{own.FILE}: needs an event time, which orders the rows: name it in prepare.time.")
    sources = own.columns(source)
    if roles.label in sources:
        raise DataError(f"{own.FILE}: COLUMNS names {roles.label!r}, the label, which no feature is given.")
    if absent := {*sources} - {one.raw for one in found}:
        raise DataError(f"{own.FILE}: COLUMNS names {min(absent)!r}, which is no column of the table.")
    return [Column(name, (*sources, roles.time), "float32", of=f"own:{name}", key=OWN) for name in own.names(source)]


ROW_KINDS: dict[str, Callable[[list[Found], pd.DataFrame, Roles], list[Column]]] = {
    "clock": _clock,
    "cents": _cents,
    "start_days": _start_days,
    "frequency": _frequency,
    "missing": _missing,
}


def _named_safely(columns: list[Column]) -> Iterator[Column]:
    """Rename what some booster refuses in a column's name, and what would then stand twice."""
    taken = set(RESERVED)
    for column in columns:
        safe = re.sub(r'[\[\]<>{}":,\s\x00-\x1f]', "_", column.name)
        name = next(name for name in itertools.chain([safe], (f"{safe}_{count}" for count in itertools.count(2))) if name not in taken)
        taken.add(name)
        yield replace(column, name=name)


# --- making the matrix ----------------------------------------------------------------------------


def apply(features: Features, frame: pd.DataFrame, past: pd.DataFrame | None = None) -> pd.DataFrame:
    """Give the model's matrix for raw rows; a row alone comes out as it does among others.

    Args:
        features: what prepare fitted.
        frame: raw rows.
        past: raw rows that came before, with their labels, for the columns that need them; those of ``frame`` count as well.

    Raises:
        DataError: a column is missing, or its values cannot be what they were in train.

    """
    there = {*frame.columns}
    if absent := [raw for column in features.columns for raw in column.sources if raw not in there]:
        raise DataError(f"column {absent[0]!r} is missing: the model was trained with it.")
    parts = [_numbers(frame, features, "float32"), _numbers(frame, features, "float64")]
    context, made = _Context(frame, features, past), {}
    for column in features.columns:
        if column.is_raw_number:
            continue
        try:
            made[column.name] = context.values(column)
        except (TypeError, ValueError) as error:
            wanted = "times" if column.of in CLOCK else "numbers"
            raise DataError(f"column {column.raw!r} should hold {wanted}, as in training ({str(error)[:100]!r}).") from error
    whole = pd.concat([*parts, pd.DataFrame(made, index=frame.index)], axis=1)
    return whole if [*whole] == features.names else whole[features.names]


def _numbers(frame: pd.DataFrame, features: Features, dtype: Literal["float32", "float64"]) -> pd.DataFrame:
    """Give the raw columns that are numbers of this type: of one row, hundreds at once take no longer than a few."""
    columns = [column for column in features.columns if column.is_raw_number and column.dtype == dtype]
    raws = [column.raw for column in columns]
    try:
        return frame[raws].astype(dtype).set_axis([column.name for column in columns], axis=1)
    except (TypeError, ValueError):
        for raw in raws:
            try:
                frame[raw].astype(dtype)
            except (TypeError, ValueError) as error:
                raise DataError(f"column {raw!r} should hold numbers, as in training ({str(error)[:100]!r}).") from error
        raise


class _Context:
    """Raw rows, and what several columns are made of, computed once."""

    def __init__(self, frame: pd.DataFrame, features: Features, past: pd.DataFrame | None = None) -> None:
        self.frame, self.roles = frame, features.roles
        self.whole = frame if past is None else pd.concat([past, frame])
        self.own = features.own
        self._statistics: dict[str, dict[str, NDArray[np.float64]]] = {}

    def values(self, column: Column) -> Any:
        """Make one column that is no raw number, for the rows of the frame: an array, or a Categorical."""
        raw = self.frame[column.raw]
        if column.dtype == "category":
            (codes, names), places = _named(raw), {category: place for place, category in enumerate(column.categories)}
            kept = np.array([*(places.get(name, -1) for name in names), -1])
            return pd.Categorical.from_codes(kept[codes], dtype=column.pandas_type())
        if column.key == OWN:
            made: Any = self._own(column)[column.of.removeprefix("own:")][-len(raw) :]
        elif column.key:
            made = self._past(column.key)[column.of][-len(raw) :]
        elif column.of in CLOCK:
            made = CLOCK[column.of](pd.to_datetime(moments(raw, self.roles.time_unit)))
        elif column.of == "cents":
            made = (raw.astype("float64") * 1000).round() % 1000
        elif column.of == "start_day":
            made = _start_day(self.frame, self.roles, column.raw)
        elif column.of == "missing":
            made = raw.isna()
        else:
            assert column.of == "frequency", column
            (codes, names), counts = _named(raw), dict(column.counts)
            made = np.array([*(counts.get(name, 0) for name in names), 0])[codes]
        return np.asarray(made).astype(column.dtype)

    def _past(self, key: str) -> dict[str, NDArray[np.float64]]:
        if key not in self._statistics:
            roles, frame = self.roles, self.whole
            assert roles.time
            rows = history.earlier(history.entities(acting(frame, roles, key)), moments(frame[roles.time], roles.time_unit))
            amount = frame[roles.amount].to_numpy("float64", na_value=np.nan) if roles.amount else None
            delay = round(roles.label_delay_days * history.DAY)
            self._statistics[key] = history.statistics(rows, amount, self._labels(frame), delay)
        return self._statistics[key]

    def _own(self, column: Column) -> dict[str, NDArray[np.float64]]:
        if OWN not in self._statistics:
            assert self.roles.time
            table = self.whole[list(dict.fromkeys(column.sources))]
            self._statistics[OWN] = own.values(self.own, table, moments(table[self.roles.time], self.roles.time_unit))
        return self._statistics[OWN]

    def _labels(self, frame: pd.DataFrame) -> NDArray[np.int8] | None:
        if not self.roles.is_on("label_rates"):
            return None
        if self.roles.label not in frame:
            return np.full(len(frame), -1, dtype=np.int8)
        codes, names = _named(frame[self.roles.label])
        return np.array([*(name == self.roles.positive for name in names), -1], dtype=np.int8)[codes]


def acting(frame: pd.DataFrame, roles: Roles, key: str) -> list[pd.Series]:
    """Give what together names who acts, by one of the keys."""
    return [_start_day(frame, roles, raw) if raw in roles.start_days else _name(frame[raw]) for raw in dict(roles.keys)[key]]


def _start_day(frame: pd.DataFrame, roles: Roles, raw: str) -> pd.Series:
    """Give the day on which something began."""
    assert roles.time
    day = moments(frame[roles.time], roles.time_unit) // history.DAY
    return pd.Series(day, index=frame.index) - frame[raw].astype("float64")


def moments(values: pd.Series, unit: str) -> NDArray[np.int64]:
    """Give event times as nanoseconds since 1970; numbers count in ``unit``."""
    if pd.api.types.is_numeric_dtype(values):
        if pd.api.types.is_integer_dtype(values):
            return values.to_numpy("int64") * UNITS[unit]
        return (values.to_numpy("float64") * UNITS[unit]).round().astype(np.int64)
    return pd.to_datetime(values).to_numpy(dtype="datetime64[ns]").astype(np.int64)


def _named(values: pd.Series) -> tuple[NDArray[np.intp], NDArray[np.object_]]:
    """Give the number of each value's name (-1 where it is missing), and the names, whatever type the values came in: 1.0 is 1."""
    codes, found = pd.factorize(values)
    words = [*map(spoken, found)]
    if len({*words}) == len(words):
        return codes, np.array(words, dtype=object)
    places, names = pd.factorize(np.array(words, dtype=object))  # 1 and 1.0, where a column holds both
    return np.append(places, -1)[codes], names


def _name(values: pd.Series) -> pd.Series:
    codes, names = _named(values)
    return pd.Series(pd.Categorical.from_codes(codes, pd.Index(names, dtype="str")), index=values.index)


def spoken(value: Any) -> str:
    """Give a cell as a person names it: 1.0 is "1", True is "true"."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else str(float(value))
    return str(value)


def _counts(values: pd.Series) -> tuple[tuple[str, int], ...]:
    codes, names = _named(values)
    return tuple(sorted(zip(names, np.bincount(codes[codes >= 0], minlength=len(names)).tolist(), strict=True)))


CLOCK: dict[str, Callable[[Any], Any]] = {"hour": lambda when: when.hour, "weekday": lambda when: when.day_of_week}  # Monday is 0


# --- tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Table:
    """One split as prepare left it: the model's matrix, and beside it what is no feature."""

    X: pd.DataFrame  # numbers as float32 or float64, categories as pandas categories of the contract
    y: NDArray[np.int8]  # 1: positive
    row: NDArray[np.int64]  # number of the row in the raw table, from 0
    time: NDArray[Any] | None = None  # event time: nanoseconds since 1970 (UTC), or the raw number
    entity: NDArray[Any] | None = None  # text; None where it is missing


def arrow(table: Table) -> pa.Table:
    """Give a split as Arrow: the features, and beside them what is none."""
    beside = dict(zip(RESERVED, (table.y, table.row, table.time, table.entity), strict=True))
    columns = {str(name): pa.array(table.X[name], from_pandas=True) for name in table.X.columns}
    return pa.table(columns | {name: pa.array(values, from_pandas=True) for name, values in beside.items() if values is not None})


def write(table: Table, path: Path) -> None:
    """Write a split as Parquet: equal tables are equal bytes, and a flipped bit is found on reading."""
    write_parts([arrow(table)], path)


def write_parts(parts: Iterable[pa.Table], path: Path) -> None:
    """Write a split that comes in parts, at least one; each becomes a row group."""
    parts = iter(parts)
    first = next(parts)
    with pa.parquet.ParquetWriter(path, first.schema, compression="zstd", write_page_checksum=True) as writer:
        for part in itertools.chain([first], parts):
            writer.write_table(part)


def read(path: Path, features: Features) -> Table:
    """Read a split that ``write`` wrote."""
    table = pa.parquet.read_table(path, page_checksum_verification=True)
    matrix = table.select(features.names).to_pandas().astype({column.name: column.pandas_type() for column in features.columns})
    time = table["_time"].to_numpy() if "_time" in table.column_names else None
    entity = np.array(table["_entity"].to_pylist(), dtype=object) if "_entity" in table.column_names else None
    return Table(matrix, table["_label"].to_numpy(), table["_row"].to_numpy(), time, entity)
