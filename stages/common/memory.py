"""Main memory: how much of it this process may take, and what ends it near its limit before the kernel does."""

import contextlib
import ctypes
import functools
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from stages.common import log, step
from stages.common.errors import NotNow, OutOfMemory

FULL = 0.95  # of a limit: here a process ends itself
PAUSES = 0.01, 0.25  # seconds between two looks, at least and at most
GROWTH = 4e9  # bytes a second, no faster is memory filled: the nearer the limit, the sooner the next look
UNLIMITED = 2**60  # bytes: cgroup v1 says a larger number where there is no limit
FILES = {"memory.max": ("memory.current", ""), "memory.limit_in_bytes": ("memory.usage_in_bytes", "total_")}  # of cgroup v2, and v1
LITTLE = 1 << 20  # bytes of a disk, hardly room for a file
LAST = 300  # seconds to leave word in, then SIGALRM ends the process: a database that is away is waited for in them
PROCESS = Path("/proc/self")
SIGACTION = 1024  # bytes that hold a struct sigaction of any system
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Bound:
    """A limit of memory, in bytes, and how much is used of it."""

    name: str
    limit: int
    used: Callable[[], int]


def bounds() -> list[Bound]:
    """Give what ends this process, or its allocations, where it takes more: the limits of its cgroups and of ``ulimit -v``."""
    found = [bound for folder in _cgroups() if (bound := _cgroup(folder))]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [*found, Bound("ulimit -v", limit, _virtual)] if limit != resource.RLIM_INFINITY and PROCESS.exists() else found


def allowed(*, ever: bool = False) -> tuple[float, str]:
    """Give how many bytes this process may come to hold, with those that it holds, and what says so; ``ever``, if nobody else held any.

    Processes that share a machine, SUREFOOT_SHARES of them, are each allowed their part of it.
    """
    own, shares, limits = resident(), int(os.environ.get("SUREFOOT_SHARES", "1")), bounds()
    found: list[tuple[float, str]] = [(bound.limit if ever else own + bound.limit - bound.used(), bound.name) for bound in limits]
    each = f", for each of {shares} workers" if shares > 1 else ""
    found += [(bound.limit / shares, bound.name + each) for bound in limits if bound.name != "ulimit -v"]
    if (machine := Path("/proc/meminfo")).exists():
        told = {name: 1024 * int(value.split()[0]) for name, value in (line.split(":") for line in machine.read_text().splitlines())}
        found += [] if ever else [(own + told["MemAvailable"], "what is free on this machine")]
        found += [(told["MemTotal"] / shares, "this machine" + each)]
    return min(found, default=(float("inf"), ""))


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where nobody tells."""
    return _pages(1)


def _virtual() -> int:
    return _pages(0)


def _pages(place: int) -> int:
    try:
        return int((PROCESS / "statm").read_text().split()[place]) * PAGE
    except OSError:
        return 0


def _cgroup(folder: Path) -> Bound | None:
    """Give the limit of one cgroup, of either version; None where it has none."""
    for name, (current, prefix) in FILES.items():
        try:
            said = (folder / name).read_text().strip()
        except OSError:
            continue
        if said == "max" or int(said) >= UNLIMITED or not (folder / current).exists():
            return None
        return Bound("the cgroup", int(said), functools.partial(_used, folder / current, folder / "memory.stat", prefix))
    return None


def _used(current: Path, stat: Path, prefix: str) -> int:
    """Bytes of a cgroup's memory that are no copies of files: those go before anybody is killed."""
    told = dict(line.split(" ", 1) for line in stat.read_text().splitlines()) if stat.exists() else {}  # gVisor has none
    return int(current.read_text()) - sum(int(told.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))


def _cgroups() -> Iterator[Path]:
    """Give the folders of this process's memory cgroup and of all around it, as far as they are seen from here."""
    try:
        own = [line.split(":", 2)[1:] for line in (PROCESS / "cgroup").read_text().splitlines()]
        mounts = (PROCESS / "mountinfo").read_text().splitlines()
    except OSError:
        return
    for mount in mounts:
        head, _, tail = mount.partition(" - ")
        root, point = head.split()[3:5]
        kind, *_, options = tail.split()  # who mounted it may have named no source
        if kind == "cgroup2":
            paths = [path for controllers, path in own if not controllers]
        elif kind == "cgroup" and "memory" in options.split(","):
            paths = [path for controllers, path in own if "memory" in controllers.split(",")]
        else:
            continue
        for path in map(PurePosixPath, paths):
            # In a container the mount's root may be the group itself, or its path be told as from outside.
            inner = path.relative_to(root) if path.is_relative_to(root) and ".." not in path.parts else PurePosixPath()
            folder = Path(point) / inner
            yield from (folder, *(outer for outer in folder.parents if outer.is_relative_to(point)))


