"""Print the figures that the project promises: ``make show``. Seconds are medians of three; nothing here passes or fails.

python -m tests.show [lines|runs|setup|images|coverage ...]
"""

import ast
import json
import os
import re
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from stages.common import recipe
from stages.common.config import STAGES

ROOT = recipe.ROOT
SHARED = ROOT.parent / "shared" / "data"
SUREFOOT = [sys.executable, "-m", "workflows.cli"]
TIMES = 3


def _call(command: list[str], folder: Path = ROOT, **environment: str) -> tuple[float, str]:
    """Run a command that must end well; give its seconds and what it wrote to stdout."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds, done.stdout


def _say(name: str, value: object) -> None:
    sys.stdout.write(f"{name:<44} {value}\n")
    sys.stdout.flush()


def _median(name: str, seconds: list[float]) -> None:
    _say(name, f"{statistics.median(seconds):.1f} s  ({', '.join(f'{one:.1f}' for one in seconds)})")


def lines() -> None:
    """Lines of code, without blank lines, comments and docstrings; and all lines."""
    for room in ["common", "features", "families", *STAGES]:
        files = [*(ROOT / "stages" / room).glob("*.py")]
        total = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
        _say(f"stages/{room}", f"{sum(_code(path) for path in files)} lines of code, {total} with comments and blank lines")


def _code(path: Path) -> int:
    text = re.sub(r'(?m)^\s*"""(.|\n)*?"""\s*$', "", path.read_text(encoding="utf-8"))
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))


def runs() -> None:
    """Time the runs that a newcomer makes."""
    first, again = [], []
    for _ in range(TIMES):
        with tempfile.TemporaryDirectory() as folder:
            command = [*SUREFOOT, "run", "configs/example.yaml", "--json", "--store", folder]
            first.append(_call(command)[0])
            seconds, text = _call(command)
            again.append(seconds)
            assert {step["outcome"] for step in json.loads(text)["steps"]} == {"done"}
    _median("make run, the first time", first)
    _median("make run, again (no step, no process)", again)
    for table, words in (("adult", []), ("bank-marketing", ["--drop", "duration", "--split", "random"])):
        if not (SHARED / f"{table}.csv").exists():
            _say(table, "not shown: ../shared/data is not beside the checkout")
            continue
        took: list[float] = []
        result = {}
        for _ in range(TIMES):
            with tempfile.TemporaryDirectory() as folder:
                config = f"{folder}/{table}.yaml"
                before = _call([*SUREFOOT, "init", str(SHARED / f"{table}.csv"), "--out", config, *words])[0]
                after, text = _call([*SUREFOOT, "run", config, "--json", "--store", f"{folder}/store"])
                took.append(before + after)
                result = json.loads(text)
        _median(f"{table}: init and run", took)
        _say(f"{table}: test AUC, verdict", f"{result['auc']:.4f}, {result['verdict']}")


def setup() -> None:
    """Time a fresh clone: packages and the first run together."""
    seconds = []
    for _ in range(TIMES):
        with tempfile.TemporaryDirectory() as folder:
            _call(["git", "clone", "--quiet", str(ROOT), folder])
            seconds.append(_call(["make", "setup", "run"], Path(folder))[0])
    _median("fresh clone: make setup run", seconds)


def images() -> None:
    """Each image's size beside the sum of its wheels."""
    if shutil.which("docker") is None:
        _say("images", "not shown: no docker")
        return
    requirements = runpy.run_path("images/assemble.py")["requirements"]
    base, tag = _size("python:3.12-slim-bookworm"), os.environ.get("TAG", "dev")
    gpu = [(stage, "gpu", f"{tag}-gpu") for stage in ("search", "train")]  # images/build --gpu dev-gpu search train
    for stage, flavour, version in [*((stage, "cpu", tag) for stage in STAGES), *gpu]:
        if not _call(["docker", "image", "ls", "--quiet", f"surefoot/{stage}:{version}"])[1]:
            _say(f"image {stage} for {flavour.upper()}s", f"not shown: there is no surefoot/{stage}:{version}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder) / "requirements.txt"
            wanted.write_text(requirements(stage, flavour), encoding="utf-8")
            _call([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", str(wanted), "-d", folder])
            wheels = sum(path.stat().st_size for path in Path(folder).glob("*.whl"))
        size = _size(f"surefoot/{stage}:{version}")
        said = f"{size / 1e6:.0f} MB, of which the base image {base / 1e6:.0f} MB; its wheels {wheels / 1e6:.0f} MB"
        _say(f"image {stage} for {flavour.upper()}s", said)


def _size(image: str) -> int:
    return int(_call(["docker", "image", "inspect", "--format", "{{.Size}}", image])[1])


def coverage() -> None:
    """Line coverage of the stages in `make test`, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--cov", "--cov-report", f"json:{folder}/coverage.json"]
        seconds, _ = _call(command)
        found = json.loads((Path(folder) / "coverage.json").read_text(encoding="utf-8"))
    _say("make test, with coverage", f"{seconds:.0f} s")
    parts: dict[str, list[int]] = {}
    for name, file in found["files"].items():
        room = "/".join(name.split("/")[:2]) if name.startswith("stages/") else name.split("/", maxsplit=1)[0]
        for key in (room, *(["stages"] if name.startswith("stages/") else [])):
            part = parts.setdefault(key, [0, 0])
            part[0] += file["summary"]["covered_lines"]
            part[1] += file["summary"]["num_statements"]
    for room, (covered, statements) in sorted(parts.items()):
        _say(f"coverage {room}", f"{100 * covered / statements:.1f} % of {statements} statements" if statements else "nothing to run")
    common = {name: file for name, file in found["files"].items() if name.startswith("stages/common/")}
    raised = {name: _raises(ROOT / name) for name in common}
    missed = [f"{name}:{line}" for name, lines in raised.items() for line in sorted(lines & {*common[name]["missing_lines"]})]
    _say("raises in stages/common", f"{sum(map(len, raised.values()))}, not reached by a test: {', '.join(missed) or 'none'}")


def _raises(path: Path) -> set[int]:
    return {node.lineno for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Raise)}


SHOWN: dict[str, Callable[[], None]] = {"lines": lines, "runs": runs, "setup": setup, "images": images, "coverage": coverage}

if __name__ == "__main__":
    for name in sys.argv[1:] or SHOWN:
        SHOWN[name]()
