"""A network of its own, with one cable to this machine, which is cut: what is sent is lost, and nobody says so.

``python -m tests.network PORT`` lets a port of the loopback device be reached at ``HERE``.
"""

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from typing import Self

from tests.servers import Missing

HERE, THERE = "10.213.87.1", "10.213.87.2"  # this machine's end, and the other one
PIECE = 65_536  # bytes


class Network:
    """A network namespace, which a process of ours holds, and from which servers of the loopback device are reached at ``HERE``."""

    def __init__(self) -> None:
        if os.getuid() or not shutil.which("ip"):
            raise Missing("no network can be made here: that takes root, and iproute2")
        self._near, self._far = f"sf{os.getpid()}a", f"sf{os.getpid()}b"
        self._held: list[subprocess.Popen[bytes]] = []
        self.path = ""  # of the namespace

    def __enter__(self) -> Self:
        hold = "import os, sys; os.unshare(os.CLONE_NEWNET); print(os.getpid(), flush=True); sys.stdin.read()"
        holder = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._held.append(holder)
        assert holder.stdout
        process = holder.stdout.readline().decode().strip()
        self.path = f"/proc/{process}/ns/net"
        try:
            _ip(f"link add {self._near} type veth peer name {self._far} netns {process}")
            _ip(f"address add {HERE}/30 dev {self._near}")
            _ip(f"link set {self._near} up")
            _ip(f"address add {THERE}/30 dev {self._far}", self.path)
            _ip(f"link set {self._far} up", self.path)
            _ip("link set lo up", self.path)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            self.__exit__()
            raise Missing(f"no network can be made here: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._held:
            process.kill()
            process.communicate()
        with contextlib.suppress(subprocess.CalledProcessError):  # the namespace may have taken it along
            _ip(f"link delete {self._near}")

    def reach(self, port: int) -> int:
        """Let a port of the loopback device be reached from there; give the one that it has at ``HERE``."""
        carrier = subprocess.Popen([sys.executable, "-m", "tests.network", str(port)], stdout=subprocess.PIPE)
        self._held.append(carrier)
        assert carrier.stdout
        return int(carrier.stdout.readline())

    def cut(self, rng: random.Random, seconds: float) -> tuple[float, float]:
        """Cut the cable for a random time up to so many seconds; give when it was cut, and when it was whole again."""
        gone = time.time()
        _ip(f"link set {self._near} down")
        time.sleep(rng.uniform(0, seconds))
        _ip(f"link set {self._near} up")
        return gone, time.time()


def enter(path: str) -> None:
    """Move this process into a network."""
    file = os.open(path, os.O_RDONLY)
    os.setns(file, os.CLONE_NEWNET)
    os.close(file)


def _ip(words: str, path: str = "") -> None:
    """Run ``ip``, in a network if one is given."""
    inside = ["nsenter", f"--net={path}"] if path else []
    subprocess.run([*inside, "ip", *words.split()], check=True, capture_output=True)


async def carry(port: int) -> None:
    """Carry the bytes of all connections, and say at which port."""
    server = await asyncio.start_server(lambda *client: _both(port, *client), HERE, 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


async def _both(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # the server is away
        near, far = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_one(reader, far), _one(near, writer))
    writer.close()


async def _one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(carry(int(sys.argv[1])))
