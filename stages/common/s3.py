"""The store in S3: any server that honours ``If-None-Match: *`` (MinIO and AWS do)."""

import base64
import hashlib
import os
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple, override
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio import Minio
from minio import time as amz_time
from minio.credentials.credentials import Credentials
from minio.credentials.providers import IamAwsProvider, Provider, StaticProvider
from minio.datatypes import Object
from minio.error import InvalidResponseError, S3Error, ServerError
from minio.helpers import DictType, check_bucket_name
from minio.signer import sign_v4_s3

from stages.common.errors import ConfigError, NotNow, SurefootError, UsageError
from stages.common.store import BLOCK, MARKED, MARKER, Head, Keys, Store, Unreadable, blocks, checked, checked_prefix, on_disk, retry, save

TIMEOUT = urllib3.Timeout(connect=5, read=5)  # seconds; each is for one step forward, not for the whole transfer
SKEW = 600  # seconds that clocks may differ; servers take 900
LARGEST = 5 << 30  # bytes: what S3 takes in one request
BAD_CERTIFICATE = {9, 10, 62, 64}  # OpenSSL's codes: not valid yet, or any more, or for another name; no other authority can help
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# What leads to a role's keys, where no keys are given, and to another server that gives them out than AWS's own: the first that is set.
ROLES = {
    "AWS_WEB_IDENTITY_TOKEN_FILE": "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": "AWS_EC2_METADATA_SERVICE_ENDPOINT",
}

# Answers below 500 after which the same request can succeed; the last four say that bytes were bent on their way.
PASSING = {"SlowDown", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict"} | {
    "BadDigest",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
}


def open_s3(address: str, *, prove: bool = True) -> "S3Store":
    """Open ``s3://bucket/prefix`` with what the environment says of server and credentials."""
    store = _opened(S3Store, address)
    if prove:
        store.prove_create_once()
    return store


def open_bucket(name: str) -> "Bucket":
    """Open a bucket of the store's server, to read what somebody else keeps there."""
    return _opened(Bucket, f"s3://{name}")


def _opened[S: S3Store](kind: type[S], address: str) -> S:
    bucket, _, prefix = address.removeprefix("s3://").rstrip("/").partition("/")
    try:
        check_bucket_name(bucket, strict=True)
        checked_prefix(prefix)
    except (ValueError, UsageError) as error:
        raise ConfigError(f"{address}: {str(error).rstrip('.')}. Give s3://bucket/prefix.") from error
    # A secret that came from a file often ends in a newline, which no header may hold.
    given = {name: os.environ.get(name, "").strip() for name in ("AWS_ENDPOINT_URL", *KEYS)}
    access_key, secret_key = (given[name] for name in KEYS)
    region = os.environ.get("AWS_REGION", "").strip()
    endpoint = given["AWS_ENDPOINT_URL"] = given["AWS_ENDPOINT_URL"] or (f"https://s3.{region}.amazonaws.com" if region else "")
    role = None if access_key or secret_key else next((name for name in ROLES if os.environ.get(name)), None)
    if missing := [name for name, value in given.items() if not value and not (role and name in KEYS)]:
        raise ConfigError(f"{address}: {' and '.join(missing)} must be set in the environment.")
    try:
        provider = Role(role) if role else StaticProvider(access_key, secret_key, os.environ.get("AWS_SESSION_TOKEN"))
        return kind(bucket, prefix + "/" if prefix else "", endpoint, provider)
    except ValueError as error:
        raise ConfigError(f"AWS_ENDPOINT_URL {endpoint!r}: {error}. Give http://host:port or https://host.") from error


def _pool(*, secure: bool) -> urllib3.PoolManager:
    # The client's own limits are 5 minutes and five silent retries.
    return urllib3.PoolManager(timeout=TIMEOUT, retries=False, maxsize=16, ssl_context=_trusted() if secure else None)


