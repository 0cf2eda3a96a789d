"""What slots, leases, borders, checkpoints and records cost beside a plain loop over the same trials: CPU seconds of both process trees.

SUREFOOT_BENCH_PAIRS says how many interleaved pairs, SUREFOOT_BENCH_FIRST from which seed on (so that they can be made in parts),
SUREFOOT_BENCH_TRIALS how many trials each has, SUREFOOT_BENCH_PRUNING=false that none of them is pruned: a plain loop's go on to their end.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stages.common import artifact, config, recipe, step
from stages.common.address import Addresses
from stages.common.store import open_store

TRIALS = os.environ.get("SUREFOOT_BENCH_TRIALS", "12")
PRUNING = os.environ.get("SUREFOOT_BENCH_PRUNING", "true")
PAIRS = int(os.environ.get("SUREFOOT_BENCH_PAIRS", "3"))
FIRST = int(os.environ.get("SUREFOOT_BENCH_FIRST", "0"))
SMALL = int(os.environ.get("SUREFOOT_BENCH_SMALLER", "1"))  # times fewer rows
SHAPES = {"narrow": (384_000 // SMALL, 15), "wide": (200_000 // SMALL, 430)}
CONFIG = """
common: {checkpoint_interval_minutes: 0.5}
prepare: {source: file, path: table.parquet, label: y, time: t, engineered: []}
search: {families: [FAMILY], n_trials: TRIALS}
"""


@pytest.fixture(scope="module", params=SHAPES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare a table of one shape."""
    rows, columns = SHAPES[request.param]
    made = tmp_path_factory.mktemp(request.param)
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.standard_normal((rows, columns), dtype=np.float32), columns=[f"f{n}" for n in range(columns)])
    odds = table["f0"] + table["f1"] * table["f2"] + np.sin(3 * table["f3"]) - 3.5
    table["y"] = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(int)
    table["t"] = np.arange(rows)
    table.to_parquet(made / "table.parquet")
    return made


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(*command: str) -> tuple[float, str]:
    before = _cpu()
    environment = {**os.environ, "PYTHONPATH": str(recipe.ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([sys.executable, *command], cwd=recipe.ROOT, check=True, capture_output=True, text=True, env=environment)
    return _cpu() - before, done.stderr


@pytest.mark.bench
@pytest.mark.parametrize("family", ["xgboost", "lightgbm", "catboost"])
def test_price_of_trials(folder: Path, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Interleaved pairs of a search and of a plain loop over what it fitted, round for round."""
    (folder / "bench.yaml").write_text(CONFIG.replace("FAMILY", family).replace("TRIALS", TRIALS))
    store = open_store(str(folder / "store"))
    ratios, saving, storage, spent = [], [], [], []
    for pair in range(FIRST, FIRST + PAIRS):
        sets = [f"search.seed={pair}", f"search.pruning_enabled={PRUNING}"]
        planned = Addresses(step.pin(config.load(folder / "bench.yaml", sets, {}), store), store)
        step.run_step("prepare", {}, planned)
        words = ["--config", str(folder / "bench.yaml"), "--store", store.address, "--item", json.dumps({"family": family})]
        words += [word for one in sets for word in ("--set", one)]
        ours, said = 0.0, ""
        for name in ("create", "work", "collect"):
            seconds, logged = _run("-m", f"stages.search.{name}", *words)
            ours, said = ours + seconds, said + logged
        told, models = _trials(planned, family)
        _lay_out(folder, planned)
        (folder / "trials.json").write_text(json.dumps([family, told]))
        plain, _ = _run("-m", "tests.bench.plain_trials", str(folder))
        ratios.append(ours / plain)
        spent.append(f"{ours:.0f} s beside {plain:.0f} s")
        lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        saved = sum(line["seconds"] for line in lines if line["event"] == "checkpoint.saved")
        saving.append(saved / sum(line["seconds"] for line in lines if line["event"] == "trial.done"))
        kept = sum(head.size for key in store.list(f"search/trials/{family}-") + store.list("scratch/search/") if (head := store.head(key)))
        storage.append((kept + sum(models.values())) / sum(models.values()))
        with capsys.disabled():
            sys.stdout.write(f"\n{folder.name}, {family}, seed {pair}, {len(told)} trials: {spent[-1]} = {ratios[-1]:.4f}")
            sys.stdout.flush()
    mean, error = statistics.fmean(ratios), statistics.stdev(ratios) / PAIRS**0.5 if PAIRS > 1 else float("nan")
    bound = mean + float(stats.t.ppf(0.975, max(PAIRS - 1, 1))) * error
    with capsys.disabled():
        sys.stdout.write(f"\nsearch / plain loop, {folder.name}, {family}, {PAIRS} pairs: mean {mean:.3f}, at most {bound:.3f} (95 %), ")
        sys.stdout.write(f"{[round(one, 3) for one in ratios]} ({', '.join(spent)}); ")
        sys.stdout.write(f"in saving {max(saving):.1%}; storage {max(storage):.2f} x the models\n")
    assert len(ratios) == PAIRS


@pytest.mark.bench
def test_two_workers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a second worker gains, beside what a second process gains that fits the other half of the same trials; a core each."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("one core: nothing is gained by a second worker")
    family, trials = "xgboost", 10  # so many are drawn at random: both searches fit the same
    (folder / "bench.yaml").write_text(CONFIG.replace("FAMILY", family).replace("TRIALS", str(trials)))
    ratios, gains = [], []
    for pair in range(FIRST, FIRST + PAIRS):
        spent: dict[str, float] = {}
        for count in (1, 2):
            store = open_store(str(folder / f"store-{count}"))
            sets = [f"search.seed={pair}", "search.pruning_enabled=false"]
            planned = Addresses(step.pin(config.load(folder / "bench.yaml", sets, {}), store), store)
            step.run_step("prepare", {}, planned)
            words = ["--config", str(folder / "bench.yaml"), "--store", store.address, "--item", json.dumps({"family": family})]
            words += [word for one in sets for word in ("--set", one)]
            _run("-m", "stages.search.create", *words)
            spent[f"workers {count}"] = _seconds(*[(core, ["-m", "stages.search.work", *words]) for core in cores[:count]])
            _run("-m", "stages.search.collect", *words)
        told, _ = _trials(planned, family)
        assert len(told) == trials
        _lay_out(folder, planned)
        for count in (1, 2):
            parts = [folder / f"part-{part}" for part in range(count)]
            for part, place in enumerate(parts):
                place.mkdir(exist_ok=True)
                (place / "trials.json").write_text(json.dumps([family, told[part::count]]))
                for split in ("train", "valid"):
                    (place / f"{split}.parquet").unlink(missing_ok=True)
                    (place / f"{split}.parquet").hardlink_to(folder / f"{split}.parquet")
            spent[f"plain {count}"] = _seconds(
                *[(core, ["-m", "tests.bench.plain_trials", str(place)]) for core, place in zip(cores, parts, strict=False)]
            )
        ours, plain = (spent[f"{who} 1"] / spent[f"{who} 2"] for who in ("workers", "plain"))
        ratios.append(ours / plain)
        gains.append(f"{ours:.2f} x beside {plain:.2f} x")
    with capsys.disabled():
        sys.stdout.write(f"\nwhat a second worker gains / a second process, {folder.name}, {PAIRS} pairs: median ")
        sys.stdout.write(f"{statistics.median(ratios):.3f}, {[round(one, 3) for one in ratios]} ({', '.join(gains)})\n")
    assert len(ratios) == PAIRS


def _seconds(*commands: tuple[int, list[str]]) -> float:
    """Run programs side by side, each on a core of its own; give the seconds until the last one ended."""
    environment = {**os.environ, "PYTHONPATH": str(recipe.ROOT), "SUREFOOT_SHARES": str(len(commands))}
    started, crew = time.monotonic(), []
    for core, words in commands:
        crew.append(subprocess.Popen([sys.executable, *words], cwd=recipe.ROOT, env=environment, stderr=subprocess.DEVNULL))
        os.sched_setaffinity(crew[-1].pid, {core})
    assert [one.wait() for one in crew] == [0] * len(crew)
    return time.monotonic() - started


def _lay_out(folder: Path, planned: Addresses) -> None:
    """Put the splits beside the plain loop."""
    prepared = planned.find("prepare", {})
    assert prepared
    for split in ("train", "valid"):
        path = folder / f"{split}.parquet"
        path.unlink(missing_ok=True)
        planned.store.download(f"blobs/{prepared.files[f'{split}.parquet']['sha256']}", path)


def _trials(planned: Addresses, family: str) -> tuple[list[Any], dict[str, int]]:
    """Give what was fitted: parameters and rounds; and the sizes of the models."""
    planned.forget()
    found = planned.find("search-collect", {"family": family})
    assert found
    told = json.loads(planned.store.read(f"blobs/{found.files['trials.json']['sha256']}"))
    models = {}
    for key in planned.store.list(f"search/trials/{family}-"):
        record = artifact.unsealed(planned.store, key)
        if record and "model" in record:
            models[record["model"]["sha256"]] = record["model"]["size"]
    return [(one["params"], max(map(int, one["reports"]))) for one in told], models
