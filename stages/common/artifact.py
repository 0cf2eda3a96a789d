"""Artifacts: files by digest under a manifest; what is damaged is voided, never trusted.

In the store they are:

    blobs/<sha256>                            every file, create-once
    <step>/<address>/manifest-<k>, void-<k>   the highest k that is not void counts
"""

import functools
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stages.common import contract, log
from stages.common.errors import MissingInput
from stages.common.store import Store, Unreadable

SEALED = re.compile(r".+/manifest-\d+|search/(trials|first)/.+\.json|runs/[^/]+/(record|closed(-\d+)?)\.json")
BLOB_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class Manifest:
    """One finished step: its files by digest, and how they were made."""

    key: str
    document: dict[str, Any]

    @property
    def label(self) -> str:
        """Step and item, as people name them."""
        return contract.label(self.document["step"], self.document["item"])

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Per file name its ``sha256`` and ``size`` in bytes."""
        files: dict[str, dict[str, Any]] = self.document["files"]
        return files

    @property
    def outputs(self) -> dict[str, Any]:
        """The small outputs it hands on."""
        outputs: dict[str, Any] = self.document["outputs"]
        return outputs

    @cached_property
    def content(self) -> str:
        """Digest of what it holds: what later addresses are made of."""
        return contract.digest({name: file["sha256"] for name, file in self.files.items()})

    @property
    def void_key(self) -> str:
        """Where its void stands, if it is void."""
        return re.sub(r"manifest-(\d+)$", r"void-\1", self.key)


def seal(key: str, document: dict[str, Any]) -> bytes:
    """Write a document with its place and its own digest in it, so that another one's bytes do not pass for it either."""
    placed = {**document, "key": key}
    return contract.dump({**placed, "seal": contract.digest(placed)})


def opened(key: str, data: bytes) -> dict[str, Any] | None:
    """Read a sealed document; None where its bytes are not what was written there."""
    try:
        document: dict[str, Any] = json.loads(data)
        is_whole = document.pop("seal") == contract.digest(document)
        place = document.pop("key", key)  # early documents did not say theirs
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    return document if is_whole and place == key else None


def unsealed(store: Store, key: str) -> dict[str, Any] | None:
    """Read a sealed document from the store; None where it is lost, or its bytes are not what was written."""
    try:
        return opened(key, store.read(key))
    except (KeyError, Unreadable):
        return None


def current(store: Store, step: str, address: str) -> tuple[Manifest | None, int]:
    """Find the manifest that counts at an address, and the k under which the next one goes."""
    folder = f"{contract.STEPS[step].folder}/{address}/"
    keys = store.list(folder)
    found: dict[str, set[int]] = {"manifest": set(), "void": set()}
    for key in keys:
        if named := re.fullmatch(r"(manifest|void)-(\d+)", key.removeprefix(folder)):
            found[named[1]].add(int(named[2]))
    after = 1 + max([*found["manifest"], *found["void"]], default=-1)  # a void may outlive its manifest
    for k in sorted(found["manifest"] - found["void"], reverse=True):
        key = f"{folder}manifest-{k}"
        if document := unsealed(store, key):
            return Manifest(key, document), after
        void(store, Manifest(key, {}), "its bytes are damaged")
    return None, after


def is_sound(store: Store, manifest: Manifest) -> bool:
    """Tell by HEAD alone whether all its files are there: sizes, and checksums where the server knows them."""
    for file in manifest.files.values():
        head = store.head(f"blobs/{file['sha256']}")
        if head is None or head.size != file["size"] or head.sha256 not in (None, file["sha256"]):
            return False
    return True


def void(store: Store, manifest: Manifest, reason: str) -> None:
    """Say for ever that a manifest does not count."""
    if store.create(manifest.void_key, contract.dump({"reason": reason})):
        log.warning("manifest.voided", manifest=manifest.key, reason=reason)


def put(store: Store, path: Path, folder: str = "blobs") -> dict[str, Any]:
    """Upload one file under its digest."""
    sha256 = contract.file_digest(path)
    keep(store, f"{folder}/{sha256}", path, sha256)
    return {"sha256": sha256, "size": path.stat().st_size}


