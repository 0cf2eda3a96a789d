"""A study in a real Postgres, as the cluster has it."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import optuna
import psycopg2
import pytest

from stages.common import database
from stages.common.errors import NotNow
from stages.search import study


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of an empty database; root's tests run the server as nobody, since it refuses root."""
    if not shutil.which("initdb") or not shutil.which("postgres"):
        pytest.skip("no programs initdb and postgres in PATH: no study in Postgres was tried")
    folder = tmp_path_factory.mktemp("postgres")
    words: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        words |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        for parent in folder.parents[:3]:  # with xdist there is one more
            parent.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run(["initdb", "--pgdata", folder / "data", "--username", "surefoot", "--auth", "trust", "--no-sync"], check=True, **words)
    command = ["postgres", "-D", str(folder / "data"), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-F"]
    with subprocess.Popen(command, **words) as server:
        try:
            address = f"postgresql://surefoot@127.0.0.1:{port}/postgres"
            _wait(address)
            yield address
        finally:
            server.send_signal(signal.SIGINT)  # "fast": on SIGTERM it waits until the last client has left, and a pool of ours does not


def _wait(address: str) -> None:
    for _ in range(150):
        try:
            return database.check(address)
        except NotNow:
            time.sleep(0.2)
    pytest.fail("Postgres did not start within 30 s")


def test_one_worker_at_a_study_and_a_dead_ones_lock_is_free(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_STUDY", postgres)
    run: Any = SimpleNamespace(store=SimpleNamespace(address="s3://bucket/store"))
    one: Any = SimpleNamespace(study_name="one")
    other = psycopg2.connect(postgres)
    assert study._locks_row(other, "one")
    waited: list[float] = []

    def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            other.close()  # as a worker that dies

    monkeypatch.setattr(time, "sleep", pause)
    another: Any = SimpleNamespace(study_name="another")
    with study.alone(run, one), study.alone(run, another):
        assert waited == [1, 1]


def test_a_study_is_kept_there(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address names no driver: `postgresql://` is what people write, and means psycopg 3 to SQLAlchemy."""
    monkeypatch.setenv("SUREFOOT_STUDY", postgres)
    run: Any = SimpleNamespace(store=SimpleNamespace(address="s3://bucket/store"))
    made = optuna.create_study(study_name="one", storage=study.storage(run, create=True))
    made.tell(made.ask(), 0.5)

    found = optuna.load_study(study_name="one", storage=study.storage(run))
    assert [trial.value for trial in found.trials] == [0.5]
