"""What passes between stages: the steps, what each of them reads, and the documents they exchange."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Item = dict[str, str]


@dataclass(frozen=True)
class Step:
    """One program of the pipeline and what its result depends on."""

    name: str
    reads: tuple[str, ...] = ()  # steps whose artifacts it reads: same item where both have one, else all items
    item: tuple[str, ...] = ()  # fields of its item that belong to its address
    pins: tuple[str, ...] = ()  # what plan pins for it: "raw" digests, settings tried "first", the "champion", "outside" scores' digest
    effect_of: str = ""  # an effect has no artifact: it is done when that step's is there
    gate: tuple[str, str, str] | None = None  # (step, output, value): not run unless that output has that value

    @property
    def stage(self) -> str:
        """The room it lives in: folder, image, section of the config."""
        return self.name.split("-", maxsplit=1)[0]

    @property
    def entry(self) -> str:
        """What ``python -m`` takes: ``search-work`` is ``stages.search.work``."""
        return "stages." + self.name.replace("-", ".")

    @property
    def module(self) -> str:
        """The module whose function, named like the file, does the work."""
        return self.entry if "-" in self.name else f"{self.entry}.{self.name}"

    @property
    def folder(self) -> str:
        """Its folder in the store."""
        return self.name.replace("-", "/")


STEPS = {
    step.name: step
    for step in (
        Step("prepare", pins=("raw",)),
        Step("search-create", reads=("prepare",), item=("family",), pins=("first",), effect_of="search-collect"),
        Step("search-work", reads=("prepare",), item=("family",), pins=("first",), effect_of="search-collect"),
        Step("search-collect", reads=("prepare",), item=("family",), pins=("first",)),
        Step("train", reads=("prepare", "search-collect"), item=("family",)),
        Step("evaluate", reads=("prepare", "train"), pins=("champion", "outside")),
        Step("validate", reads=("prepare", "train", "evaluate")),
        Step("deploy", reads=("prepare", "train", "evaluate", "validate"), pins=("champion",), gate=("validate", "verdict", "accepted")),
    )
}


def label(step: str, item: Item) -> str:
    """Name one step with its item, as inputs, logs and tables do: ``train/xgboost``."""
    return "/".join([step, *(item[field] for field in STEPS[step].item)]) if step in STEPS else step


def dump(document: Any) -> bytes:
    """Write a JSON document so that equal documents are equal bytes."""
    return (json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n").encode()


def digest(document: Any) -> str:
    """SHA-256 of a JSON document, in hex."""
    return hashlib.sha256(dump(document)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
