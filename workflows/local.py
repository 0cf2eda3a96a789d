"""Walk the pipeline on this machine: one process per step that has work, none for a step that is done."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.common import contract, log
from stages.common.address import Addresses
from stages.common.contract import STEPS, Item
from stages.common.errors import Interrupted, MissingInput, SurefootError
from stages.families import device
from workflows import dag

LOOK = 0.05  # seconds between two looks at several workers


@dataclass
class Outcome:
    """How one step with one item ended."""

    step: str
    item: Item
    state: str  # done (was there), made, gated, failed
    seconds: float = 0.0
    code: int = 0
    outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Step and item, as people name them."""
        return contract.label(self.step, self.item)


def walk(addresses: Addresses, config: str) -> list[Outcome]:
    """Bring every step to its end, in the DAG's order, or to the first that fails (its ``code`` is not 0) and stands last then.

    A lost or damaged input is voided by who read it: then the walk starts again, once per loss. A family that fails is left out, as long
    as there are enough others.
    """
    outcomes: dict[str, Outcome] = {}
    healed: set[frozenset[str]] = set()
    left_out: set[str] = set()
    while failed := _walk_once(addresses, config, outcomes, left_out):
        if failed.code != MissingInput.code:
            break
        addresses.forget()
        there = [o for o in outcomes.values() if o.code == 0 and o.item.get("family") not in left_out]
        lost = frozenset(o.label for o in there if addresses.state(o.step, o.item) == "run")
        if lost and lost not in healed:
            healed.add(lost)
            log.warning("run.heals", lost=", ".join(sorted(lost)))
            del outcomes[failed.label]
        elif not _leaves_out(failed, addresses, left_out):
            break
    return list(outcomes.values())


def _leaves_out(failed: Outcome, addresses: Addresses, left_out: set[str]) -> bool:
    """Leave out a family that failed, if there are enough others."""
    family = failed.item.get("family")
    if family is None or len(addresses.config.items(failed.step)) - len(left_out) <= addresses.config.least_families:
        return False
    left_out.add(family)
    log.error("family.left_out", family=family, step=failed.step, exit=failed.code, so="run the same command again to make it")
    return True


def _walk_once(addresses: Addresses, config: str, outcomes: dict[str, Outcome], left_out: set[str]) -> Outcome | None:
    """Walk the DAG once; give the outcome that failed."""
    for task in dag.TASKS:
        for item in addresses.config.items(task.step):
            if item.get("family") in left_out:
                continue
            name = contract.label(task.step, item)
            state = addresses.state(task.step, item)
            if state == "run":
                outcome = _attempts(task, item, addresses, config)
                addresses.forget()
            elif name in outcomes:
                continue
            else:
                outcome = Outcome(task.step, item, state)
            if outcome.code == 0 and not outcome.outputs and (manifest := addresses.find(task.step, item)):
                outcome.outputs = manifest.outputs
            if outcome.code:
                outcomes.pop(name, None)  # who failed stands last
            outcomes[name] = outcome
            if outcome.code == MissingInput.code or (outcome.code and not _leaves_out(outcome, addresses, left_out)):
                return outcome
    return None


def _attempts(task: dag.Task, item: Item, addresses: Addresses, config: str) -> Outcome:
    """Run one step, again after what another attempt can heal."""
    started = time.monotonic()
    count = _workers(addresses) if task.fan_out == "workers" else 1
    if count > 1:
        code, outputs = _crew(task, item, addresses, config, count)
    else:
        budget = _Attempts(task, item, addresses)
        while True:
            code, outputs = _run(task, item, addresses, config, budget.made)
            if (pause := budget.pause(code)) is None:
                break
            time.sleep(pause)
    return Outcome(
        task.step, item, outputs.pop("state", "made") if code == 0 else "failed", round(time.monotonic() - started, 2), code, outputs
    )


@dataclass
class _Attempts:
    """How often a step's process may be started: so often in a row without progress. A search makes some with each finished trial."""

    task: dag.Task
    item: Item
    addresses: Addresses
    made: int = 0
    in_vain: int = 0
    finished: int = 0  # trials, when the last one ended

    def pause(self, code: int) -> float | None:
        """Take the end of an attempt; give the seconds until the next one, None where there is none."""
        if code not in dag.RETRIED:
            return None
        finished = self._finished()
        self.in_vain = 0 if finished > self.finished else self.in_vain
        self.finished = finished
        if self.in_vain == dag.RETRIES:
            return None
        pause: float = dag.BACKOFF_SECONDS * 2**self.in_vain
        self.made, self.in_vain = self.made + 1, self.in_vain + 1
        log.warning("step.retry", step=self.task.step, exit=code, attempt=self.made, seconds=pause)
        return pause

    def _finished(self) -> int:
        if self.task.fan_out != "workers":
            return 0
        try:
            return sum(1 for _ in self.addresses.store.list(f"search/trials/{self.item['family']}-"))
        except SurefootError:  # the step's own end said so already
            return self.finished


