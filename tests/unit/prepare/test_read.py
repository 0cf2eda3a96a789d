"""A table is read as it is written, or refused with what is wrong with it."""

import datetime as dt
import decimal
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from stages.common.errors import DataError
from stages.prepare import read as module


def read(path: Path, **options: Any) -> pd.DataFrame:
    """Give the whole table."""
    with tempfile.TemporaryDirectory() as folder:
        table = module.read(path, Path(folder), **options)
        return table.columns(table.names)


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Give ``written(bytes)``, which writes a file and gives its path."""

    def written(content: bytes) -> Path:
        path = tmp_path / "table"
        path.write_bytes(content)
        return path

    return written


def stored(tmp_path: Path, column: pa.Array) -> Path:
    path = tmp_path / "table.parquet"
    pa.parquet.write_table(pa.table({"x": column}), path)
    return path


MIXED = {
    "numbers": (["1", "2.5", "3"], [1.0, 2.5, 3.0]),
    "large whole numbers": (["1", "123456789012345678901"], [1.0, 123456789012345678901.0]),
    "nothing, then numbers": (["", "NA", "7"], [None, None, 7.0]),
    "nothing, then text": (["", "NA", "seven"], [None, None, "seven"]),
    "keys, then text": (["007", "1.0", "x"], ["007", "1.0", "x"]),
    "digits, then truths": (["1", "0", "true", "FALSE"], [True, False, True, False]),
    "numbers, then truths": (["12", "true"], ["12", "true"]),
    "truths, then digits": (["true", "0", "1"], [True, False, True]),
    "numbers, then nothing": (["1", "2.5", "", "NA"], [1.0, 2.5, None, None]),
    "numbers, then text, then numbers": (["1", "2.50", "x", "3"], ["1", "2.50", "x", "3"]),
    "text, then days": (["soon", "2024-01-31"], ["soon", "2024-01-31"]),
    "text, then nothing, then numbers": (["x", "", "7"], ["x", None, "7"]),
    "days, then times": (["2024-01-31", "2024-01-31 10:00:00"], [pd.Timestamp("2024-01-31"), pd.Timestamp("2024-01-31 10:00")]),
    "seconds, then finer": (
        ["2024-01-31 10:00:00", "2024-01-31 10:00:00.5"],
        [pd.Timestamp("2024-01-31 10:00:00"), pd.Timestamp("2024-01-31 10:00:00.5")],
    ),
    "days, then text": (["2024-01-31", "soon"], ["2024-01-31", "soon"]),
    "times of day, then text": (["12:30", "noon"], ["12:30", "noon"]),
    "quoted lines": (['"a\nb"', '"c""d"', '"e,f"'], ["a\nb", 'c"d', "e,f"]),
    "quotes amid values": (['5" pipe', "x", '"a\nb"', '6" pipe'], ['5" pipe', "x", "a\nb", '6" pipe']),
}


@pytest.mark.parametrize(("values", "wanted"), MIXED.values(), ids=MIXED)
@pytest.mark.parametrize("block", [1, 64, 1 << 20])
def test_blocks_of_any_size_give_one_table(
    written: Any, monkeypatch: pytest.MonkeyPatch, values: list[str], wanted: list[Any], block: int
) -> None:
    """What a column is depends on all of its values; where the file is cut plays no part, and rows stay whole."""
    monkeypatch.setattr(module, "BLOCK", block)
    rows = [f"{number},{value},{number / 4}\n" for number, value in enumerate(value for value in values for _ in range(30))]
    frame = read(written(("n,x,q\n" + "".join(rows)).encode()))

    assert frame["n"].tolist() == list(range(len(rows)))
    assert frame["q"].tolist() == [number / 4 for number in range(len(rows))]
    found = frame["x"].astype(object).where(frame["x"].notna(), None).tolist()
    assert found == [value for value in wanted for _ in range(30)]


def test_types_do_not_depend_on_which_block_is_parsed_first(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Halves, then whole numbers; beside them a column whose type changes where several blocks are at work."""
    monkeypatch.setattr(module, "BLOCK", 1 << 10)
    rows = [f"{number % 50 + (number < 60) / 2},{number % 7}{'.5' * (number > 400)}\n" for number in range(3000)]
    path = written(("x,y\n" + "".join(rows)).encode())

    assert {tuple(map(str, read(path).dtypes)) for _ in range(30)} == {("float32", "float64")}


