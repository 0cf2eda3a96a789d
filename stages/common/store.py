"""Where results are kept: a folder or S3, one interface, one test suite (design: the store)."""

import errno
import hashlib
import io
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, override

from stages.common import log
from stages.common.errors import ConfigError, NotNow, UsageError

PAUSES: tuple[float, ...] = (0.5, 1, 2, 4, *(5,) * 10)  # seconds between the tries of one request: a minute
BLOCK = 1 << 18  # bytes moved at once
DAY = 86_400  # seconds after which a temporary file belongs to nobody
MARKER, MARKED = "store.json", b'{"format": 1}\n'

type Keys = list[str]


class Unreadable(NotNow):
    """An object's bytes break off, each time: its server is there, and notices that its disk gave other bytes than it was given."""


class Head(NamedTuple):
    """What is known of an object without reading it; ``sha256`` (hex) only where a server keeps it."""

    size: int
    sha256: str | None


class Store(Protocol):
    """Objects under keys such as ``blobs/<sha256>``. A key that holds an object is never the folder of another key."""

    address: str

    def read(self, key: str) -> bytes:
        """Return the bytes; KeyError when absent, Unreadable when they break off each time."""

    def download(self, key: str, path: Path) -> str:
        """Write the object to ``path`` and return the sha256 (hex) of what arrived, unverified; as ``read`` otherwise."""

    def head(self, key: str) -> Head | None:
        """Return what is known without reading, None when absent."""

    def list(self, prefix: str) -> Keys:
        """Return the sorted keys that start with ``prefix``."""

    def create(self, key: str, data: bytes | Path) -> bool:
        """Publish once, whole and durable. False when the key is there already, which stays as it is.

        After a lost response False may stand for our own write: whoever minds compares the content.
        """

    def replace(self, key: str, data: bytes | Path) -> None:
        """Put in place of what is there, whole and durable: ``scratch/``, and what is named by its digest and was damaged."""

    def drop(self, key: str) -> None:
        """Delete from ``scratch/``; no error when absent."""

    def local(self, key: str) -> Path | None:
        """Return the file that is the object, None where objects are no files here."""


def open_store(address: str, *, prove: bool = True) -> Store:
    """Open a folder or ``s3://bucket/prefix``, made where it is missing, after a proof that create-once works there.

    Without ``prove`` nothing is written.
    """
    if address.startswith("s3://"):
        from stages.common.s3 import open_s3  # Here, since the client costs half a second, and a folder does without

        return open_s3(address, prove=prove)
    if not address or "://" in address:
        raise ConfigError(f"{address!r} is no store. Give a folder or s3://bucket/prefix.")
    return FolderStore(Path(address).expanduser().resolve(), prove=prove)


def retry[T](what: str, action: Callable[[], T]) -> T:
    """Call ``action`` again, after a pause, as long as it raises NotNow; at last raise NotNow with ``what``, which says where."""
    start = time.monotonic()
    for tries, pause in enumerate(PAUSES, start=1):
        try:
            return action()
        except NotNow as error:
            log.warning("retry", what=what, tries=tries, pause=pause, error=str(error))
            time.sleep(pause)
    try:
        return action()
    except NotNow as error:
        raise type(error)(f"{what}: gave up after {len(PAUSES) + 1} tries in {time.monotonic() - start:.0f} s: {error}") from error


def checked(key: str) -> str:
    """Return ``key`` if it can be one: relative, of ``A-Za-z0-9._-`` and ``/``, no way up, not in ``tmp/``."""
    parts = key.split("/")
    plain = all(re.fullmatch(r"[A-Za-z0-9._-]{1,255}", part) and part not in {".", ".."} for part in parts)
    if not plain or parts[0] == "tmp" or len(key) > 800:  # S3 ends at 1,024 bytes, the store's own prefix included
        raise UsageError(f"{key!r} is no key of a store: letters, digits and ._- between single slashes, not above the store or in tmp/.")
    return key


def checked_prefix(prefix: str) -> str:
    """Return ``prefix`` if a key can start with it."""
    return checked(prefix + "x")[:-1] if prefix else prefix


def blocks(data: bytes | Path) -> Iterator[bytes]:
    """Yield what is to be stored, a block at a time."""
    with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as file:
        yield from _blocks(file)


