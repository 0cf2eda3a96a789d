"""``surefoot run``, killed with all its processes at moments spread over its work, and run again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.common import artifact
from stages.common.store import open_store
from tests import programs, small
from tests.toy.pipeline import digests

SEED = int(os.environ.get("SUREFOOT_TEST_SEED", "1"))
MOMENTS = 20
# All borders are saved, and the fits are long enough to be hit.
SETS = (
    "common.checkpoint_interval_minutes=0",
    "search.n_trials=6",
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
    log = store.with_suffix(".log")
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
    started = time.monotonic()
    code, _, _ = run(config, tmp_path / "undisturbed")
    whole = time.monotonic() - started
    assert code == 0
    expected = digests(open_store(str(tmp_path / "undisturbed")))

    interrupted, resumed = [], 0
    for moment in range(MOMENTS):
        store = tmp_path / f"store-{moment}"
        # Spread over the work, with some chance in each stretch; what starts the command takes a second.
        seconds = 1 + (whole - 1.5) * (moment + rng.random()) / MOMENTS
        killed, first, _ = run(config, store, seconds)
        done = {manifest.label: manifest.document["at"] for manifest in artifact.all_manifests(open_store(str(store)))}
        code, second, out = run(config, store)

        where = f"seed {SEED}, moment {moment}: killed after {seconds:.1f} of {whole:.1f} s"
        assert code == 0, where
        assert digests(open_store(str(store))) == expected, where
        assert artifact.verify(open_store(str(store))) == [], where
        outcome = json.loads(out)
        redone = {row["step"] for row in outcome["steps"] if row["outcome"] == "made"} & set(done)
        assert redone == set(), where
        for manifest in artifact.all_manifests(open_store(str(store))):
            assert manifest.key.endswith("manifest-0"), where
            assert done.get(manifest.label, manifest.document["at"]) == manifest.document["at"], where
        if killed is None and len(labels(first, "step.started")) > len(labels(first, "step.worked")):
            interrupted.append(labels(first, "step.started")[-1])
        trials = [line["slot"] for line in first + second if line["event"] == "trial.done"]
        assert sorted(set(trials), key=str) == list(range(6)), where
        resumed += len(trials) == 6
    sys.stderr.write(f"\n{MOMENTS} kills over {whole:.0f} s; in the midst of: {', '.join(interrupted)}\n")
    assert len(interrupted) >= MOMENTS / 2
    assert len(set(interrupted)) >= 4
    assert resumed >= MOMENTS - 2, "a trial that was told is not done again"
