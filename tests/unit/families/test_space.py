"""Search spaces as data."""

from typing import Any

import pytest

from stages.common import config
from stages.common.errors import ConfigError
from stages.families import space

OWN: dict[str, list[Any]] = {"depth": [3, 10], "rate": [0.01, 0.3, "log"], "policy": ["depthwise", "lossguide"]}


class Draws:
    """What a trial is asked for."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> Any:
        """Tell that it is an integer."""
        return (name, int, low, high, log)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> Any:
        """Tell that it is a number."""
        return (name, float, low, high, log)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Tell that it is a word."""
        return (name, str, *choices)


def drawn(changes: dict[str, list[Any]]) -> dict[str, Any]:
    return space.suggest(Draws(), space.merged("f", OWN, changes))


def test_a_parameter_is_drawn_by_its_own_kind_however_its_bounds_are_written() -> None:
    assert drawn({})["depth"] == ("depth", int, 3, 10, False)
    assert drawn({})["policy"] == ("policy", str, "depthwise", "lossguide")
    assert drawn({"rate": [0, 1]})["rate"] == ("rate", float, 0.0, 1.0, False)
    assert all(type(bound) is float for bound in drawn({"rate": [0, 1]})["rate"][2:4])
    assert drawn({"rate": [1, 2, "log"]})["rate"] == ("rate", float, 1.0, 2.0, True)
    assert drawn({"depth": [3.0, 8.0]})["depth"] == ("depth", int, 3, 8, False)
    assert drawn({"depth": [3, 8, "log"]})["depth"] == ("depth", int, 3, 8, True)
    assert drawn({"policy": ["lossguide"]})["policy"] == ("policy", str, "lossguide")


@pytest.mark.parametrize("bounds", [["a", "b"], [0.5, 3]])
def test_bounds_of_another_kind_are_refused(bounds: list[Any]) -> None:
    with pytest.raises(ConfigError, match=r"search\.space\.f\.depth: .* (is of another kind|are no integers)"):
        space.merged("f", OWN, {"depth": bounds})
    with pytest.raises(ConfigError, match=r"search\.space\.f\.policy: \[1, 2\] is of another kind"):
        space.merged("f", OWN, {"policy": [1, 2]})


NO_BOUNDS = [
    "[]",
    "[1]",
    "[2, 1]",
    "[1, 1]",
    "[1, 2, 3]",
    "[0, 1, log]",
    "[1, a]",
    "[a, 1]",
    "[true, 2]",
    "[1, true]",
    "[1, 2, lin]",
    "[[1], 2]",
]


@pytest.mark.parametrize("bounds", NO_BOUNDS)
def test_what_are_no_bounds_is_refused_with_the_config(bounds: str, tmp_path: Any) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"search: {{space: {{xgboost: {{max_depth: {bounds}}}}}}}")
    with pytest.raises(ConfigError, match=r"search: space of xgboost: max_depth is .*, not \[low, high\], \[low"):
        config.load(path, (), {})


def test_a_space_of_a_family_that_is_not_searched_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("search: {space: {xgbost: {max_depth: [1, 2]}}}")
    with pytest.raises(ConfigError, match=r"space is given for 'xgbost', which is not among families: xgboost"):
        config.load(path, (), {})


def test_what_a_space_does_not_hold_becomes_what_it_holds_next_to_it() -> None:
    params = {"depth": 6, "rate": 0.1, "policy": "lossguide"}
    assert space.nearest(params, OWN) == params
    others: dict[str, list[Any]] = {"depth": [8, 9], "rate": [0.01, 0.05, "log"], "policy": ["depthwise"]}
    assert space.nearest(params, space.merged("f", OWN, others)) == {"depth": 8, "rate": 0.05, "policy": "depthwise"}
