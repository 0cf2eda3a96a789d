"""The challenger against the champion: on later rows alone, paired, with four answers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages import families
from stages.common import registry
from stages.common.errors import MissingInput
from stages.common.store import open_store
from stages.evaluate import certainty, champion
from stages.families import logistic, metrics, xgboost
from stages.features import features as feature
from stages.features.features import Column, Features, Roles, Table
from stages.validate import validate
from tests.unit.pipelines import PARAMS, Pipeline, honest_table, new_pipeline

SETTINGS = """
prepare: {source: file, path: table.csv, label: fraud, time: when, test_split: 0.4, engineered: [], max_column_auc: 1}
train: {rounds: 30, early_stopping_rounds: 10}
evaluate: {min_gain: 0.005}
validate: {auc_floor: 0, latency_p99_ms: 5000, memory_mb: 5000}
"""
ROWS = 4000
METRIC = ("search.metric=auc",)


def timed(rows: int, seed: int = 0) -> pd.DataFrame:
    """Make a table in time, a row an hour; its first rows are the same however long it is."""
    parts = [honest_table(1000, seed + part) for part in range(-(-rows // 1000))]
    table = pd.concat(parts, ignore_index=True)[:rows]
    return table.assign(when=(pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows), unit="h")).astype("str"))


def blind(table: pd.DataFrame) -> pd.DataFrame:
    """Say less of the row: the amount, which tells most, is drawn by lot."""
    return table.assign(amount=table["amount"].sample(frac=1, random_state=0).to_numpy())


def half_blind(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Say less of the first rows, from which a model is made."""
    return pd.concat([blind(table[:rows]), table[rows:]])


@pytest.fixture(autouse=True)
def measure_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "_p99_ms", lambda *_: 2.0)
    monkeypatch.setattr(validate, "_peak_mb", lambda _: 200.0)


def in_production(folder: Path, table: pd.DataFrame, *sets: str) -> Pipeline:
    """Bring a model of a table to production."""
    pipeline = new_pipeline(folder, table, SETTINGS)
    assert pipeline.until("deploy", *METRIC, *sets)["deploy"]["promoted"]
    return pipeline


def challenge(pipeline: Pipeline, table: pd.DataFrame, *sets: str) -> dict[str, Any]:
    """Judge a model of another table against what is in production; give what evaluate says of it."""
    new_pipeline(pipeline.folder, table, SETTINGS)
    outputs = pipeline.until("validate", *METRIC, *sets)
    found: dict[str, Any] = json.loads(pipeline.read("evaluate", "evaluation.json", *METRIC, *sets))["champion"]
    assert outputs["evaluate"]["champion"] == found["answer"]
    return found


def check(pipeline: Pipeline, *sets: str) -> dict[str, Any]:
    """Give what validate says of it."""
    checks = json.loads(pipeline.read("validate", "checks.json", *METRIC, *sets))
    return next(one for one in checks if one["name"] == "champion")


