"""Programs, started as a user starts them."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PYTHON = [sys.executable]
SUREFOOT = ("-c", "from workflows.cli import main; main()")


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str
    seconds: float  # of processor time, so that a busy machine changes nothing

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its log lines; a line that is none is an event of its own, so that nobody overlooks it."""
        return [json.loads(line) if line.startswith("{") else {"event": "raw", "message": line} for line in self.err.splitlines()]

    def named(self, event: str) -> list[dict[str, Any]]:
        """Give its log lines of one kind."""
        return [line for line in self.events if line["event"] == event]

    @property
    def answer(self) -> Any:
        """The one JSON line on its stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)


def environment(more: Mapping[str, str] = MappingProxyType({}), root: Path = ROOT) -> dict[str, str]:
    """Give a child's environment: this project's packages, and nothing that this shell says of Surefoot."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SUREFOOT")}
    return {**inherited, "PYTHONPATH": str(root), **more}


def python(
    *arguments: str | Path, more: Mapping[str, str] = MappingProxyType({}), root: Path = ROOT, cwd: Path | None = None, limit: float = 120
) -> Ended:
    """Run a Python program of the project to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*PYTHON, *map(str, arguments)]
    done = subprocess.run(
        command, env=environment(more, root), cwd=cwd or root, capture_output=True, timeout=limit, check=False, stdin=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode(), seconds)


def surefoot(
    *arguments: str | Path, more: Mapping[str, str] = MappingProxyType({}), root: Path = ROOT, cwd: Path | None = None, limit: float = 120
) -> Ended:
    """Run the ``surefoot`` command to its end."""
    return python(*SUREFOOT, *arguments, more=more, root=root, cwd=cwd, limit=limit)
