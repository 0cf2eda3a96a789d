"""A small pipeline over a made-up table: every step is real but the search, whose result is stated."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.common import artifact, config, contract, step
from stages.common.address import Addresses
from stages.common.contract import Item
from stages.common.store import Store, open_store

XGBOOST = {"family": "xgboost"}
PARAMS = {"max_depth": 3, "learning_rate": 0.3, "subsample": 0.8}
TRIALS = [
    {"slot": 0, "params": PARAMS, "state": "complete", "value": 0.5, "reports": {"10": 0.4, "20": 0.5, "30": 0.45}},
    {"slot": 1, "params": {**PARAMS, "max_depth": 5}, "state": "pruned", "value": 0.3, "reports": {"10": 0.3}},
]
SETTINGS = """
prepare: {source: file, path: table.csv, label: fraud, split: random, max_column_auc: 1}
train: {rounds: 30, early_stopping_rounds: 10}
validate: {auc_floor: 0.6, latency_p99_ms: 5000, memory_mb: 5000}
"""


def honest_table(rows: int = 900, seed: int = 0) -> pd.DataFrame:
    """Make a table whose label follows from several columns, none of which tells it."""
    rng = np.random.default_rng(seed)
    amount, age, shop = rng.lognormal(3, 1, rows), rng.integers(18, 80, rows).astype(float), rng.choice(["web", "store", "phone"], rows)
    age[rng.random(rows) < 0.1] = np.nan
    evidence = np.log(amount) - 0.03 * np.nan_to_num(age, nan=40) + 1.5 * (shop == "web") + rng.logistic(0, 1, rows)
    return pd.DataFrame({"amount": amount.round(2), "age": age, "shop": shop, "fraud": (evidence > 3).astype(int)})


@dataclass
class Pipeline:
    """A table with its config and store."""

    folder: Path
    store: Store

    def addresses(self, *sets: str, run: str = "") -> Addresses:
        """Plan a run: what it pins is what is there now."""
        return Addresses(step.pin(config.load(self.folder / "config.yaml", sets, {}), self.store, run), self.store)

    def do(self, name: str, *sets: str) -> dict[str, Any]:
        """Plan and run one step."""
        return self.work(name, self.addresses(*sets))

    def work(self, name: str, addresses: Addresses) -> dict[str, Any]:
        """Run one step as planned."""
        addresses.forget()
        return step.run_step(name, XGBOOST if contract.STEPS[name].item else {}, addresses)

    def until(self, name: str, *sets: str, run: str = "") -> dict[str, dict[str, Any]]:
        """Run all steps up to one; the search's result is stated, not searched."""
        addresses = self.addresses(*sets, run=run)
        outputs: dict[str, dict[str, Any]] = {}
        for one in contract.STEPS.values():
            if one.name == "search-collect":
                best = {
                    "family": "xgboost",
                    "metric": addresses.config["search"].metric,
                    "params": PARAMS,
                    "slot": 0,
                    "value": 0.5,
                    "options": {},
                    "rung": 0,
                }
                publish(addresses, one.name, XGBOOST, {"best.json": contract.dump(best), "trials.json": contract.dump(TRIALS)}, {})
            elif not one.effect_of:
                outputs[one.name] = self.work(one.name, addresses)
            if one.name == name:
                break
        return outputs

    def read(self, name: str, file: str, *sets: str) -> bytes:
        """Read a file of a step's artifact."""
        manifest = self.addresses(*sets).find(name, XGBOOST if contract.STEPS[name].item else {})
        assert manifest
        return self.store.read(f"blobs/{manifest.files[file]['sha256']}")


def publish(addresses: Addresses, name: str, item: Item, files: dict[str, bytes], outputs: dict[str, Any]) -> None:
    """Put an artifact where a step would have put it."""
    inputs = addresses.found(name, item)
    address = addresses.address(name, item, inputs)
    with tempfile.TemporaryDirectory() as folder:
        blobs = {}
        for file, data in files.items():
            (Path(folder) / file).write_bytes(data)
            blobs[file] = artifact.put(addresses.store, Path(folder) / file)
    measured = {"seconds": 0.1, "peak_memory_mb": 1.0}
    document = {"step": name, "item": item, "address": address, "files": blobs, "outputs": outputs, "run": ""}
    artifact.publish(addresses.store, 0, {**document, "degraded": [], "device": "cpu", "measured": measured})
    addresses.store.create(f"index/{addresses.plan_key(name, item)}/{address}", b"")
    addresses.forget()


def new_pipeline(folder: Path, table: pd.DataFrame, settings: str = SETTINGS) -> Pipeline:
    """Lay out a pipeline over a table, with an empty store."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "table.csv", index=False)
    (folder / "config.yaml").write_text(settings)
    return Pipeline(folder, open_store(str(folder / "store")))
