"""Store and database over TLS with a certificate of one's own: trusted where it is said to be, else one line that says what to set."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.common import database, s3
from stages.common.errors import ConfigError, NotNow
from stages.common.store import open_store
from tests import servers
from tests.programs import surefoot


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return servers.certificate(tmp_path_factory.mktemp("tls") / "certificate")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make another authority's certificate."""
    return servers.certificate(tmp_path_factory.mktemp("tls") / "stranger")


@pytest.fixture(scope="module")
def bucket(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Give a bucket's address and what the environment must hold, but for the authority."""
    try:
        server = servers.MinioServer(tmp_path_factory.mktemp("minio"), certificate)
    except servers.Missing as error:
        pytest.skip(f"{error}: no S3 over TLS was tried")
    with server:
        yield f"s3://{server.bucket()}/store", server.environment


@pytest.fixture(scope="module")
def study(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a database whose server has a certificate, which is to be looked at."""
    try:
        server = servers.PostgresServer(tmp_path_factory.mktemp("postgres"), certificate=certificate)
    except servers.Missing as error:
        pytest.skip(f"{error}: no Postgres over TLS was tried")
    with server:
        yield f"{server.address}?sslmode=verify-full"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, bucket: tuple[str, dict[str, str]]) -> str:
    for name, value in bucket[1].items():
        monkeypatch.setenv(name, value)
    return bucket[0]


def test_with_the_authority_both_are_used(
    given: str, study: str, bucket: tuple[str, dict[str, str]], certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("PGSSLROOTCERT", str(certificate))
    store = open_store(given)
    assert store.create("blobs/a", b"a")
    assert store.read("blobs/a") == b"a"
    with database.connect(study) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert cursor.fetchone() == (True,)

    small = tmp_path / "small.yaml"
    small.write_text("prepare: {generated_rows: 600}\nsearch: {n_trials: 1, families: [logistic]}\n", encoding="utf-8")
    planned = surefoot("plan", small, "--store", given, more={**bucket[1], "SUREFOOT_STUDY": study})
    assert planned.code == 0, planned.err


def test_public_authorities_are_trusted_as_well(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store at a cloud's, and a database with a certificate of one's own."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    public = len(s3._trusted().get_ca_certs())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert public > 50
    assert len(s3._trusted().get_ca_certs()) == public + 1


def test_a_store_whose_authority_nobody_named_is_refused(given: str, monkeypatch: pytest.MonkeyPatch, stranger: Path) -> None:
    for file in (None, stranger):
        monkeypatch.setenv("SSL_CERT_FILE", str(file)) if file else monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(ConfigError, match=r"self-signed certificate.*\. Set SSL_CERT_FILE to the authority's certificate\.$"):
            open_store(given)


def test_a_certificate_for_another_name_is_told_apart(
    given: str, monkeypatch: pytest.MonkeyPatch, certificate: Path, bucket: tuple[str, dict[str, str]]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket[1]["AWS_ENDPOINT_URL"].replace("127.0.0.1", "localhost"))
    with pytest.raises(ConfigError, match=r"not valid for 'localhost'.* Give the server a certificate that is valid now, for the name"):
        open_store(given)


def test_a_file_of_authorities_that_is_none_is_named(given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("no certificate", encoding="utf-8")
    for file, said in ((tmp_path / "gone", "No such file or directory"), (tmp_path / "empty", "")):
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        with pytest.raises(ConfigError, match=rf"^SSL_CERT_FILE {file}: .*{said}.*Give a file with the authority's certificate"):
            open_store(given)


def test_a_database_whose_authority_nobody_named_is_refused(
    study: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stranger: Path, certificate: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for file, root in ((None, study), (stranger, study), (tmp_path / "gone", study)):
        monkeypatch.setenv("PGSSLROOTCERT", str(file)) if file else monkeypatch.delenv("PGSSLROOTCERT", raising=False)
        with pytest.raises(ConfigError, match=r"^SUREFOOT_STUDY: .*Set PGSSLROOTCERT to the "):
            database.check(root)
    monkeypatch.setenv("PGSSLROOTCERT", str(certificate))
    with pytest.raises(ConfigError, match=r"^SUREFOOT_STUDY: .*localhost.* Give the server a certificate for that name"):
        database.check(study.replace("127.0.0.1", "localhost"))


def test_a_database_without_tls_is_refused_where_it_must_have_it(postgres: str, monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", str(certificate))
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    with pytest.raises(ConfigError, match=r"does not support SSL.*Turn TLS on there, or end SUREFOOT_STUDY with"):
        database.check(postgres)
    database.check(f"{postgres}?sslmode=disable")


def test_a_database_that_is_away_is_not_taken_for_one_that_is_not_trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", str(certificate))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(NotNow):
            database.check(f"postgresql://u@127.0.0.1:{bound.getsockname()[1]}/d?sslmode=verify-full")
