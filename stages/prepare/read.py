"""Read one table strictly: what is cut, re-encoded, widened or damaged is refused by name."""

import codecs
import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pyarrow.types as kinds

from stages.common.errors import DataError
from stages.prepare.config import MISSING

FOREIGN = {
    b"\x1f\x8b": "is compressed by gzip. Unpack it first: gunzip",
    b"PK\x03\x04": "is a zip or an Excel file. Save the table as CSV or Parquet",
    b"\xff\xfe": "is UTF-16, not UTF-8. Convert it: iconv -f utf-16 -t utf-8",
    b"\xfe\xff": "is UTF-16, not UTF-8. Convert it: iconv -f utf-16 -t utf-8",
}
LONGEST_TEXT = 100_000  # characters; a longer value is a quote that is not closed, or no table
LARGEST_BLOCK = 2**31 - 1  # bytes


def read(path: Path, *, delimiter: str = ",", expected_rows: int | None = None, as_text: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a CSV or Parquet file, told apart by its first bytes, with its columns as they are named there.

    Columns in ``as_text`` stay as written: 007 and 7 are two keys. Text comes out as str, times as datetime64, booleans as boolean.
    Text in Parquet is read as in CSV: the same table gives the same values from both.
    """
    if not path.is_file():
        raise DataError("is not a file. Name one CSV or Parquet file in prepare.path.")
    with path.open("rb") as file:
        start = file.read(4)
    table = _parquet(path, as_text) if start == b"PAR1" else _csv(path, start, delimiter, expected_rows, as_text)
    table = table.rename_columns(_names(table.column_names, delimiter))
    if table.num_rows == 0:
        raise DataError("has columns, but not one row.")
    if expected_rows not in {None, table.num_rows}:
        raise DataError(f"has {table.num_rows} rows where prepare.expected_rows says {expected_rows}.")
    plain = {name: _plain(column, name) for name, column in zip(table.column_names, table.columns, strict=True)}
    frame: pd.DataFrame = pa.table(plain).to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get, ignore_metadata=True)
    return frame


def _parquet(path: Path, as_text: tuple[str, ...]) -> pa.Table:
    try:
        table = pa.parquet.read_table(path, page_checksum_verification=True)
        table.validate(full=True)  # text that is no UTF-8 would fail much later
        hidden = re.compile(r"__index_level_\d+__")  # pandas' names of rows: no column of the table
        table = table.select([number for number, column in enumerate(table.column_names) if not hidden.fullmatch(column)])
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise DataError(f"is a damaged Parquet file ({' '.join(str(error).split())[:160]}). Fetch or write it again.") from error
    columns = [_as_in_csv(table[number], key=name.strip() in as_text) for number, name in enumerate(table.column_names)]
    return pa.table(columns, names=table.column_names)


def _as_in_csv(column: pa.ChunkedArray, *, key: bool) -> pa.ChunkedArray:
    """Give a Parquet file's text, and its keys, as they would come from a CSV file that pandas writes."""
    kind = column.type.value_type if kinds.is_dictionary(column.type) else column.type
    number = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind)
    if not (kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind) or (key and number)):
        return column
    text = column.cast(kind).cast(pa.large_string())
    if kinds.is_floating(kind):
        text = pc.replace_substring_regex(text, r"^(-?\d+)$", r"\1.0")  # pandas writes 7.0 where Arrow writes 7
    distinct = pc.unique(text)
    file = io.BytesIO()
    pa.csv.write_csv(pa.table({"x": distinct}), file)
    size = file.tell()
    file.seek(0)
    parse = pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
    typed = _parsed(file, size, parse, ("x",) if key else ())["x"]
    return typed.take(pc.index_in(text, value_set=distinct))


def _csv(path: Path, start: bytes, delimiter: str, expected_rows: int | None, as_text: tuple[str, ...]) -> pa.Table:
    for magic, problem in FOREIGN.items():
        if start.startswith(magic):
            raise DataError(f"{problem}.")
    _check_bytes(path, may_lack_newline=expected_rows is not None)
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    size = path.stat().st_size
    try:
        table = _parsed(path, size, parse, as_text)
    except pa.ArrowInvalid:
        try:  # once more on one thread, which can tell the row
            table = _parsed(path, size, parse, as_text, use_threads=False)
        except pa.ArrowInvalid as error:
            found = re.search(r"Row #\d+: Expected \d+ columns, got \d+", str(error))  # what follows is the row itself
            said = found[0] if found else " ".join(str(error).split())[:160]
            raise DataError(f"is not a CSV file with {delimiter!r} between its fields ({said}). Repair it.") from error
    keys = tuple(name for name in table.column_names if name.strip() in as_text)
    return table if set(keys) <= set(as_text) else _parsed(path, size, parse, keys)  # blanks around a key's name


