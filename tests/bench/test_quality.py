"""How good the best of three families is beside a plain LightGBM with its defaults, on the same rows and features. Printed, never a limit.

Each table is resampled: four of five rows at random, split as its config says. Both learn from train alone and are scored once on test.
SUREFOOT_BENCH_RESAMPLES and SUREFOOT_BENCH_TRIALS (of each family) say how often, and how long is searched; SUREFOOT_BENCH_TABLES which.
"""

import json
import os
import statistics
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from stages.common import config, contract, step
from stages.common.address import Addresses
from stages.common.store import FolderStore, open_store
from stages.families import metrics
from stages.families.codes import categories, coded
from stages.features import features
from stages.prepare import ieee_cis

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
RESAMPLES, TRIALS = (int(os.environ.get(f"SUREFOOT_BENCH_{name}", default)) for name, default in (("RESAMPLES", 3), ("TRIALS", 10)))
SEARCH = ("search.families=[xgboost, lightgbm, catboost]", "search.metric=auc", f"search.n_trials={TRIALS}", "train.rounds=400")
SHARE = 0.8
ROWS = {"generated": 30_000, "card-transactions": 384_041, "bank-marketing": 41_188, "adult": 32_561}
CONFIGS = {
    "card-transactions": """
  path: DATA/card-transactions.parquet
  label: TX_FRAUD
  time: TX_DATETIME
  id: TRANSACTION_ID
  amount: TX_AMOUNT
  drop: [TX_FRAUD_SCENARIO]
  keys: {customer: [CUSTOMER_ID], terminal: [TERMINAL_ID]}
  label_delay_days: 7
  split: time
""",
    "bank-marketing": "  path: DATA/bank-marketing.csv\n  label: y\n  drop: [duration]\n  split: random\n",
    "adult": "  path: DATA/adult.csv\n  label: income\n  split: random\n",
}
TABLES = os.environ.get("SUREFOOT_BENCH_TABLES", " ".join(ROWS)).split()


def _planned(table: str, seed: int, folder: Path, store: FolderStore) -> Addresses:
    sets: tuple[str, ...] = (*SEARCH, f"search.seed={seed}", f"prepare.seed={seed}", f"prepare.sample_size={int(SHARE * ROWS[table])}")
    path = config.CONFIGS / "ieee-cis.yaml"
    if table == "generated":
        files = {"path": "train_transaction.csv", "join_path": "train_identity.csv"}
        sets += ("prepare.min_per_class=5", *(f"prepare.{name}={folder / file}" for name, file in files.items()))
    else:
        path = folder / f"{table}.yaml"
        path.write_text("prepare:\n  source: file" + f"\n{CONFIGS[table]}".replace("DATA", str(DATA)).replace("\n\n", "\n"))
    return Addresses(step.pin(config.load(path, sets, {}), store), store)


def gain(table: str, seed: int, folder: Path) -> tuple[float, float]:
    """Search, train and judge one resample; give the winner's AUC on test, and the plain model's."""
    store = open_store(str(folder / f"{table}-{seed}"))
    assert isinstance(store, FolderStore)
    planned = _planned(table, seed, folder, store)
    for name in ("prepare", "search-create", "search-work", "search-collect", "train", "evaluate"):
        for item in planned.config.items(name) if contract.STEPS[name].item else [{}]:
            planned.forget()
            outputs = step.run_step(name, item, planned)
    prepared = planned.find("prepare", {})
    assert prepared
    made = {name: store.local(f"blobs/{file['sha256']}") for name, file in prepared.files.items()}
    known = features.Features.from_json(json.loads(made["features.json"].read_bytes()))
    train, test = (features.read(made[f"{split}.parquet"], known) for split in ("train", "test"))
    places = [place for place, is_category in enumerate(categories(train.X)) if is_category]
    plain = lightgbm.LGBMClassifier(verbosity=-1, random_state=seed).fit(coded(train.X), train.y, categorical_feature=places)
    return outputs["auc"], metrics.score("auc", test.y, np.asarray(plain.predict_proba(coded(test.X)))[:, 1])


@pytest.mark.bench
@pytest.mark.filterwarnings("ignore")  # of scikit-learn's wrapper
def test_quality_beside_a_plain_lightgbm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No worse on any table, on the whole."""
    if not DATA.exists():
        pytest.skip("../shared/data is not beside the checkout: no real table was fitted")
    ieee_cis.write(ROWS["generated"], 0, tmp_path)
    means = []
    for table in TABLES:
        gains = []
        for seed in range(RESAMPLES):
            ours, plain = gain(table, seed, tmp_path)
            gains.append(ours - plain)
            with capsys.disabled():
                sys.stdout.write(f"\n{table:20} resample {seed}: {ours:.4f} - {plain:.4f} = {gains[-1]:+.4f}")
                sys.stdout.flush()
        means.append(statistics.fmean(gains))
        with capsys.disabled():
            sys.stdout.write(f"\n{table:20} mean of {RESAMPLES}: {means[-1]:+.4f}")
    with capsys.disabled():
        sys.stdout.write(f"\nover all: {statistics.fmean(means):+.4f}\n")
    assert len(means) == len(TABLES)