def _trusted() -> ssl.SSLContext:
    """Trust public authorities, and those in SSL_CERT_FILE."""
    trusted = ssl.create_default_context(cafile=certifi.where())
    if file := os.environ.get("SSL_CERT_FILE"):
        try:
            trusted.load_verify_locations(file)
        except OSError as error:
            raise ConfigError(f"SSL_CERT_FILE {file}: {error.strerror}. Give a file with the authority's certificate, as PEM.") from error
    return trusted


def _mistrusts(error: Exception) -> str:
    """Say what to do where a server's certificate is why it was not spoken to; else nothing."""
    cause = next((cause for cause in error.args if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if cause is None:
        return ""
    if cause.verify_code in BAD_CERTIFICATE:
        return "Give the server a certificate that is valid now, for the name in its address."
    return "Set SSL_CERT_FILE to the authority's certificate."


class Role(Provider):
    """Keys that a role is given for some hours, and given again before they end."""

    def __init__(self, name: str) -> None:
        """Follow that variable of ROLES."""
        self._name, self._provider = name, IamAwsProvider(custom_endpoint=os.environ.get(ROLES[name]), http_client=_pool(secure=True))

    @override
    def retrieve(self) -> Credentials:
        """Give the keys.

        Raises:
            ConfigError: the role, or who asks for it, is refused.
            NotNow: nobody gives any right now.

        """
        try:
            return self._provider.retrieve()
        except (urllib3.exceptions.HTTPError, ParseError, ValueError, KeyError, OSError) as error:
            said = re.sub(r"\?\S+", "", _line(error))  # who asks puts the token into the address
            what = f"no keys for the store by {self._name}: {said}."
            if advice := _mistrusts(error):
                raise ConfigError(f"{what} {advice}") from None
            if re.search(r"HTTP status code 4(?!29|08)", said) or isinstance(error.__cause__ or error, FileNotFoundError):
                raise ConfigError(f"{what} Check {self._name}, AWS_ROLE_ARN, and whom the role trusts.") from None
            raise NotNow(what) from None


class S3Store(Store):
    """A store in a bucket of an S3 server; ``prefix`` is empty or ends in a slash."""

    def __init__(self, bucket: str, prefix: str, endpoint: str, provider: Provider) -> None:
        url = urlsplit(endpoint)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError("not an address of a server")
        self.address = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket, self._prefix, self.endpoint, self._provider = bucket, prefix, endpoint, provider
        self._region = os.environ.get("AWS_REGION", "").strip() or "us-east-1"
        secure, where = url.scheme == "https", url.netloc + url.path
        self._http = _pool(secure=secure)
        self._client = Minio(where, secure=secure, credentials=provider, region=self._region, http_client=self._http)

    def prove_create_once(self) -> None:
        """Refuse a server that overwrites although told not to: of two creates in a row the second must fail."""
        if self.create(MARKER, MARKED) and self.create(MARKER, MARKED):
            raise ConfigError(
                f"{self.endpoint}: the server ignores 'If-None-Match: *' and overwrites what is there. "
                "Results would get lost: use a server with conditional writes, such as MinIO or AWS S3."
            )

    @override
    def read(self, key: str) -> bytes:
        with self._alone(key):
            return retry(f"read {self.address}/{key}", lambda: b"".join(self._stream(key)))

    @override
    def download(self, key: str, path: Path) -> str:
        with on_disk(path), self._alone(key):
            return retry(f"download {self.address}/{key}", lambda: save(self._stream(key), path))

    @override
    def head(self, key: str) -> Head | None:
        return retry(f"head {self.address}/{key}", lambda: self._head(key))

    @override
    def list(self, prefix: str) -> Keys:
        return retry(f"list {self.address}/{prefix}", lambda: self._list(self._prefix + checked_prefix(prefix)))

    @override
    def create(self, key: str, data: bytes | Path) -> bool:
        return retry(f"create {self.address}/{key}", lambda: self._put(key, data, {"If-None-Match": "*"}))

    @override
    def replace(self, key: str, data: bytes | Path) -> None:
        assert key.startswith(("scratch/", "blobs/", "raw/", "config/")), key
        retry(f"replace {self.address}/{key}", lambda: self._put(key, data, {}))

    @override
    def drop(self, key: str) -> None:
        assert key.startswith("scratch/"), key
        retry(f"drop {self.address}/{key}", lambda: self._drop(key))

    @override
    def local(self, key: str) -> None:
        checked(key)

    def _put(self, key: str, data: bytes | Path, condition: dict[str, str]) -> bool:
        """Send one conditional PUT, which ``put_object`` cannot; False when the condition did not hold.

        The server is told the digest twice: signed, so that it refuses other bytes, and as a checksum, which it keeps for HEAD.
        """
        size, digest = 0, hashlib.sha256()
        for block in blocks(data):
            size += len(block)
            digest.update(block)
        if size > LARGEST:
            raise ConfigError(f"{key} would have {size} bytes, and S3 takes {LARGEST} at once. Use a folder as the store.")
        if condition and size > BLOCK and self._head(key):
            return False  # Spares the upload; and on a large body that it will not take a server may hang up.
        now, who = amz_time.utcnow(), self._provider.retrieve()
        with self._edge(key):
            url = self._client._base_url.build(  # noqa: SLF001 - the client has no public way to where an object is
                method="PUT", region=self._region, bucket_name=self._bucket, object_name=self._name(key)
            )
            headers: DictType = {
                "Host": url.netloc,
                "Content-Length": str(size),
                "x-amz-date": amz_time.to_amz_date(now),
                "x-amz-content-sha256": digest.hexdigest(),
                "x-amz-checksum-sha256": base64.b64encode(digest.digest()).decode(),
                **({"x-amz-security-token": who.session_token} if who.session_token else {}),
                **condition,
            }
            signed = sign_v4_s3(
                method="PUT", url=url, region=self._region, headers=headers, credentials=who, content_sha256=digest.hexdigest(), date=now
            )
            # In blocks, since a socket's time limit is for one call; a large body would have 5 s in all.
            answer = self._http.urlopen("PUT", url.geturl(), body=blocks(data), headers=signed)
            if answer.status == 412:
                return False
            if b"<Code>NoSuchKey</Code>" in answer.data:  # a writer raced with who drops what lies beside
                raise NotNow(f"{self.endpoint}: NoSuchKey in answer to a PUT.")
            if answer.status != 200:
                raise S3Error.fromxml(answer) if b"<Error>" in answer.data else ServerError("no S3 answer", answer.status)
        return True

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Of an object that cannot be read, tell whether it is alone in that: HEAD works, so that the server is well."""
        try:
            yield
        except Unreadable as error:
            try:
                self._head(key)
            except NotNow as away:
                raise NotNow(str(away)) from error
            raise

    def _stream(self, key: str) -> Iterator[bytes]:
        name = self._name(key)
        with self._edge(key):
            answer = self._client.get_object(self._bucket, name)
        try:
            while block := answer.read(BLOCK):
                yield block
        except Exception as error:  # a client that chokes on a broken answer shows it in many ways
            raise Unreadable(f"{self.endpoint}: {_line(error)}. The answer broke off.") from error
        finally:
            answer.close()
            answer.release_conn()

    def _head(self, key: str) -> Head | None:
        name = self._name(key)
        try:
            with self._edge(key):
                found = self._client.stat_object(self._bucket, name, extra_headers={"x-amz-checksum-mode": "ENABLED"})
        except KeyError:
            return None
        checksum = (found.metadata or {}).get("x-amz-checksum-sha256", "")
        whole = len(checksum) == 44  # "…-3" would be a checksum of three parts' checksums
        return Head(found.size or 0, base64.b64decode(checksum).hex() if whole else None)

    def _list(self, prefix: str) -> Keys:
        with self._edge(prefix):
            found = self._client.list_objects(self._bucket, prefix=prefix, recursive=True)
            return sorted(str(each.object_name).removeprefix(self._prefix) for each in found)

    def _drop(self, key: str) -> None:
        name = self._name(key)
        with self._edge(key):
            self._client.remove_object(self._bucket, name)

    def _name(self, key: str) -> str:
        return self._prefix + checked(key)

    @contextmanager
    def _edge(self, key: str) -> Iterator[None]:
        """Translate what client and server say: NotNow is what retry() tries again."""
        try:
            yield
        except S3Error as error:
            # By the date, since an answer to HEAD has no code.
            if error.response.status == 403 and abs(ahead := _ahead(error.response.headers.get("Date", ""))) > SKEW:
                raise ConfigError(
                    f"{self.endpoint}: the server's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} ours, "
                    "and it refuses such requests. Set this machine's clock, or the server's."
                ) from error
            raise self._refusal(key, error.response.status, error.code or "", error.message or "") from error
        except ServerError as error:
            raise self._refusal(key, error.status_code, f"HTTP {error.status_code}", _line(error)) from error
        except InvalidResponseError as error:
            status = error._code  # noqa: SLF001 - the client keeps the status to itself
            raise self._refusal(key, status, f"HTTP {status}", "no S3 answer") from error
        except (urllib3.exceptions.HTTPError, ParseError, ValueError) as error:  # the client's ValueError: an answer with something missing
            if advice := _mistrusts(error):
                raise ConfigError(f"{self.endpoint}: {_line(error)}. {advice}") from error
            if "WRONG_VERSION_NUMBER" in str(error):
                raise ConfigError(
                    f"{self.endpoint}: the server speaks no TLS. Set AWS_ENDPOINT_URL to http:// or to another port."
                ) from error
            raise NotNow(f"{self.endpoint}: {_line(error)}.") from error

    def _refusal(self, key: str, status: int, code: str, message: str) -> SurefootError | KeyError:
        said = f"{self.endpoint}: {code}: {_line(message).rstrip('.')}."
        if code == "NoSuchKey":
            return KeyError(key)
        if code == "NoSuchBucket":
            return ConfigError(f"{self.endpoint}: there is no bucket {self._bucket!r}. Make it, or set another store.")
        if code == "SlowDownRead":  # MinIO's word where the disks did not give an object's bytes
            return Unreadable(said)
        if code in PASSING or status in {409, 429} or (status >= 500 and status != 501):
            return NotNow(said)
        if status == 403 or code == "XAdminUserNotFound":  # versitygw's word for an access key that it does not know
            return ConfigError(f"{said} Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do in bucket {self._bucket!r}.")
        return ConfigError(f"{said} Check that AWS_ENDPOINT_URL is an S3 server and AWS_REGION ({self._region}) its region.")


class Seen(NamedTuple):
    """What tells an object's bytes from others without reading them."""

    etag: str
    size: int
    at: int  # seconds since 1970: HEAD tells no parts of them


class Bucket(S3Store):
    """Objects that somebody else keeps: they are read alone, and their names need not be a store's keys."""

    def look(self, name: str) -> Seen | None:
        """Look at an object; None when absent."""
        return retry(f"head {self.address}/{name}", lambda: self._look(name))

    def under(self, prefix: str) -> dict[str, Seen]:
        """Look at all objects whose names start with ``prefix``."""
        return retry(f"list {self.address}/{prefix}", lambda: self._under(prefix))

    def identity(self, name: str, seen: Seen) -> list[str | int]:
        """Give what stands for an object's bytes wherever it is looked at."""
        return [self.endpoint, self._bucket, name, *seen]

    def _look(self, name: str) -> Seen | None:
        try:
            with self._edge(name):
                return _seen(self._client.stat_object(self._bucket, name))
        except KeyError:
            return None

    def _under(self, prefix: str) -> dict[str, Seen]:
        with self._edge(prefix):
            found = self._client.list_objects(self._bucket, prefix=prefix, recursive=True)
            return {str(each.object_name): _seen(each) for each in found if not each.is_dir}

    @override
    def _name(self, key: str) -> str:
        return key


def _seen(found: Object) -> Seen:
    return Seen((found.etag or "").strip('"'), found.size or 0, int(found.last_modified.timestamp()) if found.last_modified else 0)


def _ahead(date: str) -> float:
    """Give the seconds by which a server's clock is ahead of ours, by the date of its answer; 0 where that has none."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return 0.0


def _line(text: object) -> str:
    return " ".join(str(text).split())
