"""A database that goes away for a moment: a real Postgres, restarted and broken."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

from stages.common import checkpoint, database, log
from stages.common.errors import Interrupted
from stages.search import patience
from stages.search.patience import patiently
from stages.search.slots import Claim, Slots, immediate
from tests import servers


@pytest.fixture
def engine(postgres: str) -> Iterator[sqlalchemy.Engine]:
    """Give an engine with the search's own options."""
    made = sqlalchemy.create_engine(postgres.replace("postgresql:", "postgresql+psycopg2:"), pool_pre_ping=True)
    yield made
    made.dispose()


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give what was said of a database that was away; pauses are short."""
    said: list[str] = []
    monkeypatch.setattr(patience, "PAUSES", (0.2,) * 100)
    monkeypatch.setattr(log, "warning", lambda event, **fields: said.append(f"{event}: {fields['error']}"))
    return said


def ask(engine: sqlalchemy.Engine, statement: str) -> object:
    with engine.begin() as connection:
        return connection.execute(text(statement)).scalar_one()


def test_a_statement_that_a_restart_breaks_is_made_again(tmp_path: Path, away: list[str]) -> None:
    (tmp_path / "server").mkdir()
    try:
        server = servers.PostgresServer(tmp_path / "server")
    except servers.Missing as error:
        pytest.skip(f"{error}: no database was restarted")
    with server:
        made = sqlalchemy.create_engine(server.address.replace("postgresql:", "postgresql+psycopg2:"), connect_args=database.PATIENCE)

        def restart() -> None:
            server.stop(signal.SIGQUIT)
            server.start()

        thread = threading.Timer(1, restart)
        thread.start()
        assert patiently(made, lambda: ask(made, "SELECT 1 FROM pg_sleep(3)")) == 1
        thread.join()
    assert away


def test_a_transaction_that_is_left_alone_ends_and_is_made_again(postgres: str, away: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker sleeps, or its machine is gone: the others go on, and if it wakes up, it does, too."""
    monkeypatch.setattr(database, "LIMITS", database.LIMITS.replace("30000", "1000"))
    first, second = (sqlalchemy.create_engine("postgresql+psycopg2://", creator=lambda: database.session(postgres)) for _ in range(2))
    with first.begin() as connection:
        connection.execute(text("CREATE TABLE locked AS SELECT 1 AS one"))
    sleeps = [True]

    def asleep() -> object:
        with first.begin() as connection:
            connection.execute(text("SELECT one FROM locked FOR UPDATE"))
            if sleeps:
                sleeps.clear()
                began = time.monotonic()
                assert ask(second, "SELECT one FROM locked FOR UPDATE") == 1, "another one waits, and goes on"
                assert time.monotonic() - began < 10
            return connection.execute(text("UPDATE locked SET one = one + 1 RETURNING one")).scalar_one()

    assert patiently(first, asleep) == 2
    assert len(away) == 1
    for engine in (first, second):
        with engine.connect() as connection:
            assert connection.execute(text("SHOW tcp_keepalives_idle")).scalar_one() == "10"
        engine.dispose()


def test_optunas_calls_outlive_a_connection(postgres: str, engine: sqlalchemy.Engine, away: list[str]) -> None:
    """Its own connections are ended amid what it asks: where Optuna would ask again at once, in the same transaction, too."""
    storage = patience.Storage(postgres.replace("postgresql:", "postgresql+psycopg2:"))
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    breaks = [True]

    @sqlalchemy.event.listens_for(storage.engine, "before_cursor_execute")
    def _break(connection: sqlalchemy.Connection, _cursor: object, statement: str, *_: object) -> None:
        if breaks and "trial_intermediate_values" in statement:
            breaks.clear()
            found = connection.connection.dbapi_connection
            assert found
            ask(engine, f"SELECT pg_terminate_backend({found.info.backend_pid})")

    trial.report(0.5, 10)
    assert len(away) == 1
    breaks.append(True)
    assert study.get_trials()[0].intermediate_values == {10: 0.5}
    study.tell(trial, 0.25)
    assert [one.value for one in study.get_trials()] == [0.25]
    storage.engine.dispose()


def test_what_no_waiting_heals_is_raised_at_once(engine: sqlalchemy.Engine, away: list[str]) -> None:
    with pytest.raises(ProgrammingError):
        patiently(engine, lambda: ask(engine, "SELECT * FROM nowhere"))
    assert not away


def test_at_last_it_gives_up(away: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.01, 0.01))
    nowhere = sqlalchemy.create_engine("postgresql+psycopg2://surefoot@127.0.0.1:1/none")
    with pytest.raises(OperationalError):
        patiently(nowhere, lambda: ask(nowhere, "SELECT 1"))
    assert len(away) == 2


def test_who_waits_can_be_told_to_stop(away: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = sqlalchemy.create_engine("postgresql+psycopg2://surefoot@127.0.0.1:1/none")
    monkeypatch.setattr(checkpoint._stop, "signal", signal.SIGTERM)
    with pytest.raises(Interrupted):
        patiently(nowhere, lambda: ask(nowhere, "SELECT 1"))
    assert len(away) == 1


@pytest.mark.parametrize("where", ["begin", "before_cursor_execute", "after_cursor_execute", "commit"])
def test_who_is_told_to_stop_amid_a_transaction_ends_it_first(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the file stays locked until the process is gone, and it waits for itself to be so."""
    monkeypatch.setattr(checkpoint, "_stop", checkpoint._Stop())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    checkpoint.catch_signals()
    made = patience.Storage(f"sqlite:///{tmp_path / 'study.db'}", {"connect_args": {"timeout": 60, "isolation_level": None}})
    immediate(made.engine)
    slots = Slots(optuna.create_study(study_name="told", storage=made), made)
    slots.create()
    slots.grow(2)

    sqlalchemy.event.listen(made.engine, where, lambda *_: os.kill(os.getpid(), signal.SIGTERM), once=True)
    try:
        with pytest.raises(Interrupted) as told:
            slots.claim(2)
        with sqlite3.connect(tmp_path / "study.db", timeout=0, isolation_level=None) as beside:
            beside.execute("BEGIN IMMEDIATE")
            assert beside.execute("SELECT attempt FROM surefoot_slots ORDER BY slot").fetchall() == [(1,), (0,)]
        assert told.value.code == 128 + signal.SIGTERM
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_a_thread_beside_does_not_wait(away: list[str]) -> None:
    nowhere = sqlalchemy.create_engine("postgresql+psycopg2://surefoot@127.0.0.1:1/none")
    raised: list[Exception] = []

    def beside() -> None:
        try:
            patiently(nowhere, lambda: ask(nowhere, "SELECT 1"))
        except OperationalError as error:
            raised.append(error)

    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    assert raised
    assert not away


def test_whose_work_ended_for_it_does_not_wait_again_to_let_the_slot_go(away: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.01, 0.01))
    storage = patience.Storage("sqlite://")
    study = optuna.create_study(storage=storage)
    monkeypatch.setattr(storage, "engine", sqlalchemy.create_engine("postgresql+psycopg2://surefoot@127.0.0.1:1/none"))
    slots = Slots(study, storage)
    with pytest.raises(OperationalError), slots.kept(claim := Claim(0, 1)):
        slots.renew(claim)
    assert len(away) == 2
