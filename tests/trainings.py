"""Whole trainings of real fits, killed and told to stop at one seed's moments, and started again until they end."""

import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from stages.common.address import Addresses
from tests import searches as drills
from tests.slots import send

SETS = ("search.n_trials=3", "train.rounds=1500", "train.early_stopping_rounds=1500")
PAUSE = 0.8  # seconds at most from a sign of life to the next fault


def searched(folder: Path) -> Addresses:
    """Lay out a folder, and search in it once for all its trainings."""
    address = drills.lay_out(folder).store.address
    crew = drills.Crew(folder, address, "", random.Random(0), drills.Journal(folder / "search.journal"), 1)
    for name in ("search-create", "search-work", "search-collect"):
        crew.do(name, SETS)
    return drills.planned(folder, address, *SETS)


def train(folder: Path, rng: random.Random, number: int, alone: Path) -> Counter[str]:
    """Train with a seed of its own among faults; count them, and see that the models are those of a training left ``alone``."""
    sets = (*SETS, f"train.seed={number}")
    crew = drills.Crew(folder, str(folder / "store"), "", rng, drills.Journal(folder / f"{number}.journal"), 1)
    sums: Counter[str] = Counter()
    while True:
        process = crew.start("train", sets)
        _wait_for_a_border(crew, process)
        process.join(rng.uniform(0, PAUSE))
        if process.is_alive():
            kind, sent = rng.choices([("killed", signal.SIGKILL), ("told to stop", signal.SIGTERM)], [3, 1])[0]
            send(process, sent)
        process.join()
        if process.exitcode == 0:  # it may have ended before what was sent to it came
            break
        assert process.exitcode in (-sent, 128 + sent), (process.exitcode, crew.said())
        sums[kind] += 1
    fitted, again = crew.journal.redone()
    assert again <= sums["killed"], "the one border that was not saved yet"
    assert crew.journal.lost() == 0
    assert models(folder, sets) == _left_alone(folder, alone, sets)
    if any(line[1] == process.pid for line in crew.journal.lines()):  # else the last one was killed as it cleared up
        left = drills.planned(folder, crew.address, *sets).store.list("scratch/train/")
        assert not list(left), "a finished training leaves no checkpoint"
    return sums + Counter(trainings=1, fitted=fitted, again=again)


def _wait_for_a_border(crew: drills.Crew, process: Any) -> None:
    while process.is_alive() and not any(line[1] == process.pid for line in crew.journal.lines()):
        time.sleep(0.01)


def models(folder: Path, sets: tuple[str, ...]) -> dict[str, str]:
    """Give the digests of a training's files."""
    found = drills.planned(folder, str(folder / "store"), *sets).find("train", drills.FAMILY)
    assert found
    return {name: file["sha256"] for name, file in found.files.items()}


def _left_alone(folder: Path, alone: Path, sets: tuple[str, ...]) -> dict[str, str]:
    """Train in a copy of the folder in which nothing was trained yet."""
    shutil.rmtree(alone, ignore_errors=True)
    shutil.copytree(folder, alone, ignore=lambda path, names: names if os.path.basename(path) == "train" else [])  # noqa: PTH119 - its words
    crew = drills.Crew(alone, str(alone / "store"), "", random.Random(0), drills.Journal(alone / "alone.journal"), 1)
    crew.do("train", sets)
    return models(alone, sets)
