"""The live model's settings are tried first, and what was searched before stays done."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages import families
from stages.common import artifact, contract, registry
from stages.common.address import Addresses
from stages.common.store import Store, open_store
from stages.prepare import generate
from tests import small
from tests.small import finished, finished_once

WARM = "search.warm_start=true"
SEED = "search.seed=7"  # else it would be the search that there was
EASY = "validate.champion_need=advisory"
__all__ = ["finished", "finished_once"]
XGBOOST = {"family": "xgboost"}


def end(folder: Path, *sets: str) -> Addresses:
    """Bring a pipeline over a folder's table to its end; give what it was planned as."""
    planned = small.addresses(folder / "small.yaml", open_store(str(folder / "store")), *sets)
    for name in contract.STEPS:
        small.do(name, planned)
    return planned


def states(planned: Addresses) -> set[str]:
    return {planned.state(name, item) for name in contract.STEPS for item in planned.config.items(name)}


def trials(planned: Addresses, family: str = "xgboost") -> list[dict[str, Any]]:
    planned.forget()
    found = planned.find("search-collect", {"family": family})
    assert found
    return list(json.loads(planned.store.read(f"blobs/{found.files['trials.json']['sha256']}")))


def best(store: Store) -> dict[str, Any]:
    """Give how the live model was made."""
    live = registry.live(store)
    assert live
    return dict(json.loads(store.read(f"blobs/{live['files']['model.json']}")))


def pins(planned: Addresses) -> dict[str, Any]:
    assert planned.config.pinned
    return planned.config.pinned.first


@pytest.fixture
def later(finished: Path) -> Path:
    """Give a folder where a model is live, and the table is another one since."""
    generate.table(600, 1).to_csv(finished / "table.csv", index=False)
    return finished


def promote(folder: Path, store: Store) -> None:
    """Let a model be live that was made with other settings, deeper than a search tries first."""
    live = registry.live(store)
    assert live
    made = best(store)
    (folder / "model.json").write_bytes(contract.dump({**made, "params": {**made["params"], "max_depth": 9}}))
    other = artifact.put(store, folder / "model.json")["sha256"]
    registry.add(store, {**live, "generation": 2, "version": "other", "files": {**live["files"], "model.json": other}})
    assert best(store) != made, "another model is live"


def test_slot_0_has_the_live_models_settings(later: Path) -> None:
    promote(later, store := open_store(str(later / "store")))
    live = best(store)
    warm, cold = trials(end(later, WARM, SEED)), trials(end(later, SEED))
    assert warm[0]["params"] == live["params"] != cold[0]["params"]
    assert warm[1]["params"] != warm[0]["params"]


def test_slot_0_of_a_new_search_has_the_familys_own_first_settings(finished: Path) -> None:
    """As near as the space comes to them, whatever the seed."""
    store = open_store(str(finished / "store"))
    for family in ("lightgbm", "xgboost"):
        module = families.load(family)
        for space, expected in (({}, {}), ({"learning_rate": [0.2, 0.3]}, {"learning_rate": 0.2})):
            sets = (f"search.families=[{family}]", f"search.space={json.dumps({family: space})}", SEED)
            planned = small.addresses(finished / "small.yaml", store, *sets)
            for name in [*contract.STEPS][:4]:
                small.do(name, planned)
            told = trials(planned, family)
            assert told[0]["params"] == {**module.FIRST, **expected}
            assert told[1]["params"].keys() == module.SPACE.keys()
            assert told[1]["params"] != told[0]["params"]


def test_what_was_searched_stays_done_whatever_is_live_since(later: Path) -> None:
    folder, store = later, open_store(str(later / "store"))
    first = best(store)
    warm = end(folder, WARM, SEED, EASY)
    assert best(store) != first, "another model is live"
    again = small.addresses(folder / "small.yaml", store, WARM, SEED, EASY)
    assert states(again) == {"done"}
    assert pins(again) == pins(warm) == {"xgboost": first["params"]}
    more = end(folder, WARM, SEED, EASY, "search.n_trials=3")
    assert [one["params"] for one in trials(more)[:2]] == [one["params"] for one in trials(warm)], "the study went on"
    assert len(list(store.list("search/trials/"))) == 2 + 2 + 1, "records: of the first run, of this one, and one more"

    generate.table(500, 0).to_csv(folder / "table.csv", index=False)
    old = small.addresses(folder / "small.yaml", store, WARM)
    assert pins(old) == {}, "that search had nothing to try first"
    assert {old.state(f"search-{name}", XGBOOST) for name in ("create", "work", "collect")} == {"done"}


def test_a_search_that_promoted_nothing_stays_done_too(later: Path) -> None:
    """It was stopped, or its model rejected, before another run was promoted, or production rolled back."""
    folder, store = later, open_store(str(later / "store"))
    first = best(store)
    stopped = small.addresses(folder / "small.yaml", store, WARM, SEED)
    for name in [*contract.STEPS][:4]:
        small.do(name, stopped)
    promote(folder, store)
    again = small.addresses(folder / "small.yaml", store, WARM, SEED)
    assert pins(again) == pins(stopped) == {"xgboost": first["params"]}
    assert again.state("search-collect", XGBOOST) == "done"
    assert pins(small.addresses(folder / "small.yaml", store, WARM, "search.seed=11")) == {"xgboost": best(store)["params"]}
    both = small.addresses(folder / "small.yaml", store, WARM, SEED, "search.families=[lightgbm, xgboost]")
    assert pins(both) == pins(stopped), "each family goes on with its own search"


def test_what_a_search_began_with_is_named_where_it_is_damaged(finished: Path) -> None:
    store = open_store(str(finished / "store"))
    assert pins(small.addresses(finished / "small.yaml", store, WARM)) == {}
    (key,) = store.list("search/first/")
    (finished / "store" / key).write_bytes(b"{}")
    assert artifact.verify(store) == [f"{key} is damaged"]
    assert pins(small.addresses(finished / "small.yaml", store, WARM)) == {"xgboost": best(store)["params"]}, "it is a new search then"


def test_settings_of_another_space_are_not_tried(later: Path) -> None:
    space = "search.space={xgboost: {min_child_weight: [2.0, 3.0]}}"
    found = trials(end(later, WARM, space))
    assert all(2 <= one["params"]["min_child_weight"] <= 3 for one in found)


def test_a_model_that_is_lost_is_not_tried(later: Path) -> None:
    store = open_store(str(later / "store"))
    live = registry.live(store)
    assert live
    (later / "store" / "blobs" / live["files"]["model.json"]).unlink()
    assert pins(small.addresses(later / "small.yaml", store, WARM)) == {}


def test_nothing_is_tried_first_unless_asked_for(later: Path) -> None:
    store = open_store(str(later / "store"))
    assert pins(small.addresses(later / "small.yaml", store)) == {}
    other = ("search.families=[lightgbm]", "search.space={}")
    assert pins(small.addresses(later / "small.yaml", store, WARM, *other)) == {}, "the live model is of another family"
