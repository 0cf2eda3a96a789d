"""Going on without a family that failed (search.min_families), shown on the toy.

What must come of it, of three families:

    failed                      min   the toy's last step
    none                        2     of all three, not degraded, the same result as with min all
    one                         2     degraded, says which; at an address of its own
    one                         all   66: says which is missing
    one, accept_degraded false  2     66: all are needed
    two                         2     66: says both, and how many are asked for
    two, then one of them       1     made anew, of two: what was made of one is not taken
    one, then repaired          2     made anew, of three, not degraded; then done
    all                         1     66
"""

from pathlib import Path

import pytest

from stages.common import config
from stages.common.address import Addresses
from stages.common.errors import ConfigError, MissingInput
from stages.common.step import run_step
from stages.plan import plan as plans
from tests.toy.fixtures import toy
from tests.toy.pipeline import Pipeline

__all__ = ["toy"]

FAMILIES = ("xgboost", "lightgbm", "catboost")
ALL = "search.families=[xgboost, lightgbm, catboost]"
ONE, TWO = (f"search.min_families={number}" for number in (1, 2))
STRICT = "common.accept_degraded=false"


def fit(toy: Pipeline, *families: str) -> None:
    """Let these families come to a result; the others failed."""
    for letter, items in (("a", [{}]), ("b", [{"family": family} for family in families])):
        for item in items:
            run_step(f"toy-{letter}", item, toy.addresses(ALL))


def last(toy: Pipeline, *sets: str) -> tuple[str, list[str]]:
    """Do the last step; give its state, and its reasons for being degraded."""
    state = toy.do("c", ALL, *sets)["state"]
    return state, toy.find("c", ALL, *sets).document["degraded"]


def test_with_all_there_a_lower_number_changes_nothing(toy: Pipeline) -> None:
    fit(toy, *FAMILIES)
    assert last(toy, TWO) == ("made", [])
    assert last(toy) == ("done", [])


def test_a_family_that_failed_is_left_out_and_named(toy: Pipeline) -> None:
    fit(toy, "xgboost", "lightgbm")
    assert last(toy, TWO) == ("made", ["no model of catboost"])
    assert last(toy, ONE) == ("done", ["no model of catboost"])


@pytest.mark.parametrize(
    ("there", "sets", "said", "least"),
    [
        (("xgboost", "catboost"), (), "its input toy-b/lightgbm is", 3),
        (("xgboost", "catboost"), (TWO, STRICT), "its input toy-b/lightgbm is", 3),
        (("xgboost",), (TWO,), "its inputs toy-b/lightgbm, toy-b/catboost are", 2),
    ],
)
def test_too_few_are_an_input_that_is_missing(toy: Pipeline, there: tuple[str, ...], sets: tuple[str, ...], said: str, least: int) -> None:
    """Also where a result of fewer was accepted before."""
    fit(toy, *there)
    assert last(toy, ONE)[0] == "made"
    assert toy.addresses(ALL, *sets).find("toy-c", {}) is None
    with pytest.raises(MissingInput) as raised:
        toy.do("c", ALL, *sets)
    heals = """python -m tests.toy.b --item '{"family":"lightgbm"}' with the same --config and --store"""
    where = f"{toy.store.address} ({least} of 3 families must be there)"
    assert str(raised.value) == f"toy-c: {said} not in {where}. Make it: {heals}."


def test_of_no_family_at_all_nothing_is_made(toy: Pipeline) -> None:
    fit(toy)
    with pytest.raises(MissingInput, match="its inputs toy-b/xgboost, toy-b/lightgbm, toy-b/catboost are not in"):
        toy.do("c", ALL, ONE)


def test_a_missing_input_that_is_no_familys_is_never_left_out(toy: Pipeline) -> None:
    with pytest.raises(MissingInput, match="its input toy-a is not in"):
        run_step("toy-b", {"family": "xgboost"}, toy.addresses(ALL, ONE))


def test_what_was_made_of_fewer_is_not_taken_when_more_are_there(toy: Pipeline) -> None:
    fit(toy, "xgboost")
    assert last(toy, ONE) == ("made", ["no model of lightgbm", "no model of catboost"])
    fit(toy, "lightgbm")
    assert toy.addresses(ALL, ONE).find("toy-c", {}) is None
    assert last(toy, ONE) == ("made", ["no model of catboost"])
    fit(toy, "catboost")
    assert last(toy, ONE) == ("made", [])
    assert last(toy, ONE) == ("done", [])


def test_nor_by_who_asked_for_those_alone(toy: Pipeline) -> None:
    """To them nothing is missing."""
    fit(toy, "xgboost", "lightgbm")
    assert last(toy, TWO)[0] == "made"
    fewer = toy.addresses("search.families=[xgboost, lightgbm]")
    assert run_step("toy-c", {}, fewer)["state"] == "made"
    assert found(fewer) == []


def found(addresses: Addresses) -> list[str]:
    manifest = addresses.find("toy-c", {})
    assert manifest
    degraded: list[str] = manifest.document["degraded"]
    return degraded


def test_a_plan_does_the_missing_family_again_and_what_follows(toy: Pipeline) -> None:
    fit(toy, "xgboost", "lightgbm")
    last(toy, TWO)
    made = plans.plan(config.load(toy.config, (ALL, TWO), {}), toy.store)
    assert {row.label: row.state for row in made.rows} == {
        "toy-a": "done",
        "toy-b/xgboost": "done",
        "toy-b/lightgbm": "done",
        "toy-b/catboost": "run",
        "toy-c": "depends",
    }
    assert {label for label, word in made.todo().items() if word == "run"} == {"toy-b", "toy-b/catboost", "toy-c"}
    assert not made.is_unchanged()


def test_of_a_lost_input_that_all_families_read_it_is_found_through_the_index(toy: Pipeline) -> None:
    """And it is the result of all of them, not of fewer, that is found."""
    fit(toy, "xgboost", "lightgbm")
    last(toy, TWO)
    fit(toy, "catboost")
    last(toy, TWO)
    path = toy.store.local(toy.blob("a"))
    assert path
    path.unlink()
    assert found(toy.addresses(ALL, TWO)) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0", "search.min_families: give a number of families, at least 1, or the word all, found 0"),
        ("4", "search: min_families is 4, but families names only 3"),
        ("true", "search.min_families: give a number of families, at least 1, or the word all, found True"),
        ("2.5", "search.min_families: give a number of families, at least 1, or the word all, found 2.5"),
        ("some", "search.min_families: give a number of families, at least 1, or the word all, found 'some'"),
    ],
)
def test_a_number_that_cannot_be_is_refused(tmp_path: Path, given: str, said: str) -> None:
    (tmp_path / "table.yaml").write_text("")
    with pytest.raises(ConfigError) as raised:
        config.load(tmp_path / "table.yaml", (ALL, f"search.min_families={given}"), {})
    assert said in str(raised.value)


def test_as_many_as_there_are_is_all(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text("")
    asked = [config.load(tmp_path / "table.yaml", (ALL, f"search.min_families={given}"), {}) for given in (3, "all", 2)]
    assert [one.least_families for one in asked] == [3, 3, 2]
    assert config.load(tmp_path / "table.yaml", (ALL, TWO, STRICT), {}).least_families == 3
    assert "min_families" not in asked[0]["search"].results({"family": "xgboost"}), "it changes no search"
