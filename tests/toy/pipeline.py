"""The toy over one store, in this process and in programs of its own."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common import artifact, config, contract, step
from stages.common.address import Addresses
from stages.common.artifact import Manifest
from stages.common.contract import Item
from stages.common.store import Store
from tests import programs

LETTERS = ("a", "b", "c")


@dataclass
class Pipeline:
    """A config file and a store."""

    config: Path
    store: Store

    def addresses(self, *sets: str) -> Addresses:
        """Plan a run: what it pins is what is there now."""
        return Addresses(step.pin(config.load(self.config, sets, {}), self.store), self.store)

    def do(self, letter: str, *sets: str) -> dict[str, Any]:
        """Do one step in this process."""
        return step.run_step(f"toy-{letter}", item(letter), self.addresses(*sets))

    def do_all(self, *sets: str) -> list[dict[str, Any]]:
        """Do all steps in this process."""
        return [self.do(letter, *sets) for letter in LETTERS]

    def program(self, letter: str, *arguments: str | Path, **environment: str) -> programs.Ended:
        """Do one step as a program of its own."""
        return programs.python(*self.command(letter, *arguments)[1:], more=environment)

    def command(self, letter: str, *arguments: str | Path) -> list[str]:
        """Give the command of one step."""
        words = ["--item", contract.dump(item(letter)).decode()] if item(letter) else []
        given = ["--config", self.config, "--store", self.store.address, *words, *arguments]
        return [sys.executable, "-m", f"tests.toy.{letter}", *map(str, given)]

    def find(self, letter: str, *sets: str) -> Manifest:
        """Give a finished step's manifest."""
        found = self.addresses(*sets).find(f"toy-{letter}", item(letter))
        assert found
        return found

    def blob(self, letter: str, *sets: str) -> str:
        """Give the key of the file that a step made."""
        return f"blobs/{self.find(letter, *sets).files[f'{letter}.json']['sha256']}"


def item(letter: str) -> Item:
    """Give the item of a step: only b has one."""
    return {"family": "xgboost"} if letter == "b" else {}


def digests(store: Store) -> list[tuple[str, str, str, str]]:
    """List step, address, file and sha256 of all that counts, as ``surefoot ls --digests`` does."""
    return [
        (manifest.label, manifest.document["address"], name, file["sha256"])
        for manifest in artifact.all_manifests(store)
        for name, file in sorted(manifest.files.items())
    ]


def copy(store: Store, target: Store, *, but: Iterable[str] = ("tmp/",)) -> Store:
    """Copy all objects, whatever kind of store it is."""
    for key in store.list(""):
        if not key.startswith((*but, "store.json")):
            (target.replace if key.startswith("scratch/") else target.create)(key, store.read(key))
    return target
