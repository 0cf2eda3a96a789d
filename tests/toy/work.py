"""A pipeline of three steps, ``a`` -> ``b`` (of each family) -> ``c``, that goes through the real life of a step in milliseconds.

Each step fits: it hashes for some rounds, with a border after each, so that a kill and a checkpoint mean what they mean
elsewhere. ``toy.act`` tells one step to do something unusual: ``b:bug``. Who counts calls names a file in TOY_CALLS.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, override
from unittest import mock

from stages.common import address, config, contract, errors, step
from stages.common.artifact import sha256
from stages.common.contract import Step
from stages.common.section import Section, other, result
from stages.common.step import Run


class Config(Section):
    """Options of the toy."""

    value: int = result(1, "what the digests start with")
    rounds: int = result(5, "how often they are hashed", ge=1)
    act: str = other("", "step:what, such as b:bug, or b/xgboost:bug;b/lightgbm:memory")


class Toy(Step):
    """A step whose program is in tests/toy."""

    @property
    @override
    def entry(self) -> str:
        return f"tests.toy.{self.name[-1]}"

    @property
    @override
    def module(self) -> str:
        return "tests.toy.work"


TOYS: dict[str, Step] = {
    toy.name: toy
    for toy in (
        Toy("toy-a", pins=("raw",)),
        Toy("toy-b", reads=("toy-a",), item=("family",)),
        Toy("toy-c", reads=("toy-a", "toy-b"), pins=("champion",)),
    )
}


@contextmanager
def installed() -> Iterator[None]:
    """Put the toy in place of the pipeline; one of its steps may have the name of a real one, so no recipe is remembered across."""
    address._recipe.cache_clear()
    with (
        mock.patch.dict(contract.STEPS, TOYS, clear=True),
        mock.patch.object(config, "section_types", return_value={**config.section_types(), "toy": Config}),
    ):
        yield
    address._recipe.cache_clear()


def main(name: str) -> NoReturn:
    """Be the program of one step."""
    with installed():
        step.main(name)


def calls() -> list[str]:
    """List the steps whose work was started, in order."""
    path = Path(os.environ["TOY_CALLS"])
    return path.read_text().split() if path.exists() else []


def work(config: Config, run: Run) -> dict[str, Any]:
    """Hash what the step reads, for some rounds."""
    letter = run.step[-1]
    with Path(os.environ.get("TOY_CALLS", os.devnull)).open("a") as file:
        file.write(run.step + "\n")
    asked = run.addresses.inputs(run.step, run.item)
    before = [run.input(name, **item).read_json(f"{name[-1]}.json") for name, item in asked if item in run.items(name)]
    run.degraded += [f"no model of {item['family']}" for name, item in asked if item not in run.items(name)]
    acts = dict(one.split(":", maxsplit=1) for one in config.act.split(";") if one)
    what = acts.get(letter) or acts.get(f"{letter}/{run.item.get('family')}", "")
    act(what, run)
    with run.checkpoint(f"{run.step}/{run.address}") as saved:
        rounds, _, value = (saved.load() or b"0 " + sha256(contract.dump([config.value, before])).encode()).decode().partition(" ")
        for done in range(int(rounds), config.rounds):
            value = sha256(value.encode())
            time.sleep(0.05 if what == "slow" else 0)
            run.progress(done + 1, config.rounds)
            saved.border(f"{done + 1} {value}".encode)
    saved.drop()
    (run.out / f"{letter}.json").write_bytes(contract.dump({"value": value, "before": before}))
    run.measured["rounds_here"] = config.rounds - int(rounds)
    return {f"{letter}_value": value, "verdict": "yes" if config.value == 1 else "no"}


def act(what: str, run: Run) -> None:
    """Do what a library, a disk or a person may do to a step."""
    match what.split("-"):
        case ["print"]:
            sys.stdout.write("python says so\n")
            os.write(1, b"the system says so\n")
            ctypes.CDLL(None).puts(b"C says so")
            ctypes.CDLL(None).fflush(None)
        case ["raise", name]:
            raise getattr(errors, name)("said so")
        case ["memory"]:
            raise MemoryError
        case ["os", number]:
            raise OSError(int(number), os.strerror(int(number)), "/some/file")
        case ["bug"]:
            raise ZeroDivisionError("a bug")
        case ["signal", name]:
            os.kill(os.getpid(), signal.Signals[name])
            time.sleep(5)
        case ["deaf"]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        case ["degraded"]:
            run.degraded.append("CPU for GPU")
        case ["file", name]:
            (run.out / name).write_bytes(os.urandom(16))
