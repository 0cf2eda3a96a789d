"""The life of a step: the same program in a shell, in ``docker run`` and in Argo.

    python -m stages.train --config config.yaml|<address in the store> --store s3://bucket/prefix|folder
                           [--item JSON] [--outputs DIR] [--set train.seed=1]

Nothing that a step's work needs is imported here: a step that finds its work done ends within a second.
"""

import argparse
import ctypes
import dataclasses
import errno
import importlib
import json
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from stages.common import artifact, checkpoint, config, contract, log, raw, recipe, registry, telemetry
from stages.common.address import Addresses
from stages.common.artifact import Artifact, Manifest
from stages.common.config import Config, Pinned
from stages.common.contract import STEPS, Item
from stages.common.errors import Interrupted, MissingInput, NotNow, OutOfMemory, SurefootError, UsageError
from stages.common.store import Store, open_store

BUG = 70


class Run:
    """What a stage is given beside its section: its inputs, a folder for its files, and where to tell how it goes."""

    def __init__(self, step: str, item: Item, addresses: Addresses, folder: Path, inputs: dict[str, Manifest], address: str) -> None:
        self.step = step
        self.item = item
        self.addresses = addresses
        self.config = addresses.config
        self.store = addresses.store
        self.address = address
        self.out = folder / "out"  # every file left here becomes a blob of the artifact
        self.folder = folder  # room for anything else
        self.out.mkdir()
        self.measured: dict[str, Any] = {}  # seconds, memory, latency: to the manifest, never into a blob
        self.degraded: list[str] = []
        self.device = "cpu"
        self.progress = telemetry.progress(contract.label(step, item))
        self._inputs = {name: Artifact(self.store, manifest, folder) for name, manifest in inputs.items()}

    @property
    def pinned(self) -> Pinned:
        """Raw digests, champion and run id, as plan found them."""
        assert self.config.pinned
        return self.config.pinned

    @property
    def threads(self) -> int:
        """CPU threads that this step may use."""
        may = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        return self.config["common"].threads or may

    def input(self, step: str, **item: str) -> Artifact:
        """Give a finished step's files."""
        return self._inputs[contract.label(step, item)]

    def items(self, step: str) -> list[Item]:
        """List the items of a step whose artifacts are there: not those of families that are left out."""
        return [item for item in self.config.items(step) if contract.label(step, item) in self._inputs]

    def source(self, name: str) -> Path:
        """Give a raw file whose bytes are those that plan saw.

        Raises:
            MissingInput: it is gone, or it changed since.

        """
        place = self.config.raw()[name]
        path = self.folder / f"raw-{name}" if place.startswith("raw/") else Path(place)
        found = raw.fetch(self.store, place, path) if place.startswith("raw/") else raw.digest(self.store, place)
        if found != self.pinned.raw[name]:
            if path != Path(place):
                for key in self.store.list("scratch/raw/"):  # what is remembered, so that whoever plans next looks at all anew
                    self.store.drop(key)
                again = "Run the same command again, or submit again: they are brought anew."
                raise MissingInput(f"{self.store.address}/{place}: its bytes are damaged. {again}")
            raise MissingInput(f"{place}: its bytes changed since this run was planned. Run the same command again.")
        return path

    def confirm(self, name: str) -> None:
        """Look at a raw file again, after reading it: what changed meanwhile must not be published as what was planned.

        Raises:
            MissingInput: it is gone, or it changed.

        """
        if not self.config.raw()[name].startswith("raw/"):  # of that, a copy was read
            self.source(name)

    def checkpoint(self, name: str) -> checkpoint.Checkpoint:
        """Give the checkpoint of one of this step's fits."""
        minutes = self.config["common"].checkpoint_interval_minutes
        return checkpoint.Checkpoint(self.store, name, minutes * 60)


# --- what plan pins -------------------------------------------------------------------------------


def pin(resolved: Config, store: Store, run: str = "", *, copy: bool = True) -> Config:
    """Pin what a run goes by: digests of the raw files, settings to try first, and the champion.

    What is in a bucket is copied first; where not, what changed there since the last copy stands for bytes that no run has seen.
    """
    copied = {section: raw.copied(store, section, resolved[section], copy=copy) for section in raw.SECTIONS}
    resolved = dataclasses.replace(resolved, sections={**resolved.sections, **copied})
    digests = {
        name: raw.digest(store, place, f"{section}.{resolved[section].RAW[name]}")
        for section in raw.SECTIONS
        for name, place in raw.files(resolved[section]).items()
    }
    pinned = Config(resolved.name, resolved.sections, Pinned(run, digests))
    if resolved["search"].warm_start:
        pinned = pinned.with_first(registry.first(Addresses(pinned, store)))
    assert pinned.pinned
    champion = registry.champion(Addresses(pinned, store))
    return dataclasses.replace(pinned, pinned=dataclasses.replace(pinned.pinned, champion=champion))


