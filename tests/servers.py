"""MinIO and Postgres, as programs of this machine: begun, stopped, killed, and begun again at the same address."""

import abc
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urlsplit

import urllib3
from minio import Minio

from stages.common import database
from stages.common.errors import NotNow

USER, PASSWORD = "surefoot", "surefoot-tests"
PATIENCE = 60.0  # seconds until a server answers


class Missing(Exception):
    """There is no such program here."""


class Server(abc.ABC):
    """A program that serves one port of the loopback device."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGINT)  # Postgres waits on SIGTERM until its last client has left

    def start(self) -> None:
        """Start it, and wait until it answers."""
        until = time.monotonic() + PATIENCE
        while self.process is None or self.process.poll() is not None or not self.answers():
            assert time.monotonic() < until, (self.folder / "log").read_text()[-2000:]
            if self.process is None or self.process.poll() is not None:  # Postgres refuses while the last one's children end
                with (self.folder / "log").open("ab") as log:
                    self.process = self._begin(log)
            time.sleep(0.1)

    def stop(self, number: signal.Signals) -> None:
        """Stop it, as that signal does."""
        assert self.process
        self.process.send_signal(number)
        self.process.wait()

    @abc.abstractmethod
    def _begin(self, log: Any) -> subprocess.Popen[bytes]:
        """Start its process."""

    @abc.abstractmethod
    def answers(self) -> bool:
        """Tell whether it does."""


class S3:
    """An S3 server that is there already, by its address; its keys are in the environment. Buckets that are made in it stay."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str) -> None:
        self.endpoint, self.http = endpoint, urllib3.PoolManager()
        self.environment = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}

    def client(self) -> Minio:
        """Give a client that may do all."""
        where = urlsplit(self.endpoint)
        keys = (self.environment["AWS_ACCESS_KEY_ID"], self.environment["AWS_SECRET_ACCESS_KEY"])
        return Minio(where.netloc, *keys, secure=where.scheme == "https", http_client=self.http)

    def bucket(self) -> str:
        """Make a bucket; give its name."""
        name = f"test-{secrets.token_hex(8)}"
        self.client().make_bucket(name)
        return name


class MinioServer(Server, S3):
    """A MinIO with a folder of its own; over TLS where it is given a certificate, and with more in its environment."""

    def __init__(self, folder: Path, certificate: Path | None = None, more: Mapping[str, str] = MappingProxyType({})) -> None:
        Server.__init__(self, folder)
        S3.__init__(self, f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}", USER, PASSWORD)
        self.program = program("minio")
        self.more = more
        self.words = ["--certs-dir", str(certificate.parent)] if certificate else []
        self.http = urllib3.PoolManager(ca_certs=certificate and str(certificate))

    def _begin(self, log: Any) -> subprocess.Popen[bytes]:
        root = {"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD, "MINIO_BROWSER": "off", "HOME": str(self.folder)}
        command = [self.program, "server", str(self.folder / "data"), "--address", f"127.0.0.1:{self.port}", *self.words]
        return subprocess.Popen(command, env={**os.environ, **root, **self.more}, stdout=log, stderr=subprocess.STDOUT)

    def answers(self) -> bool:
        """Tell whether it does."""
        try:
            return self.http.request("GET", f"{self.endpoint}/minio/health/ready", timeout=5, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False


class PostgresServer(Server):
    """A Postgres with an empty database; root runs it as nobody, since it refuses root. Its clock may be set, if it has one of its own."""

    def __init__(self, folder: Path, connections: int = 100, *, own_clock: bool = False, certificate: Path | None = None) -> None:
        super().__init__(folder)
        self.tls: list[str] = []
        self.connections = connections
        self.clock = folder / "clock" if own_clock else None
        initdb, self.program = program("initdb"), program("postgres")
        self.address = f"postgresql://surefoot@127.0.0.1:{self.port}/postgres"
        self.words: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.words |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            for parent in folder.parents:
                if parent.stat().st_mode & 0o777 == 0o700:
                    parent.chmod(0o755)
        if self.clock:
            self.set_clock(0)
            self.words["env"] = {**os.environ, "LD_PRELOAD": faketime(), "FAKETIME_TIMESTAMP_FILE": str(self.clock)}
            self.words["env"] |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        command = [initdb, "--pgdata", str(folder / "data"), "--username", "surefoot", "--auth", "trust", "--no-sync"]
        subprocess.run(command, check=True, **self.words)
        if certificate:
            self.tls = ["-c", "ssl=on"]
            for made, name in ((certificate, "server.crt"), (certificate.with_name("private.key"), "server.key")):
                place = Path(shutil.copy(made, folder / "data" / name))
                place.chmod(0o600)
                os.chown(place, self.words.get("user", -1), self.words.get("group", -1))

    def set_clock(self, seconds: int) -> None:
        """Put its clock so much before (or behind) that of all others."""
        assert self.clock
        part = self.clock.with_suffix(".part")
        part.write_text(f"{seconds:+d}")
        part.chmod(0o644)
        part.replace(self.clock)
        self.wrong = seconds

    def _begin(self, _log: Any) -> subprocess.Popen[bytes]:
        command = [self.program, "-D", str(self.folder / "data"), "-p", str(self.port), "-k", str(self.folder), "-h", "127.0.0.1", "-F"]
        command += ["-c", f"max_connections={self.connections}", *self.tls]
        return subprocess.Popen(command, **self.words)

    def answers(self) -> bool:
        """Tell whether it does."""
        try:
            database.check(self.address)
        except NotNow:
            return False
        return True


def certificate(folder: Path) -> Path:
    """Make a certificate that nobody else signed, and its key beside it; give its file."""
    words = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "1", "-subj", "/CN=surefoot"]
    folder.mkdir()
    made = folder / "public.crt"
    given = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "private.key"), "-out", str(made)]
    subprocess.run([program("openssl"), *words, *given], check=True, capture_output=True)
    return made


def program(name: str) -> str:
    """Find a program in $CLUSTER_HOME/bin or PATH.

    Raises:
        Missing: there is none.

    """
    found = shutil.which(name, path=f"{os.environ.get('CLUSTER_HOME', '/opt/cluster')}/bin{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise Missing(f"no program {name} in $CLUSTER_HOME/bin or PATH")
    return found


def faketime() -> str:
    """Find the library that gives a program another time.

    Raises:
        Missing: there is none.

    """
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        raise Missing("no libfaketime (Debian's package faketime)")
    return str(found[0])


def restart(server: Server, number: signal.Signals, rng: random.Random, seconds: float) -> tuple[float, float]:
    """Stop a server by a signal, and start it again after a random time up to so many seconds; give when it went, and when it was back."""
    gone = time.time()
    server.stop(number)
    time.sleep(rng.uniform(0, seconds))
    server.start()
    return gone, time.time()
