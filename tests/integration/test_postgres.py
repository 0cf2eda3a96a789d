"""A study in a real Postgres, as the cluster has it."""

from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from stages.search import study


def test_a_study_is_kept_there(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address names no driver: `postgresql://` is what people write, and means psycopg 3 to SQLAlchemy."""
    monkeypatch.setenv("SUREFOOT_STUDY", postgres)
    run: Any = SimpleNamespace(store=SimpleNamespace(address="s3://bucket/store"))
    made = optuna.create_study(study_name="one", storage=study.storage(run, create=True))
    made.tell(made.ask(), 0.5)

    found = optuna.load_study(study_name="one", storage=study.storage(run))
    assert [trial.value for trial in found.trials] == [0.5]
