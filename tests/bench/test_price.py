"""What the store, the processes and the checks cost beside a plain script of the same fits. Printed, never a limit."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.common import recipe

PAIRS = 3


def _seconds(command: list[str]) -> float:
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(recipe.ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([sys.executable, *command], cwd=recipe.ROOT, check=True, capture_output=True, env=environment)
    return time.monotonic() - started


@pytest.mark.bench
def test_price_of_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Interleaved pairs of `surefoot run` and the plain script; both must end well."""
    whole, until_train, plain = [], [], []
    for pair in range(PAIRS):
        store = tmp_path / str(pair)
        whole.append(_seconds(["-m", "workflows.cli", "run", "configs/example.yaml", "--store", str(store)]))
        listed = subprocess.run(
            [sys.executable, "-m", "workflows.cli", "ls", "--json", "--store", str(store)], cwd=recipe.ROOT, check=True, capture_output=True
        )
        manifests = {one["step"]: one for one in json.loads(listed.stdout)}
        until_train.append(whole[-1] - sum(manifests[step]["measured"]["seconds"] for step in ("evaluate", "validate", "deploy")))
        trials = store / "blobs" / manifests["search-collect"]["files"]["trials.json"]["sha256"]
        plain.append(_seconds(["tests/bench/plain.py", str(trials)]))
    ratios = sorted(a / b for a, b in zip(whole, plain, strict=True))
    early = sorted(a / b for a, b in zip(until_train, plain, strict=True))
    with capsys.disabled():
        sys.stdout.write(f"\nsurefoot run / plain script: median {statistics.median(ratios):.2f} of {[round(r, 2) for r in ratios]}; ")
        sys.stdout.write(f"without judging: {statistics.median(early):.2f}; seconds {whole} beside {plain}\n")
    assert len(ratios) == PAIRS
