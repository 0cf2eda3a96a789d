"""An entity's past: strictly earlier rows, labels that were known by then, and the same bits for one row as for all."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.features import features as feature
from stages.features import history
from stages.features.features import Features, Roles

CARDS = Path(__file__).parents[4] / "shared" / "data" / "card-transactions.parquet"
DAY = history.DAY


def statistics(who: list[int], days: list[float], amount: list[Any] | None = None, label: list[int] | None = None, delay: float = 0) -> Any:
    past = history.earlier(np.array(who, dtype=np.int64), (np.array(days) * DAY).astype(np.int64))
    amounts = None if amount is None else np.array(amount, dtype=np.float64)
    labels = None if label is None else np.array(label, dtype=np.int8)
    return history.statistics(past, amounts, labels, int(delay * DAY))


def equal(found: Any, expected: list[float]) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_only_strictly_earlier_rows_of_the_same_entity_count() -> None:
    """Rows of one time do not see each other, in whatever order they stand."""
    made = statistics([1, 1, 2, 1, 1], [3, 1, 1, 3, 1], [50, 10, 7, 70, 30])

    equal(made["count"], [2, 0, 0, 2, 0])
    equal(made["since"], [2, np.nan, np.nan, 2, np.nan])
    equal(made["mean"], [20, np.nan, np.nan, 20, np.nan])
    equal(made["spread"], [10, np.nan, np.nan, 10, np.nan])
    equal(made["ratio"], [2.5, np.nan, np.nan, 3.5, np.nan])


def test_a_missing_amount_is_no_amount() -> None:
    made = statistics([1, 1, 1], [1, 2, 3], [np.nan, 6, 9])
    equal(made["count"], [0, 1, 2])
    equal(made["mean"], [np.nan, np.nan, 6])


def test_a_row_without_an_entity_has_no_past() -> None:
    made = statistics([-1, -1, 4, 4], [1, 2, 3, 4])
    equal(made["count"], [np.nan, np.nan, 0, 1])


@pytest.mark.parametrize(
    ("delay", "known", "rate"), [(0, [0, 1, 2, 3], [np.nan, 1, 0.5, 1 / 3]), (2, [0, 0, 1, 1], [np.nan, np.nan, 1, 1])]
)
def test_a_label_counts_when_it_is_known(delay: float, known: list[float], rate: list[float]) -> None:
    made = statistics([1, 1, 1, 1], [1, 2, 3, 4 if delay == 0 else 3.5], label=[1, 0, 0, 1], delay=delay)
    equal(made["known"], known)
    equal(made["rate"], rate)


def test_a_label_that_nobody_knows_does_not_count() -> None:
    made = statistics([1, 1, 1], [1, 2, 3], label=[-1, 1, 0])
    equal(made["known"], [0, 0, 1])


def test_entities_are_told_apart_by_all_their_columns() -> None:
    made = history.entities([pd.Series(["a", "a", "b", None]), pd.Series([1, 2, 1, 1])])
    assert made[3] == -1
    assert len(set(made[:3])) == 3
    assert history.entities([pd.Series(["a", "a"]), pd.Series([1.0, 1.0])]).tolist() == [0, 0]


def test_a_spread_of_large_amounts_is_not_drowned() -> None:
    made = statistics([1, 1, 1], [1, 2, 3], [1e9 + 1, 1e9 + 2, 0])
    equal(made["spread"], [np.nan, np.nan, 0.5])


# --- of a real table ---

CARD_ROLES = Roles(
    "TX_FRAUD",
    "1",
    "0",
    "TX_DATETIME",
    "TRANSACTION_ID",
    drop=("CUSTOMER_ID", "TERMINAL_ID"),
    amount="TX_AMOUNT",
    keys=(("customer", ("CUSTOMER_ID",)), ("terminal", ("TERMINAL_ID",))),
    label_delay_days=7,
)


@pytest.fixture(scope="module")
def cards() -> pd.DataFrame:
    if not CARDS.exists():
        pytest.skip("../shared/data is not beside the checkout: no past was computed of a real table")
    return pd.read_parquet(CARDS).drop(columns=["TX_FRAUD_SCENARIO", "TX_TIME_DAYS"])


@pytest.fixture(scope="module")
def features(cards: pd.DataFrame) -> Features:
    return feature.fit(cards[:200_000], CARD_ROLES, 10)


@pytest.mark.parametrize("rows", [40, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_row_alone_with_its_past_is_as_among_all(cards: pd.DataFrame, features: Features, rows: int) -> None:
    """Bit for bit, wherever the row's past ends."""
    together = feature.apply(features, cards)
    for row in np.random.default_rng(0).choice(len(cards), rows, replace=False):
        one = cards.iloc[[row]]
        mine = (cards["CUSTOMER_ID"] == one["CUSTOMER_ID"].iloc[0]) | (cards["TERMINAL_ID"] == one["TERMINAL_ID"].iloc[0])
        past = cards[mine & (cards["TX_DATETIME"] < one["TX_DATETIME"].iloc[0])]
        pd.testing.assert_frame_equal(feature.apply(features, one, past), together.iloc[[row]], check_exact=True)


def test_cutting_the_future_off_changes_nothing(cards: pd.DataFrame, features: Features) -> None:
    half = cards[:150_000]
    pd.testing.assert_frame_equal(feature.apply(features, half), feature.apply(features, cards)[:150_000], check_exact=True)


def test_what_needs_the_past_says_so(features: Features) -> None:
    assert {column.name for column in features.columns if column.is_history} == {
        f"{key}_{name}" for key in ("customer", "terminal") for name in history.STATISTICS
    }
    assert Features.from_json(features.to_json()) == features