def _run(task: dag.Task, item: Item, addresses: Addresses, config: str, attempt: int) -> tuple[int, dict[str, Any]]:
    """Start the step's program, as a shell would; give its exit code (137 for SIGKILL, as a shell does) and outputs."""
    with tempfile.TemporaryDirectory(prefix="surefoot-") as folder:
        answer = Path(folder) / "answer"
        with _start(task, item, addresses, config, attempt, answer) as process:
            try:
                code = process.wait(timeout=task.deadline_seconds)
            except Interrupted:
                _stop(process)
                raise
            except subprocess.TimeoutExpired:
                log.error("step.deadline", step=task.step, seconds=task.deadline_seconds)
                _stop(process)
                code = process.wait()
        return _ended(code, answer)


def _start(
    task: dag.Task, item: Item, addresses: Addresses, config: str, attempt: int, answer: Path, **more: str
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", STEPS[task.step].entry, "--config", config, "--store", addresses.store.address]
    command += ["--item", json.dumps(item)] if item else []
    environment = {
        **os.environ,
        "SUREFOOT_CHILD": str(os.getpid()),
        "SUREFOOT_ATTEMPT": str(attempt),
        "PYTHONPATH": os.pathsep.join(_python_path()),
        **more,
    }
    with answer.open("wb") as stdout:
        return subprocess.Popen(command, env=environment, stdout=stdout)


def _ended(code: int, answer: Path) -> tuple[int, dict[str, Any]]:
    text = answer.read_text(encoding="utf-8").strip()
    outputs = json.loads(text) if code == 0 and text else {}
    return (128 - code if code < 0 else code), {name: value for name, value in outputs.items() if name not in ("step", "item")}


# --- several workers at one step ------------------------------------------------------------------


@dataclass
class _Worker:
    """One process of several that work at one step, and what came of it."""

    item: Item
    answer: Path
    attempts: _Attempts
    begins: float = 0.0
    process: subprocess.Popen[bytes] | None = None
    ended: tuple[int, dict[str, Any]] | None = None


def _workers(addresses: Addresses) -> int:
    """Give how many processes search at once: as many as the config says, or else one per GPU."""
    count: int | None = addresses.config["search"].workers
    return count or max(1, device.gpus())


def _crew(task: dag.Task, item: Item, addresses: Addresses, config: str, count: int) -> tuple[int, dict[str, Any]]:
    """Let several workers finish a step, each with its share of cores and GPUs, each started again after what that can heal.

    The step is done when one of them says so; the others then find nothing left to do.
    """
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    gpus, until = device.visible(), time.monotonic() + task.deadline_seconds
    with tempfile.TemporaryDirectory(prefix="surefoot-") as folder:
        places = [({**item, "worker": str(number)}, Path(folder) / str(number)) for number in range(count)]
        workers = [_Worker(*place, _Attempts(task, item, addresses)) for place in places]
        try:
            while any(worker.ended is None for worker in workers):
                for number, worker in enumerate(workers):
                    if worker.process is None and worker.ended is None and time.monotonic() >= worker.begins:
                        more = {"SUREFOOT_SHARES": str(count), **_gpu(gpus, number, count)}
                        worker.process = _start(task, worker.item, addresses, config, worker.attempts.made, worker.answer, **more)
                        if cores:
                            os.sched_setaffinity(worker.process.pid, _share(cores, number, count))
                    if worker.process and (worker.process.poll() is not None or time.monotonic() > until):
                        _look(task, worker, is_late=time.monotonic() > until)
                time.sleep(LOOK)
        except Interrupted:
            _stop(*(worker.process for worker in workers if worker.process))
            raise
    ends = [worker.ended for worker in workers if worker.ended]
    return min(ends, key=lambda end: (end[0] != 0, end[0] in dag.RETRIED))


def _gpu(gpus: list[str], number: int, count: int) -> dict[str, str]:
    """Give a worker its GPU, and say how many may be at it."""
    if not gpus:
        return {}
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)], "SUREFOOT_GPU_SHARES": str(math.ceil(count / len(gpus)))}


def _share(cores: list[int], number: int, count: int) -> list[int]:
    """Give a worker its cores: as many as any other, since CatBoost's sums depend on the number of threads."""
    each = max(1, len(cores) // count)
    first = number * each % len(cores)
    return cores[first : first + each]


def _look(task: dag.Task, worker: _Worker, *, is_late: bool) -> None:
    """Take the end of a worker's process: the worker's own, or a pause until the next attempt."""
    assert worker.process
    if is_late and worker.process.poll() is None:
        log.error("step.deadline", step=task.step, seconds=task.deadline_seconds)
        _stop(worker.process)
    code, outputs = _ended(worker.process.wait(), worker.answer)
    worker.process = None
    if not is_late and (pause := worker.attempts.pause(code)) is not None:
        worker.begins = time.monotonic() + pause
    else:
        worker.ended = code, outputs


def _stop(*processes: subprocess.Popen[bytes]) -> None:
    """Let steps save their last borders and end; one that does not is killed, and loses the work since then."""
    for process in processes:
        process.terminate()  # once: a second signal is taken to mean at once
    until = time.monotonic() + dag.GRACE_SECONDS
    try:
        for process in processes:
            process.wait(timeout=max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        log.error("step.killed", after_seconds=dag.GRACE_SECONDS)
    finally:  # too late, or told to stop again
        for process in processes:
            process.kill()
            process.wait()


def _python_path() -> list[str]:
    """Find this checkout's packages from any folder."""
    return [str(Path(__file__).resolve().parents[1]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