@contextlib.contextmanager
def watched(give_up: Callable[[], None], scratch: Path) -> Iterator[None]:
    """End this process where it nears a limit of its memory, or a library aborts it: a fit inside of one cannot be told to stop.

    Then ``give_up()`` leaves word for the next attempt, ``scratch`` is removed, and the process ends as ``OutOfMemory`` does. Without a
    limit nothing is watched.
    """
    ended, found = threading.Event(), bounds()

    def watch() -> None:
        pause = 0.0
        while not ended.wait(pause):
            left, bound = min(((FULL * bound.limit - bound.used(), bound) for bound in found), key=lambda one: one[0])
            if left <= 0:
                _hold_still()
                said = f"{bound.used() / 1e9:.2f} of {bound.limit / 1e9:.2f} GB that {bound.name} allows were used: ended in time."
                _end(said, give_up, scratch)
            pause = min(max(left / GROWTH, PAUSES[0]), PAUSES[1])

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    if found:
        thread.start()
    try:
        with _abortable(give_up, scratch):
            yield
    finally:
        ended.set()
        if found:
            thread.join()


def _hold_still() -> None:
    """Let all other threads of this process sleep for some seconds, wherever they are: memory fills faster than a database is written."""
    libc = ctypes.PyDLL(None)  # which keeps Python's lock: no other thread holds it then
    if not hasattr(libc, "tgkill"):  # glibc has it
        return
    libc.signal(signal.SIGUSR2, ctypes.cast(libc.sleep, ctypes.c_void_p))  # it sleeps as many seconds as the signal's number, 12
    for thread in (int(entry.name) for entry in (PROCESS / "task").iterdir()):
        if thread != threading.get_native_id():
            libc.tgkill(os.getpid(), thread, signal.SIGUSR2)


@contextlib.contextmanager
def _abortable(give_up: Callable[[], None], scratch: Path) -> Iterator[None]:
    """Take an abort for a lack of memory: a thread of a library that finds none, CatBoost's on a full GPU too, has nobody to tell.

    Or for one of room for scratch files, where there is none: CatBoost may abort for that as well.

    The thread that aborts runs Python here, which waits for nobody: fits hold no lock of Python's.
    """
    libc, before = ctypes.CDLL(None), ctypes.create_string_buffer(SIGACTION)
    said = "a library aborted the process, as they do where a GPU or a limit is full. Its last words stand before these."

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _signal: _end(said, give_up, scratch))
    libc.sigaction(signal.SIGABRT, None, before)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
    libc.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        libc.sigaction(signal.SIGABRT, before, None)


def is_full(folder: Path) -> bool:
    """Tell whether a folder's disk has hardly room for a file."""
    try:
        told = os.statvfs(folder)
    except OSError:
        return False
    return told.f_bavail * told.f_frsize < LITTLE


_enders: list[int] = []  # threads that came to end this process: the first one does


def _end(said: str, give_up: Callable[[], None], scratch: Path) -> NoReturn:
    signal.alarm(LAST)  # who aborts for a damaged heap holds its lock, and may wait for it here, and all others for Python's
    _enders.append(me := threading.get_ident())
    while _enders[0] != me:
        time.sleep(LAST)
    if _enders.count(me) > 1:  # it aborted again on its way
        os._exit(128 + signal.SIGABRT)

    def end() -> None:
        if is_full(scratch):
            shutil.rmtree(scratch, ignore_errors=True)
            raise NotNow(f"a library aborted the process, and {scratch.parent} is full. Free some of it.")
        try:
            give_up()
        except Exception as error:  # noqa: BLE001 - whatever it is, memory does not wait
            log.warning("rung.not_left", error=f"{type(error).__name__}: {error}", so="the next attempt asks for as much memory")
        shutil.rmtree(scratch, ignore_errors=True)
        raise OutOfMemory(said)

    os._exit(step.guarded(end))