@pytest.mark.parametrize("block", [1, 64])
def test_a_wrong_row_is_told_by_its_number_in_the_file(written: Any, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    with pytest.raises(DataError, match="Row #102: Expected 2 columns, got 3"):
        read(written(b"a,b\n" + b"1,2\n" * 100 + b"1,2,3\n" + b"1,2\n" * 100))


def test_types_come_from_the_whole_column(written: Any) -> None:
    """A column that turns to text in its last row, megabytes on, is text."""
    rows = b"".join(b"%d,%d\n" % (number, number) for number in range(200_000))
    frame = read(written(b"a,b\n" + rows + b"200000,late\n"))

    assert frame["a"].dtype == "int32"
    assert frame["b"].dtype == "str"
    assert frame["b"].iloc[[0, -1]].tolist() == ["0", "late"]


def test_missing_is_missing_and_words_stay_words(written: Any) -> None:
    frame = read(written(b'n,text\n1,\nNA,"NA"\nNaN,?\nnull,unknown\nn/a,None\n#N/A,<NA>\n2.5,""\n'))

    assert frame["n"].isna().tolist() == [False, True, True, True, True, True, False]
    assert frame["text"].isna().tolist() == [True, True, False, False, False, True, True]
    assert frame["text"].dropna().tolist() == ["?", "unknown", "None"]


@pytest.mark.parametrize(
    "same",
    [
        b"\xef\xbb\xbfa,b\n1,x\n2,y\n",
        b'"a","b"\n"1","x"\n"2","y"\n',
        b"a,b\r\n1,x\r\n2,y\r\n",
        b" a ,b\n1,x\n2,y\n\n",
        b"a,b\n\n1,x\n02,y\n",
    ],
    ids=["byte order mark", "quotes", "CRLF", "blanks around a name, a last empty line", "an empty line, a leading zero"],
)
def test_the_same_values_are_the_same_table(written: Any, same: bytes) -> None:
    pd.testing.assert_frame_equal(read(written(same)), read(written(b"a,b\n1,x\n2,y\n")))


def test_keys_stay_as_written(written: Any) -> None:
    frame = read(written(b"key, who,n\n007,1,1\n7,01,2\n123456789012345678901,1,3\n"), as_text=("key", "who"))

    assert frame["key"].tolist() == ["007", "7", "123456789012345678901"]
    assert frame["who"].tolist() == ["1", "01", "1"]
    assert frame["n"].dtype == "int32"


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (pa.array([2**60, 2**60 + 1, None]), ["1152921504606846976", "1152921504606846977"]),
        (pa.array([1.0, 1.5, None, float("nan")]), ["1.0", "1.5"]),
        (pa.array(["007", "7", "NA"]), ["007", "7"]),
        (pa.array([decimal.Decimal("1.50"), None]), ["1.50"]),
    ],
    ids=["integers", "floats as pandas writes them", "text", "decimals"],
)
def test_keys_in_parquet_are_the_text_that_csv_would_have(tmp_path: Path, keys: pa.Array, text: list[str]) -> None:
    frame = read(stored(tmp_path, keys), as_text=("x",))

    assert frame["x"].dropna().tolist() == text
    assert frame["x"].isna().sum() == len(keys) - len(text)


def test_a_quoted_value_may_hold_delimiters_and_lines(written: Any) -> None:
    assert read(written(b'a,b\n"1,5","two\nlines"\n'))["b"].tolist() == ["two\nlines"]


def test_times_with_a_zone_come_as_utc(written: Any) -> None:
    frame = read(written(b"t\n2024-01-31T10:00:00Z\n2024-01-31T10:00:00+02:00\n"))

    assert frame["t"].tolist() == [pd.Timestamp("2024-01-31 10:00"), pd.Timestamp("2024-01-31 08:00")]


def test_expected_rows_allow_a_last_row_without_newline(written: Any) -> None:
    assert len(read(written(b"a,b\n1,2\n3,4"), expected_rows=2)) == 2


