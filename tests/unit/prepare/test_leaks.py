"""What gives the label or the future away is named, whatever its name; honest tables pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from stages.common import yaml
from stages.common.errors import DataError
from stages.features import features as feature
from stages.features import history
from stages.features.features import Roles
from stages.prepare import generate, ieee_cis, leaks
from stages.prepare.config import Config
from stages.prepare.join import join
from stages.prepare.prepare import roles
from stages.prepare.raw import in_memory

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


def given(frame: pd.DataFrame, planted: Any, *, renamed: bool) -> tuple[pd.DataFrame, dict[str, str], str]:
    """Plant a column; give table, roles and the column's name, all of which may say nothing."""
    frame = frame.assign(planted=planted)
    names = {str(column): f"c{number}" if renamed else str(column) for number, column in enumerate(frame)}
    return frame.rename(columns=names), {role: names[column] for role, column in ROLES.items()}, names["planted"]


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("planted", PLANTED)
def test_a_column_that_tells_the_label_alone_is_refused(
    prepare: Prepare, many: pd.DataFrame, tmp_path: Path, planted: str, renamed: bool
) -> None:
    frame, roles, name = given(many, PLANTED[planted](many), renamed=renamed)
    with pytest.raises(DataError, match=rf"column '{name}' alone tells the label with an AUC of (0\.9[5-9]\d|1\.000)"):
        prepare(write(frame, tmp_path), **roles)


NOISY: dict[str, Callable[[pd.DataFrame], Any]] = {
    "1 % flips": lambda frame: noisy_copy(frame["is_fraud"], 0.01),
    "5 % flips": lambda frame: noisy_copy(frame["is_fraud"], 0.05),
    "10 % flips": lambda frame: noisy_copy(frame["is_fraud"], 0.1),
    "10 % flips, in words": lambda frame: noisy_copy(frame["is_fraud"], 0.1).map({0: "fine", 1: "blocked"}),
    "10 % flips, by sign": lambda frame: with_noise(2 * noisy_copy(frame["is_fraud"], 0.1) - 1, 0.2),
    "10 % flips, missing where it is fraud": lambda frame: frame["amount"].mask(noisy_copy(frame["is_fraud"], 0.1) == 1),
    "noise of an AUC of .98": lambda frame: with_noise(frame["is_fraud"], 1 / 2.9),
    "noise of an AUC of .97": lambda frame: -with_noise(frame["is_fraud"], 1 / 2.66),
}


def with_noise(values: pd.Series, spread: float) -> pd.Series:
    return values + np.random.default_rng(1).normal(0, spread, len(values))


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("planted", NOISY)
def test_a_noisy_copy_of_the_label_is_refused(prepare: Prepare, many: pd.DataFrame, tmp_path: Path, planted: str, renamed: bool) -> None:
    """An honest column does not find nine of ten positives at one of ten others, whatever the area is."""
    frame, roles, name = given(many, NOISY[planted](many), renamed=renamed)
    with pytest.raises(DataError, match=rf"column '{name}' alone tells the label"):
        prepare(write(frame, tmp_path), **roles)


STRONG: dict[str, Callable[[pd.DataFrame], Any]] = {
    "noise of an AUC of .90": lambda frame: with_noise(frame["is_fraud"], 1 / 1.81),
    "20 % flips": lambda frame: noisy_copy(frame["is_fraud"], 0.2),
    "half of the fraud, nothing else": lambda frame: frame["is_fraud"] * (frame.index % 2),
}


@pytest.mark.parametrize("planted", STRONG)
def test_a_strong_column_passes(prepare: Prepare, many: pd.DataFrame, tmp_path: Path, planted: str) -> None:
    """What evaluate will look at once more; the last could be a rule that is never wrong."""
    assert "planted" in prepare(write(many.assign(planted=STRONG[planted](many)), tmp_path), **ROLES).features.names


def test_a_column_that_is_allowed_passes(prepare: Prepare, many: pd.DataFrame, tmp_path: Path) -> None:
    made = prepare(write(many.assign(planted=many["is_fraud"]), tmp_path), **ROLES, allow=["planted"])
    assert "planted" in made.features.names


def seconds(frame: pd.DataFrame) -> Any:
    return (frame["time"] - frame["time"].min()).dt.total_seconds().round().astype("int64")


def near_time(frame: pd.DataFrame, correlation: float) -> Any:
    """Give numbers of this rank correlation with the time."""
    rng = np.random.default_rng(2)
    place = np.arange(len(frame)) / len(frame) - 0.5
    return place + rng.normal(0, np.sqrt(1 / correlation**2 - 1) / 12**0.5, len(frame))


