"""What is in production: the highest create-once registry/production/<generation>.json.

One write is the swap, the history and the answer to "what was live at that time".
And what a search takes from there: the settings that it tries first, remembered as it begins.
"""

import json
import time
from typing import Any

from stages.common import artifact
from stages.common.address import Addresses
from stages.common.contract import Item
from stages.common.errors import MissingInput
from stages.common.store import Store

FOLDER = "registry/production/"


def history(store: Store) -> list[dict[str, Any]]:
    """List all generations, oldest first."""
    return [_read(store, key) for key in store.list(FOLDER)]


def live(store: Store) -> dict[str, Any] | None:
    """Give the live generation, None before the first."""
    keys = store.list(FOLDER)
    return _read(store, keys[-1]) if keys else None


def _read(store: Store, key: str) -> dict[str, Any]:
    if (found := artifact.unsealed(store, key)) is None:
        raise MissingInput(f"{store.address}/{key} is damaged. Put its bytes back from a backup; nothing is promoted until then.")
    return found


def verify(store: Store) -> list[str]:
    """Hash the files of what is live and read all generations; say what is lost or damaged."""
    try:
        past = history(store)
    except MissingInput as error:
        return [str(error)]
    return [f"live version {past[-1]['version']}: {name} is lost or damaged" for name in _lost(store, past[-1])] if past else []


def _lost(store: Store, generation: dict[str, Any]) -> list[str]:
    """Name the files of a package that are lost or damaged."""
    return [name for name, sha256 in generation["files"].items() if not artifact.holds(store, f"blobs/{sha256}", sha256)]


def barred(store: Store) -> set[str]:
    """List versions that were rolled back: they are not promoted again."""
    return {generation["barred"] for generation in history(store) if generation.get("barred")}


def add(store: Store, generation: dict[str, Any]) -> dict[str, Any] | None:
    """Write the next generation; None when somebody else wrote it first."""
    made = {**generation, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    key = f"{FOLDER}{made['generation']:08d}.json"
    data = artifact.seal(key, made)
    # A create whose answer was lost finds its own bytes: then the generation is ours after all.
    return made if store.create(key, data) or store.read(key) == data else None


def champion(addresses: Addresses) -> dict[str, Any] | None:
    """Find the package that a run has to beat: the live one, or what that one replaced where this very run made it."""
    now = live(addresses.store)
    if now is None:
        return None
    if now["train"] in [addresses.plan_key("train", item) for item in addresses.config.items("train")]:
        over: dict[str, Any] | None = now["over"]
        return over
    return {"version": now["version"], "generation": now["generation"]}


def first(addresses: Addresses) -> dict[str, dict[str, Any]]:
    """Find the settings that a run's searches try first: those that a search began with, and of a new one the live model's.

    So a run that is submitted again goes on with its own searches, whatever it, or another one, promoted since.
    """
    keys = {item["family"]: _begun(addresses, item) for item in addresses.config.items("search-collect")}
    begun = {family: known["first"] for family, key in keys.items() if (known := artifact.unsealed(addresses.store, key))}
    found = {**_settings(addresses.store), **begun}
    return {family: params for family, params in found.items() if family in keys and params is not None}


def begin(addresses: Addresses, item: Item) -> None:
    """Remember what a search tries first, as it begins."""
    assert addresses.config.pinned
    document = {"first": addresses.config.pinned.first.get(item["family"])}
    addresses.store.create(key := _begun(addresses, item), artifact.seal(key, document))


def _begun(addresses: Addresses, item: Item) -> str:
    return f"search/first/{addresses.search_key(item)}.json"


def _settings(store: Store) -> dict[str, Any]:
    """Give the live model's settings under its family; nothing where they are lost."""
    now = live(store)
    key = f"blobs/{now['files'].get('model.json')}" if now else ""
    if not key or not artifact.holds(store, key, key.removeprefix("blobs/")):
        return {}
    model = json.loads(store.read(key))
    return {model["family"]: model["params"]}


def roll_back(store: Store, version: str | None = None) -> dict[str, Any]:
    """Make an earlier package live again, as one more generation, and bar the one that was live.

    Raises:
        MissingInput: there is nothing to go back to, its files are not whole, or production moved meanwhile.

    """
    past = history(store)
    if not past:
        raise MissingInput(f"{store.address}: nothing was ever promoted, so there is nothing to roll back.")
    now, out = past[-1], barred(store)
    earlier = [g for g in past[:-1] if g["version"] != now["version"] and g["version"] not in out and version in (None, g["version"])]
    if not earlier:
        wanted = f"version {version}" if version else "another version that was not rolled back"
        raise MissingInput(f"{store.address}: {wanted} is not in the history of production: {', '.join(g['version'] for g in past)}.")
    if lost := _lost(store, earlier[-1]):
        said = f"of version {earlier[-1]['version']}, {', '.join(lost)} is lost or damaged"
        raise MissingInput(f"{store.address}: {said}. Go back to another one: --to VERSION.")
    back = {**earlier[-1], "generation": now["generation"] + 1, "kind": "rollback", "barred": now["version"]}
    made = add(store, back)
    if made is None:
        raise MissingInput(f"{store.address}: production moved on from generation {now['generation']} just now. Look at it and try again.")
    return made
