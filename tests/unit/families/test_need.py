"""What memory a fit is said to need: tests/bench/test_estimates_of_memory.py measures how good that is."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stages import families
from stages.common import memory
from stages.common.errors import ConfigError, NotNow
from stages.families import need

PARAMS = {"xgboost": {"max_depth": 8}, "lightgbm": {"num_leaves": 127}, "catboost": {"depth": 7}, "logistic": {}}
EACH = pytest.mark.parametrize("name", families.NAMES)


def fits(name: str, rows: int = 100_000, columns: int = 400, **more: Any) -> need.Fits:
    sizes = need.Sizes(
        {"train": rows, "valid": rows // 4, "calibration": 100, "test": rows // 4}, 0.03, 4 * columns, (1_000,) * columns, (5, 20)
    )
    return need.Fits(name, sizes, balanced=False, **{"held": 0.0, **more})


@contextmanager
def ulimit(room: float) -> Iterator[None]:
    """Leave this process so many bytes of addresses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(memory._virtual() + room), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@EACH
def test_more_of_a_table_needs_more(name: str) -> None:
    params = PARAMS[name]
    asked = fits(name).need(params, 0)
    assert asked < fits(name, rows=200_000).need(params, 0)
    assert asked < fits(name, columns=500).need(params, 0)
    assert asked < fits(name, shipped=True).need(params, 0)
    assert fits(name, held=1e9).need(params, 0) == asked + 1e9
    assert asked > 4 * 125_000 * 400, "the table itself"


@pytest.mark.parametrize("name", ["xgboost", "catboost"])
def test_a_rung_down_needs_less(name: str) -> None:
    needs = [fits(name).need(PARAMS[name], rung) for rung in range(len(families.LADDER))]
    assert needs[0] > needs[1] > needs[2] == needs[3]
    on_gpu = [fits(name, gpu=True).need_of_gpu(PARAMS[name], rung) for rung in range(3)]
    assert on_gpu[0] >= on_gpu[1] > on_gpu[2], "CatBoost has 128 bins there by itself"


def test_nodes_need_rows() -> None:
    """A tree of a small table cannot be deep, whatever it may be."""
    assert fits("xgboost", rows=2_000).need({"max_depth": 10, "min_child_weight": 10.0}, 0) < 100e6
    assert fits("xgboost", rows=2_000).need({"max_depth": 10, "min_child_weight": 0.01}, 0) > 1e9


@pytest.mark.parametrize(
    ("name", "params"),
    [("xgboost", {"max_depth": 2_000}), ("xgboost", {"min_child_weight": 0.0}), ("catboost", {"depth": 2_000})],
)
def test_any_parameters_that_a_space_may_have_are_estimated(name: str, params: dict[str, Any]) -> None:
    assert 1e8 < fits(name, rows=2_000).need(params, 0) < float("inf")


def test_few_values_are_few_bins() -> None:
    flags = need.Sizes({"train": 1}, 0.5, 0, (1, 2, 3, 10_000), (4, 1_000))
    assert flags.bins(256) == 2 + 3 + 4 + 256 + 5 + 256
    assert flags.bins(64) == 2 + 3 + 4 + 64 + 5 + 64


def test_of_a_space_the_smallest_trees_are_taken() -> None:
    space: dict[str, list[Any]] = {
        "max_depth": [3, 10],
        "min_child_weight": [1.0, 100.0, "log"],
        "subsample": [0.5, 1.0],
        "num_leaves": [15, 255],
    }
    assert need.least(space) == {"max_depth": 3, "min_child_weight": 100.0, "num_leaves": 15}


def test_the_first_rung_with_room_is_taken() -> None:
    """All bins of so many columns are more than this machine has, half of them are not."""
    most, _ = memory.allowed()
    params = {"depth": 0}  # one node, of 75 bytes a bin

    def fits_that_need(times: float) -> need.Fits:
        sizes = need.Sizes({"train": 1, "valid": 0}, 0.03, 0, (1_000,) * int(times * most / 75 / 254), ())
        return need.Fits("catboost", sizes, balanced=False, held=0.0)

    assert need.first_rung(fits_that_need(1.3), params, 0, 1) == (0, ""), "an estimate may be as wrong"
    wide = fits_that_need(1.7)
    (none, lacks), (one, lacked) = (need.first_rung(wide, params, 0, rungs) for rungs in (1, 3))
    assert (none, one) == (None, 1)
    assert lacks.startswith("catboost needs about ")
    assert lacked.partition(",")[0] == lacks.partition(",")[0]
    assert need.first_rung(wide, params, 2, 3) == (2, "")
    assert need.first_rung(wide, params, 3, 3) == (3, ""), "a GPU's ladder is longer: it was gone down elsewhere"


def test_what_is_lacking_is_told_with_both_numbers() -> None:
    with ulimit(100e6):
        said = need.lacking(fits("xgboost"), PARAMS["xgboost"], 0)
    assert said.startswith("xgboost needs about 1.")
    assert said.endswith(" GB are allowed by ulimit -v")


def test_a_gpu_that_is_too_small_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.families.device.free", lambda: 10**7)
    asked = fits("xgboost", gpu=True)
    assert need.lacking(asked, PARAMS["xgboost"], 0).endswith(" GB of the GPU's memory, 0.01 GB are free")
    assert need.first_rung(asked, PARAMS["xgboost"], 0, 4)[0] == 3, "the CPU's"


def test_what_others_hold_may_be_there_later(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fits("xgboost")
    needed = asked.need(PARAMS["xgboost"], 0)
    monkeypatch.setattr(memory, "allowed", lambda *, ever=False: (needed if ever else needed / 10, "this machine"))
    rung, why = need.first_rung(asked, PARAMS["xgboost"], 0, 1)
    assert rung is None
    error = need.refused(asked, PARAMS["xgboost"], 1, why)
    assert isinstance(error, NotNow)
    assert str(error).startswith("xgboost needs about ")
    monkeypatch.setattr(memory, "allowed", lambda *, ever=False: (needed / (5 if ever else 10), "this machine"))
    assert isinstance(need.refused(asked, PARAMS["xgboost"], 1, why), ConfigError)


def test_a_gpu_that_others_fill_may_be_free_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.families.device.free", lambda: 10**7)
    asked = fits("xgboost", gpu=True)
    rung, why = need.first_rung(asked, PARAMS["xgboost"], 0, 1)
    assert rung is None
    assert isinstance(need.refused(asked, PARAMS["xgboost"], 1, why), NotNow)
