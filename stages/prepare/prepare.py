"""From a raw table to splits that any booster can read."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.common import contract, log
from stages.common.errors import DataError
from stages.common.step import Run
from stages.features import features as feature
from stages.features import history, own
from stages.features.features import RESERVED, Features, Roles, spoken
from stages.prepare import check, generate, ieee_cis
from stages.prepare.build import Rows, build
from stages.prepare.config import Config
from stages.prepare.join import join
from stages.prepare.matrix import Matrix
from stages.prepare.raw import Raw, in_memory
from stages.prepare.read import AT_ONCE, read
from stages.prepare.split import SPLITS, split

RAW = TABLE, JOINED = "table", "joined"  # raw files, and the folders of their blocks


def prepare(config: Config, run: Run) -> dict[str, Any]:
    """Read the table, check it, split it, fit the features on train alone, and write all splits by them."""
    table, notes = raw_table(config, run)
    with check.about(config.path or "the generated table"):
        check.check_names(table.names, config)
        rows, fitted_roles, odd = known_rows(config, table)
        notes += odd
        matrix = Matrix(run.folder / "matrix", len(table))
        source = own_source(run) if config.features_file else ""
        built = build(config, fitted_roles, table, rows, matrix, run.progress, source)
        check.check_features(built.features.names)
    if built.again:
        log.warning("prepare.time_again", columns=built.again)
        notes.append(f"with the event time alone rise or fall: {', '.join(built.again)}; a model cannot carry them into the future")
    beside = dict(zip(RESERVED, (rows.y, table.row, rows.times, rows.entities), strict=True))

    def write(numbered: tuple[int, str]) -> None:
        mine = np.flatnonzero(rows.part == numbered[0])
        there = {key: values for key, values in beside.items() if values is not None}
        matrix.write(run.out / f"{numbered[1]}.parquet", built.places, mine, there)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        written = pool.map(write, enumerate(SPLITS))
        for name in RAW:  # blocks that were read for the last time; to take them away takes time, too
            pool.submit(shutil.rmtree, run.folder / name, ignore_errors=True)
        list(written)
    (run.out / "features.json").write_bytes(contract.dump(built.features.to_json()))
    (run.out / "data.json").write_bytes(contract.dump(description(config, built.features, rows, notes)))
    return {"rows": len(table), "positives": int(rows.y.sum()), "features": len(built.features.names)}


def raw_table(config: Config, run: Run) -> tuple[Raw, list[str]]:
    """Give the raw table, or a sample of it, and notes on how it came."""
    notes: list[str] = []
    if config.source == "generated":
        table, notes = generated(config)
    else:
        keys = tuple(column for column in (config.id, config.entity) if column)
        with check.about(str(config.path)):
            table = read(
                run.source("table"), run.folder / TABLE, delimiter=config.delimiter, expected_rows=config.expected_rows, as_text=keys
            )
            notes += hyphens(table)
            run.confirm("table")
    if config.join_path and "joined" not in run.pinned.raw:
        notes.append("the second table, prepare.join_path, was not there: its columns are missing")
    elif config.join_path and config.id and config.id in table.names:  # where it is not, that is refused a moment later
        with check.about(config.join_path):
            other = read(run.source("joined"), run.folder / JOINED, delimiter=config.delimiter, as_text=(config.id,))
            notes += hyphens(other)
            run.confirm("joined")
            table, note = join(table, other, config.id)
            notes.append(note)
    if config.sample_size and config.sample_size < len(table):
        chosen = np.random.default_rng(config.seed).choice(len(table), config.sample_size, replace=False)
        table = table.take(np.sort(chosen))
    return table, notes


def generated(config: Config) -> tuple[Raw, list[str]]:
    """Make the table that the config names."""
    if config.generated_table == "payments":
        return in_memory(generate.table(config.generated_rows, config.generated_seed)), []
    first, second = map(in_memory, ieee_cis.tables(config.generated_rows, config.generated_seed))
    table, note = join(first, second, "TransactionID")
    return table, [note]


def hyphens(table: Raw) -> list[str]:
    """Note whose names were written with hyphens."""
    names = ", ".join(table.renamed[:3]) + (", …" if len(table.renamed) > 3 else "")
    return [f"hyphens were read as underscores in {len(table.renamed)} names: {names}"] if table.renamed else []


def own_source(run: Run) -> str:
    """Read the file of the user's own features.

    Raises:
        DataError: it is no text, or names no feature.

    """
    try:
        source = run.source("features").read_text(encoding="utf-8")
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise DataError(f"prepare.features_file: is not one Python file in UTF-8 ({type(error).__name__}).") from error
    own.names(source)
    return source


def known_rows(config: Config, table: Raw) -> tuple[Rows, Roles, list[str]]:
    """Check the columns that have a role; give labels, times, who acts, each row's split, what features are made of, and notes."""
    keys = [raw for key in config.keys.values() for raw in key]
    asked = [config.label, config.time, config.entity, config.amount, *config.start_days, *keys]
    known = table.columns(list(dict.fromkeys(column for column in asked if column)))
    check.check_finite(known)
    positive, negative, y = check.check_label(known[config.label], config.positive)
    times = check.event_times(known[config.time]) if config.time else None
    entities = entity_names(known[config.entity]) if config.entity else None  # a random split keeps them together
    odd = [check.check_entity(known[config.entity])] if config.entity else []
    if config.id:
        check.check_ids(table.columns([config.id])[config.id])
    else:
        odd.append(check.check_copies(table, config.split))
    part = split(config, times, entities, len(table))
    if times is not None:
        odd.append(check.check_unit(known[config.time], config.time_unit))
        odd.append(check.check_ripe(config, pd.api.types.is_numeric_dtype(known[config.time]), times, y, part))
    labels = {name: y[part == number] for number, name in enumerate(SPLITS) if name != "calibration"}  # that may be small
    check.check_splits(labels, config.split, config.min_per_class)
    check.check_amounts(known, config)
    odd += [check.few_positives(y[part == number], name) for number, name in enumerate(SPLITS) if name in ("valid", "test")]
    made_of = roles(config, positive, negative)
    if entities is None and made_of.keys:  # judging goes by who acts, too: by the first key
        entities = together(feature.acting(known, made_of, made_of.keys[0][0]))
    return Rows(known, y, times, entities, part), made_of, [note for note in odd if note]