@pytest.mark.parametrize(
    ("column", "kind", "value"),
    [
        (pa.array([decimal.Decimal("1.5")]), "float32", 1.5),
        (pa.array([0.1]), "float64", 0.1),
        (pa.array([None], pa.null()), "float64", None),
        (pa.array(["x"]).dictionary_encode(), "str", "x"),
        (pa.array(["x"], pa.large_string()), "str", "x"),
        (pa.array([dt.date(9999, 12, 31)]), "datetime64[us]", pd.Timestamp("9999-12-31")),
        (pa.array([1], pa.timestamp("ns", tz="Europe/Berlin")), "datetime64[ns]", pd.Timestamp(1)),
        (pa.array([dt.time(12, 30)]), "str", "12:30:00.000000"),
        (pa.array([True]), "boolean", True),
        (pa.array([7], pa.uint8()), "uint8", 7),
    ],
    ids=["decimal", "beyond float32", "null", "dictionary", "large text", "date", "zoned time", "time of day", "boolean", "small number"],
)
def test_parquet_types_become_number_text_boolean_or_time(tmp_path: Path, column: pa.Array, kind: str, value: Any) -> None:
    frame = read(stored(tmp_path, column))

    assert frame["x"].dtype == kind
    assert frame["x"].isna().all() if value is None else frame["x"].tolist() == [value]


@pytest.mark.parametrize(
    "values",
    [
        ["2024-01-31", "2024-01-31 10:00:00", None],
        ["2024-01-31T10:00:00Z", "2024-01-31T10:00:00+02:00"],
        ["a,b", 'two\n"lines"', "NA", None, "a,b"],
        ["1", "02", "n/a"],
        ["True", "False", None],
        ["12:30", "07:00"],
        ["NA", None],
    ],
    ids=["times", "times with a zone", "words", "numbers", "truths", "times of day", "nothing"],
)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_text_in_parquet_is_read_as_in_csv(tmp_path: Path, values: list[str | None], kind: pa.DataType) -> None:
    csv = tmp_path / "table.csv"
    pd.DataFrame({"x": values, "n": 1}).to_csv(csv, index=False)

    read_from_parquet = read(stored(tmp_path, pa.array(values, pa.string()).cast(kind)))
    pd.testing.assert_series_equal(read_from_parquet["x"], read(csv)["x"])


def test_the_row_names_of_pandas_are_no_column(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame({"a": [1, 2]}, index=[5, 3]).to_parquet(path)

    assert read(path).columns.tolist() == ["a"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "is empty."),
        (b"a,b\n", "has columns, but not one row."),
        (b"a,b\n1,2\n3,4", "ends without a newline after 2 lines"),
        (b"a,b\n1,2\n3,4,5\n", "Row #3: Expected 2 columns, got 3"),
        (b"a,b\n1,2\n3\n", "Row #3: Expected 2 columns, got 1"),
        (b'a,b\n1,"2\n3,4\n', "has 1 double quotes, an odd number"),
        (b"a,b,a\n1,2,3\n", "has 2 columns of the name 'a'"),
        (b"a,b, a\n1,2,3\n", "has 2 columns of the name 'a'"),
        (b"a,,c\n1,2,3\n", "column 2 has no name"),
        (b"a;b\n1;2\n", "has one column by the delimiter ','; its header holds ';'. Set prepare.delimiter"),
        (b"a,b\n1,caf\xe9\n", "line 2 is not UTF-8"),
        ("a,b\n1,é\n".encode("utf-16"), "is UTF-16, not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "line 1 has a NUL byte"),
        (b"a,b\n1,2\n3,\x00\n", "line 3 has a NUL byte"),
        (b"\x1f\x8b\x08\x00more", "is compressed by gzip"),
        (b"PK\x03\x04more", "is a zip or an Excel file"),
        (b"\xfd7zXZ\x00more", "is compressed by xz"),
        (b"\x28\xb5\x2f\xfdmore", "is compressed by zstd"),
        (b"BZh91AY&SYmore", "is compressed by bzip2"),
        (b"\xd0\xcf\x11\xe0more", "is an old Excel file"),
        (b"PAREmore", "is an encrypted Parquet file"),
        (b"ARROW1more", "is an Arrow file"),
        (b"SQLite format 3\x00", "is a database of SQLite"),
        (b"\xef\xbb\xbf\n <HTML lang=en>\n", "is a page of HTML"),
        (b'<?xml version="1.0"?>\n<rows/>\n', "is XML"),
        (b"version https://x/spec/v1\next-0-x sha256:1\noid sha256:4d\nsize 3\n", "is a pointer of Git LFS"),
        (b'[\n {"a": 1, "b": 2}]\n', "is JSON"),
        (b"\n\r\n\n", "holds nothing but empty lines"),
        (b"\r\r", "holds nothing but empty lines"),
        (b"a,b,1,1\n1,2,3,4\n", "has 2 columns of the name '1'. Rename them."),
        (b"39,no,7,no\n1,2,3,4\n", "has 2 columns of the name 'no'. Rename them. Some names, such as '39', are numbers, as if"),
        (b"id-01,b,id_01\n1,2,3\n", "has the columns 'id-01' and 'id_01', which are read as one name. Rename one."),
        (b"a,b\n1," + b"x" * 200_000 + b"\n", "column 'b' has a value of 200000 characters"),
        (b"PAR1", "is a damaged Parquet file"),
    ],
)
def test_what_is_wrong_is_named(written: Any, content: bytes, line: str) -> None:
    with pytest.raises(DataError) as caught:
        read(written(content))

    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("block", [1, 16, 1 << 20])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte order mark"])
