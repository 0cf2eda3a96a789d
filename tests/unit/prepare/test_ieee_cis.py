"""The generated IEEE-CIS has the published shape, gaps, drift and clients, and no single column tells fraud."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import xgboost
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from stages.common import recipe
from stages.prepare import ieee_cis
from tests import accept_ieee_cis as accept

ROWS = 200_000
WHOLE = 590_540
CARDS = [f"card{number}" for number in range(1, 7)]
PLACES = ["addr1", "addr2", "dist1", "dist2", "P_emaildomain", "R_emaildomain"]
NUMBERED = [f"{letter}{number}" for letter, last in (("C", 14), ("D", 15), ("M", 9), ("V", 339)) for number in range(1, last + 1)]
COLUMNS = ["TransactionID", "isFraud", "TransactionDT", "TransactionAmt", "ProductCD", *CARDS, *PLACES, *NUMBERED]
WHOLE_NUMBERS = {"TransactionID", "isFraud", "TransactionDT", "card1"}
TEXTS = {"ProductCD", "card4", "card6", "P_emaildomain", "R_emaildomain", *(f"M{number}" for number in range(1, 10))}
ID_TEXTS = {f"id_{number}" for number in (12, 15, 16, 23, *range(27, 32), *range(33, 39))} | {"DeviceType", "DeviceInfo"}


class Made(NamedTuple):
    """Both tables, and what is asked of them again and again."""

    transaction: pd.DataFrame
    identity: pd.DataFrame
    day: pd.Series
    has_identity: NDArray[np.bool_]
    client: pd.Series  # by card1, addr1 and first day, where these are known


@pytest.fixture(scope="module")
def made() -> Made:
    return make(ROWS, seed=1)


def make(rows: int, seed: int) -> Made:
    transaction, identity = ieee_cis.tables(rows, seed)
    day = transaction["TransactionDT"] // 86_400
    has = transaction["TransactionID"].isin(identity["TransactionID"]).to_numpy()
    known = transaction[transaction["addr1"].notna() & transaction["D1"].notna()]
    first = day[known.index] - known["D1"]
    client = known["card1"] * 10_000_000.0 + known["addr1"] * 10_000 + first
    return Made(transaction, identity, day, has, client)


def test_the_same_seed_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    def digests(seed: int, **environment: str) -> list[str]:
        folder = tmp_path / f"{seed}-{environment.get('PYTHONHASHSEED')}"
        code = f"from pathlib import Path; from stages.prepare import ieee_cis; ieee_cis.write(3_000, {seed}, Path({str(folder)!r}))"
        subprocess.run([sys.executable, "-c", code], cwd=recipe.ROOT, env=os.environ | environment, check=True)
        return [hashlib.sha256((folder / f"train_{name}.csv").read_bytes()).hexdigest() for name in ("transaction", "identity")]

    first, second = digests(4, PYTHONHASHSEED="1", OMP_NUM_THREADS="1"), digests(4, PYTHONHASHSEED="2", OMP_NUM_THREADS="2")
    other = digests(5, PYTHONHASHSEED="1")

    assert first == second
    assert not set(first) & set(other)


def test_the_files_are_what_pandas_would_write_and_reads(tmp_path: Path) -> None:
    ieee_cis.write(2_000, 3, tmp_path)

    for name, frame in zip(("transaction", "identity"), ieee_cis.tables(2_000, 3), strict=True):
        path = tmp_path / f"train_{name}.csv"
        assert path.read_text() == frame.to_csv(index=False, lineterminator="\n")
        pd.testing.assert_frame_equal(pd.read_csv(path).dropna(axis=1, how="all"), frame.dropna(axis=1, how="all"))


@pytest.mark.parametrize("rows", [1, 60, 100, 1_000, 2_000])
def test_a_small_table_is_possible(rows: int) -> None:
    transaction, identity = ieee_cis.tables(rows, 0)

    assert list(transaction) == COLUMNS
    assert len(transaction) == rows >= len(identity)
    assert rows < 100 or set(transaction["ProductCD"]) == set(ieee_cis.PRODUCTS)
    assert rows < 100 or set(transaction["isFraud"]) == {0, 1}


def test_columns_and_types_are_kaggles(made: Made) -> None:
    transaction, identity = made.transaction, made.identity

    assert list(transaction) == COLUMNS
    assert list(identity) == ["TransactionID", *(f"id_{number:02d}" for number in range(1, 39)), "DeviceType", "DeviceInfo"]
    for frame, whole, texts in ((transaction, WHOLE_NUMBERS, TEXTS), (identity, {"TransactionID"}, ID_TEXTS)):
        expected = {name: "int64" if name in whole else "str" if name in texts else "float64" for name in frame}
        assert {name: str(frame[name].dtype) for name in frame} == expected
    assert np.array_equal(transaction["TransactionID"], 2_987_000 + np.arange(ROWS))
    assert identity["TransactionID"].is_monotonic_increasing
    assert identity["TransactionID"].is_unique


def test_as_much_is_missing_as_published_and_groups_together(made: Made) -> None:
    worst, parted = accept.gaps(made.transaction.merge(made.identity, on="TransactionID", how="left"))

    assert worst < 1
    assert parted == 0


def test_blocks_of_v_are_missing_on_their_own_or_with_a_day(made: Made) -> None:
    patterns = {
        block["columns"][0][0]: made.transaction[f"V{block['columns'][0][0]}"].isna().to_numpy()
        for block in ieee_cis.numbers()["v"]["blocks"]
    }

    assert len({pattern.tobytes() for pattern in patterns.values()}) == len(patterns) == 15
    for number, column in ((1, "D11"), (12, "D10"), (35, "D4"), (75, "D15"), (281, "D1")):
        assert np.array_equal(patterns[number], made.transaction[column].isna())


def test_a_product_has_its_own_gaps(made: Made) -> None:
    frame = made.transaction
    shops, others = frame[frame["ProductCD"] == "W"], frame[frame["ProductCD"] != "W"]

    assert not others[["dist1", "D11", "M1", "M2", "M3", "M5", "M6", "M7", "M8", "M9"]].notna().any(axis=None)
    assert not shops[["R_emaildomain", "dist2", "D6", "D7", "D8", "D9", "D12", "D13", "D14"]].notna().any(axis=None)
    assert frame.loc[frame["ProductCD"] == "C", "addr1"].isna().mean() == pytest.approx(0.945, abs=0.01)
    assert (shops[["C4", "C7", "C8", "C10"]] == 0).all(axis=None)
    assert (others[["C5", "C9"]] == 0).all(axis=None)
    assert frame["addr1"].isna().equals(frame["addr2"].isna())


def test_products_their_fraud_and_their_identity(made: Made) -> None:
    product = made.transaction["ProductCD"]
    fraud = made.transaction["isFraud"]
    for name, (rows, rate, identity) in ieee_cis.numbers()["products"].items():
        mine = product == name
        assert mine.mean() == pytest.approx(rows / WHOLE, abs=0.001)
        assert fraud[mine].mean() == pytest.approx(rate, rel=0.05)
        assert made.has_identity[mine].mean() == pytest.approx(identity, abs=0.01)
    assert fraud.mean() == pytest.approx(0.03499, rel=0.01)


def test_the_first_month_is_another_time(made: Made) -> None:
    frame = made.transaction
    month = ((made.day - 1) // 30).clip(0, 5)

    def by_month(values: Any) -> list[float]:
        return [float(share) for share in pd.Series(values, index=frame.index).groupby(month).mean()]

    assert by_month(month == 0)[0] == 1
    assert (month == 0).mean() == pytest.approx(0.23, abs=0.02)
    assert by_month(frame["ProductCD"] == "W") == pytest.approx([0.53, *[0.81] * 5], abs=0.03)
    assert by_month(made.has_identity)[0] == pytest.approx(0.447, abs=0.03)
    assert by_month(frame["M1"].isna()) == pytest.approx([0.70, 0.58, 0.49, 0.28, 0.27, 0.27], abs=0.04)
    assert by_month(frame["M7"].isna()) == pytest.approx([0.85, 0.75, 0.60, 0.40, 0.40, 0.38], abs=0.03)
    assert by_month(frame["D15"].isna()) == pytest.approx([0.35, *[0.1] * 5], abs=0.03)
    rates = by_month(frame["isFraud"])
    assert rates[0] < 0.032
    assert min(rates[1:]) > rates[0] * 1.1
    deciles = pd.Series(made.has_identity).groupby(np.arange(ROWS) * 10 // ROWS).mean()
    assert list(deciles) == pytest.approx([0.35, 0.55, 0.23, 0.17, 0.20, 0.16, 0.21, 0.18, 0.18, 0.23], abs=0.06)


def test_cards_follow_zipf_and_decide_the_rest(made: Made) -> None:
    frame = made.transaction

    assert frame["card1"].value_counts().head(100).sum() / ROWS == pytest.approx(0.474, abs=0.03)
    for name in CARDS[1:]:
        assert frame.groupby("card1")[name].nunique(dropna=False).max() == 1
    assert (frame["card3"] == 150).mean() == pytest.approx(0.883, abs=0.03)
    assert (frame["card6"] == "credit").mean() == pytest.approx(0.252, abs=0.03)
    rate = frame["isFraud"].groupby(frame["card6"]).mean()
    assert rate["credit"] > 1.7 * rate["debit"]
    assert frame.loc[frame["card3"] != 150, "isFraud"].mean() > 3 * frame.loc[frame["card3"] == 150, "isFraud"].mean()


def test_clients_are_born_come_back_and_go(made: Made) -> None:
    sizes = made.client.value_counts()
    test = made.client.index[made.client.index >= ROWS * 0.8]
    seen = made.client[test].isin(made.client[made.client.index < ROWS * 0.8])

    assert sizes.median() == 1
    assert sizes.mean() == pytest.approx(2.6, abs=0.25)
    assert 0.55 < (sizes == 1).mean() < 0.72
    assert 0.3 < seen.mean() < 0.65


def test_days_agree_with_each_other_and_with_the_clock(made: Made) -> None:
    frame = made.transaction
    hour = frame["TransactionDT"] // 3600 % 24
    later, at_once = frame[frame["D1"] > 0], frame[frame["D1"] == 0]
    shown = frame["D9"].notna()

    assert (frame["D9"] - hour / 24)[shown].abs().max() < 1e-6
    assert ((frame["D8"] % 1) - frame["D9"])[shown].abs().max() < 1e-6
    assert frame["D8"].isna().equals(frame["D9"].isna())
    assert len(at_once) / ROWS == pytest.approx(0.47, abs=0.03)
    assert frame["D1"].quantile(0.95) == pytest.approx(489, abs=50)
    assert frame["D1"].max() <= 640
    assert (later["D2"] == later["D1"]).mean() == pytest.approx(0.885, abs=0.01)
    assert at_once["D2"].isna().mean() == pytest.approx(0.947, abs=0.01)
    assert at_once["D3"].isna().mean() == pytest.approx(0.90, abs=0.01)
    gap = made.day[made.client.index].groupby(made.client).diff()
    both = gap.notna() & frame["D3"].notna().reindex(gap.index)
    assert 0.88 < (gap[both] == frame["D3"].reindex(gap.index)[both]).mean() < 0.98


def test_a_client_has_one_first_day() -> None:
    """Day minus D1 never changes for a client."""
    made = make(20_000, seed=2)
    rows = ieee_cis._rows(np.random.default_rng(2), 20_000)
    first = (made.day - made.transaction["D1"]).groupby(rows.client)

    assert (first.max() - first.min()).max() == 0


def test_the_clock(made: Made) -> None:
    frame = made.transaction
    seconds = frame["TransactionDT"]
    hour = seconds // 3600 % 24
    share, fraud = hour.value_counts(normalize=True), frame["isFraud"].groupby(hour).mean()

    assert seconds.is_monotonic_increasing
    assert (seconds.iloc[0], seconds.iloc[-1]) == (86_400, 15_811_131)
    assert share[[6, 7, 8, 9, 10]].max() < 0.01
    assert share[[*range(16, 23)]].min() > 0.06
    assert fraud[[7, 8, 9]].mean() > 0.06
    assert fraud[[12, 13, 14, 15]].mean() < 0.03


def test_amounts_by_product(made: Made) -> None:
    amount = made.transaction["TransactionAmt"]
    product = made.transaction["ProductCD"]
    whole = (amount % 1 == 0).groupby(product).mean()

    assert amount.groupby(product).median().to_dict() == pytest.approx({"W": 79, "C": 32, "R": 125, "H": 50, "S": 35}, rel=0.08)
    assert np.log(amount).mean() == pytest.approx(4.37, abs=0.06)
    assert np.log(amount).std() == pytest.approx(0.95, abs=0.1)
    assert whole["W"] == pytest.approx(0.51, abs=0.03)
    assert whole[["R", "H", "S"]].min() >= 0.99
    thousandths = (amount[product == "C"] * 1000).round() % 10 != 0
    assert thousandths.mean() == pytest.approx(0.91, abs=0.03)


def test_who_was_compromised_once_is_from_then_on(made: Made) -> None:
    fraud = made.transaction.loc[made.client.index, "isFraud"]
    before = fraud.groupby(made.client).cumsum() - fraud
    number = fraud.groupby(made.client).cumcount()

    assert fraud[before > 0].mean() == pytest.approx(0.88, abs=0.03)
    assert fraud[(before == 0) & (number > 0)].mean() == pytest.approx(0.006, abs=0.003)


def test_counts_rise_together(made: Made) -> None:
    frame = made.transaction
    together = np.corrcoef(np.log1p(frame[["C1", "C2", "C11", "C6", "C14", "C13"]].to_numpy()), rowvar=False)
    values = frame[[f"V{number}" for number in range(1, 340)]].to_numpy().ravel()
    values = values[~np.isnan(values)]

    assert together[:5, :5].min() > 0.87
    assert 0.75 < together[:5, 5].min() < together[:5, 5].max() < 0.85
    assert (frame[["C1", "C2", "C11"]].quantile(0.75) <= 3).all()
    assert (frame["C3"] == 0).mean() > 0.99
    assert np.mean(values == 0) == pytest.approx(0.56, abs=0.02)
    assert np.mean(values == 1) == pytest.approx(0.38, abs=0.02)


def test_no_single_column_tells_fraud(made: Made) -> None:
    found = accept.aucs(made.transaction.merge(made.identity, on="TransactionID", how="left"))

    assert max(found.values()) < 0.75, sorted(found.items(), key=lambda item: -item[1])[:9]
    assert {name: found[name] for name in ("M4", "C2", "R_emaildomain", "C1", "ProductCD")} == pytest.approx(
        {"M4": 0.70, "C2": 0.68, "R_emaildomain": 0.67, "C1": 0.67, "ProductCD": 0.66}, abs=0.045
    )
    assert np.median(np.abs(np.array(list(found.values())) - 0.5)) == pytest.approx(0.074, abs=0.03)


def test_numbers_are_small_and_name_their_source() -> None:
    path = Path(ieee_cis.__file__).with_suffix(".json")
    document = json.loads(path.read_text())

    assert path.stat().st_size < 200_000
    assert set(document) - {"rows", "source"} == set(document["source"])


@pytest.mark.bench
def test_a_booster_finds_what_boosters_found(made: Made) -> None:
    """Time 80/20, raw columns, at a third of the size; tests/accept_ieee_cis.py has the whole list."""
    frame = made.transaction.drop(columns=["TransactionID", "TransactionDT", "isFraud"]).astype(dict.fromkeys(TEXTS, "category"))
    y = made.transaction["isFraud"]
    early = made.transaction.index < ROWS * 0.8
    settings = {"objective": "binary:logistic", "eta": 0.1, "max_depth": 7, "subsample": 0.8, "colsample_bytree": 0.4, "nthread": 1}
    train, test = (xgboost.DMatrix(frame[rows], y[rows], enable_categorical=True) for rows in (early, ~early))
    model = xgboost.train(settings, train, 150)

    assert roc_auc_score(y[~early], model.predict(test)) == pytest.approx(0.89, abs=0.025)


@pytest.mark.slow
def test_the_whole_size(tmp_path: Path) -> None:
    """590,540 rows on disk within 4 GB; the long tail of cards is there."""
    code = (
        "import resource, sys; from pathlib import Path; from stages.prepare import ieee_cis;"
        f"ieee_cis.write({WHOLE}, 0, Path(sys.argv[1])); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    kibibytes = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=recipe.ROOT, env=os.environ, check=True, capture_output=True, text=True
    ).stdout
    frame = pd.read_csv(tmp_path / "train_transaction.csv", usecols=["card1", "addr1"])
    cards = frame["card1"].value_counts()

    assert int(kibibytes) < 4 * 1024**2
    assert len(frame) == WHOLE
    assert cards.head(100).sum() / WHOLE == pytest.approx(0.474, abs=0.03)
    assert (cards == 1).mean() == pytest.approx(0.25, abs=0.03)
    assert len(frame.groupby(["card1", "addr1"])) == pytest.approx(39_974, rel=0.12)
