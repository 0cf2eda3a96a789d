"""The real pipeline over a table of 500 rows: every stage as it is, in seconds."""

import shutil
from pathlib import Path

import pytest

from stages.common import config, contract, step
from stages.common.address import Addresses
from stages.common.store import Store, open_store
from stages.prepare import generate

CONFIG = """
prepare: {source: file, path: table.csv, label: is_fraud, time: time, id: transaction, entity: customer, min_per_class: 1}
search: {n_trials: 2, rounds: 20, space: {xgboost: {min_child_weight: [0.1, 1.0]}}}
train: {rounds: 20}
validate: {auc_floor: 0.0, latency_p99_ms: 10000, memory_mb: 10000}
"""


def lay_out(folder: Path) -> Path:
    """Write table and config; give the config's path."""
    generate.table(500, 0).to_csv(folder / "table.csv", index=False)
    (folder / "small.yaml").write_text(CONFIG)
    return folder / "small.yaml"


def addresses(path: Path, store: Store, *sets: str) -> Addresses:
    """Plan a run: what it pins is what is there now."""
    return Addresses(step.pin(config.load(path, sets, {}), store), store)


def do(name: str, planned: Addresses) -> dict[str, object]:
    """Do one step of a planned run in this process; of several families, with the first."""
    planned.forget()
    return step.run_step(name, {"family": planned.config["search"].families[0]} if contract.STEPS[name].item else {}, planned)


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bring the pipeline to its end, once for all tests."""
    folder = tmp_path_factory.mktemp("small")
    planned = addresses(lay_out(folder), open_store(str(folder / "store")))
    for name in contract.STEPS:
        do(name, planned)
    return folder


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """Give a folder of its own with table, config and a store in which all is done."""
    shutil.copytree(finished_once, tmp_path / "small")
    return tmp_path / "small"