# --- the life of a step ---------------------------------------------------------------------------


def run_step(step: str, item: Item, addresses: Addresses) -> dict[str, Any]:
    """Do a step's work unless it is done, and give its outputs.

    Raises:
        SurefootError: as the stage or its surroundings say.

    """
    stage, store = STEPS[step], addresses.store
    if addresses.is_gated(step):
        log.info("step.gated", reason=f"{stage.gate}")
        return {"state": "gated"}
    if stage.effect_of:
        if addresses.find(stage.effect_of, item):
            log.info("step.already_done")
            return {"state": "done"}
        return {"state": "made", **_work(step, item, addresses, addresses.found(step, item), addresses.plan_key(step, item))[0]}
    inputs = addresses.found(step, item)
    address = addresses.address(step, item, inputs)
    found, k = artifact.current(store, step, address)
    manifest = found if found and addresses.counts(found) else None
    state = "done" if manifest else "made"
    if manifest:
        log.info("step.already_done", address=address)
    else:
        outputs, document, files = _work(step, item, addresses, inputs, address)
        if found:  # not before: another run may accept its fallback
            artifact.void(store, found, "a file is lost, or its fallback is not accepted")
        manifest = _publish(step, item, addresses, inputs, address, k, outputs, document, files)
        for key in store.list(f"scratch/{stage.folder}/{address}/"):  # the fits' checkpoints: their results are safe now
            store.drop(key)
    if len(inputs) == len(addresses.inputs(step, item)):  # what lacks a family is not what was planned
        store.create(f"index/{addresses.plan_key(step, item)}/{address}", b"")
    addresses.forget()
    if not addresses.accepts(manifest):
        reasons = ", ".join(manifest.document["degraded"])
        raise NotNow(
            f"{manifest.label}: only a fallback was possible ({reasons}), and common.accept_degraded is false. "
            "Run again where it is not needed, or accept it."
        )
    return {"state": state, **manifest.outputs}


def _work(
    step: str, item: Item, addresses: Addresses, inputs: dict[str, Manifest], address: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Call the stage's function in an empty folder; give its outputs, what was measured, and its uploaded files."""
    for library in recipe.unlike_lock(step, item):
        log.warning("library.unlike_lock", library=library, so="this step works at an address of its own")
    log.info("step.started", address=address)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="surefoot-") as folder:
        run = Run(step, item, addresses, Path(folder), inputs, address)
        module = importlib.import_module(STEPS[step].module)
        work: Callable[[Any, Run], dict[str, Any]] = getattr(module, STEPS[step].module.rpartition(".")[2])
        outputs = work(addresses.config[STEPS[step].stage], run)
        names = sorted(path.name for path in run.out.iterdir())
        assert all(artifact.BLOB_NAME.fullmatch(name) for name in names), names
        files = {name: artifact.put(addresses.store, run.out / name) for name in names}
        measured = {
            **run.measured,
            "seconds": round(time.monotonic() - started, 3),
            "peak_memory_mb": telemetry.peak_memory_mb(),
            "attempt": int(os.environ.get("SUREFOOT_ATTEMPT", "0")),
            "host": telemetry.host(),
        }
        told = ("seconds", "peak_memory_mb", "estimated_memory_mb")
        log.info("step.worked", **{name: measured[name] for name in told if name in measured})
        return outputs, {"measured": measured, "degraded": run.degraded, "device": run.device}, files


def _publish(
    step: str,
    item: Item,
    addresses: Addresses,
    inputs: dict[str, Manifest],
    address: str,
    k: int,
    outputs: dict[str, Any],
    made: dict[str, Any],
    files: dict[str, Any],
) -> Manifest:
    plan, pinned = addresses.plan_document(step, item), addresses.config.pinned
    document = {
        "step": step,
        "item": plan["item"],
        "address": address,
        "plan_key": contract.digest(plan),
        "recipe": plan["recipe"],
        "pins": plan["pins"],
        "inputs": {name: {"manifest": manifest.key, "content": manifest.content} for name, manifest in inputs.items()},
        "files": files,
        "outputs": outputs,
        "run": pinned.run if pinned else "",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **made,
    }
    manifest, won = artifact.publish(addresses.store, k, document)
    log.info("step.done" if won else "step.adopted", manifest=manifest.key, files=len(manifest.files))
    return manifest


# --- the program ----------------------------------------------------------------------------------


def main(step: str, argv: list[str] | None = None) -> NoReturn:
    """Run one step as a program and exit with the code that says how it ended."""
    parser = arguments(step, STEPS[step].entry)
    parser.add_argument("--item", default="{}", help='which one of several, as JSON: {"family": "xgboost"}')

    def work(asked: argparse.Namespace) -> dict[str, Any]:
        store = open_store(asked.store)
        resolved = resolve(asked.config, store, asked.set)
        item = _item(step, asked.item, resolved)
        log.setup(resolved["common"].log_level, step=step, **item)
        addresses = Addresses(resolved if resolved.pinned else pin(resolved, store), store)
        return {"step": step, "item": item, **run_step(step, item, addresses)}

    program(step, parser, work, argv)