def together(parts: list[pd.Series]) -> NDArray[np.object_]:
    """Name who acts by several columns as one text; None where one of them is missing."""
    codes, numbers = pd.factorize(history.entities(parts))
    first = np.flatnonzero(~pd.Series(codes).duplicated().to_numpy())  # of each, in the order of the numbers
    words = (map(str, part.iloc[first]) for part in parts)
    names = [None if number < 0 else "|".join(word) for number, *word in zip(numbers, *words, strict=True)]
    return np.array(names, dtype=object)[codes]


def roles(config: Config, positive: str, negative: str) -> Roles:
    """Say what features are made of; the entity is a key of its own."""
    assert config.label
    entity = {"entity": [config.entity]} if config.entity and [config.entity] not in config.keys.values() else {}
    keys = entity | config.keys if config.time else {}
    return Roles(
        label=config.label,
        positive=positive,
        negative=negative,
        time=config.time,
        id=config.id,
        entity=config.entity,
        drop=tuple(config.drop),
        time_unit=config.time_unit,
        amount=config.amount,
        keys=tuple((name, tuple(columns)) for name, columns in keys.items()),
        start_days=tuple(config.start_days),
        label_delay_days=config.label_delay_days,
        engineered=tuple(config.engineered),
    )


def entity_names(values: pd.Series) -> NDArray[np.object_]:
    """Give entities as text; where none is known, None."""
    codes, entities = pd.factorize(values)
    return np.array([*map(spoken, entities), None], dtype=object)[codes]


def description(config: Config, features: Features, rows: Rows, notes: list[str]) -> dict[str, Any]:
    """Describe the table for people and reports: sizes, spans, and what was decided on the way."""
    sizes: dict[str, Any] = {}
    for number, name in enumerate(SPLITS):
        mine = rows.part == number
        sizes[name] = {"rows": int(mine.sum()), "positives": int(rows.y[mine].sum())}
        if rows.times is not None and mine.any():  # the calibration part may be empty
            sizes[name] |= {"first": rows.times[mine].min().item(), "last": rows.times[mine].max().item()}
    notes = [*notes, f"{len(features.dropped)} of the raw columns are no features: {', '.join(name for name, _ in features.dropped)}"]
    if config.positive is None:
        notes.append(f"{features.roles.positive!r} was taken for the positive label: prepare.positive names none")
    return {
        "rows": sum(size["rows"] for size in sizes.values()),
        "positives": sum(size["positives"] for size in sizes.values()),
        "split": config.split,
        "splits": sizes,
        "notes": notes,
    }
