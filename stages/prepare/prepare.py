"""From a raw table to splits that any booster can read."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.common import contract, log
from stages.common.step import Run
from stages.features import features as feature
from stages.features.features import Features, Roles, Table, spoken
from stages.prepare import check, generate, leaks
from stages.prepare.config import Config
from stages.prepare.join import join
from stages.prepare.read import read
from stages.prepare.split import SPLITS, split


def prepare(config: Config, run: Run) -> dict[str, Any]:
    """Read the table, check it, split it, fit the features on train alone, and write all splits by them."""
    assert config.label
    frame, notes = raw_table(config, run)
    with check.about(config.path or "the generated table"):
        check.check_names(frame, config)
        check.check_finite(frame.drop(columns=config.drop))
        positive, negative, y = check.check_label(frame[config.label], config.positive)
        times = check.event_times(frame[config.time]) if config.time else None
        entities = entity_names(frame[config.entity]) if config.entity else None
        if config.id:
            check.check_ids(frame[config.id])
        part = split(config, times, entities, len(frame))
        labels = {name: y[part == number] for number, name in enumerate(SPLITS) if name != "calibration"}  # that may be small
        check.check_splits(labels, config.split, config.min_per_class)
        named = [column for column in (config.label, config.time, config.id, config.entity, *config.drop) if column]
        check.check_numbers(frame.drop(columns=named))
        check.check_amounts(frame, config)
        features = feature.fit(frame[part == SPLITS.index("train")], roles(config, positive, negative), config.max_categories)
        check.check_features(features.names)

        matrix = feature.apply(features, frame)  # of all rows: what a row's entity did before may stand in another split
        is_train = part == SPLITS.index("train")
        leaks.check_columns(matrix[is_train], y[is_train], config.max_column_auc, config.allow, features)
        leaks.check_future(features, frame, matrix, times)
    if again := leaks.times_again(matrix, times, features):
        log.warning("prepare.time_again", columns=again)
        notes.append(f"with the event time alone rise or fall: {', '.join(again)}; a model cannot carry them into the future")
    splits = {}
    for number, name in enumerate(SPLITS):
        mine = part == number
        beside = [None if values is None else values[mine] for values in (times, entities)]
        splits[name] = Table(matrix[mine], y[mine], frame.index[mine].to_numpy(dtype=np.int64), *beside)
        feature.write(splits[name], run.out / f"{name}.parquet")
        run.progress(number + 1, len(SPLITS))
    (run.out / "features.json").write_bytes(contract.dump(features.to_json()))
    (run.out / "data.json").write_bytes(contract.dump(description(config, features, splits, notes)))
    return {"rows": len(frame), "positives": int(y.sum()), "features": len(features.names)}


def raw_table(config: Config, run: Run) -> tuple[pd.DataFrame, list[str]]:
    """Give the raw table, or a sample of it, and notes on how it came; the index is the row's number in the file."""
    notes = []
    if config.source == "generated":
        frame = generate.table(config.generated_rows, config.generated_seed)
    else:
        keys = tuple(column for column in (config.id, config.entity) if column)
        with check.about(str(config.path)):
            frame = read(run.source("table"), delimiter=config.delimiter, expected_rows=config.expected_rows, as_text=keys)
            run.confirm("table")
    if config.join_path and "joined" not in run.pinned.raw:
        notes.append("the second table, prepare.join_path, was not there: its columns are missing")
    elif config.join_path and config.id and config.id in frame:  # where it is not, that is refused a moment later
        with check.about(config.join_path):
            other = read(run.source("joined"), delimiter=config.delimiter, as_text=(config.id,))
            run.confirm("joined")
            frame, note = join(frame, other, config.id)
            notes.append(note)
    if config.sample_size and config.sample_size < len(frame):
        chosen = np.random.default_rng(config.seed).choice(len(frame), config.sample_size, replace=False)
        frame = frame.iloc[np.sort(chosen)]
    return frame, notes


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


def description(config: Config, features: Features, splits: dict[str, Table], notes: list[str]) -> dict[str, Any]:
    """Describe the table for people and reports: sizes, spans, ranges in train, and what was decided on the way."""
    train = splits["train"].X
    columns: dict[str, Any] = {}
    for column in features.columns:
        values = train[column.name]
        span = {"categories": len(column.categories)} if column.categories else {"min": float(values.min()), "max": float(values.max())}
        columns[column.name] = {"missing": int(values.isna().sum()), **span}
    sizes: dict[str, Any] = {name: {"rows": len(table.y), "positives": int(table.y.sum())} for name, table in splits.items()}
    for name, table in splits.items():
        if table.time is not None and len(table.time):  # the calibration part may be empty
            sizes[name] |= {"first": table.time.min().item(), "last": table.time.max().item()}
    notes = [*notes, f"{len(features.dropped)} of the raw columns are no features: {', '.join(name for name, _ in features.dropped)}"]
    if config.positive is None:
        notes.append(f"{features.roles.positive!r} was taken for the positive label: prepare.positive names none")
    return {
        "rows": sum(size["rows"] for size in sizes.values()),
        "positives": sum(size["positives"] for size in sizes.values()),
        "split": config.split,
        "splits": sizes,
        "columns": columns,  # as in train
        "notes": notes,
    }