def program(
    name: str, parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], dict[str, Any]], argv: list[str] | None = None
) -> NoReturn:
    """Be a program: arguments in; outputs as files and as one JSON line on stdout; logs on stderr; the exit code says how it ended."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print do not reach whoever reads the outputs
    if (walk := os.environ.get("SUREFOOT_CHILD")) and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: die with the walk that started us
        if os.getppid() != int(walk):  # it was killed before we could ask for that
            sys.exit(128 + signal.SIGTERM)
    # Threads that wait for each other sleep instead of spinning: on shared cores a fit is several times faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if _has_avx2():  # sums in one order on all such machines, whatever else their processors can do: the same bytes
        os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
    checkpoint.catch_signals()
    log.setup(step=name)
    asked = parser.parse_args(argv)

    def answered() -> None:
        outputs = work(asked)
        hand_out(outputs, asked.outputs)
        answer.write(contract.dump(outputs).decode())
        answer.flush()

    sys.exit(guarded(answered))


def _has_avx2() -> bool:
    try:
        return re.search(r"^flags\s*:.*\bavx2\b", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE) is not None
    except OSError:
        return False


def guarded(work: Callable[[], None]) -> int:
    """Do some work and translate how it ended into an exit code, with one line for a person."""
    try:
        work()
    except (Exception, Interrupted) as error:  # noqa: BLE001 - the edge of the program
        known = _known(error)
        if known is None:
            traceback.print_exc()
            log.last_words(f"{type(error).__name__}: {error} (a bug: its traceback is in the log)")
            return BUG
        log.error("step.failed", error=type(known).__name__, exit=known.code, message=str(known))
        log.last_words(str(known))
        return known.code
    return 0


def _known(error: BaseException) -> SurefootError | Interrupted | None:
    """Give what a person can act on; None for a bug, which looks like one: its traceback is left alone."""
    if isinstance(error, SurefootError | Interrupted):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory("out of main memory")
    where = getattr(error, "filename", None) or tempfile.gettempdir()  # while a stage reads or writes its own files
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NotNow(f"no room left on the disk ({where}): free some and run again")
    if isinstance(error, OSError) and error.errno in {errno.EIO, errno.ESTALE}:
        return NotNow(f"{where}: {error.strerror}. Look at the disk or its network, then run again.")
    return None


def resolve(given: str, store: Store, sets: list[str]) -> Config:
    """Read the config that a step was given: a file, the address of a resolved one in the store, or the config itself as JSON."""
    if given.lstrip().startswith("{"):
        return config.inline(given, sets)
    if not re.fullmatch(r"config/[0-9a-f]{64}\.json", given):
        return config.load(Path(given), sets)
    try:
        document = store.read(given)
    except KeyError as error:
        raise MissingInput(f"{given}: this config is not in {store.address}. Submit it again.") from error
    if artifact.sha256(document) != given[7:71]:
        raise MissingInput(f"{given}: its bytes in {store.address} are damaged. Submit it again.")
    if sets:
        raise UsageError("--set changes a YAML config; one in the store is final.")
    return config.parse(document, given)


def hand_out(outputs: dict[str, Any], folder: str | None) -> None:
    """Write the small outputs, one file each."""
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, value in outputs.items():
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            (Path(folder) / name).write_text(text, encoding="utf-8")


def arguments(name: str, entry: str) -> argparse.ArgumentParser:
    """Give the options that every step's command has."""
    parser = argparse.ArgumentParser(prog=f"python -m {entry}", description=f"Surefoot, step {name}.")
    parser.add_argument("--config", required=True, help="a YAML file, the address of a config in the store, or the config itself as JSON")
    parser.add_argument("--store", required=True, help="a folder, or s3://bucket/prefix")
    parser.add_argument("--outputs", metavar="DIR", help="write the small outputs here, one file each")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="set one option of the config")
    return parser


def _item(step: str, text: str, resolved: Config) -> Item:
    try:
        item = json.loads(text)
        assert isinstance(item, dict)
    except (ValueError, AssertionError, RecursionError) as error:
        raise UsageError(f'--item {text[:100]!r}: give a JSON object such as {{"family": "xgboost"}}.') from error
    if item and not STEPS[step].item:
        raise UsageError(f"--item {text[:100]!r}: {step} has no items.")
    if missing := [name for name in STEPS[step].item if name not in item]:
        raise UsageError(f'--item lacks {", ".join(missing)}: {step} works on one item, such as {{"family": "xgboost"}}.')
    if item and {name: item[name] for name in STEPS[step].item} not in (known := resolved.items(step)):
        raise UsageError(f"--item {text[:100]!r}: this config has only {', '.join(contract.label(step, one) for one in known)}.")
    return {name: str(value) for name, value in item.items()}
