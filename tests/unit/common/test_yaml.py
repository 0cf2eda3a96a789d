"""What a person sees is what is read; what could be seen in two ways is refused with its place."""

import math
import time
from typing import Any

import pytest

from stages.common import yaml
from stages.common.errors import ConfigError

READ: dict[str, Any] = {
    "1e-3": 0.001,
    "1E3": 1000.0,
    "-2.5e+3": -2500.0,
    ".5": 0.5,
    "1.": 1.0,
    "0": 0,
    "-7": -7,
    "+7": 7,
    "true": True,
    "False": False,
    "null": None,
    "~": None,
    "": None,
    # Words, whatever YAML 1.1 made of them.
    "no": "no",
    "on": "on",
    "yes": "yes",
    "y": "y",
    "12:30": "12:30",
    "12:30:00": "12:30:00",
    "1_000": "1_000",
    "0x10": "0x10",
    "0o10": "0o10",
    "0b1": "0b1",
    "2024-01-31": "2024-01-31",
    "2024-01-31T12:00:00Z": "2024-01-31T12:00:00Z",
    ".nan": ".nan",
    ".inf": ".inf",
    "NaN": "NaN",
    "1.2.3": "1.2.3",
    "tRuE": "tRuE",
    "=": "=",
    # 007 and 7 are two keys; nobody writes a number so.
    "010": "010",
    "-010": "-010",
    "00": "00",
    "01.5": "01.5",
    '"7"': "7",
    "'true'": "true",
    '"a\\nb"': "a\nb",
    "[1, 2]": [1, 2],
    "{a: {b: 1}}": {"a": {"b": 1}},
    "a: |\n  two\n  lines\n": {"a": "two\nlines\n"},
    "<<: 1": {"<<": 1},
    "# only a comment": None,
    "\ufeffa: 1": {"a": 1},
    "a: 1\r\nb: 2\r\n": {"a": 1, "b": 2},
}


@pytest.mark.parametrize(("text", "value"), READ.items(), ids=repr)
def test_a_value_is_what_it_looks_like(text: str, value: Any) -> None:
    found = yaml.load(text, "f")
    assert found == value
    assert type(found) is type(value)
    assert yaml.load(text.encode(), "f") == value


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "bomb": (BOMB, "f: line 1, column 4: anchors and aliases are not allowed."),
    "anchor on a mapping": ("a: &x {b: 1}", "f: line 1, column 4: anchors and aliases are not allowed."),
    "anchor on a word": ("a: &x 1", "f: line 1, column 4: anchors and aliases are not allowed."),
    "alias": ("a: 1\nb: *a\n", "f: line 2, column 4: anchors and aliases are not allowed."),
    "python object": (
        "a: !!python/object/apply:os.system [ls]",
        "f: line 1, column 4: tags are not allowed (tag:yaml.org,2002:python/object/apply:os.system).",
    ),
    "tag on a word": ("a: !!str 1", "f: line 1, column 4: tags are not allowed (tag:yaml.org,2002:str)."),
    "own tag": ("a: !mine 1", "f: line 1, column 4: tags are not allowed (!mine)."),
    "tag on a key": ("!!str a: 1", "f: line 1, column 1: tags are not allowed (tag:yaml.org,2002:str)."),
    "duplicate key": ("a: 1\nb: 2\na: 3\n", "f: line 3, column 1: key 'a' stands twice."),
    "duplicate key below": ("a:\n  b: 1\n  'b': 2\n", "f: line 3, column 3: key 'b' stands twice."),
    "duplicate key in a list": ("[{a: 1, a: 2}]", "f: line 1, column 9: key 'a' stands twice."),
    "number as key": ("1: a", "f: line 1, column 1: a key must be a word, not '1'."),
    "boolean as key": ("true: a", "f: line 1, column 1: a key must be a word, not 'true'."),
    "list as key": ("? [a, b]\n: 1", "f: line 1, column 3: a key must be a word, not a list or a mapping."),
    "nothing as key": ("? \n: 1", "f: line 1, column 2: a key must be a word, not ''."),
    "deep list": ("[" * 21 + "]" * 21, "f: line 1, column 21: nested deeper than 20."),
    "deep mapping": ("{a: " * 21 + "1" + "}" * 21, "f: line 1, column 78: nested deeper than 20."),
    "endless": ("[" * 100_000, "f: line 1, column 21: nested deeper than 20."),
    "large": ("#" * 300_000, "f: more than 262144 bytes: this is no config file."),
    "two documents": ("a: 1\n---\nb: 2\n", "f: line 2, column 1: but found another document."),
    "tab": ("a:\n\tb: 1\n", "f: line 2, column 1: found character '\\t' that cannot start any token."),
    "latin-1": ("a: é".encode("latin-1"), "f: not UTF-8 (byte 3). Save it as UTF-8."),
    "utf-16": ("a: b".encode("utf-16"), "f: not UTF-8 (byte 0). Save it as UTF-8."),
    "nul": (b"a: b\0c", "f: unacceptable character #x0000: special characters are not allowed."),
    "nul by escape": ('a: "b\\0c"', "f: line 1, column 4: 'b\\x00c' holds a character that is no text."),
    "half a character by escape": ('a: "\\ud800"', "f: line 1, column 4: '\\ud800' holds a character that is no text."),
    "not closed": ('a: "b', "f: line 1, column 6: found unexpected end of stream."),
    "list not closed": ("a: [1, 2\nb: 3\n", "f: line 2, column 2: expected ',' or ']', but got ':'."),
    "two colons": ("a: b: c", "f: line 1, column 5: mapping values are not allowed here."),
    "too large a number": ("a: 1e999", "f: line 1, column 4: 1e999 is larger than any number that a computer keeps."),
    "too long a number": ("a: " + "9" * 5000, "f: line 1, column 4: 99999999999999999999 is larger than any number that a computer keeps."),
    "yaml of the future": ("%YAML 3.0\n---\na: 1\n", "f: line 1, column 1: found incompatible YAML document (version 1.* is required)."),
}


@pytest.mark.parametrize(("text", "line"), REFUSED.values(), ids=REFUSED)
def test_what_can_be_misread_is_refused_at_its_place_and_at_once(text: str | bytes, line: str) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError) as raised:
        yaml.load(text, "f")
    assert str(raised.value) == line
    assert time.monotonic() - started < 3


def test_the_deepest_and_the_largest_that_are_allowed_are_read() -> None:
    assert yaml.load("[" * yaml.MAX_DEPTH + "]" * yaml.MAX_DEPTH, "f")
    assert yaml.load("a: 1 #" + "#" * (yaml.MAX_BYTES - 6), "f") == {"a": 1}


def test_no_number_is_read_that_json_cannot_write() -> None:
    assert math.isfinite(yaml.load("1.7976931348623157e308", "f"))
    with pytest.raises(ConfigError, match="larger than any number"):
        yaml.load("-1.8e308", "f")