def test_a_second_file_behind_the_first_is_told_by_its_line(written: Any, monkeypatch: pytest.MonkeyPatch, block: int, mark: bytes) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    one = mark + b'"a",b\r\n' + b"x,y\r\n" * 9
    problem = "begins with a byte order mark" if mark else "is the header again"

    with pytest.raises(DataError, match=f"line 11 {problem}, as if a second file stood behind the first. Remove what is too much."):
        read(written(one + one))


def test_a_value_may_be_the_name_of_its_column(written: Any) -> None:
    assert read(written(b"a\na\nb\n"))["a"].tolist() == ["a", "b"]
    assert read(written(b'"a","b"\na,b\n'))["b"].tolist() == ["b"]


def test_hyphens_in_names_are_read_as_underscores(written: Any, tmp_path: Path) -> None:
    """Keys are kept as text under either spelling, in Parquet, too."""
    csv = written(b"id-01, a-b ,c_d\n007,1,2\n")
    parquet = tmp_path / "other"
    pd.DataFrame({"id-01": ["007"], "a-b": [1], "c_d": [2]}).to_parquet(parquet)

    for path in (csv, parquet):
        with tempfile.TemporaryDirectory() as folder:
            table = module.read(path, Path(folder), as_text=("id_01",))
            assert (table.names, table.renamed) == (("id_01", "a_b", "c_d"), ("id-01", "a-b"))
            assert table.columns(table.names).iloc[0].tolist() == ["007", 1, 2]


def test_a_far_line_is_counted_over_all_blocks(written: Any) -> None:
    with pytest.raises(DataError, match="line 3000002 is not UTF-8"):
        read(written(b"a,b\n" + b"123,456\n" * 3_000_000 + b"1,\xff\n"))


def test_wrong_expected_rows_are_refused(written: Any) -> None:
    with pytest.raises(DataError, match=r"has 1 rows where prepare\.expected_rows says 2"):
        read(written(b"a\n1\n"), expected_rows=2)


@pytest.mark.parametrize(
    ("column", "line"),
    [
        (pa.array([[1]]), "column 'x' is of the type list"),
        (pa.array([b"\xff"]), "column 'x' is of the type binary"),
        (pa.array([2**62], pa.timestamp("ms")), "holds values beyond timestamp"),
    ],
)
def test_parquet_types_that_no_booster_reads_are_refused(tmp_path: Path, column: pa.Array, line: str) -> None:
    with pytest.raises(DataError, match=line):
        read(stored(tmp_path, column))


def test_parquet_text_that_is_no_utf8_is_damage(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers())

    with pytest.raises(DataError, match="is a damaged Parquet file"):
        read(stored(tmp_path, text))
