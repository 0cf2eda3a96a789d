"""A store without access keys: a role gives some for a while, by a token in a file, by a cloud's agent or by the machine."""

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stages.common import store
from stages.common.errors import ConfigError, NotNow
from stages.common.store import open_store
from tests import servers

HOURS = timedelta(hours=12)

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow")  # minio's


class Answers(BaseHTTPRequestHandler):
    """Answer each path with what stands there: a document, or a status."""

    answers: dict[str, Any]
    asked: list[str]

    def do_GET(self) -> None:
        """Answer."""
        self.asked.append(f"{self.command} {self.path} {self.headers.get('Authorization', '')}".strip())
        found = self.answers.get(self.path.partition("?")[0], 404)
        body = found.encode() if isinstance(found, str) else json.dumps(found).encode()
        self.send_response(found if isinstance(found, int) else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_GET  # noqa: N815 - the names that the library calls

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def agent() -> Iterator[tuple[str, type[Answers]]]:
    """Play what gives out keys, which cannot be here: a cloud's agent, or its STS."""
    with served() as (address, handler):
        yield address, handler


class served:  # noqa: N801 - a context
    """Serve answers on the loopback device."""

    def __enter__(self) -> tuple[str, type[Answers]]:
        handler = type("Handler", (Answers,), {"answers": {}, "asked": []})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}", handler

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Issuer:
    """Who says that a token's bearer is who it says: as a cluster's API server does."""

    def __init__(self, folder: Path, address: str, handler: type[Answers]) -> None:
        self.key, self.address = folder / "issuer.key", address
        subprocess.run([servers.program("openssl"), "genrsa", "-out", str(self.key), "2048"], check=True, capture_output=True)
        said = subprocess.run(
            [servers.program("openssl"), "rsa", "-in", str(self.key), "-noout", "-modulus"], check=True, capture_output=True
        )
        modulus = bytes.fromhex(said.stdout.decode().strip().partition("=")[2])
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": url64(modulus), "e": "AQAB"}
        handler.answers["/keys"] = {"keys": [key]}
        handler.answers["/.well-known/openid-configuration"] = {"issuer": address, "jwks_uri": f"{address}/keys"}

    def token(self, **claims: Any) -> str:
        """Give a token."""
        now = int(time.time())
        said = {
            "iss": self.address,
            "aud": "surefoot",
            "sub": "system:serviceaccount:fraud:surefoot",
            "iat": now,
            "exp": now + 3600,
        } | claims
        head = ".".join(url64(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "1", "typ": "JWT"}, said))
        words = [servers.program("openssl"), "dgst", "-sha256", "-sign", str(self.key)]
        return f"{head}.{url64(subprocess.run(words, input=head.encode(), check=True, capture_output=True).stdout)}"


def url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[servers.MinioServer, Issuer]]:
    """Run a MinIO that gives keys to who bears a token of an issuer."""
    folder = tmp_path_factory.mktemp("trusting")
    with served() as (address, handler):
        issuer = Issuer(folder, address, handler)
        openid = {"CONFIG_URL": f"{address}/.well-known/openid-configuration", "CLIENT_ID": "surefoot"}
        try:
            server = servers.MinioServer(folder, more={f"MINIO_IDENTITY_OPENID_{name}": value for name, value in openid.items()})
        except servers.Missing as error:
            pytest.skip(f"{error}: no store was opened by a role")
        with server:
            yield server, issuer


def set_role(monkeypatch: pytest.MonkeyPatch, endpoint: str, role: Mapping[str, str]) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"AWS_ENDPOINT_URL": endpoint, **role}.items():
        monkeypatch.setenv(name, value)


