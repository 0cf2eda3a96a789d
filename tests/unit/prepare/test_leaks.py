"""What gives the label or the future away is named, whatever its name; honest tables pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from stages.common.errors import DataError
from stages.features import features as feature
from stages.features import history
from stages.prepare import generate, leaks

Prepare = Callable[..., Any]
SHARED = Path(__file__).parents[4] / "shared" / "data"
ROLES = {"label": "is_fraud", "time": "time", "id": "transaction", "entity": "customer"}


@pytest.fixture(scope="module")
def many() -> pd.DataFrame:
    return generate.table(8_000, seed=5)


def write(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def noisy_copy(label: pd.Series, share: float) -> pd.Series:
    flipped = np.random.default_rng(0).random(len(label)) < share
    return label.where(~flipped, 1 - label)


PLANTED: dict[str, Callable[[pd.DataFrame], Any]] = {
    "a copy of the label": lambda frame: frame["is_fraud"],
    "a noisy copy": lambda frame: noisy_copy(frame["is_fraud"], 0.02),
    "a copy in words": lambda frame: frame["is_fraud"].map({0: "fine", 1: "blocked"}),
    "a scenario": lambda frame: frame["is_fraud"] * (1 + frame.index % 3),
    "missing where it is fraud": lambda frame: frame["amount"].mask(frame["is_fraud"] == 1),
    "known only after": lambda frame: (frame["is_fraud"] * frame["amount"]).round(),
}


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("planted", PLANTED)
def test_a_column_that_tells_the_label_alone_is_refused(
    prepare: Prepare, many: pd.DataFrame, tmp_path: Path, planted: str, renamed: bool
) -> None:
    frame, roles, name = many.assign(planted=PLANTED[planted](many)), ROLES, "planted"
    if renamed:
        names = {column: f"c{number}" for number, column in enumerate(frame)}
        frame, roles, name = frame.rename(columns=names), {role: names[column] for role, column in ROLES.items()}, names["planted"]
    with pytest.raises(DataError, match=rf"column '{name}' alone tells the label with an AUC of (0\.9[5-9]\d|1\.000)"):
        prepare(write(frame, tmp_path), **roles)


def test_a_column_that_is_allowed_passes(prepare: Prepare, many: pd.DataFrame, tmp_path: Path) -> None:
    made = prepare(write(many.assign(planted=many["is_fraud"]), tmp_path), **ROLES, allow=["planted"])
    assert "planted" in made.features.names


def test_an_id_that_encodes_the_time_is_named(prepare: Prepare, many: pd.DataFrame, tmp_path: Path) -> None:
    made = prepare(write(many.assign(number=10_000_000 - 7 * many.index), tmp_path), **ROLES)
    assert "with the event time alone rise or fall: number; a model cannot carry them into the future" in made.data["notes"]


@pytest.mark.parametrize("seed", range(20))
def test_honest_tables_pass(prepare: Prepare, seed: int) -> None:
    made = prepare(generated_rows=2_000, generated_seed=100 + seed, min_per_class=1)
    assert not [note for note in made.data["notes"] if "rise or fall" in note]


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not beside the checkout: no real table was looked at")
def test_a_real_scenario_is_named(prepare: Prepare) -> None:
    roles = {"label": "TX_FRAUD", "time": "TX_DATETIME", "id": "TRANSACTION_ID", "drop": ["TX_TIME_SECONDS", "TX_TIME_DAYS"]}
    with pytest.raises(DataError, match=r"column 'TX_FRAUD_SCENARIO' alone tells the label with an AUC of 1\.000"):
        prepare(SHARED / "card-transactions.parquet", **roles)


def test_a_feature_that_sees_the_future_is_refused(
    prepare: Prepare, many: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the mean be of all of an entity's rows, as a careless groupby has it."""

    def careless(past: history.Earlier, amount: Any, *_: Any) -> dict[str, Any]:
        mean = pd.Series(amount[past.order]).groupby(past.entity).transform("mean").to_numpy()
        return {name: past.back(mean if name == "mean" else np.zeros(len(mean))) for name in history.STATISTICS}

    monkeypatch.setattr(history, "statistics", careless)
    with pytest.raises(DataError, match=r"feature 'entity_mean' sees the future: \d+ of \d+ values change when later rows are cut off"):
        prepare(write(many, tmp_path), **ROLES, amount="amount")


def test_the_area_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, 500).astype(np.int8), rng.integers(0, 9, 500).astype(float)
    assert leaks.auc(label, score) == pytest.approx(roc_auc_score(label, score))


def test_too_few_of_a_class_are_not_judged(prepare: Prepare, many: pd.DataFrame, tmp_path: Path) -> None:
    few = many[:300].assign(planted=many["is_fraud"])
    assert 1 < few["is_fraud"].sum() < 40
    assert "planted" in prepare(write(few, tmp_path), **ROLES, min_per_class=1).features.names


def test_the_kinds_of_features_are_those_of_the_config() -> None:
    from stages.prepare.config import Config

    assert tuple(Config.model_fields["engineered"].default) == feature.KINDS
