"""Look before anything starts: is the config right, are data, store, database and room there, and what is done already."""

import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from stages.common import artifact, contract, database, log, raw
from stages.common.address import Addresses, changed
from stages.common.config import Config
from stages.common.contract import STEPS
from stages.common.errors import ConfigError
from stages.common.step import pin
from stages.common.store import Store

# Bytes of memory to train with, and of scratch files to prepare with, per byte of a table; measured on tables of IEEE-CIS's shape.
CSV, PARQUET = (4, 4), (25, 30)


@dataclass(frozen=True)
class Row:
    """What a plan says of one step with one item."""

    step: str
    item: contract.Item
    state: str  # done, run, gated; "depends": on what it reads, which is still to be made
    why: tuple[str, ...]  # what changed since the last run of this config

    @property
    def label(self) -> str:
        """Step and item, as people name them."""
        return contract.label(self.step, self.item)


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    addresses: Addresses
    rows: tuple[Row, ...]

    def todo(self) -> dict[str, str]:
        """Say per step, and of each of its items, ``run``, ``done`` or ``gated``: what is done for all items, or gated, needs no pod."""
        states: dict[str, set[str]] = {name: set() for name in (*STEPS, *(row.label for row in self.rows))}
        for row in self.rows:
            states[row.step].add(row.state)
            states[row.label].add(row.state)
        return {name: _word(found) for name, found in states.items()}

    def is_unchanged(self) -> bool:
        """Tell whether nothing is to be done: of the same data, options and code, all is there, or ends at the same verdict."""
        return "run" not in self.todo().values()

    def memos(self) -> dict[str, str]:
        """Name each result by the run that made it, or is to: under this name Argo may remember that a step is done, and how it ended."""
        addresses, pinned = self.addresses, self.addresses.config.pinned
        assert pinned
        where, mine = addresses.store.address, [row for row in self.rows if not STEPS[row.step].effect_of]
        found = {row.label: addresses.find(row.step, row.item) if row.state == "done" else None for row in mine}
        runs = {label: made.document["run"] if made else pinned.run for label, made in found.items()}
        return {label: contract.digest([where, label, run])[:32] for label, run in runs.items()}

    def locks(self) -> dict[str, str]:
        """Name what two runs would do twice, each step with its item: by store and plan key, so that one of them can wait for the other."""
        where = self.addresses.store.address
        mine = [row for row in self.rows if not STEPS[row.step].effect_of]
        return {row.label: contract.digest([where, self.addresses.plan_key(row.step, row.item)])[:16] for row in mine}


def _word(states: set[str]) -> str:
    return "gated" if states == {"gated"} else "run" if states & {"run", "depends"} else "done"


def plan(resolved: Config, store: Store, name: str = "", *, copy: bool = True) -> Plan:
    """Check everything, pin raw digests and champion, and look what is there; copy what is in a bucket, unless it is only looked at.

    Raises:
        SurefootError: the first thing that is not right.

    """
    database_url = database.url(store)
    started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    _check_room(resolved, store)
    pinned = pin(resolved, store, f"{started}-{re.sub('[^A-Za-z0-9._-]+', '-', name or resolved.name)}", copy=copy)
    database.check(database_url)
    addresses = Addresses(pinned, store)
    before = last_record(store, resolved.name)
    rows: list[Row] = []
    for step in STEPS:
        for item in pinned.items(step):
            now = addresses.plan_document(step, item)
            old = before.get("plans", {}).get(contract.label(step, item))
            why = ("never run",) if old is None else tuple(changed(old, now))
            state = addresses.state(step, item)
            waits = any(row.state != "done" for row in rows if (row.step, row.item) in addresses.inputs(step, item))
            rows.append(Row(step, item, "depends" if waits else state, why))
    return Plan(addresses, tuple(rows))


def write(made: Plan) -> str:
    """Write the resolved config and the run's record into the store; give the config's address."""
    addresses, pinned = made.addresses, made.addresses.config.pinned
    assert pinned
    document = addresses.config.dump()
    sha256 = artifact.sha256(document)
    artifact.keep(addresses.store, address := f"config/{sha256}.json", document, sha256)
    plans = {row.label: addresses.plan_document(row.step, row.item) for row in made.rows}
    record = {"run": pinned.run, "name": addresses.config.name, "config": address, "plans": plans}
    addresses.store.create(key := f"runs/{pinned.run}/record.json", artifact.seal(key, record))
    log.info("run.planned", run=pinned.run, **{step: word for step, word in made.todo().items() if step in STEPS})
    return address


def last_record(store: Store, name: str) -> dict[str, Any]:
    """Give the newest run's record of a config, by its name."""
    for key in reversed([key for key in store.list("runs/") if key.endswith("/record.json")]):
        record = artifact.unsealed(store, key)
        if record is None:
            log.warning("record.damaged", key=key)
        elif record["name"] == name:
            return record
    return {}


def _check_room(config: Config, store: Store) -> None:
    wanted = config["plan"].disk_space_required_gb
    for folder in [tempfile.gettempdir(), *([] if store.address.startswith("s3://") else [store.address])]:
        free = shutil.disk_usage(folder).free / 1e9
        if free < wanted:
            raise ConfigError(f"{folder}: {free:.1f} GB are free, plan.disk_space_required_gb asks for {wanted}. Free some, or lower it.")
    section, limit, free = config["prepare"], config["plan"].memory_limit_gb, shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    for name, place in section.raw().items():
        files = raw.sizes(store, place, f"prepare.{section.RAW[name]}")
        size = sum(files.values()) / 1e9
        memory, disk = PARQUET if any(file.endswith((".parquet", ".pq")) for file in files) else CSV
        if memory * size > limit and not section.sample_size:
            need = f"{place}: training needs about {memory * size:.1f} GB of memory"
            raise ConfigError(f"{need}, plan.memory_limit_gb allows {limit}. Raise it, or take fewer rows: prepare.sample_size.")
        if disk * size > free and not place.startswith(raw.NO_FILE):  # else it may be another machine that prepares it
            raise ConfigError(
                f"{place}: preparing needs about {disk * size:.1f} GB in {tempfile.gettempdir()}, of which {free:.1f} are free."
            )