def test_a_token_in_a_file_opens_the_store(
    trusting: tuple[servers.MinioServer, Issuer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server, issuer = trusting
    (tmp_path / "token").write_text(issuer.token(policy="readwrite"), encoding="utf-8")
    role = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"), "AWS_ENDPOINT_URL_STS": server.endpoint}
    set_role(monkeypatch, server.endpoint, role)

    opened = open_store(f"s3://{server.bucket()}/store")
    assert opened.create("blobs/a", b"a")
    assert not opened.create("blobs/a", b"b")
    assert opened.read("blobs/a") == b"a"
    assert opened.list("blobs/") == ["blobs/a"]


def test_what_the_role_may_not_is_told(
    trusting: tuple[servers.MinioServer, Issuer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server, issuer = trusting
    token = tmp_path / "token"
    role = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ENDPOINT_URL_STS": server.endpoint}
    set_role(monkeypatch, server.endpoint, role)
    address = f"s3://{server.bucket()}/store"

    token.write_text(issuer.token(policy="readonly"), encoding="utf-8")
    with pytest.raises(ConfigError, match="AccessDenied"):
        open_store(address)

    token.write_text(issuer.token(policy="readwrite", aud="somebody else"), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"no keys for the store by AWS_WEB_IDENTITY_TOKEN_FILE: .*Check AWS_WEB_IDENTITY_TOKEN_FILE"
    ) as refused:
        open_store(address)
    assert token.read_text(encoding="utf-8") not in str(refused.value)

    token.unlink()
    with pytest.raises(ConfigError, match=f"error in reading file {token}"):
        open_store(address)


def keys(until: datetime) -> dict[str, str]:
    """Give a role's keys as AWS does: MinIO's own, which have no token."""
    known = {"AccessKeyId": servers.USER, "SecretAccessKey": servers.PASSWORD, "Token": "", "Code": "Success"}
    return {**known, "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ")}


def test_the_machines_role_opens_the_store(
    minio_server: servers.MinioServer, agent: tuple[str, type[Answers]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its keys are asked for again when they end, not each time."""
    address, handler = agent
    where = "/latest/meta-data/iam/security-credentials/"
    handler.answers |= {"/latest/api/token": "t", where: "worker", f"{where}worker": keys(datetime.now(UTC) + HOURS)}
    set_role(monkeypatch, minio_server.endpoint, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": address})

    opened = open_store(f"s3://{minio_server.bucket()}/store")
    assert opened.create("blobs/a", b"a")
    assert handler.asked == ["PUT /latest/api/token", f"GET {where}", f"GET {where}worker"]

    handler.answers[f"{where}worker"] = keys(datetime.now(UTC) - HOURS)
    opened = open_store(opened.address)
    handler.asked.clear()
    assert opened.read("blobs/a") == b"a"
    assert len(handler.asked) >= 3


def test_an_agents_role_opens_the_store(
    minio_server: servers.MinioServer, agent: tuple[str, type[Answers]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, handler = agent
    (tmp_path / "token").write_text("mine", encoding="utf-8")
    handler.answers["/keys"] = keys(datetime.now(UTC) + HOURS)
    role = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{address}/keys", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token")}
    set_role(monkeypatch, minio_server.endpoint, role)
    assert open_store(f"s3://{minio_server.bucket()}/store").create("blobs/a", b"a")
    assert handler.asked == ["GET /keys mine"]


@pytest.mark.parametrize(
    ("answer", "error"), [(403, ConfigError), (400, ConfigError), (429, NotNow), (503, NotNow), ("<html>", NotNow), ({}, NotNow)]
)
def test_an_agent_that_refuses_is_told_from_one_that_is_away(
    agent: tuple[str, type[Answers]], monkeypatch: pytest.MonkeyPatch, answer: Any, error: type[Exception]
) -> None:
    address, handler = agent
    monkeypatch.setattr(store, "PAUSES", (0,))
    handler.answers["/keys"] = answer
    set_role(monkeypatch, "http://127.0.0.1:9", {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{address}/keys"})
    with pytest.raises(error, match="no keys for the store by AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        open_store("s3://bucket/store")


def test_keys_that_are_given_win_over_a_role(minio: str, minio_server: servers.MinioServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/keys")
    assert open_store(f"s3://{minio_server.bucket()}/store").create("blobs/a", b"a"), minio
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match=r": AWS_SECRET_ACCESS_KEY must be set in the environment\.$"):
        open_store("s3://bucket/store")


def test_without_an_endpoint_the_region_leads_to_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened without a word to it."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name, value in {"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "u", "AWS_SECRET_ACCESS_KEY": "p"}.items():
        monkeypatch.setenv(name, value)
    opened: Any = open_store("s3://bucket/store", prove=False)
    assert opened.endpoint == "https://s3.eu-central-1.amazonaws.com"
