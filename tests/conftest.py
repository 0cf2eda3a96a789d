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


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MinioServer]:
    """Run a MinIO; the test is skipped where there is no such program."""
    with _served(servers.MinioServer, tmp_path_factory.mktemp("minio"), "nothing is tested against S3") as server:
        yield server


@pytest.fixture
def minio(minio_server: servers.MinioServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the endpoint of a MinIO, with its credentials in the environment."""
    for name, value in minio_server.environment.items():
        monkeypatch.setenv(name, value)
    return minio_server.endpoint


@pytest.fixture
def s3_address(minio: str, minio_server: servers.MinioServer) -> str:  # noqa: ARG001 - the credentials
    """Give the address of an empty store in a bucket of its own."""
    return f"s3://{minio_server.bucket()}/some/prefix"


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
