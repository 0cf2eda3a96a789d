"""Read a table strictly and into blocks on disk: what is cut, re-encoded, widened or damaged is refused by name."""

import codecs
import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pyarrow.types as kinds

from stages.common.errors import DataError
from stages.common.raw import shown
from stages.prepare.check import headless
from stages.prepare.config import MISSING, plain_name
from stages.prepare.raw import MOST, Raw

FOREIGN = {
    b"\x1f\x8b": "is compressed by gzip. Unpack it first: gunzip",
    b"\xfd7zXZ": "is compressed by xz. Unpack it first: unxz",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd. Unpack it first: unzstd",
    b"BZh91AY&SY": "is compressed by bzip2. Unpack it first: bunzip2",
    b"PK\x03\x04": "is a zip or an Excel file. Save the table as CSV or Parquet",
    b"\xd0\xcf\x11\xe0": "is an old Excel file. Save the table as CSV or Parquet",
    b"PARE": "is an encrypted Parquet file. Write it without encryption",
    b"ARROW1": "is an Arrow file. Write it as Parquet",
    b"SQLite format 3": "is a database of SQLite. Export the table as CSV or Parquet",
    b"\xff\xfe": "is UTF-16, not UTF-8. Convert it: iconv -f utf-16 -t utf-8",
    b"\xfe\xff": "is UTF-16, not UTF-8. Convert it: iconv -f utf-16 -t utf-8",
}
NO_TABLE = (  # how text begins that is no table, in lower case
    (rb"\s*<(!doctype html|html|head|body)\b", "is a page of HTML, as a site answers that asks to sign in. Fetch the file itself"),
    (rb"\s*<\?xml\b", "is XML. Save the table as CSV or Parquet"),
    (rb"version \S+\n(ext-\S+ \S+\n)*oid sha256:", "is a pointer of Git LFS, not the file. Fetch it: git lfs pull"),
    (rb'\s*(\[\s*)?\{\s*"', "is JSON. Save the table as CSV or Parquet"),
)
START = 512  # bytes by which a kind of file is told
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"  # what Hive and Spark write for a missing value in a path
LONGEST_TEXT = 100_000  # characters; a longer value is a quote that is not closed, or no table
GUESSES = (pa.int64(), pa.float64(), pa.string())  # what a column of one is in one piece, it is most likely in the next
LARGEST_BLOCK = 2**31 - 1  # bytes
BLOCK = 1 << 24  # bytes of a CSV file that are parsed at a time: of half and of twice as many, a table of 434 columns took longer
AT_ONCE = 2  # blocks


def read(path: Path, folder: Path, *, delimiter: str = ",", expected_rows: int | None = None, as_text: tuple[str, ...] = ()) -> Raw:
    """Read a CSV or Parquet file, told apart by its first bytes, with its columns as they are named there; or a folder of such files.

    The files of a folder stand under each other in the order of their names; ``day=3`` in a file's path is a column.
    All is parsed in blocks, which are kept as Arrow files in ``folder`` (about twice the size of a CSV file), so that a table
    larger than memory can be read. A column's type comes from all of its values, however many blocks there are.
    Columns in ``as_text`` stay as written: 007 and 7 are two keys. Text comes out as str, times as datetime64, booleans as boolean.
    Text in Parquet is read as in CSV: the same table gives the same values from both.

    Raises:
        DataError: the file is damaged, cut, or not what its name says.

    """
    source = _folder(path, delimiter, as_text) if path.is_dir() else _file(path, delimiter, expected_rows, as_text)
    names = _names(source.names, delimiter)
    folder.mkdir(parents=True, exist_ok=True)
    spools = _settled(source, names, folder)
    rows = sum(block.rows for block in spools[0].blocks)
    if rows == 0:
        raise DataError("has columns, but not one row.")
    if expected_rows not in {None, rows}:
        raise DataError(f"has {rows} rows where prepare.expected_rows says {expected_rows}.")

    def get(asked: Sequence[str]) -> pa.Table:
        columns = {name: column for spool in spools for name, column in spool.columns(asked).items()}
        return pa.table({name: columns[name] for name in asked})

    return Raw(tuple(names), np.arange(rows), get, tuple(name.strip() for name in source.names if "-" in name))


# --- blocks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """A file's columns, its pieces, and how to parse some columns of a piece: with types of their own where none is given."""

    names: list[str]
    pieces: Callable[[], Iterator[Any]]
    parse: Callable[[Any, Sequence[str], dict[str, pa.DataType]], pa.Table]
    row: Callable[[str, int], str]  # what the parser says, and rows before the piece: what to say


