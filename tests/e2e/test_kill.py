"""``surefoot run``, killed with all its processes at moments spread over its work, and run again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stages.common import artifact
from stages.common.store import open_store
from tests import programs, small
from tests.toy.pipeline import digests

SEED = int(os.environ.get("SUREFOOT_TEST_SEED", "1"))
MOMENTS = 20
TRIALS = 4
# All borders are saved, and the fits are long enough to be hit.
SETS = (
    "common.checkpoint_interval_minutes=0",
    f"search.n_trials={TRIALS}",
    "search.rounds=150",
    "search.early_stopping_rounds=150",
    "train.rounds=150",
)


def command(config: Path, store: Path) -> list[str]:
    """Give the command that is killed and run again."""
    sets = [word for one in SETS for word in ("--set", one)]
    return [*programs.PYTHON, *programs.SUREFOOT, "run", str(config), "--store", str(store), "--json", *sets]


def run(config: Path, store: Path, seconds: float | None = None) -> tuple[int | None, list[dict[str, object]], str]:
    """Run; kill the whole group after some seconds. Give the exit code (None: killed), the log's events, and stdout."""
    log = store.with_name(f"{store.name}.log")
    with log.open("ab") as stderr:
        before = log.stat().st_size
        process = subprocess.Popen(
            command(config, store), env=programs.environment(), stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
        )
        try:
            out, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, _ = process.communicate()
    text = log.read_bytes()[before:].decode()
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]
    assert "Traceback" not in text, text
    return (None if process.returncode == -signal.SIGKILL else process.returncode), events, out.decode()


def labels(events: list[dict[str, object]], event: str) -> list[str]:
    """Name the steps that a log tells something of."""
    return [str(line["step"]) for line in events if line["event"] == event]


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    config = small.lay_out(tmp_path)
    with ThreadPoolExecutor(2) as pool:  # two at a time, as the kills will be
        started = time.monotonic()
        for undisturbed in [pool.submit(run, config, tmp_path / name) for name in ("undisturbed", "beside")]:
            assert undisturbed.result()[0] == 0
        whole = time.monotonic() - started
        expected = digests(open_store(str(tmp_path / "undisturbed")))
        assert digests(open_store(str(tmp_path / "beside"))) == expected
        # Spread over the work, with some chance in each stretch; what starts the command takes a second.
        moments = [1 + (whole - 1.5) * (number + rng.random()) / MOMENTS for number in range(MOMENTS)]
        killed = list(pool.map(lambda moment: kill(config, tmp_path / f"killed-{moment:.2f}", moment, expected), moments))
    interrupted = [step for step, _ in killed if step]
    sys.stderr.write(f"\n{MOMENTS} kills over {whole:.0f} s (seed {SEED}); in the midst of: {', '.join(interrupted)}\n")
    assert len(interrupted) >= MOMENTS / 2
    assert len(set(interrupted)) >= 4
    assert sum(trials == TRIALS for _, trials in killed) >= MOMENTS - 2, "a trial that was told is not done again"


def kill(config: Path, store: Path, moment: float, expected: list[tuple[str, str, str, str]]) -> tuple[str | None, int]:
    """Kill a run and run again. Give the step in whose midst it was, if it was in one, and how many trials were done in all."""
    code, first, _ = run(config, store, moment)
    done = {manifest.label: manifest.document["at"] for manifest in artifact.all_manifests(open_store(str(store)))}
    is_interrupted = code is None and len(labels(first, "step.started")) > len(labels(first, "step.worked"))
    code, second, out = run(config, store)

    assert code == 0, store
    assert digests(open_store(str(store))) == expected, store
    assert artifact.verify(open_store(str(store))) == [], store
    assert {row["step"] for row in json.loads(out)["steps"] if row["outcome"] == "made"} & set(done) == set(), store
    for manifest in artifact.all_manifests(open_store(str(store))):
        assert manifest.key.endswith("manifest-0"), store
        assert done.get(manifest.label, manifest.document["at"]) == manifest.document["at"], store
    trials = [line["slot"] for line in first + second if line["event"] == "trial.done"]
    assert set(trials) == set(range(TRIALS)), store
    return (labels(first, "step.started")[-1] if is_interrupted else None), len(trials)
