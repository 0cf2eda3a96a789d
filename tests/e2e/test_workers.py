"""Several workers at one search on this machine, by ``surefoot run``."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests import programs, small

TRIALS = 6


def processes(parent: int) -> dict[str, list[int]]:
    """Give the workers among a process's children, by their number."""
    found: dict[str, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_child = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if is_child and "stages.search.work" in words:
            item = json.loads(words[words.index("--item") + 1])
            found.setdefault(item.get("worker", ""), []).append(int(folder.name))
    return found


def owners(store: Path) -> tuple[int, int]:
    """Give how many slots are closed, and how many processes closed them, past Optuna and past our code."""
    with sqlite3.connect(f"file:{store / 'study.db'}?mode=ro", uri=True) as database:
        slots, processes = database.execute("SELECT count(*), count(DISTINCT owner) FROM surefoot_slots WHERE closed").fetchone()
    return int(slots), int(processes)


def finished(store: Path) -> list[int]:
    """Give the slots of all trials that are complete or pruned."""
    with sqlite3.connect(f"file:{store / 'study.db'}?mode=ro", uri=True) as database:
        asked = "SELECT a.value_json FROM trials t JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'slot'"
        assert database.execute("SELECT count(*) FROM trials WHERE state IN ('RUNNING', 'WAITING')").fetchone() == (0,)
        return sorted(int(row[0]) for row in database.execute(f"{asked} WHERE t.state IN ('COMPLETE', 'PRUNED')"))


def options(config: Path, store: Path, rounds: int) -> list[str]:
    sets = ["search.workers=2", f"search.n_trials={TRIALS}", f"search.rounds={rounds}", f"search.early_stopping_rounds={rounds}"]
    return [str(config), "--store", str(store), *(word for one in sets for word in ("--set", one))]


def command(config: Path, store: Path, rounds: int) -> list[str]:
    return [*programs.PYTHON, *programs.SUREFOOT, "run", "--json", *options(config, store, rounds)]


def test_two_workers_share_a_budget(tmp_path: Path) -> None:
    config, store = small.lay_out(tmp_path), tmp_path / "store"
    ended = subprocess.run(command(config, store, 5000), env=programs.environment(), capture_output=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr.decode()
    assert finished(store) == [*range(TRIALS)]
    assert owners(store) == (TRIALS, 2)

    watched = programs.surefoot("status", "--watch", *options(config, store, 5000))
    told = r"xgboost     6 of 6 trials, [01] pruned, 0 failed attempts, done, best average_precision 0\.\d{4}"
    assert re.fullmatch(told, watched.out.splitlines()[2])
    assert len(watched.out.splitlines()) == 3, "and it ends, since the search is over"
    more = programs.surefoot("status", "--json", *options(config, store, 5000), "--set", "search.n_trials=20")
    (search,) = more.answer["searches"]
    assert (search["finished"], search["budget"], search["workers"], search["is_over"]) == (TRIALS, 20, 0, False)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_is_started_again(tmp_path: Path, number: signal.Signals) -> None:
    config, store = small.lay_out(tmp_path), tmp_path / "store"
    with subprocess.Popen(command(config, store, 3000), env=programs.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as walk:
        killed = _kill_one(walk, store, number)
        _, err = walk.communicate(timeout=200)
    assert walk.returncode == 0, err.decode()
    retries = [json.loads(line) for line in err.decode().splitlines() if '"step.retry"' in line]
    assert [line["exit"] for line in retries] == [128 + number], err.decode()
    assert finished(store) == [*range(TRIALS)]
    assert killed not in (pid for pids in processes(walk.pid).values() for pid in pids)


def _kill_one(walk: "subprocess.Popen[bytes]", store: Path, number: signal.Signals) -> int:
    """Kill worker 1 when it holds a slot."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        pids = processes(walk.pid).get("1", [])
        if pids and (store / "study.db").exists() and _holds(store, pids[0]):
            os.kill(pids[0], number)
            return pids[0]
        time.sleep(0.02)
    raise AssertionError("worker 1 held no slot")


def _holds(store: Path, pid: int) -> bool:
    try:
        with sqlite3.connect(f"file:{store / 'study.db'}?mode=ro", uri=True) as database:
            return bool(
                database.execute("SELECT count(*) FROM surefoot_slots WHERE owner LIKE ? AND NOT closed", (f"%/{pid}/%",)).fetchone()[0]
            )
    except sqlite3.OperationalError:  # not made yet
        return False


def test_workers_have_their_share_and_end_when_the_run_is_told_to(tmp_path: Path) -> None:
    config, store = small.lay_out(tmp_path), tmp_path / "store"
    gpus = programs.environment({"CUDA_VISIBLE_DEVICES": "3,5"})
    with subprocess.Popen(command(config, store, 50_000), env=gpus, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as walk:
        until = time.monotonic() + 90
        while len(pids := [pid for each in processes(walk.pid).values() for pid in each]) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        while not all(_holds(store, pid) for pid in pids) and time.monotonic() < until:
            time.sleep(0.02)
        standing = programs.surefoot("status", *options(config, store, 50_000)).out.splitlines()[-1]
        cores = [os.sched_getaffinity(pid) for pid in pids]
        seen = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in pids]
        walk.terminate()
        walk.communicate(timeout=60)
    assert walk.returncode == 128 + signal.SIGTERM
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert standing == f"xgboost     0 of {TRIALS} trials, 0 pruned, 0 failed attempts, 2 workers"
    saved = {path.name.partition("-")[0] for path in (store / "scratch" / "search").rglob("*.json-*")}
    assert len(saved) == 2, "each saved the border of its slot"
    assert {word for words in seen for word in words if word.startswith(b"CUDA_VISIBLE_DEVICES")} == {
        b"CUDA_VISIBLE_DEVICES=3",
        b"CUDA_VISIBLE_DEVICES=5",
    }
    assert set.union(*cores) == os.sched_getaffinity(0)
    assert len(os.sched_getaffinity(0)) == 1 or not set.intersection(*cores)