@dataclass(frozen=True)
class _Block:
    """Rows on disk: groups of columns behind each other in one file, so that a few columns are found without the names of all."""

    path: Path
    rows: int
    places: dict[str, int]  # of each column's group in the file

    @classmethod
    def write(cls, path: Path, table: pa.Table) -> "_Block":
        """Keep a table."""
        places: dict[str, int] = {}
        with pa.OSFile(str(path), "wb") as file:
            for start in range(0, table.num_columns, MOST):
                group = table.select(range(start, min(start + MOST, table.num_columns)))
                places |= dict.fromkeys(group.column_names, file.tell())
                with pa.ipc.new_stream(file, group.schema) as writer:
                    writer.write_table(group)
        return cls(path, table.num_rows, places)

    def read(self, names: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        """Give some columns."""
        found: dict[str, pa.ChunkedArray] = {}
        with pa.memory_map(str(self.path)) as file:
            for place in sorted({self.places[name] for name in names}):
                file.seek(place)
                group = pa.ipc.open_stream(file).read_all()
                found |= {name: group[name] for name in names if self.places[name] == place}
        return found


@dataclass(frozen=True)
class _Spool:
    """Blocks on disk, and per column the type that holds all of them."""

    blocks: list[_Block]
    types: dict[str, pa.DataType]

    def columns(self, asked: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        """Give those columns that are here."""
        mine = [name for name in asked if name in self.types]
        blocks = [block.read(mine) for block in self.blocks] if mine else []

        def column(name: str, kind: pa.DataType) -> pa.ChunkedArray:
            parts = [block[name] for block in blocks]
            return pa.chunked_array(
                [chunk for part in parts for chunk in (part if part.type == kind else part.cast(kind, safe=False)).chunks], kind
            )

        return {name: column(name, self.types[name]) for name in mine}


def _settled(source: _Source, names: list[str], folder: Path) -> list[_Spool]:
    """Keep all blocks; columns whose blocks do not agree on a type are read again, as truth values or as text."""
    kept = _kept(source, folder / "all", source.names, {})
    said = dict(zip(source.names, names, strict=True))
    spools = [_Spool(kept.blocks, {said[name]: kind for name in source.names if (kind := _common(kept.seen[name], kept.types[name]))})]
    texts = []
    for number, name in enumerate(name for name in source.names if said[name] not in spools[0].types):
        if all(kinds.is_boolean(kind) or kinds.is_int64(kind) for kind in kept.seen[name] - {pa.null()}):
            try:  # 0 and 1 above, true and false below
                again = _kept(source, folder / f"truth-{number}", [name], {name: pa.bool_()})
                spools.append(_Spool(again.blocks, {said[name]: pa.bool_()}))
                continue
            except pa.ArrowInvalid:
                pass
        texts.append(name)
    if texts:
        again = _kept(source, folder / "text", texts, dict.fromkeys(texts, pa.string()))
        spools.append(_Spool(again.blocks, {said[name]: pa.string() for name in texts}))
    return spools


@dataclass(frozen=True)
class _Kept:
    """Blocks on disk; per column the types that were found in them, and those that they are kept in."""

    blocks: list[_Block]
    seen: dict[str, set[pa.DataType]]
    types: dict[str, set[pa.DataType]]


def _kept(source: _Source, folder: Path, columns: Sequence[str], types: dict[str, pa.DataType]) -> _Kept:
    """Parse some columns of all pieces side by side, and keep them in order."""
    folder.mkdir(parents=True, exist_ok=True)
    made = _Kept([], {name: set() for name in columns}, {name: set() for name in columns})

    def work(numbered: tuple[int, Any]) -> tuple[_Block, list[pa.DataType], list[pa.DataType]]:
        number, piece = numbered
        table = source.parse(piece, columns, types)
        plain = [_narrow(_plain(column, name)) for name, column in zip(columns, table.columns, strict=True)]
        narrow = pa.table(plain, names=_plain_names(columns))
        return _Block.write(folder / f"{number}.arrow", narrow), table.schema.types, narrow.schema.types

    try:
        for block, found_as, kept_as in in_order(work, enumerate(source.pieces())):
            made.blocks.append(block)
            for name, found, kept in zip(columns, found_as, kept_as, strict=True):
                made.seen[name].add(found)
                made.types[name].add(kept)
    except pa.ArrowInvalid as error:
        if types:
            raise
        raise DataError(source.row(str(error), sum(block.rows for block in made.blocks))) from error
    return made


def in_order(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Work on a few items side by side, never on more; give the results in order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting: deque[Future[Any]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _common(seen: set[pa.DataType], kept: set[pa.DataType]) -> pa.DataType | None:
    """Give the type that holds all blocks of a column, by what was found in them and what they are kept in; None where only text does."""
    found, kept = ({kind.value_type if kinds.is_dictionary(kind) else kind for kind in some} - {pa.null()} for some in (seen, kept))
    if len(kept) <= 1 and len(found) <= 1:
        return kept.pop() if kept else pa.float64()
    if all(kinds.is_integer(kind) for kind in found):
        return pa.int64() if all(kinds.is_signed_integer(kind) for kind in kept) else pa.float64()
    if all(kinds.is_integer(kind) or kinds.is_floating(kind) for kind in found):
        return pa.float32() if kept == {pa.float32()} else pa.float64()
    if all(kinds.is_date(kind) or (kinds.is_timestamp(kind) and kind.tz is None) for kind in found):
        return pa.timestamp("ns" if pa.timestamp("ns") in kept else "us")
    return None


def _narrow(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Keep numbers in half the room where that loses nothing."""
    if kinds.is_integer(column.type) and column.type.bit_width == 64:
        span = pc.min_max(column).as_py()
        return column.cast(pa.int32()) if span["min"] is None or -(2**31) <= span["min"] <= span["max"] < 2**31 else column
    if kinds.is_float64(column.type):
        half = column.cast(pa.float32(), safe=False)
        return half if pc.all(pc.equal(half.cast(column.type), column)).as_py() is not False else column
    return column


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Bring Arrow's many types down to number, boolean, text and time."""
    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    if kinds.is_decimal(kind) or kinds.is_null(kind):
        return pa.float64()
    if kinds.is_time(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind):
        return pa.string()  # 12:30 is a category; the event time has a date
    if kinds.is_date(kind) or kinds.is_timestamp(kind):
        return pa.timestamp("ns" if getattr(kind, "unit", "") == "ns" else "us")  # with a zone: as UTC
    return kind


def _plain(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Give a block's column in its plain type; where nothing stands in the block, any type may follow."""
    if kinds.is_null(column.type):
        return column
    kind = _plain_type(column.type)
    if not (
        kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind) or kinds.is_string(kind) or kinds.is_timestamp(kind)
    ):
        raise DataError(f"column {name.strip()!r} is of the type {kind}, which no booster reads. Write it as numbers, text or times.")
    try:
        plain = column.cast(kind)
    except pa.ArrowInvalid as error:
        raise DataError(f"column {name.strip()!r} of the type {column.type} holds values beyond {kind}. Correct them.") from error
    if kinds.is_string(kind) and (longest := pc.max(pc.utf8_length(plain)).as_py() or 0) > LONGEST_TEXT:
        raise DataError(f"column {name.strip()!r} has a value of {longest} characters, as if a quote were not closed. Repair or remove it.")
    return plain


# --- files ----------------------------------------------------------------------------------------


def _file(path: Path, delimiter: str, expected_rows: int | None, as_text: tuple[str, ...]) -> _Source:
    if not path.is_file():
        raise DataError("is not a file. Name one CSV or Parquet file in prepare.path.")
    with path.open("rb") as file:
        start = file.read(START)
    return _parquet(path, as_text) if start.startswith(b"PAR1") else _csv(path, start, delimiter, expected_rows, as_text)


def _folder(folder: Path, delimiter: str, as_text: tuple[str, ...]) -> _Source:
    """Put the files of a folder under each other: all have the same columns, in any order."""
    sources: list[_Source] = []
    for path in shown(folder):
        name = path.relative_to(folder)
        with _about(name):
            source = _file(path, delimiter, None, as_text)
            sources.append(_keyed(name, replace(source, names=_names(source.names, delimiter)), source.names, as_text))
            first, here = ({*one.names} for one in (sources[0], sources[-1]))
            if first != here:
                lacks, more = (", ".join(map(repr, sorted(some)[:3])) for some in (first - here, here - first))
                said = " and ".join(word for word, some in ((f"lacks {lacks}", lacks), (f"has {more} besides", more)) if some)
                raise DataError(f"{said}, compared with the folder's first file. All files of a folder have the same columns.")

    def pieces() -> Iterator[tuple[_Source, int, Any]]:
        for source in sources:
            for number, piece in enumerate(source.pieces()):
                yield source, number, piece

    def parse(piece: tuple[_Source, int, Any], columns: Sequence[str], types: dict[str, pa.DataType]) -> pa.Table:
        return piece[0].parse(piece[2], columns, types)

    return _Source(sources[0].names, pieces, parse, lambda said, _: said)


def _keyed(name: Path, source: _Source, written: list[str], as_text: tuple[str, ...]) -> _Source:
    """Give a folder's file under the plain names of its columns, with those that its path holds; refusals name the file."""
    own = dict(zip(source.names, written, strict=True))
    keys = {key: unquote(value) for key, value in (part.split("=", 1) for part in name.parts[:-1] if "=" in part)}
    if twice := keys.keys() & own.keys():
        raise DataError(f"column {min(twice)!r} stands in the file and in its path. Remove one.")

    def pieces() -> Iterator[Any]:
        with _about(name):
            yield from source.pieces()

    def parse(piece: Any, columns: Sequence[str], types: dict[str, pa.DataType]) -> pa.Table:
        with _about(name):
            asked = [column for column in columns if column in own] or source.names[:1]  # at least one, which tells the number of rows
            try:
                table = source.parse(
                    piece, [own[column] for column in asked], {own[one]: kind for one, kind in types.items() if one in own}
                )
            except pa.ArrowInvalid as error:
                if types:
                    raise
                earlier = takewhile(lambda one: one != piece, source.pieces())
                raise DataError(source.row(str(error), sum(source.parse(one, written[:1], {}).num_rows for one in earlier))) from error
            found = dict(zip(asked, table.columns, strict=True))
            for key in (column for column in columns if column in keys):
                text = None if keys[key] == HIVE_NULL else keys[key]
                kind = types.get(key) or (pa.string() if key in as_text else None)
                typed = _as_in_csv(pa.chunked_array([pa.array([text], pa.string())]), kind)
                found[key] = typed.take(pa.array(np.zeros(table.num_rows, dtype=np.int64)))
            return pa.table([found[column] for column in columns], names=[*columns])

    return replace(source, names=[*own, *keys], pieces=pieces, parse=parse)


@contextmanager
def _about(name: Path) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


# --- Parquet --------------------------------------------------------------------------------------


def _parquet(path: Path, as_text: tuple[str, ...]) -> _Source:
    """Read a Parquet file in batches of rows; text, and keys, as they would come from a CSV file that pandas writes."""

    def damaged(error: Exception) -> DataError:
        return DataError(f"is a damaged Parquet file ({' '.join(str(error).split())[:160]}). Fetch or write it again.")

    try:
        schema = pa.parquet.read_schema(path)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise damaged(error) from error
    hidden = re.compile(r"__index_level_\d+__")  # pandas' names of rows: no column of the table
    shown = [number for number, name in enumerate(schema.names) if not hidden.fullmatch(name)]

    def pieces() -> Iterator[pa.Table]:
        try:
            with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(max(1024, 2 * BLOCK // (8 * len(schema.names) or 1))):
                    table = pa.Table.from_batches([batch])
                    table.validate(full=True)  # text that is no UTF-8 would fail much later
                    yield table.select(shown)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise damaged(error) from error

    def parse(piece: pa.Table, columns: Sequence[str], types: dict[str, pa.DataType]) -> pa.Table:
        forced = {**{name: pa.string() for name in columns if plain_name(name) in as_text}, **types}
        return pa.table([_as_in_csv(piece[name], forced.get(name)) for name in columns], names=[*columns])

    return _Source([schema.names[number] for number in shown], pieces, parse, lambda said, _: said)


def _as_in_csv(column: pa.ChunkedArray, forced: pa.DataType | None) -> pa.ChunkedArray:
    """Give a Parquet file's text, and its keys, as CSV's reader would."""
    kind = column.type.value_type if kinds.is_dictionary(column.type) else column.type
    number = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind)
    if not (kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind) or (forced and number)):
        return column
    text = column.cast(kind).cast(pa.large_string())
    if kinds.is_floating(kind):
        text = pc.replace_substring_regex(text, r"^(-?\d+)$", r"\1.0")  # pandas writes 7.0 where Arrow writes 7
    distinct = pc.unique(text)
    file = io.BytesIO()
    pa.csv.write_csv(pa.table({"x": distinct}), file)
    parse = pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
    typed = _parsed(file.getbuffer(), None, parse, {"x": forced} if forced else {})["x"]
    return typed.take(pc.index_in(text, value_set=distinct))


# --- CSV ------------------------------------------------------------------------------------------


def _csv(path: Path, start: bytes, delimiter: str, expected_rows: int | None, as_text: tuple[str, ...]) -> _Source:
    _check_kind(start)
    parsing = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)

    def pieces() -> Iterator[tuple[bytes, bool]]:
        for number, piece in enumerate(_pieces(path, delimiter, may_lack_newline=expected_rows is not None)):
            yield piece, number == 0

    def row(said: str, before: int) -> str:
        """Say the parser's problem in a line, the header being row 1; what follows the row's number is the row itself."""
        found = re.search(r"Row #(\d+): (Expected \d+ columns, got \d+)", said)
        told = f"Row #{int(found[1]) + before + (before > 0)}: {found[2]}" if found else " ".join(said.split())[:160]
        return f"is not a CSV file with {delimiter!r} between its fields ({told}). Repair it."

    try:
        first, _ = next(pieces(), (b"", True))
        if not first.strip():
            raise DataError("holds nothing but empty lines.")
        start_table = _parsed(first, None, parsing, {})
    except pa.ArrowInvalid as error:
        raise DataError(row(str(error), 0)) from error
    names = start_table.column_names
    keys = {name: pa.string() for name in names if plain_name(name) in as_text}
    # To look whether a type holds is faster than to guess it. What a piece gives depends on these and on itself, not on other pieces.
    guessed = {name: kind for name, kind in zip(names, start_table.schema.types, strict=True) if kind in GUESSES and name not in keys}
    wrong: set[str] = set()  # columns of which some piece is of another type: not to be tried again

    def parse(piece: tuple[bytes, bool], columns: Sequence[str], types: dict[str, pa.DataType]) -> pa.Table:
        text, has_header = piece
        header, known = None if has_header else names, keys | types
        try:
            table = _parsed(text, header, parsing, {name: kind for name, kind in guessed.items() if name not in wrong} | known)
        except pa.ArrowInvalid:
            table = _parsed(text, header, parsing, known)
        hoped = [guessed.get(name, table[name].type) if name not in known else table[name].type for name in columns]
        made = [_as_hoped(table[name], kind) for name, kind in zip(columns, hoped, strict=True)]
        wrong.update(name for name, column, kind in zip(columns, made, hoped, strict=True) if column.type != kind)
        return pa.table(made, names=[*columns])

    return _Source(names, pieces, parse, row)


def _as_hoped(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Give a column the type that it would have been found to have, had that been tried."""
    holds = kinds.is_null(column.type) or (kinds.is_int64(column.type) and kinds.is_float64(kind))
    return column.cast(kind, safe=False) if holds else column


def _check_kind(start: bytes) -> None:
    """Refuse by its first bytes what is no CSV file."""
    text = start.removeprefix(codecs.BOM_UTF8).lower()
    found = [problem for magic, problem in FOREIGN.items() if start.startswith(magic)]
    if found := found or [problem for begin, problem in NO_TABLE if re.match(begin, text)]:
        raise DataError(f"{found[0]}.")


def _parsed(text: Any, names: list[str] | None, parse: pa.csv.ParseOptions, types: dict[str, pa.DataType]) -> pa.Table:
    """Parse CSV as one block; ``names`` where it has no header."""
    convert = pa.csv.ConvertOptions(null_values=list(MISSING), strings_can_be_null=True, column_types=types)
    block = min(len(text) + 1, LARGEST_BLOCK)
    # On one thread, which can tell the row of an error: several blocks are parsed at once.
    return pa.csv.read_csv(pa.py_buffer(text), pa.csv.ReadOptions(block_size=block, use_threads=False, column_names=names), parse, convert)


def _pieces(path: Path, delimiter: str, *, may_lack_newline: bool) -> Iterator[bytes]:
    """Cut a CSV file where rows end.

    What Arrow would read in silence is refused: bytes that are no UTF-8, NULs, a quote that is not closed, a cut last row,
    a second file behind the first.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    # Some tables hold quotes amid a value, which open nothing: from there on, no one can tell where a row ends but the parser.
    stray = re.compile(rb'[^\r\n"' + re.escape(delimiter.encode()) + rb']"[^\r\n"' + re.escape(delimiter.encode()) + rb"]")
    lines = quotes = given = 0
    is_whole = False
    rest: list[bytes] = []  # what was read and not given
    last = header = b""
    with path.open("rb") as file:
        while chunk := file.read(BLOCK):
            _check_bytes(chunk, decoder, lines)
            lines += chunk.count(b"\n")
            if b'"' in chunk:
                quotes += chunk.count(b'"')
                is_whole = is_whole or stray.search(last[-2:] + chunk) is not None
            last = chunk
            cut = 0 if is_whole else _row_end(chunk, quotes)
            if cut == 0:
                rest.append(chunk)
                continue
            piece = b"".join([*rest, memoryview(chunk)[:cut]])
            rest = [chunk[cut:]]
            header = header or piece[: piece.index(b"\n") + 1]
            _check_one_file(piece, header, delimiter, given)
            yield piece
            given = lines - rest[0].count(b"\n")
    if not last:
        raise DataError("is empty.")
    if last[-1:] not in b"\r\n" and not may_lack_newline:
        problem = f"ends without a newline after {lines} lines, as if it had been cut"
        raise DataError(f"{problem}. Fetch it again; if it is whole, add the newline or set prepare.expected_rows.")
    if quotes % 2:
        raise DataError(f"has {quotes} double quotes, an odd number: a quoted value is not closed, and would swallow rows.")
    if (piece := b"".join(rest)).strip():
        _check_one_file(piece, header or piece[: piece.find(b"\n") + 1], delimiter, given)
        yield piece


def _row_end(text: bytes, quotes: int) -> int:
    """Give the place after the last newline that is not within quotes, 0 without one; ``quotes`` is their number up to the end."""
    end = len(text)
    while (place := text.rfind(b"\n", 0, end)) >= 0:
        quotes -= text.count(b'"', place, end)
        if quotes % 2 == 0:
            return place + 1
        end = place
    return 0


def _check_bytes(chunk: bytes, decoder: Any, lines: int) -> None:
    try:
        decoder.decode(chunk)
    except UnicodeDecodeError as error:
        line = lines + error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"line {line} is not UTF-8. Convert the file, say: iconv -f latin1 -t utf-8.") from error
    if b"\0" in chunk:
        line = lines + chunk.count(b"\n", 0, chunk.index(b"\0")) + 1
        raise DataError(f"line {line} has a NUL byte: the file is damaged, or not UTF-8 text.")


def _check_one_file(text: bytes, header: bytes, delimiter: str, before: int) -> None:
    """Refuse a second file behind the first, by its header or its byte order mark; ``before`` is how many lines came before."""
    header = header.removeprefix(codecs.BOM_UTF8)
    found = {codecs.BOM_UTF8: "begins with a byte order mark"} if codecs.BOM_UTF8[:1] in text else {}  # one byte is found at once
    if delimiter.encode() in header and header.count(b'"') % 2 == 0:  # an odd quote may open a name of several lines
        found[header] = "is the header again"
    for mark, problem in found.items():
        is_first = before > 0 and text.startswith(mark)
        if is_first or b"\n" + mark in text:
            line = before + 1 if is_first else before + text.count(b"\n", 0, text.index(b"\n" + mark)) + 2
            raise DataError(f"line {line} {problem}, as if a second file stood behind the first. Remove what is too much.")


def _names(columns: list[str], delimiter: str) -> list[str]:
    """Names without the blanks around them, which nobody sees, and with underscores for hyphens; each there, and once."""
    written, columns = [column.strip() for column in columns], _plain_names(columns)
    if len(columns) == 1 and (other := next((mark for mark in ",;\t|" if mark != delimiter and mark in columns[0]), None)):
        raise DataError(f"has one column by the delimiter {delimiter!r}; its header holds {other!r}. Set prepare.delimiter.")
    if not columns:
        raise DataError("has no columns.")
    if "" in columns:
        raise DataError(f"column {columns.index('') + 1} has no name (pandas writes its index so: index=False). Name or remove it.")
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        spellings = sorted({name for name in written if plain_name(name) == twice[0]}, key=written.index)
        if len(spellings) > 1:
            raise DataError(f"has the columns {spellings[0]!r} and {spellings[1]!r}, which are read as one name. Rename one.")
        raise DataError(f"has {columns.count(twice[0])} columns of the name {twice[0]!r}. Rename them.{headless(columns)}")
    return columns


def _plain_names(columns: Sequence[str]) -> list[str]:
    return [plain_name(column) for column in columns]
