"""Where a result is: plan keys (known beforehand), addresses (known once the inputs are), and the index between them."""

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from stages.common import artifact, contract, recipe
from stages.common.artifact import Manifest
from stages.common.config import Config
from stages.common.contract import STEPS, Item
from stages.common.errors import MissingInput
from stages.common.store import Store


@dataclass
class Addresses:
    """Computes keys for one resolved config and finds what the store has under them."""

    config: Config
    store: Store
    _found: dict[str, Manifest] = field(default_factory=dict)
    _plan_keys: dict[str, str] = field(default_factory=dict)

    def inputs(self, step: str, item: Item) -> list[tuple[str, Item]]:
        """List what a step reads: with the same item where both have one, else with all items."""
        mine = STEPS[step].item
        return [(name, one) for name in STEPS[step].reads for one in ([item] if STEPS[name].item and mine else self.config.items(name))]

    def lacks(self, step: str, item: Item, there: Collection[str]) -> list[str]:
        """List what a step reads and that is not there; nothing where only families are, of which enough others are there."""
        asked = {contract.label(*one): bool(one[1]) and not STEPS[step].item for one in self.inputs(step, item)}
        missing = [label for label in asked if label not in there]
        families = sum(asked.values()) - len(missing)
        return [] if all(asked[label] for label in missing) and families >= self.config.least_families else missing

    def plan_document(self, step: str, item: Item) -> dict[str, Any]:
        """Write down everything that is known beforehand of what a step's result depends on."""
        return self._document(step, item, {contract.label(*one): self.plan_key(*one) for one in self.inputs(step, item)})

    def plan_key(self, step: str, item: Item) -> str:
        """Digest of recipe, plan keys of the inputs, and what is pinned."""
        name = contract.label(step, item)
        if name not in self._plan_keys:
            self._plan_keys[name] = contract.digest(self.plan_document(step, item))
        return self._plan_keys[name]

    def search_key(self, item: Item) -> str:
        """Digest of what is known beforehand of a search, whatever its budget, since asking for more goes on with it, and what it tries."""
        document = self.plan_document("search-collect", item)
        config = {name: value for name, value in document["recipe"]["config"].items() if name not in self.config["search"].BUDGET}
        return contract.digest({**document, "recipe": {**document["recipe"], "config": config}, "pins": {}})

    def address(self, step: str, item: Item, inputs: dict[str, Manifest]) -> str:
        """Digest of recipe, contents of the inputs (none of a family that is left out), and what is pinned."""
        asked = [contract.label(*one) for one in self.inputs(step, item)]
        return contract.digest(self._document(step, item, {name: inputs[name].content if name in inputs else None for name in asked}))

    def _document(self, step: str, item: Item, inputs: Mapping[str, str | None]) -> dict[str, Any]:
        stage, pinned = STEPS[step], self.config.pinned
        assert pinned, "plan pins before keys are computed"
        section = self.config[stage.stage]
        raw = {name: sha256 for name, sha256 in pinned.raw.items() if name != "outside"}
        pins: dict[str, Any] = {"raw": raw, "first": pinned.first.get(item.get("family", ""))}
        pins |= {"champion": (pinned.champion or {}).get("version", ""), "outside": pinned.raw.get("outside", "")}
        return {
            "step": step,
            "item": {name: item[name] for name in stage.item},
            "recipe": {**_recipe(step, item.get("family", "")), "config": section.results(item)},
            "inputs": inputs,
            "pins": {name: pins[name] for name in stage.pins},
        }

    def find(self, step: str, item: Item) -> Manifest | None:
        """Find a step's sound result: at its address, or through the index while an input is still to be made (again)."""
        name = contract.label(step, item)
        if name not in self._found:
            inputs = {contract.label(*one): self.find(*one) for one in self.inputs(step, item)}
            there = {label: manifest for label, manifest in inputs.items() if manifest}
            prefix = f"index/{self.plan_key(step, item)}/"
            keys = self.store.list(prefix) if self.lacks(step, item, there) else [prefix + self.address(step, item, there)]
            for key in keys:
                manifest, _ = artifact.current(self.store, step, key.removeprefix(prefix))
                if manifest and self.counts(manifest):
                    self._found[name] = manifest
                    break
        return self._found.get(name)

    def counts(self, manifest: Manifest) -> bool:
        """Tell whether a result is there and good enough for this config."""
        return self.accepts(manifest) and artifact.is_sound(self.store, manifest)

    def accepts(self, manifest: Manifest) -> bool:
        """Tell whether a result was made as asked, or on a fallback that the config accepts."""
        return not manifest.document["degraded"] or bool(self.config["common"].accept_degraded)

    def found(self, step: str, item: Item) -> dict[str, Manifest]:
        """Find the results of everything that a step reads, but of families that may be left out.

        Raises:
            MissingInput: too little is there; the message prints the command that makes it.

        """
        asked = {contract.label(*one): one for one in self.inputs(step, item)}
        found = {label: manifest for label, one in asked.items() if (manifest := self.find(*one))}
        if missing := self.lacks(step, item, found):
            name, one = asked[missing[0]]
            words = f" --item '{contract.dump(one).decode().strip()}'" if one else ""
            run = f"python -m {STEPS[name].entry}{words} with the same --config and --store"
            said = f"its input {missing[0]} is" if len(missing) == 1 else f"its inputs {', '.join(missing)} are"
            least, families = self.config.least_families, len(self.config["search"].families)
            why = f" ({least} of {families} families must be there)" if one and not item and families > 1 else ""
            raise MissingInput(f"{step}: {said} not in {self.store.address}{why}. Make it: {run}.")
        return found

    def forget(self) -> None:
        """Look again: something was made or lost."""
        self._found.clear()

    def state(self, step: str, item: Item) -> str:
        """Say what there is to do: ``done``, ``run``, or ``gated`` (its gate is closed: nothing to do)."""
        if self.find(STEPS[step].effect_of or step, item):
            return "done"
        return "gated" if self.is_gated(step) else "run"

    def is_gated(self, step: str) -> bool:
        """Tell whether the output that a step waits for is known, and another one."""
        if not (gate := STEPS[step].gate):
            return False
        name, output, value = gate
        manifest = self.find(name, {})
        return manifest is not None and manifest.outputs[output] != value


@functools.cache
def _recipe(step: str, family: str) -> dict[str, Any]:
    return recipe.recipe(step, {"family": family})


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say in words which parts of a plan document differ."""
    old, new = before["recipe"], now["recipe"]
    words = [
        f"{now['step'].split('-')[0]}.{key}: {old['config'].get(key)!r} -> {new['config'].get(key)!r}"
        for key in _unlike(old["config"], new["config"])
    ]
    words += ["code"] if old["source"] != new["source"] else []
    words += [f"python {old['python']} -> {new['python']}"] if old["python"] != new["python"] else []
    words += [f"{lib} {old['libraries'].get(lib)} -> {new['libraries'].get(lib)}" for lib in _unlike(old["libraries"], new["libraries"])]
    said = {"raw": "bytes of the table", "outside": "bytes of the outside scores", "first": "settings tried first"}
    words += [said.get(name, name) for name in _unlike(before["pins"], now["pins"])]
    return words + [f"after {name}" for name in _unlike(before["inputs"], now["inputs"])]


def _unlike(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