@pytest.fixture(scope="module")
def good_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bring a good model of the first 2,000 rows to production, once for all tests."""
    folder = tmp_path_factory.mktemp("good") / "good"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(validate, "_peak_mb", lambda _: 200.0)
        in_production(folder, timed(2000))
    return folder


@pytest.fixture
def good(good_once: Path, tmp_path: Path) -> Pipeline:
    """Give a store of its own in which a good model is in production."""
    shutil.copytree(good_once, tmp_path / "good")
    return Pipeline(tmp_path / "good", open_store(str(tmp_path / "good" / "store")))


def test_a_better_challenger(tmp_path: Path) -> None:
    pipeline = in_production(tmp_path, blind(timed(2000)))
    found = challenge(pipeline, timed(ROWS))

    assert found["answer"] == "better"
    assert found["interval"][0] > 0.005
    assert found["difference"] == pytest.approx(found["challenger"] - found["champion"])
    assert (check(pipeline)["answer"], check(pipeline)["need"]) == ("pass", "required")
    assert pipeline.do("deploy", *METRIC)["promoted"]


def test_an_equal_challenger(good: Pipeline) -> None:
    found = challenge(good, timed(ROWS))

    assert found["answer"] in {"not worse", "cannot tell"}
    assert found["interval"][0] < 0.005
    assert found["rows"] == 1600
    assert good.do("validate", *METRIC)["verdict"] == "accepted"


def test_a_worse_challenger_is_rejected(good: Pipeline) -> None:
    found = challenge(good, half_blind(timed(ROWS), 2400))

    assert found["answer"] == "worse"
    assert found["interval"][1] < -0.005
    assert good.do("validate", *METRIC)["failed"] == ["champion"]
    assert check(good) == {
        "name": "champion",
        "answer": "fail",
        "limit": -0.005,
        "need": "required",
        "reason": "on rows that neither has seen, it is worse",
    }
    assert good.do("deploy", *METRIC)["state"] == "gated"
    good.do("validate", *METRIC, "validate.champion_need=advisory")
    assert good.do("validate", *METRIC, "validate.champion_need=advisory")["verdict"] == "accepted"


def test_the_same_model_again_is_not_worse() -> None:
    """A champion that is compared with itself differs by nothing at all."""
    rows = feature_table(timed(ROWS))
    same = certainty.paired("auc", rows.y, rows.X["amount"].to_numpy(), rows.X["amount"].to_numpy(), None, 0)

    assert same == {"difference": 0, "interval": [0, 0]}
    assert champion.answer(0, 0, 0.005) == "not worse"


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.006, 0.02), "better"),
        ((0.004, 0.02), "not worse"),
        ((-0.004, 0.02), "not worse"),
        ((-0.006, 0.02), "cannot tell"),
        ((-0.02, -0.004), "cannot tell"),
        ((-0.02, -0.006), "worse"),
    ],
)
def test_the_four_answers(interval: tuple[float, float], said: str) -> None:
    assert champion.answer(*interval, min_gain=0.005) == said


def test_the_first_model_has_no_champion(tmp_path: Path) -> None:
    pipeline = in_production(tmp_path, timed(1000))

    assert json.loads(pipeline.read("evaluate", "evaluation.json", *METRIC))["champion"] == {"answer": "no champion"}
    assert (check(pipeline)["answer"], check(pipeline)["reason"]) == ("pass", "there is no champion")
    assert pipeline.do("evaluate", *METRIC)["state"] == "done", "what it made itself is no champion of its own"


def test_a_champion_that_saw_the_test_rows_does_not_win_by_it(good: Pipeline) -> None:
    """Fitted on all of the very table, it would look perfect; no later rows are left, and nobody can tell."""
    found = challenge(good, timed(2000), "train.seed=1")

    assert found["answer"] == "cannot tell"
    assert found["reason"] == (
        "of the test rows later than the champion's last one, there are 0 positives and 0 negatives, and 20 of each are needed"
    )
    assert (check(good, "train.seed=1")["answer"], check(good, "train.seed=1")["need"]) == ("cannot tell", "advisory")
    assert good.do("deploy", *METRIC, "train.seed=1")["promoted"], "a run on the champion's own table is not stuck"


def test_only_later_rows_count(good: Pipeline) -> None:
    """Of the 1,200 test rows, the champion saw the first 200: its 2,000 rows end there."""
    found = challenge(good, timed(3000))

    assert found["rows"] == 1000
    assert found["trained_until"] == pd.Timestamp("2024-01-01").value + 1999 * 3600 * 10**9


def test_where_it_cannot_be_told_it_rejects_only_if_asked_to(good: Pipeline) -> None:
    sets = ("train.seed=1", "validate.champion_unknown=reject")
    challenge(good, timed(2000), *sets)

    assert good.do("validate", *METRIC, *sets)["failed"] == ["champion"]
    assert check(good, *sets)["need"] == "required"


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        (("prepare.drop=[age]",), "this run makes 1 of the champion's columns in another way, or not at all: age"),
        (("prepare.positive=0",), "the champion answers another question: its label is another one"),
        (("prepare.time=null", "prepare.split=order", "prepare.drop=[when]"), "without the same event time in both"),
        (("prepare.max_categories=2",), "or not at all: shop"),
    ],
)
def test_what_cannot_be_compared(good: Pipeline, sets: tuple[str, ...], reason: str) -> None:
    found = challenge(good, timed(ROWS), *sets)

    assert found["answer"] == "cannot tell"
    assert reason in found["reason"]


def test_more_columns_are_no_hindrance(good: Pipeline) -> None:
    """The champion's own ones are there and made alike; the hour is news to it."""
    assert "interval" in challenge(good, timed(ROWS), "prepare.engineered=[clock]")


