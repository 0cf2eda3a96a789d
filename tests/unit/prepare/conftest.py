"""Prepare through the real life of a step, in this process, into a store of its own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from stages.common import config, step
from stages.common.address import Addresses
from stages.common.artifact import Artifact
from stages.common.store import open_store
from stages.features.features import Features, Table, read
from stages.prepare import generate


class Prepared(NamedTuple):
    """What prepare left."""

    outputs: dict[str, Any]
    files: dict[str, str]  # name: SHA-256
    data: dict[str, Any]
    features: Features
    train: Table
    valid: Table
    calibration: Table
    test: Table


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., Prepared]:
    """Give ``prepare(path=None, **options)``; each call has an empty store."""
    calls = 0

    def prepare(path: Path | None = None, **options: Any) -> Prepared:
        nonlocal calls
        calls += 1
        source = {"source": "file", "path": str(path)} if path else {"source": "generated"}
        given = tmp_path / f"config-{calls}.yaml"
        given.write_text(json.dumps({"prepare": source | options}))
        store = open_store(str(tmp_path / f"store-{calls}"))
        addresses = Addresses(step.pin(config.load(given, environment={}), store), store)
        outputs = step.run_step("prepare", {}, addresses)
        manifest = addresses.find("prepare", {})
        assert manifest
        artifact = Artifact(store, manifest, tmp_path / f"scratch-{calls}")
        features = Features.from_json(artifact.read_json("features.json"))
        splits = [read(artifact.path(f"{name}.parquet"), features) for name in ("train", "valid", "calibration", "test")]
        digests = {name: file["sha256"] for name, file in manifest.files.items()}
        return Prepared(outputs, digests, artifact.read_json("data.json"), features, *splits)

    return prepare


@pytest.fixture(scope="session")
def payments() -> pd.DataFrame:
    """Give a generated table of 2,000 payments."""
    return generate.table(2_000, seed=3)


@pytest.fixture
def csv(tmp_path: Path) -> Callable[[pd.DataFrame], Path]:
    """Give ``csv(frame)``, which writes a table and gives its path."""

    def csv(frame: pd.DataFrame) -> Path:
        path = tmp_path / "table.csv"
        frame.to_csv(path, index=False)
        return path

    return csv