TIMELY: dict[str, Callable[[pd.DataFrame], Any]] = {
    "a counter": lambda frame: frame.index + 1,
    "a counter that falls": lambda frame: 10_000_000 - 7 * frame.index,
    "a counter with gaps": lambda frame: np.random.default_rng(0).geometric(0.001, len(frame)).cumsum(),
    "a hash that starts with the time": lambda frame: seconds(frame) * 10**8 + np.random.default_rng(0).integers(10**8, size=len(frame)),
    "a counter of a tenth of the rows": lambda frame: pd.Series(frame.index).where(frame.index % 10 == 0),
    "a number of rank correlation .99": lambda frame: near_time(frame, 0.99),
    "the number of the week": lambda frame: seconds(frame) // 604_800,
    "a batch in words": lambda frame: (frame.index // 100).map("batch {:03}".format),
}
UNTIMELY: dict[str, Callable[[pd.DataFrame], Any]] = {
    "a number of rank correlation .5": lambda frame: near_time(frame, 0.5),
    "a number of rank correlation .8": lambda frame: near_time(frame, 0.8),
    "a hash": lambda frame: np.random.default_rng(0).permutation(len(frame)) + 10**9,
    "a switch in the middle": lambda frame: (frame.index > len(frame) / 2).astype(int),
    "missing at first": lambda frame: frame["amount"].mask(frame.index < len(frame) / 3),
    "the second of the day": lambda frame: seconds(frame) % 86_400,
    "words of which few stand twice": lambda frame: np.random.default_rng(0).integers(len(frame) * 3, size=len(frame)).astype(str),
}


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("planted", TIMELY)
def test_a_column_that_encodes_the_time_is_named(prepare: Prepare, many: pd.DataFrame, tmp_path: Path, planted: str, renamed: bool) -> None:
    frame, roles, name = given(many, TIMELY[planted](many), renamed=renamed)
    made = prepare(write(frame, tmp_path), **roles)
    assert f"with the event time alone rise or fall: {name}; a model cannot carry them into the future" in made.data["notes"]


@pytest.mark.parametrize("planted", UNTIMELY)
def test_a_column_that_only_has_to_do_with_the_time_is_not_named(
    prepare: Prepare, many: pd.DataFrame, tmp_path: Path, planted: str
) -> None:
    made = prepare(write(many.assign(planted=UNTIMELY[planted](many)), tmp_path), **ROLES)
    assert not [note for note in made.data["notes"] if "rise or fall" in note]


@pytest.mark.parametrize("renamed", [False, True])
def test_an_id_in_words_is_left_out_and_the_reason_told(prepare: Prepare, many: pd.DataFrame, tmp_path: Path, renamed: bool) -> None:
    frame, roles, name = given(many, many.index.map("TX-{:06}".format), renamed=renamed)
    made = prepare(write(frame, tmp_path), **roles)
    assert (name, "text that names rows: 5600 values in 5600 train rows") in made.features.dropped
    assert [note for note in made.data["notes"] if "of the raw columns are no features" in note and name in note]
    assert not [note for note in made.data["notes"] if "rise or fall" in note]


@pytest.mark.parametrize("seed", range(20))
def test_honest_tables_pass(prepare: Prepare, seed: int) -> None:
    made = prepare(generated_rows=2_000, generated_seed=100 + seed, min_per_class=1)
    assert not [note for note in made.data["notes"] if "rise or fall" in note]


@pytest.mark.parametrize(("rows", "period"), [(40_000, 2), (60_000, 3), (100_000, 5), (300, 2)])
def test_rows_that_alternate_hide_no_copy_of_the_label(rows: int, period: int) -> None:
    """Debit and credit, order and payment: whatever stands in every other row, the edges of bins come from all."""
    values = np.where(np.arange(rows) % period == 0, 0.0, np.random.default_rng(1).random(rows))
    frame = pd.DataFrame({"x": values, "y": (values > 0.5).astype(int)})
    features = feature.fit(frame, Roles("y", "1", "0"), 256)

    with pytest.raises(DataError, match="column 'x' alone tells the label"):
        leaks.check_columns(feature.apply(features, frame), frame["y"].to_numpy(np.int8), 0.95, [], features)


@pytest.mark.parametrize("seed", range(20))
def test_honest_tables_of_the_shape_of_ieee_cis_pass(seed: int) -> None:
    """Joined and looked at as prepare does it; days since something began rise a little with time."""
    options = yaml.load((Path(__file__).parents[3] / "configs" / "ieee-cis.yaml").read_text(encoding="utf-8"), "ieee-cis")["prepare"]
    transaction, identity = ieee_cis.tables(3000, seed)
    table, _ = join(in_memory(transaction), in_memory(identity), "TransactionID")
    frame = table.columns(table.names)
    label, times = frame["isFraud"].to_numpy(dtype=np.int8), frame["TransactionDT"].to_numpy()
    early = 2100
    features = feature.fit(frame[:early], roles(Config(**options), "1", "0"), 256)
    matrix = feature.apply(features, frame)

    assert len(matrix.columns) > 400
    leaks.check_columns(matrix[:early], label[:early], 0.95, [], features)
    assert leaks.times_again(matrix, times, features) == []


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not beside the checkout: no real table was looked at")
def test_an_honest_real_table_passes(prepare: Prepare) -> None:
    made = prepare(SHARED / "adult.csv", label="income", positive=">50K", split="random")
    assert len(made.features.columns) >= 14


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
    """Of rows that are scored by the share of positives in their bin, as the other half has it."""
    rng = np.random.default_rng(0)
    bins, half, label = (rng.integers(0, most, 500) for most in (9, 2, 2))
    shares = {
        (b, h): (((bins == b) & (half != h) & (label == 1)).sum() + label[half != h].mean()) / (((bins == b) & (half != h)).sum() + 1)
        for b in range(9)
        for h in range(2)
    }
    score = np.array([shares[b, h] for b, h in zip(bins, half, strict=True)])
    counts = np.bincount(4 * bins + 2 * half + label, minlength=36).reshape(9, 2, 2)

    area, hits, misses = leaks.told(counts)
    assert area == pytest.approx(roc_auc_score(label, score))
    assert (hits, misses) == pytest.approx(tuple((score > label.mean())[label == is_positive].mean() for is_positive in (1, 0)))


def test_too_few_of_a_class_are_not_judged(prepare: Prepare, many: pd.DataFrame, tmp_path: Path) -> None:
    few = many[:300].assign(planted=many["is_fraud"])
    assert 1 < few["is_fraud"].sum() < 40
    assert "planted" in prepare(write(few, tmp_path), **ROLES, min_per_class=1).features.names


def test_the_kinds_of_features_are_those_of_the_config() -> None:
    assert tuple(Config.model_fields["engineered"].default) == feature.KINDS