def test_a_package_without_a_model_cannot_be_compared(good: Pipeline) -> None:
    registry.add(good.store, {"generation": 2, "version": "older", "train": "", "over": None, "files": {}})

    assert challenge(good, timed(ROWS))["reason"] == "the champion's package holds no model with its features"


def test_a_lost_champion_is_no_answer(good: Pipeline) -> None:
    live = registry.live(good.store)
    assert live
    path = good.store.local(f"blobs/{live['files']['shipped.ubj']}")
    assert path
    path.chmod(0o644)
    path.write_bytes(b"?" + path.read_bytes()[1:])

    with pytest.raises(MissingInput, match=r"the champion's shipped\.ubj .* is lost or damaged.*surefoot rollback"):
        challenge(good, timed(ROWS))


# --- its columns ----------------------------------------------------------------------------------


def feature_table(frame: pd.DataFrame, fitted: Features | None = None) -> Table:
    """Make a matrix of an honest table, of which the features are fitted on itself unless given."""
    roles = Roles("fraud", "1", "0", drop=("when",), engineered=())
    made = feature.apply(fitted or feature.fit(frame, roles, 256), frame)
    return Table(made, frame["fraud"].to_numpy(dtype=np.int8), np.arange(len(frame)))


def test_the_champions_columns_are_those_that_it_would_make() -> None:
    """Categories in another order, one that it does not know, a wider number: equal to its own features applied to the raw rows."""
    roles = Roles("fraud", "1", "0", drop=("when",), engineered=())
    old, new = timed(500).round({"amount": 0}), timed(900)
    new["shop"] = new["shop"].replace({"web": "store", "store": "web"}).mask(new.index % 7 == 0, "kiosk")
    theirs, ours = feature.fit(old, roles, 256), feature.fit(new, roles, 256)
    types = {name: [next(c for c in one.columns if c.name == name) for one in (theirs, ours)] for name in ("shop", "amount")}
    assert types["shop"][0].categories != types["shop"][1].categories[:3]
    assert [one.dtype for one in types["amount"]] == ["float32", "float64"]

    made = champion.matrix(theirs, ours, feature.apply(ours, new))

    pd.testing.assert_frame_equal(made, feature.apply(theirs, new))
    assert made["shop"].isna().sum() == (new["shop"] == "kiosk").sum()


def with_counts(frame: pd.DataFrame, least: float) -> pd.DataFrame:
    """Add numbers that name who acts, and two columns that are missing together."""
    rng = np.random.default_rng(3)
    missing = rng.random(len(frame)) < least
    return frame.assign(card=rng.integers(1000, 1030, len(frame)), one=frame["amount"].mask(missing), two=-frame["amount"].mask(missing))


def test_counts_of_the_champions_train_are_made_anew() -> None:
    """They differ wherever the tables do; of whole numbers and kept words they can be told all the same."""
    roles = Roles("fraud", "1", "0", drop=("when",), keys=(("who", ("card", "shop")),), engineered=("frequency", "missing"))
    old, new = with_counts(timed(300), 0.2), with_counts(timed(900), 0.1).assign(two=7.1)  # no longer missing together
    new.loc[0, "two"] = 8.1
    theirs, ours = feature.fit(old, roles, 256), feature.fit(new, roles, 256)
    assert {one.of for one in theirs.columns} == {"", "frequency", "missing"}
    assert "one_missing" not in ours.names
    assert {one.name: one.counts for one in theirs.columns} != {one.name: one.counts for one in ours.columns}

    made = champion.matrix(theirs, ours, feature.apply(ours, new))

    pd.testing.assert_frame_equal(made, feature.apply(theirs, new))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda frame: frame.assign(card=frame["card"] + 2**24), "card_frequency"),
        (lambda frame: frame.assign(card=frame["card"] + 0.5), "card_frequency"),
        (lambda frame: frame.assign(shop=frame["shop"].replace("web", "elsewhere")), "shop, shop_frequency"),
    ],
)
def test_counts_that_cannot_be_made_anew(spoil: Any, named: str) -> None:
    roles = Roles("fraud", "1", "0", drop=("when",), keys=(("who", ("card", "shop")),), engineered=("frequency",))
    old, new = with_counts(timed(300), 0.2), with_counts(timed(900), 0.1)
    theirs, ours = feature.fit(old, roles, 256), feature.fit(spoiled := spoil(new), roles, 256)

    with pytest.raises(champion._Unsure, match=named):
        champion.matrix(theirs, ours, feature.apply(ours, spoiled))


