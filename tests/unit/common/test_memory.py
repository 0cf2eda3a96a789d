"""How much memory this process may take, asked of folders laid out as the kernel does, and of this machine."""

import ctypes
import signal
import sys
import threading
from pathlib import Path

import pytest

from stages.common import memory
from tests import programs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")

V2 = "0::/pod/main\n"
V1 = "5:cpu:/other\n4:memory:/pod/main\n0::/\n"


def lay_out(folder: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, kind: str, root: str = "/") -> Path:
    """Lay out what the kernel tells a process; give the mount."""
    mount = folder / "mount"
    mount.mkdir()
    options = "rw,memory" if kind == "cgroup" else "rw"
    (folder / "cgroup").write_text(cgroup)
    (folder / "mountinfo").write_text(
        f"31 23 0:28 {root} {mount} rw,relatime shared:1 - {kind} {kind} {options}\n22 1 8:1 / / rw - ext4 /dev/a rw\n"
        "23 1 0:9 / /nameless rw - tmpfs  rw\n"
    )
    (folder / "statm").write_text("500 100 0 0 0 0 0\n")
    monkeypatch.setattr(memory, "PROCESS", folder)
    return mount


def group(folder: Path, limit: str, used: int, files: int, *, old: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ("memory.limit_in_bytes" if old else "memory.max")).write_text(f"{limit}\n")
    (folder / ("memory.usage_in_bytes" if old else "memory.current")).write_text(f"{used}\n")
    prefix = "total_" if old else ""
    (folder / "memory.stat").write_text(f"anon 1\n{prefix}active_file {files // 2}\n{prefix}inactive_file {files - files // 2}\n")


@pytest.mark.parametrize("old", [False, True], ids=["v2", "v1"])
def test_limits_are_found_from_the_group_upward_without_copies_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    mount = lay_out(tmp_path, monkeypatch, V1 if old else V2, "cgroup" if old else "cgroup2")
    group(mount / "pod" / "main", "9223372036854771712" if old else "max", 700, 0, old=old)
    group(mount / "pod", "1000", 900, 300, old=old)
    group(mount, "4000", 1500, 0, old=old)
    assert [(bound.name, bound.limit, bound.used()) for bound in memory.bounds()] == [("the cgroup", 1000, 600), ("the cgroup", 4000, 1500)]
    assert memory.allowed() == (1000, "the cgroup"), "of those 400 are free, but who holds more than 600 may come to hold no less"


def test_in_a_container_the_mount_is_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own path is then told as from outside, or as one that leads out."""
    mount = lay_out(tmp_path, monkeypatch, "4:memory:/docker/abc\n", "cgroup", root="/docker/abc")
    group(mount, "1000", 10, 0, old=True)
    assert [bound.limit for bound in memory.bounds()] == [1000]
    (tmp_path / "cgroup").write_text("4:memory:/../elsewhere\n")
    assert [bound.limit for bound in memory.bounds()] == [1000]


def test_a_group_that_does_not_tell_of_files_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of gVisor have no memory.stat."""
    mount = lay_out(tmp_path, monkeypatch, V2, "cgroup2")
    group(mount / "pod", "1000", 900, 300)
    (mount / "pod" / "memory.stat").unlink()
    assert [(bound.limit, bound.used()) for bound in memory.bounds()] == [(1000, 900)]


def test_without_a_limit_nothing_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group(lay_out(tmp_path, monkeypatch, V2, "cgroup2") / "pod" / "main", "max", 700, 0)
    assert memory.bounds() == []
    before = threading.active_count()
    with memory.watched(lambda: None, tmp_path):
        assert threading.active_count() == before


def test_those_who_share_a_machine_are_allowed_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, _ = memory.allowed()
    monkeypatch.setenv("SUREFOOT_SHARES", "1000")
    part, by = memory.allowed()
    assert 0 < part < alone
    assert by in ("this machine, for each of 1000 workers", "the cgroup, for each of 1000 workers")


def test_this_machine_allows_no_more_than_it_has() -> None:
    most, by = memory.allowed()
    assert memory.resident() < most < 2**50
    assert by


@pytest.mark.parametrize("thread", ["of Python", "of a library"])
def test_a_library_that_aborts_is_out_of_memory(tmp_path: Path, thread: str) -> None:
    """The word is left and the scratch removed, whoever aborts; and after the fits, an abort is one again."""
    (tmp_path / "scratch").mkdir()
    program = f"""
import ctypes, pathlib, sys, time
from stages.common import log, memory
log.setup()
libc = ctypes.CDLL(None)
with memory.watched(lambda: print("down", flush=True), pathlib.Path({str(tmp_path / "scratch")!r})):
    if sys.argv[1] == "of Python":
        libc.abort()
    elif sys.argv[1] == "of a library":
        libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, libc.abort, None)
        while True:
            libc.usleep(1000)
libc.abort()
"""
    ended = programs.python("-c", program, thread)
    assert (ended.code, ended.out) == (76, "down\n"), ended.err
    assert ended.named("step.failed")[0]["message"].startswith("a library aborted the process")
    assert not (tmp_path / "scratch").exists()
    assert programs.python("-c", program, "after the fits").code == -signal.SIGABRT


ABORTS = """
import ctypes, pathlib, sys, threading, time
from stages.common import log, memory
log.setup()
memory.LAST, libc = 2 if sys.argv[1] == "heap" else 60, ctypes.PyDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.malloc_usable_size.argtypes = [ctypes.c_void_p]
def give_up():
    print("down", flush=True)
    if sys.argv[1] == "again":
        libc.abort()
    if sys.argv[1] == "heap":
        memory.kept = [bytearray(100_000) for _ in range(100)]
    time.sleep(0.3)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
with memory.watched(give_up, pathlib.Path("/nowhere")):
    if sys.argv[1] == "four":
        for _ in range(4):
            libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, libc.abort, None)
        time.sleep(60)
    if sys.argv[1] == "heap":
        last = [libc.malloc(100_000) for _ in range(100)][-1]
        ctypes.memset(last + libc.malloc_usable_size(last), 255, 8)
        libc.malloc(100_000)
    libc.abort()
"""


@pytest.mark.parametrize(("who", "code"), [("four", 76), ("again", 134), ("heap", -signal.SIGALRM)])
def test_a_process_that_aborts_ends_once_and_in_time(who: str, code: int) -> None:
    """Four threads abort at once; one aborts again as it leaves word; one holds the lock of a damaged heap."""
    if who == "heap" and not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        pytest.skip("this heap is not glibc's")
    ended = programs.python("-c", ABORTS, who, limit=60)
    assert (ended.code, ended.out) == (code, "down\n"), ended.err


def test_a_process_near_its_limit_ends_itself(tmp_path: Path) -> None:
    """At the limit of ulimit -v, as at that of a cgroup: whoever works in a library is not asked."""
    (tmp_path / "scratch").mkdir()
    program = f"""
import pathlib, time
from stages.common import log, memory
log.setup()
held = []
with memory.watched(lambda: pathlib.Path({str(tmp_path / "word")!r}).write_text("down"), pathlib.Path({str(tmp_path / "scratch")!r})):
    for _ in range(200):
        held.append(bytearray(2_000_000))
        time.sleep(0.01)
"""
    limit = 400_000_000
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n{program}"
    ended = programs.python("-c", limited)
    assert ended.code == 76, ended.err
    (told,) = ended.named("step.failed")
    assert told["error"] == "OutOfMemory"
    assert told["message"].endswith("of 0.40 GB that ulimit -v allows were used: ended in time.")
    assert (tmp_path / "word").read_text() == "down"
    assert not (tmp_path / "scratch").exists()
