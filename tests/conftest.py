"""What tests of several rooms need: both stores, S3 with a real server; a real Postgres."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stages.common.store import Store, open_store
from tests import servers

# As every step does, and before any library starts threads: on busy cores, threads that spin while they wait cost minutes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With SUREFOOT_S3_SERVER, leave only the tests that speak to an S3 server."""
    if "SUREFOOT_S3_SERVER" not in os.environ:
        return
    speak = [one for one in items if isinstance(one, pytest.Function) and ("s3_server" in one.fixturenames or "s3" in _parameters(one))]
    config.hook.pytest_deselected(items=[one for one in items if one not in speak])
    items[:] = speak


def _parameters(test: pytest.Function) -> list[object]:
    return [*test.callspec.params.values()] if hasattr(test, "callspec") else []


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> servers.S3:
    """Give the S3 server that is tested: a MinIO, or what is at SUREFOOT_S3_SERVER (http://host:port, with AWS_* for its keys)."""
    if other := os.environ.get("SUREFOOT_S3_SERVER"):
        return servers.S3(other, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    server: servers.MinioServer = request.getfixturevalue("minio_server")
    return server


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MinioServer]:
    """Run a MinIO; the test is skipped where there is no such program."""
    if other := os.environ.get("SUREFOOT_S3_SERVER"):
        pytest.skip(f"SUREFOOT_S3_SERVER={other}: this test stops a MinIO, or looks at its files")
    with _served(servers.MinioServer, tmp_path_factory.mktemp("minio"), "nothing is tested against S3") as server:
        yield server


@pytest.fixture
def minio(s3_server: servers.S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the endpoint of an S3 server, with its credentials in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.endpoint


@pytest.fixture
def s3_address(minio: str, s3_server: servers.S3) -> str:  # noqa: ARG001 - the credentials
    """Give the address of an empty store in a bucket of its own."""
    return f"s3://{s3_server.bucket()}/some/prefix"


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of an empty store: once a folder, once S3."""
    return str(tmp_path / "store") if request.param == "folder" else str(request.getfixturevalue("s3_address"))


@pytest.fixture
def store(address: str) -> Store:
    """Open an empty store: once a folder, once S3."""
    return open_store(address)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.PostgresServer]:
    """Run a Postgres."""
    with _served(servers.PostgresServer, tmp_path_factory.mktemp("postgres"), "no study in Postgres was tried") as server:
        yield server


@pytest.fixture(scope="session")
def postgres(postgres_server: servers.PostgresServer) -> str:
    """Give the address of an empty database."""
    return postgres_server.address


@contextmanager
def _served[S: servers.Server](kind: type[S], folder: Path, so: str) -> Iterator[S]:
    try:
        made = kind(folder)
    except servers.Missing as error:
        pytest.skip(f"{error}: {so}")
    with made:
        yield made
