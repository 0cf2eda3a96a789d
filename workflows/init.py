"""Guess a config for a table, with the reason beside each guess."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from stages.common.errors import MissingInput, UsageError
from stages.common.raw import shown
from stages.prepare import check
from stages.prepare.config import plain_name
from stages.prepare.raw import in_memory
from stages.prepare.read import read

LABELS = (
    *("label", "target", "y", "class", "isfraud", "fraud", "txfraud", "fraudbool", "fraudflag", "default", "churn", "churned", "income"),
    *("outcome", "response", "converted", "bad"),
)
TIMES = {"date", "time", "datetime", "timestamp", "ts", "dt", "step"}
OTHER_TIMES = {"birth", "born", "dob", "signup", "opened", "joined", "expiry", "expires", "valid", "due", "end"}
IDS = {"id", "uuid", "guid", "key", "no", "nr", "number", "index"}
ENTITIES = {"customer", "cust", "client", "user", "account", "card", "member", "patient"}


class Guess(NamedTuple):
    """A value for one option and why it was taken."""

    value: Any
    reason: str


def init_file(path: Path, out: Path, *, force: bool = False, **asked: Any) -> None:
    """Write a guessed config to ``out``; ``asked`` as for ``guess``.

    Raises:
        UsageError: ``out`` holds something else, a named column is not there, or the label cannot be guessed.
        DataError: the table is not one to learn from.
        MissingInput: there is no such table.

    """
    text = guess(path, beside=out.parent, **asked)
    if out.exists() and not force and out.read_text(encoding="utf-8") != text:
        raise UsageError(f"{out} is there and differs from what would be written. Choose another --out, or replace it with --force.")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")


def guess(path: Path, *, drop: tuple[str, ...] = (), split: str | None = None, beside: Path = Path("configs"), **roles: str | None) -> str:
    """Give the YAML of a config; ``roles`` are label, time, id and entity where the user names them, ``beside`` is the config's folder."""
    named = {role: Guess(plain_name(column), f"given as --{role}") for role, column in roles.items() if column is not None}
    drop = tuple(map(plain_name, drop))
    delimiter = _delimiter(path)
    with check.about(str(path)):
        frame = _read(path, delimiter)
        for option, column in [*((role, one.value) for role, one in named.items()), *(("drop", column) for column in drop)]:
            if column not in frame:
                raise UsageError(f"--{option} {column!r} is no column of {path}; nearest: {check.nearest(column, map(str, frame))!r}.")
        keys = [named[role].value for role in ("id", "entity") if role in named]
        check.check_finite(frame.drop(columns=[*drop, *keys]))
        guesses: dict[str, Guess] = {}
        free = frame.drop(columns=[*(one.value for one in named.values()), *drop])
        for role, guessed in (("label", _label), ("time", _time), ("id", _id), ("entity", _entity)):
            guesses[role] = named[role] if role in named else guessed(free)
            free = free.drop(columns=[guesses[role].value] if guesses[role].value in free else [])
            if role == "label":
                guesses["positive"] = _positive(frame[guesses["label"].value])
        if time := guesses["time"].value:
            check.event_times(frame[time])
        if key := guesses["id"].value:
            check.check_ids(_read(path, delimiter, key)[key])
        else:
            check.check_copies(in_memory(frame), "")
        if entity := guesses["entity"].value:
            check.check_entity(frame[entity])
        drops = [Guess(column, "given as --drop") for column in drop] + _drops(free, frame[time] if time else None)
        check.check_numbers(free.drop(columns=[one.value for one in drops], errors="ignore"))
    by_time = Guess("time", "trained on what came before, tested on what came later")
    at_random = Guess("random", "there is no event time; if the file is in order of time, say order")
    guesses["split"] = Guess(split, "given as --split") if split else by_time if time else at_random
    return _yaml(f"{len(frame)} rows and {len(frame.columns)} columns", _place(path, beside, delimiter) | guesses, drops)


def _read(path: Path, delimiter: str, *keys: str) -> pd.DataFrame:
    with tempfile.TemporaryDirectory(prefix="surefoot-") as folder:
        table = read(path, Path(folder), delimiter=delimiter, as_text=keys)
        return table.columns(keys or table.names)


