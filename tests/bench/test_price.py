"""What the store, the processes, the checks and the judging cost beside a plain script of the same fits. Printed, never a limit.

SUREFOOT_BENCH_ROWS, SUREFOOT_BENCH_TRIALS and SUREFOOT_BENCH_PAIRS say how large; at full size (590540 rows, 20 trials) a pair takes
an hour on two cores. SUREFOOT_BENCH_DEPTH, the deepest trees that are tried, makes it shorter, and the share of all else larger.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.common import recipe
from stages.families import xgboost
from stages.prepare import ieee_cis

SIZES = {"ROWS": 20_000, "TRIALS": 20, "PAIRS": 3}
DEPTH = int(os.environ.get("SUREFOOT_BENCH_DEPTH", xgboost.SPACE["max_depth"][1]))
ROWS, TRIALS, PAIRS = (int(os.environ.get(f"SUREFOOT_BENCH_{name}", default)) for name, default in SIZES.items())


def _run(*command: str) -> tuple[float, str]:
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(recipe.ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([sys.executable, *command], cwd=recipe.ROOT, check=True, capture_output=True, text=True, env=environment)
    return time.monotonic() - started, done.stdout


@pytest.mark.bench
def test_price_of_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Interleaved pairs of `surefoot run` and the plain script; both must end well."""
    ieee_cis.write(ROWS, 0, tmp_path)
    paths = [f"prepare.path={tmp_path / 'train_transaction.csv'}", f"prepare.join_path={tmp_path / 'train_identity.csv'}"]
    options = [*paths, f"search.n_trials={TRIALS}", "search.rounds=300", "train.rounds=300", "prepare.min_per_class=5"]
    options.append(f"search.space={{xgboost: {{max_depth: [3, {DEPTH}]}}}}")
    sets = [word for option in options for word in ("--set", option)]
    whole, plain = [], []
    steps: dict[str, list[float]] = {}
    for pair in range(PAIRS):
        store = tmp_path / f"store-{pair}"
        seconds, answer = _run("-m", "workflows.cli", "run", "configs/ieee-cis.yaml", "--json", "--store", str(store), *sets)
        whole.append(seconds)
        for step in json.loads(answer)["steps"]:
            steps.setdefault(step["step"], []).append(step["seconds"])
        manifests = {one["step"]: one for one in json.loads(_run("-m", "workflows.cli", "ls", "--json", "--store", str(store))[1])}
        trials = store / "blobs" / manifests["search-collect"]["files"]["trials.json"]["sha256"]
        seconds, answer = _run("tests/bench/plain.py", str(tmp_path), str(trials))
        plain.append(seconds)
        for step, seconds in json.loads(answer)["seconds"].items():
            steps.setdefault(f"plain: {step}", []).append(seconds)
    ratios = sorted(a / b for a, b in zip(whole, plain, strict=True))
    with capsys.disabled():
        sys.stdout.write(f"\nsurefoot run / plain script, {ROWS:,} rows, {TRIALS} trials, depth to {DEPTH}: ")
        sys.stdout.write(f"median {statistics.median(ratios):.2f} of ")
        sys.stdout.write(f"{[round(r, 2) for r in ratios]}; {[round(s) for s in whole]} s beside {[round(s) for s in plain]} s\n")
        sys.stdout.write("".join(f"  {name:24} {statistics.median(each):7.1f} s\n" for name, each in steps.items()))
    assert len(ratios) == PAIRS
