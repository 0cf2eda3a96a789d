"""What tests of several rooms need: both stores, S3 with a real server; a real Postgres."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from minio import Minio

from stages.common import database
from stages.common.errors import NotNow
from stages.common.store import Store, open_store

# As every step does, and before any library starts threads: on busy cores, threads that spin while they wait cost minutes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

USER, PASSWORD = "surefoot", "surefoot-tests"


@pytest.fixture(scope="session")
def minio_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a MinIO and give its process and endpoint; the test is skipped where there is no such program."""
    programs = f"{os.environ.get('CLUSTER_HOME', '/opt/cluster')}/bin{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which("minio", path=programs)
    if program is None:
        pytest.skip("no program minio in $CLUSTER_HOME/bin or PATH: nothing is tested against S3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder = tmp_path_factory.mktemp("minio")
    environment = {**os.environ, "MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD, "MINIO_BROWSER": "off", "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "server", str(folder / "data"), "--address", address], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait(f"http://{address}/minio/health/ready", folder / "log")
        yield process, f"http://{address}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def minio(minio_process: tuple[subprocess.Popen[bytes], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the endpoint of a MinIO, with its credentials in the environment."""
    endpoint = minio_process[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", USER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)
    return endpoint


@pytest.fixture
def s3_address(minio: str) -> str:
    """Give the address of an empty store in a bucket of its own."""
    bucket = f"test-{secrets.token_hex(8)}"
    Minio(minio.removeprefix("http://"), USER, PASSWORD, secure=False).make_bucket(bucket)
    return f"s3://{bucket}/some/prefix"


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of an empty store: once a folder, once S3."""
    return str(tmp_path / "store") if request.param == "folder" else str(request.getfixturevalue("s3_address"))


@pytest.fixture
def store(address: str) -> Store:
    """Open an empty store: once a folder, once S3."""
    return open_store(address)


@pytest.fixture(scope="session")
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
            _wait_for_postgres(address)
            yield address
        finally:
            server.send_signal(signal.SIGINT)  # "fast": on SIGTERM it waits until the last client has left, and a pool of ours does not


def _wait_for_postgres(address: str) -> None:
    for _ in range(150):
        try:
            return database.check(address)
        except NotNow:
            time.sleep(0.2)
    pytest.fail("Postgres did not start within 30 s")


def _wait(url: str, log: Path) -> None:
    for _ in range(300):
        try:
            if urllib3.request("GET", url, timeout=5, retries=False).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.1)
    pytest.fail(f"MinIO did not start within 30 s: {log.read_text()}")