def _words(name: Any) -> set[str]:
    """Give the words of a column's name: TransactionDT and tx_date hold dt and date."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", str(name))}


def _also(names: list[str]) -> str:
    return f"; also possible: {', '.join(names)}" if names else ""


def _label(frame: pd.DataFrame) -> Guess:
    plain = {str(column): re.sub(r"[^a-z]", "", str(column).lower()) for column in frame}
    usual = sorted((column for column in plain if plain[column] in LABELS), key=lambda column: LABELS.index(plain[column]))
    two = [column for column in plain if frame[column].nunique() == 2 and not frame[column].hasnans]
    if found := [column for column in usual if column in two]:
        return Guess(found[0], "a usual name for a label, with two values" + _also(found[1:]))
    if broken := usual if not two else [column for column in usual if column == frame.columns[-1]]:
        return Guess(broken[0], "a usual name for a label")  # refused a moment later by what is wrong with it
    if two and (len(two) == 1 or two[-1] == frame.columns[-1]):
        return Guess(two[-1], f"the {'only' if len(two) == 1 else 'last'} column, with two values" + _also(two[:-1]))
    candidates = f"Those with two values: {', '.join(two[:20])}" if two else "None has exactly two values and none missing"
    raise UsageError(f"cannot tell which column is the label. {candidates}. Name it: --label COLUMN.")


def _positive(label: pd.Series) -> Guess:
    positive, negative, y = check.check_label(label, None)
    why = "a usual word for it" if check.is_usual(positive, negative) else "the rarer value"
    value = json.loads(positive) if types.is_numeric_dtype(label) else positive  # booleans count as numeric
    return Guess(value, f"{why}: {y.sum()} rows, against {len(y) - y.sum()} with {negative!r}")


def _time(frame: pd.DataFrame) -> Guess:
    times = [str(column) for column in frame if types.is_datetime64_any_dtype(frame[column]) and not frame[column].hasnans]
    if events := [column for column in times if not _words(column) & OTHER_TIMES]:
        events.sort(key=lambda column: (not frame[column].is_monotonic_increasing, -frame[column].nunique()))
        return Guess(events[0], "holds times" + _also(events[1:]))
    for column in map(str, frame):
        if _words(column) & TIMES and _rises(frame[column]):
            return Guess(column, "numbers that rise from row to row, with a name for times")
    return Guess(None, "no column of event times was found" + _also(times))


def _rises(values: pd.Series) -> bool:
    return bool(types.is_numeric_dtype(values) and values.is_monotonic_increasing and values.nunique() > 10)


def _names_rows(values: pd.Series) -> bool:
    """Tell whether each row has a value of its own that is a key by its name, or counts the rows."""
    if types.is_float_dtype(values) or types.is_datetime64_any_dtype(values) or values.hasnans or not values.is_unique:
        return False
    return bool(_words(values.name) & IDS) or (types.is_integer_dtype(values) and values.max() - values.min() == len(values) - 1)


def _id(frame: pd.DataFrame) -> Guess:
    found = [str(column) for column in frame if _names_rows(frame[column])]
    return Guess(found[0], "has another value in each row") if found else Guess(None, "no column names the rows")


def _entity(frame: pd.DataFrame) -> Guess:
    for column in map(str, frame):
        words, distinct = _words(column), frame[column].nunique()
        if words & ENTITIES and (words & IDS or len(words) == 1) and 20 < distinct < 0.9 * len(frame):
            return Guess(column, f"who acts, by its name: {distinct} of them in {len(frame)} rows")
    return Guess(None, "no column says who acts; rows are taken to be independent")


def _drops(frame: pd.DataFrame, time: pd.Series | None) -> list[Guess]:
    """Leave out what names the rows as well, and what is the time again."""
    drops = [Guess(str(column), "names the rows as well") for column in frame if _names_rows(frame[column])]
    if time is not None:
        order = np.argsort(time.to_numpy(), kind="stable")
        again = [str(column) for column in frame.drop(columns=[one.value for one in drops]) if _rises(frame[column].iloc[order])]
        drops += [Guess(column, f"the time again: it rises with {time.name}") for column in again]
    return drops


def _delimiter(path: Path) -> str:
    """Tell by a file's header, or by that of a folder's first file."""
    files = [path] if path.is_file() else shown(path)
    if not files:
        problem = "the folder holds no file" if path.is_dir() else "there is no such file"
        raise MissingInput(f"{path}: {problem}. Give surefoot init a CSV or Parquet file, or a folder of such files.")
    with files[0].open("rb") as file:
        header = file.readline(1 << 16)
    return "," if header.startswith(b"PAR1") else max(",;\t|", key=lambda mark: header.count(mark.encode()))


def _place(path: Path, beside: Path, delimiter: str) -> dict[str, Guess]:
    place = {
        "source": Guess("file", "your own table"),
        "path": Guess(os.path.relpath(path.resolve(), beside.resolve()), "seen from here"),
    }
    return place | ({"delimiter": Guess(delimiter, "what the header holds most of")} if delimiter != "," else {})


def _yaml(size: str, options: dict[str, Guess], drops: list[Guess]) -> str:
    def said(one: Guess) -> str:
        printable = isinstance(one.value, str) and one.value.isprintable()
        return f"{json.dumps(one.value, ensure_ascii=not printable)}  # {' '.join(one.reason.split())}"

    lines = [
        f"# A guess by `surefoot init` from {size}: each line gives its reason. Correct what is wrong.",
        "prepare:",
        *(f"  {name}: {said(one)}" for name, one in options.items()),
        "  drop:" if drops else "  drop: []  # all other columns may become features",
        *(f"    - {said(one)}" for one in drops),
        "search:",
        "  n_trials: 20  # a first answer in minutes; without this line the profile's number holds (production: 500)",
    ]
    return "\n".join(lines) + "\n"
