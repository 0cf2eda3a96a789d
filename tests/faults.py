"""Faults, injected where a store meets the outside: the nth request or system call fails."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3

from stages.common import store as stores
from stages.common.store import FolderStore

DONE, FOR_GOOD = "is done, but said to have failed", "fails, and so do all after it"
MODES = ("fails", DONE, FOR_GOOD)
CHANGES = {"write", "fsync", "link", "replace", "mkdir", "PUT", "DELETE"}  # these can be done although they are said to have failed


@dataclass
class Fault:
    """Which calls fail, and what was called."""

    nth: int  # 0: none
    mode: str = "fails"
    calls: list[str] = field(default_factory=list)

    def around(self, name: str, real: Callable[[], Any], error: Exception) -> Any:
        """Make a call, or fail."""
        self.calls.append(name)
        hit = self.nth and (len(self.calls) == self.nth or (self.mode == FOR_GOOD and len(self.calls) > self.nth))
        if hit and not (self.mode == DONE and name in CHANGES):
            raise error
        answer = real()
        if hit:
            raise error
        return answer


@contextmanager
def on_disk(root: Path, fault: Fault) -> Iterator[Fault]:
    """Let calls fail that look into or change a folder."""
    files: set[int] = set()

    def faulty(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            inside = args[0] in files if isinstance(args[0], int) else Path(os.fsdecode(args[0])).is_relative_to(root)
            if not inside:
                return real(*args, **options)
            answer = fault.around(name, lambda: real(*args, **options), OSError(errno.EIO, os.strerror(errno.EIO)))
            if name == "open":
                files.add(answer)
            return answer

        return call

    def close(file: int) -> None:
        files.discard(file)
        os_close(file)

    def opened(self: FolderStore, key: str) -> Any:
        return fault.around("read", lambda: read(self, key), OSError(errno.EIO, os.strerror(errno.EIO)))

    os_close, read = os.close, FolderStore._open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderStore, "_open", opened)
        for name in ("open", "write", "fsync", "link", "replace", "mkdir", "stat", "scandir"):
            patch.setattr(os, name, faulty(name))
        patch.setattr(os, "close", close)
        yield fault


@contextmanager
def on_the_way(fault: Fault) -> Iterator[Fault]:
    """Let requests to an S3 server fail, and retry without a pause."""
    real = urllib3.PoolManager.urlopen

    def urlopen(self: urllib3.PoolManager, method: str, *args: Any, **options: Any) -> Any:
        error = urllib3.exceptions.ProtocolError("the connection broke, says the test")
        return fault.around(method, lambda: real(self, method, *args, **options), error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib3.PoolManager, "urlopen", urlopen)
        patch.setattr(stores, "PAUSES", (0, 0))
        yield fault


@contextmanager
def at(address: str, fault: Fault) -> Iterator[Fault]:
    """Let calls fail between us and a store."""
    with on_the_way(fault) if address.startswith("s3://") else on_disk(Path(address), fault):
        yield fault