def keep(store: Store, key: str, data: bytes | Path, sha256: str) -> None:
    """Keep under a key what its digest names; other bytes that are there are replaced."""
    if not store.create(key, data) and not holds(store, key, sha256):
        log.warning("damage.replaced", key=key)
        store.replace(key, data)


def holds(store: Store, key: str, sha256: str) -> bool:
    """Read an object's bytes and tell whether they are those of a digest."""
    try:
        if local := store.local(key):
            return contract.file_digest(local) == sha256
        with tempfile.TemporaryDirectory() as folder:
            return store.download(key, Path(folder) / "blob") == sha256
    except (KeyError, FileNotFoundError, Unreadable):
        return False


def publish(store: Store, k: int, document: dict[str, Any]) -> tuple[Manifest, bool]:
    """Write a manifest create-once; who comes second takes the winner's, and is told False."""
    folder = f"{contract.STEPS[document['step']].folder}/{document['address']}"
    while True:
        key = f"{folder}/manifest-{k}"
        if store.create(key, seal(key, document)):
            return Manifest(key, document), True
        winner, k = current(store, document["step"], document["address"])
        if winner:
            # A create whose answer was lost finds its own manifest: then the work was ours after all.
            return winner, winner.document == document


class Artifact:
    """A finished step's files, for whoever reads them: bytes are hashed before anybody sees them."""

    def __init__(self, store: Store, manifest: Manifest, scratch: Path) -> None:
        self.store = store
        self.manifest = manifest
        self._folder = scratch
        self._verified: dict[str, Path] = {}

    def path(self, name: str) -> Path:
        """Give a file whose bytes match its digest.

        Raises:
            MissingInput: lost or damaged; the manifest is voided, so that the next run makes it again.

        """
        if name not in self._verified:
            self._verified[name] = self._fetch(name, self.manifest.files[name]["sha256"])
        return self._verified[name]

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the artifact."""
        return json.loads(self.path(name).read_bytes())

    def _fetch(self, name: str, sha256: str) -> Path:
        key = f"blobs/{sha256}"
        try:
            path = self.store.local(key) or self._folder / sha256
            found = contract.file_digest(path) if self.store.local(key) else self.store.download(key, path)
        except (KeyError, FileNotFoundError, Unreadable):
            found = ""
        if found == sha256:
            return path
        state = "damaged" if found else "lost"
        void(self.store, self.manifest, f"{name} is {state}")
        raise MissingInput(f"{self.manifest.label}: {name} ({key}) is {state}. Run the same command again: it is made anew.")


def all_manifests(store: Store) -> Iterator[Manifest]:
    """Give every manifest that counts, step by step."""
    for step in contract.STEPS.values():
        addresses = {key.removeprefix(f"{step.folder}/").split("/")[0] for key in store.list(f"{step.folder}/")}
        for address in sorted(a for a in addresses if re.fullmatch("[0-9a-f]{64}", a)):
            manifest, _ = current(store, step.name, address)
            if manifest:
                yield manifest


def verify(store: Store) -> list[str]:
    """Read every record, and hash the bytes of all files that they name; void what is damaged and say what it was."""
    keys = store.list("")
    voided = {key.replace("/void-", "/manifest-") for key in keys if "/void-" in key}
    sealed = {key: unsealed(store, key) for key in keys if SEALED.fullmatch(key) and key not in voided}
    found = [f"{key} is damaged" for key, document in sealed.items() if document is None]
    whole = functools.cache(lambda sha256: holds(store, f"blobs/{sha256}", sha256))
    for manifest in all_manifests(store):
        for name, file in sorted(manifest.files.items()):
            if not whole(file["sha256"]):
                found.append(f"{manifest.label}: {name} (blobs/{file['sha256']}) is lost or damaged")
                void(store, manifest, f"{name} is lost or damaged")
    models = {key: document["model"]["sha256"] for key, document in sealed.items() if document and "model" in document}
    found += [f"{key}: its model (blobs/{sha256}) is lost or damaged" for key, sha256 in models.items() if not whole(sha256)]
    given = [key for key in keys if key.startswith(("raw/", "config/"))]
    return found + [f"{key} is damaged: submit it again" for key in given if not holds(store, key, key.split("/")[1].removesuffix(".json"))]


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()