@pytest.mark.parametrize(
    ("change", "alike"),
    [({}, True), ({"drop": ("x",), "id": "n"}, True), ({"label_delay_days": 7.0}, False), ({"keys": (("who", ("age",)),)}, False)],
)
def test_what_an_entity_did_before_is_alike_where_it_is_made_alike(change: dict[str, Any], alike: bool) -> None:
    roles = Roles("fraud", "1", "0", time="when", keys=(("who", ("shop",)),))
    ours, theirs = Features((), (), roles), Features((), (), replace(roles, **change))
    column = Column("who_count", ("shop", "when"), "float32", of="count", key="who")

    assert champion._is_alike(column, column, theirs, ours) is alike
    assert not champion._is_alike(column, replace(column, of="new"), ours, ours)
    assert not champion._is_alike(replace(column, dtype="float64"), column, ours, ours), "what float32 lost is lost"


# --- the paired bootstrap -------------------------------------------------------------------------


@pytest.mark.parametrize("metric", metrics.METRICS)
def test_the_interval_holds_the_difference_and_is_narrower_than_unpaired_ones(metric: str) -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(3000) < 0.1).astype(np.int8)
    shared = rng.normal(1.2 * label, 1)
    one, other = (1 / (1 + np.exp(2 - shared - 0.3 * rng.normal(size=3000))) for _ in range(2))
    found = certainty.paired(metric, label, one, other, None, 0)
    low, high = found["interval"]

    assert low < found["difference"] < high
    assert found["difference"] == metrics.score(metric, label, one) - metrics.score(metric, label, other)
    assert found == certainty.paired(metric, label, one, other, None, 0)
    if metric != "log_loss":
        alone = certainty.intervals(label, one, None, 0)[metric]
        assert high - low < 0.6 * (alone[1] - alone[0])


def test_rows_of_one_entity_are_no_news_to_a_pair() -> None:
    rng = np.random.default_rng(1)
    label = (rng.random(300) < 0.2).astype(np.int8)
    one, other = (rng.normal(label, 1) for _ in range(2))
    names = np.repeat(np.arange(300).astype(str), 10).astype(object)
    widths = []
    for copies, entity in ((1, None), (10, names)):
        low, high = certainty.paired("auc", label.repeat(copies), one.repeat(copies), other.repeat(copies), entity, 0)["interval"]
        widths.append(high - low)

    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def equal_pair(number: int) -> str:
    """Fit two models that differ by their seed alone, each pair on rows of its own; give the answer."""
    frame = timed(2000, seed=1000 * number)
    roles = Roles("fraud", "1", "0", drop=("when",), engineered=())
    fitted = feature.fit(frame[:1000], roles, 256)
    train, test = (feature_table(part, fitted) for part in (frame[:1000], frame[1000:]))
    settings: dict[str, Any] = {"rounds": 30, "early_stopping_rounds": 30, "metric": "auc", "threads": 1}
    models = [families.fit("xgboost", {**PARAMS, "subsample": 0.5}, train, None, seed=seed, **settings).model for seed in (0, 1)]
    one, other = (xgboost.predict(model, test.X) for model in models)
    low, high = certainty.paired("auc", test.y, one, other, None, 0)["interval"]
    return champion.answer(low, high, 0.005)


@pytest.mark.slow
def test_of_200_equal_pairs_at_most_10_are_called_better() -> None:
    answers = [equal_pair(number) for number in range(200)]

    assert answers.count("better") <= 10
    assert answers.count("worse") <= 10


def test_a_plainly_better_model_is_called_so() -> None:
    """The logistic regression on all columns against one that does not see the amount."""
    frame = timed(3000)
    train, test = feature_table(frame[:1500]), feature_table(frame[1500:])
    whole = logistic.predict(logistic.regress(train, seed=0), test.X)
    less = Table(train.X.drop(columns="amount"), train.y, train.row)
    rest = logistic.predict(logistic.regress(less, seed=0), test.X.drop(columns="amount"))
    low, high = certainty.paired("average_precision", test.y, whole, rest, None, 0)["interval"]

    assert champion.answer(low, high, 0.005) == "better"
    assert champion.answer(-high, -low, 0.005) == "worse"
