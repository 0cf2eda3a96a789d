"""The baseline: finite whatever the numbers, and the same bytes on any number of cores."""

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from stages.families import logistic, metrics
from stages.features.features import Table
from tests.unit.pipelines import honest_table


def table(frame: pd.DataFrame) -> Table:
    label = frame["fraud"].to_numpy(dtype=np.int8)
    matrix = frame.drop(columns="fraud").assign(shop=pd.Categorical(frame["shop"], categories=["phone", "store", "web"]))
    return Table(matrix, label, np.arange(len(label)), None, None)


def test_it_learns_from_numbers_and_categories() -> None:
    train, valid = table(honest_table(800)), table(honest_table(400, seed=1))

    model = logistic.regress(train, seed=0)

    assert metrics.score("auc", valid.y, logistic.predict(model, valid.X)) > 0.75
    for column in ("amount", "shop"):
        without = logistic.predict(model, valid.X.assign(**{column: valid.X[column].array[::-1]}))
        assert not np.allclose(without, logistic.predict(model, valid.X))


def test_a_missing_value_is_marked() -> None:
    """Whether a value is there may say more than the value."""
    train = table(honest_table(800))
    missing = train.y == 1
    train.X["age"] = train.X["age"].fillna(40).mask(missing)

    assert metrics.score("auc", train.y, logistic.predict(logistic.regress(train, seed=0), train.X)) > 0.999


@pytest.mark.parametrize("value", [1e300, -1e300, 1e38, 0.0])
def test_one_wild_value_leaves_the_scores_finite(value: float) -> None:
    train = table(honest_table(300))
    train.X.loc[0, "amount"] = value

    scores = logistic.predict(logistic.regress(train, seed=0), train.X)

    assert np.isfinite(scores).all()


def test_columns_that_say_nothing_are_borne() -> None:
    train = table(honest_table(300))
    train.X["age"] = np.nan
    train.X["amount"] = 7.0
    train.X["shop"] = train.X["shop"].where(train.X["shop"] == "none of these")

    assert np.ptp(logistic.predict(logistic.regress(train, seed=0), train.X)) == 0


def test_a_row_alone_is_scored_as_it_is_among_others() -> None:
    train = table(honest_table(300))
    model = logistic.regress(train, seed=0)

    alone = [logistic.predict(model, train.X.iloc[[row]])[0] for row in range(20)]

    assert alone == logistic.predict(model, train.X)[:20].tolist()


def test_the_bytes_do_not_depend_on_the_threads() -> None:
    train = table(honest_table(3000))
    made = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            made.append(logistic.predict(logistic.regress(train, seed=0), train.X).tobytes())

    assert made[0] == made[1]


def test_of_many_rows_some_are_taken_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """From anywhere in the table, the same ones each time, and enough of them."""
    monkeypatch.setattr(logistic, "ROWS", 600)
    train, valid = table(honest_table(3000)), table(honest_table(400, seed=1))
    late = Table(train.X.iloc[1500:], train.y[1500:], train.row[1500:], None, None)
    made = [logistic.predict(logistic.regress(one, seed=seed), valid.X) for one, seed in ((train, 0), (train, 0), (train, 1), (late, 0))]

    assert made[0].tobytes() == made[1].tobytes()
    assert len({one.tobytes() for one in made}) == 3
    assert metrics.score("auc", valid.y, made[0]) > 0.75
