"""What prepare takes beside a plain pandas script of the same work, on the generated table at full size. Printed, never a limit.

SUREFOOT_BENCH_ROWS=100000 makes it smaller.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet
import pytest

from stages.common import recipe
from stages.prepare import ieee_cis

ROWS = int(os.environ.get("SUREFOOT_BENCH_ROWS", "590540"))
PAIRS = 5
# Runs a command, and tells the most memory (kB) that it had at once: of this process's children there is only that one.
MEASURED = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); \
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"


class Took(NamedTuple):
    """Seconds, and MB of memory at most."""

    seconds: float
    peak: float


def took(command: list[str]) -> Took:
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(recipe.ROOT)}
    run = [sys.executable, "-c", MEASURED, sys.executable, *command]
    done = subprocess.run(run, cwd=recipe.ROOT, check=True, capture_output=True, text=True, env=environment)
    return Took(time.monotonic() - started, int(done.stdout.splitlines()[-1]) * 1024 / 1e6)


def prepared(folder: Path, store: Path) -> list[str]:
    paths = [f"prepare.path={folder / 'train_transaction.csv'}", f"prepare.join_path={folder / 'train_identity.csv'}"]
    sets = [word for path in paths for word in ("--set", path)]
    return ["-m", "stages.prepare", "--config", "configs/ieee-cis.yaml", "--store", str(store), *sets, "--set", "prepare.min_per_class=5"]


def files(folder: Path, name: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(name))


@pytest.fixture(scope="module")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Give ``say(line)``, which prints although pytest captures."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stdout.write(f"\n{line}")

    return say


@pytest.mark.bench
def test_beside_a_plain_script(tmp_path: Path, say: Callable[[str], None]) -> None:
    """Interleaved pairs, each with an empty store; and what memory both took, beside the table that they made."""
    ieee_cis.write(ROWS, 0, tmp_path)
    size = files(tmp_path, "*.csv") / 1e6
    ours, plain = [], []
    for pair in range(PAIRS):
        ours.append(took(prepared(tmp_path, tmp_path / f"store-{pair}")))
        (tmp_path / f"plain-{pair}").mkdir()
        plain.append(took(["tests/bench/plain_prepare.py", str(tmp_path), str(tmp_path / f"plain-{pair}")]))
    made = [pyarrow.parquet.ParquetFile(tmp_path / "plain-0" / f"{name}.parquet").metadata for name in ("train", "valid", "test")]
    table = sum(one.num_rows * (one.num_columns - 2) * 4 for one in made) / 1e6
    ratios = [a.seconds / b.seconds for a, b in zip(ours, plain, strict=True)]
    say(f"prepare / plain script, {ROWS:,} rows: median {statistics.median(ratios):.2f} of {[round(ratio, 2) for ratio in ratios]}")
    say(f"prepare {[round(one.seconds, 1) for one in ours]} s ({size / statistics.median(one.seconds for one in ours):.0f} MB/s),")
    say(f"plain {[round(one.seconds, 1) for one in plain]} s; peak {max(one.peak for one in ours):.0f} MB, plain's")
    say(f"{max(one.peak for one in plain):.0f} MB, beside a final table of {table:.0f} MB in float32\n")
    assert len(ratios) == PAIRS


@pytest.mark.bench
def test_time_grows_with_rows(tmp_path: Path, say: Callable[[str], None]) -> None:
    for rows in (ROWS // 4, ROWS // 2, ROWS):
        folder = tmp_path / str(rows)
        ieee_cis.write(rows, 0, folder)
        one = took(prepared(folder, folder / "store"))
        say(f"prepare, {rows:,} rows: {one.seconds:.1f} s, {1e6 * one.seconds / rows:.0f} us a row, peak {one.peak:.0f} MB")
        assert one.peak > 0
