"""A disk of its own, which is filled: a tmpfs that nothing else is on."""

import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Self

from tests.servers import Missing

SIZE = 64  # MiB


class Disk:
    """A small disk at a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def __enter__(self) -> Self:
        self.folder.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "surefoot", self.folder], check=False, capture_output=True)
        if made.returncode:
            raise Missing(f"no disk can be made here: {made.stderr.decode().strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def fill(self, rng: random.Random, left: int) -> None:
        """Fill it, but for a random number of bytes up to so many."""
        room = shutil.disk_usage(self.folder).free - rng.randrange(left)
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(room, 1))

    def empty(self) -> None:
        """Take away what filled it."""
        self._filler.unlink()