def save(stream: Iterable[bytes], path: Path) -> str:
    """Write ``stream`` to ``path``, whole or not at all, and return its sha256 (hex)."""
    digest, part = hashlib.sha256(), path.with_name(f"{path.name}.{os.urandom(8).hex()}.part")
    try:
        with part.open("xb") as file:
            for block in stream:
                digest.update(block)
                file.write(block)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return digest.hexdigest()


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Translate what a disk or its rights answer; anything else is a bug and passes."""
    try:
        yield
    except OSError as error:
        said = f"{error.filename or path}: {error.strerror}"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NotNow(f"{said} ({_free(path)} MB free). Make room or set another store, then run again.") from error
        if error.errno in {errno.EIO, errno.ESTALE}:
            raise NotNow(f"{said}. Look at the disk or its network, then run again.") from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise ConfigError(f"{said}. Let user {os.getuid()} write there, or set another store.") from error
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(f"{said}. Set another store.") from error
        if error.errno in {errno.ENOTDIR, errno.EEXIST}:
            raise ConfigError(f"{said}. A file stands where a folder is needed: move it away or set another store.") from error
        raise


class FolderStore(Store):
    """A store in a folder: one file per object, written aside in ``tmp/`` and then linked, which only one writer can."""

    def __init__(self, root: Path, *, prove: bool = True) -> None:
        self.address, self._root, self._tmp = str(root), root, root / "tmp"
        with on_disk(root):
            self._durable = {folder for folder in (root, *root.parents) if folder.is_dir()}
            if prove:
                self.create(MARKER, MARKED)
            self._sweep()

    @override
    def read(self, key: str) -> bytes:
        with on_disk(self.local(key)), self._open(key) as file:
            return file.read()

    @override
    def download(self, key: str, path: Path) -> str:
        with on_disk(path), self._open(key) as file:
            return save(_blocks(file), path)

    @override
    def head(self, key: str) -> Head | None:
        path = self.local(key)
        with on_disk(path):
            return Head(path.stat().st_size, None) if path.is_file() else None

    @override
    def list(self, prefix: str) -> Keys:
        keys = []
        with on_disk(self._root):
            for folder, below, names in os.walk(self._root / checked_prefix(prefix).rpartition("/")[0], onerror=_unless_gone):
                here = Path(folder).relative_to(self._root)
                if not here.parts:
                    below[:] = [name for name in below if name != "tmp"]
                keys += [(here / name).as_posix() for name in names]
        return sorted(key for key in keys if key.startswith(prefix))

    @override
    def create(self, key: str, data: bytes | Path) -> bool:
        path = self.local(key)
        with on_disk(path):
            created = not path.is_file() and self._publish(path, data, self._link)
            if not created:
                _fsync(path.parent)  # Its writer may have died before doing so, and we are about to build on it.
        return created

    @override
    def replace(self, key: str, data: bytes | Path) -> None:
        assert key.startswith(("scratch/", "blobs/", "raw/", "config/")), key
        path = self.local(key)
        with on_disk(path):
            self._publish(path, data, os.replace)

    @override
    def drop(self, key: str) -> None:
        assert key.startswith("scratch/"), key
        path = self.local(key)
        with on_disk(path):
            path.unlink(missing_ok=True)

    @override
    def local(self, key: str) -> Path:
        return self._root / checked(key)

    def _open(self, key: str) -> BinaryIO:
        try:
            return self.local(key).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise KeyError(key) from None

    def _publish(self, path: Path, data: bytes | Path, into_place: Callable[[Path, Path], bool | None]) -> bool:
        """Write aside, fsync, put into place, fsync the folder; False if ``into_place`` says so."""
        self._make(self._tmp)
        self._make(path.parent)
        temp = self._tmp / os.urandom(16).hex()
        try:
            _write(temp, data)
            if into_place(temp, path) is False:
                return False
            _fsync(path.parent)
        finally:
            with suppress(OSError):  # Gone after a replace; what stays for another reason is swept some day.
                temp.unlink()
        return True

    def _link(self, temp: Path, path: Path) -> bool:
        try:
            os.link(temp, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}:
                raise ConfigError(
                    f"{path}: no hard link from {self._tmp} ({error.strerror}). The store must be one file system with hard links."
                ) from error
            raise
        return True

    def _make(self, folder: Path) -> None:
        """Make a folder that outlives a power cut: its own entry is fsynced too, once per process."""
        if folder in self._durable and folder.is_dir():
            return
        self._make(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
        _fsync(folder.parent)
        self._durable.add(folder)

    def _sweep(self) -> None:
        """Delete what dead writers left."""
        for path in self._tmp.glob("*"):
            with suppress(OSError):  # Another process sweeps too, and what we may not delete is not ours.
                if time.time() - path.stat().st_mtime > DAY:
                    path.unlink()


def _write(path: Path, data: bytes | Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for block in blocks(data):
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def _fsync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _free(path: Path) -> int:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(there).free >> 20


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