def _parsed(source: Any, size: int, parse: pa.csv.ParseOptions, as_text: tuple[str, ...], *, use_threads: bool = True) -> pa.Table:
    """Parse CSV as one block, so that a column's type comes from all of its values."""
    block = min(max(size + 1, 1 << 16), LARGEST_BLOCK)
    types = dict.fromkeys(as_text, pa.string())
    convert = pa.csv.ConvertOptions(null_values=list(MISSING), strings_can_be_null=True, column_types=types)
    return pa.csv.read_csv(source, pa.csv.ReadOptions(block_size=block, use_threads=use_threads), parse, convert)


def _check_bytes(path: Path, *, may_lack_newline: bool) -> None:
    """Refuse what Arrow would read in silence: bytes that are no UTF-8, NULs, a quote that is not closed, a cut last row."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = quotes = 0
    last = b""
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                line = lines + error.object.count(b"\n", 0, error.start) + 1
                raise DataError(f"line {line} is not UTF-8. Convert the file, say: iconv -f latin1 -t utf-8.") from error
            if b"\0" in chunk:
                line = lines + chunk.count(b"\n", 0, chunk.index(b"\0")) + 1
                raise DataError(f"line {line} has a NUL byte: the file is damaged, or not UTF-8 text.")
            lines, quotes, last = lines + chunk.count(b"\n"), quotes + chunk.count(b'"'), chunk[-1:]
    if not last:
        raise DataError("is empty.")
    if last not in b"\r\n" and not may_lack_newline:
        problem = f"ends without a newline after {lines} lines, as if it had been cut"
        raise DataError(f"{problem}. Fetch it again; if it is whole, add the newline or set prepare.expected_rows.")
    if quotes % 2:
        raise DataError(f"has {quotes} double quotes, an odd number: a quoted value is not closed, and would swallow rows.")


def _names(columns: list[str], delimiter: str) -> list[str]:
    """Names without the blanks around them, which nobody sees; each there, and once."""
    columns = [column.strip() for column in columns]
    if len(columns) == 1 and (other := next((mark for mark in ",;\t|" if mark != delimiter and mark in columns[0]), None)):
        raise DataError(f"has one column by the delimiter {delimiter!r}; its header holds {other!r}. Set prepare.delimiter.")
    if "" in columns:
        raise DataError(f"column {columns.index('') + 1} has no name (pandas writes its index so: index=False). Name or remove it.")
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        raise DataError(f"has {columns.count(twice[0])} columns of the name {twice[0]!r}. Rename them.")
    return columns


def _plain(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Bring Arrow's many types down to number, boolean, text and time."""
    kind = column.type.value_type if kinds.is_dictionary(column.type) else column.type
    if kinds.is_decimal(kind) or kinds.is_null(kind):
        kind = pa.float64()
    elif kinds.is_time(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind):
        kind = pa.string()  # 12:30 is a category; the event time has a date
    elif kinds.is_date(kind) or kinds.is_timestamp(kind):
        kind = pa.timestamp("ns" if getattr(kind, "unit", "") == "ns" else "us")  # with a zone: as UTC
    elif not (kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind) or kinds.is_string(kind)):
        raise DataError(f"column {name!r} is of the type {kind}, which no booster reads. Write it as numbers, text or times.")
    try:
        plain = column.cast(kind)
    except pa.ArrowInvalid as error:
        raise DataError(f"column {name!r} of the type {column.type} holds values beyond {kind}. Correct them.") from error
    if kinds.is_string(kind) and (longest := pc.max(pc.utf8_length(plain)).as_py() or 0) > LONGEST_TEXT:
        raise DataError(f"column {name!r} has a value of {longest} characters, as if a quote were not closed. Repair or remove it.")
    return plain
