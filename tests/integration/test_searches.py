"""Whole searches under faults: the short form of the scoreboard's."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from tests import scoreboard, trainings
from tests import searches as drill
from tests.servers import Missing


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Give the environment back: drills say in it where their servers are, which end with them."""
    with mock.patch.dict(os.environ):
        yield


@pytest.mark.faults
@pytest.mark.parametrize(("database", "workers"), [("sqlite", 1), ("sqlite", 4), ("postgres", 4)])
def test_no_finished_trial_is_lost(database: str, workers: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Workers are killed, told to stop and put to sleep amid fits, while the budget is raised twice."""
    given = str(request.getfixturevalue("postgres")) if database == "postgres" else ""
    address = drill.lay_out(tmp_path).store.address
    crew = drill.Crew(tmp_path, address, given, random.Random(7), drill.Journal(tmp_path / "journal"), workers)
    for budget in (3, 5, 7):
        sets = (f"search.n_trials={budget}",)
        if budget == 3:
            crew.do("search-create", sets)
        crew.search(sets, 4, 0.3)
        drill.check(crew, sets, budget)
    assert {"best.json", "trials.json"} == drill.collected(crew, sets).keys()

    fitted, redone = crew.journal.redone()
    assert fitted > 7 * 10
    assert redone <= drill.allowed(crew)
    assert crew.journal.lost() == 0
    assert Counter(crew.codes)[0] >= 3  # a worker ended well each time


@pytest.mark.faults
def test_a_training_among_kills_gives_the_models_of_one_left_alone(tmp_path: Path) -> None:
    """Killed and told to stop, it goes on from its last saved border each time, and leaves no checkpoint."""
    (tmp_path / "drill").mkdir()
    trainings.searched(tmp_path / "drill")
    sums = trainings.train(tmp_path / "drill", random.Random(7), 1, tmp_path / "alone")
    assert sums["killed"] >= 1
    assert sums["killed"] + sums["told to stop"] >= 3


@pytest.mark.faults
def test_a_clock_that_is_set_ends_no_worker() -> None:
    """All leases end at once, or last an hour by themselves: each slot is finished once all the same."""
    try:
        (row,) = scoreboard.gone("the database's clock", "", 3, 7)
    except Missing as error:
        pytest.skip(f"{error}: no clock was set")
    assert row["runs"] >= 3
    assert row["lost"] == 0


@pytest.mark.faults
def test_a_network_that_is_cut_ends_no_worker() -> None:
    """What is sent is lost then, and nobody says so: both servers' connections, and new ones, are given up in seconds."""
    try:
        (row,) = scoreboard.gone("the network", "", 2, 7)
    except Missing as error:
        pytest.skip(f"{error}: no cable was cut")
    assert row["runs"] >= 2
    assert row["lost"] == 0
