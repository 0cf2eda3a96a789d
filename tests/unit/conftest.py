"""A small pipeline in which train is done: its store is made once and copied for each test."""

import shutil
from pathlib import Path

import pytest

from stages.common.store import open_store
from stages.validate import validate
from tests.unit.pipelines import Pipeline, honest_table, new_pipeline


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train once for all tests."""
    folder = tmp_path_factory.mktemp("trained")
    new_pipeline(folder, honest_table()).until("train")
    return folder


@pytest.fixture
def pipeline(trained_once: Path, tmp_path: Path) -> Pipeline:
    """Give a pipeline of its own in which train is done."""
    shutil.copytree(trained_once, tmp_path / "trained")
    return Pipeline(tmp_path / "trained", open_store(str(tmp_path / "trained" / "store")))


@pytest.fixture(scope="session")
def accepted_once(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Judge once for all tests."""
    folder = tmp_path_factory.mktemp("accepted") / "accepted"
    shutil.copytree(trained_once, folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(validate, "_peak_mb", lambda _: 200.0)
        Pipeline(folder, open_store(str(folder / "store"))).until("validate")
    return folder


@pytest.fixture
def accepted(accepted_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Give a pipeline of its own whose model is accepted; judging more of them there takes no second."""
    monkeypatch.setattr(validate, "_peak_mb", lambda _: 200.0)
    monkeypatch.setattr(validate, "_p99_ms", lambda *_: 2.0)
    shutil.copytree(accepted_once, tmp_path / "accepted")
    return Pipeline(tmp_path / "accepted", open_store(str(tmp_path / "accepted" / "store")))
