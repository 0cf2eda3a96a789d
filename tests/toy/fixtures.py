"""Fixtures of tests that use the toy: import ``toy`` and what it names."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.common.store import open_store
from tests.toy import work
from tests.toy.pipeline import Pipeline


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Pipeline]:
    """Give the toy over an empty folder."""
    (tmp_path / "toy.yaml").write_text("toy: {value: 1}\n")
    # A patch of its own: what a test adds to the toy's steps with its monkeypatch is undone before.
    with pytest.MonkeyPatch.context() as patch, work.installed():
        patch.setenv("TOY_CALLS", str(tmp_path / "calls"))
        yield Pipeline(tmp_path / "toy.yaml", open_store(str(tmp_path / "store")))
