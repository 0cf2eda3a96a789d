"""A package is promoted once, over the champion it was judged against, and never without its files."""

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stages.common import artifact, contract, registry, step
from stages.common.errors import MissingInput
from stages.common.store import FolderStore
from tests.unit.pipelines import Pipeline, honest_table, new_pipeline

OTHER = "train.seed=1"  # another model
FINER = "validate.auc_floor=0.61"  # the same model under other checks


def package(pipeline: Pipeline, *sets: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pipeline.read("deploy", "package.json", *sets))
    return found


def versions(pipeline: Pipeline) -> list[str]:
    return [generation["version"] for generation in registry.history(pipeline.store)]


def test_the_first_package_goes_to_production(accepted: Pipeline) -> None:
    outputs = accepted.do("deploy")
    live = registry.live(accepted.store)

    assert outputs == {"state": "made", "version": package(accepted)["version"], "generation": 1, "promoted": True}
    assert live
    assert (live["generation"], live["kind"], live["version"], live["over"]) == (1, "promote", outputs["version"], None)
    assert live["train"] == accepted.addresses().plan_key("train", {"family": "xgboost"})
    deployed = accepted.addresses().find("deploy", {})
    assert deployed
    assert live["package"] == deployed.document["address"]
    assert live["files"] == {name: file["sha256"] for name, file in deployed.files.items()}


def test_the_package_is_whole(accepted: Pipeline) -> None:
    accepted.do("deploy")
    made = package(accepted)

    assert set(made["files"]) == {"judged.ubj", "shipped.ubj", "model.json", "features.json", "evaluation.json", "checks.json"}
    served = {name: sha256 for name, sha256 in made["files"].items() if name not in {"evaluation.json", "checks.json"}}
    assert made["version"] == contract.digest(served)[:12], "what is served names it, not what was thought of it"
    assert made["test"] == json.loads(accepted.read("evaluate", "evaluation.json"))["test"]
    assert (made["family"], made["champion"], made["trained_until"]) == ("xgboost", None, None)
    for name, sha256 in made["files"].items():
        assert artifact.sha256(accepted.read("deploy", name)) == sha256


def test_the_package_knows_until_when_it_was_trained(accepted: Pipeline) -> None:
    new_pipeline(accepted.folder, honest_table().assign(minute=range(900)))
    accepted.until("deploy", "prepare.time=minute")

    assert package(accepted, "prepare.time=minute")["trained_until"] == 899


def test_a_rejected_model_is_not_promoted(accepted: Pipeline) -> None:
    accepted.do("validate", "validate.auc_floor=1.0")

    assert accepted.do("deploy", "validate.auc_floor=1.0") == {"state": "gated"}
    assert registry.live(accepted.store) is None


def test_run_twice_after_a_promotion_does_nothing(accepted: Pipeline) -> None:
    accepted.do("deploy")

    addresses = accepted.addresses()
    assert {addresses.state(name, {"family": "xgboost"} if contract.STEPS[name].item else {}) for name in contract.STEPS} == {"done"}


def test_the_next_model_is_promoted_over_the_champion(accepted: Pipeline) -> None:
    first = accepted.do("deploy")["version"]
    second = accepted.until("deploy", OTHER)["deploy"]
    live = registry.live(accepted.store)

    assert second["generation"] == 2
    assert second["version"] != first
    assert live
    assert live["over"] == {"version": first, "generation": 1}


def test_the_same_model_under_other_checks_is_the_same_version(accepted: Pipeline) -> None:
    """It is live already; and had it been rolled back, other checks would not bring it back."""
    first = accepted.do("deploy")
    second = accepted.until("deploy", FINER)["deploy"]

    assert (second["version"], second["generation"]) == (first["version"], 1)
    assert versions(accepted) == [first["version"]]
    assert accepted.do("deploy", FINER)["state"] == "done"


def test_back_to_an_earlier_config_promotes_it_again(accepted: Pipeline) -> None:
    first = accepted.do("deploy")["version"]
    accepted.until("deploy", OTHER)
    third = accepted.until("deploy")["deploy"]

    assert (third["version"], third["generation"]) == (first, 3)
    assert accepted.do("deploy")["state"] == "done"


# --- races and crashes ----------------------------------------------------------------------------


def test_production_that_moved_since_the_plan_is_left_alone(accepted: Pipeline) -> None:
    planned = accepted.addresses()
    accepted.until("deploy", OTHER)
    before = registry.history(accepted.store)

    with pytest.raises(MissingInput, match=r"moved from nothing to [0-9a-f]{12} since this run was planned; run the same command again"):
        accepted.work("deploy", planned)
    assert registry.history(accepted.store) == before
    assert accepted.until("deploy")["deploy"]["generation"] == 2, "planned anew, it goes over what is live"


def _deploy(folder: Path, sets: tuple[str, ...], barrier: Any, answers: Any) -> None:
    pipeline = Pipeline(folder, FolderStore(folder / "store"))
    addresses = pipeline.addresses(*sets)
    barrier.wait(60)
    try:
        answers.put(step.run_step("deploy", {}, addresses)["promoted"])
    except MissingInput as error:
        answers.put(str(error))


def test_of_two_deploys_over_one_champion_one_wins(accepted: Pipeline) -> None:
    """Two processes, started together: one generation; the other is told that production moved."""
    accepted.until("validate", OTHER)
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(2), spawn.Queue()
    both = [spawn.Process(target=_deploy, args=(accepted.folder, sets, barrier, answers)) for sets in ((), (OTHER,))]
    for process in both:
        process.start()
    found = [answers.get(timeout=120) for _ in both]
    for process in both:
        process.join(60)

    (told,) = [answer for answer in found if answer is not True]
    assert "production moved from nothing to" in told
    assert len(registry.history(accepted.store)) == 1


def test_the_same_deploy_at_once_promotes_once(accepted: Pipeline) -> None:
    plans = [accepted.addresses() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda plan: step.run_step("deploy", {}, plan), plans))

    assert {(one["generation"], one["promoted"]) for one in made} == {(1, True)}
    assert len(versions(accepted)) == 1


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("key", ["blobs/", "registry/", "deploy/", "index/"])
def test_a_crash_anywhere_is_healed_by_the_next_run(accepted: Pipeline, monkeypatch: pytest.MonkeyPatch, key: str, when: str) -> None:
    """Between blobs and generation, generation and manifest, manifest and index: the files are there first, the effect happens once."""
    create = FolderStore.create

    def crashing(self: FolderStore, name: str, data: bytes | Path) -> bool:
        if name.startswith(key):
            if when == "after":
                create(self, name, data)
            raise Crash
        return create(self, name, data)

    with monkeypatch.context() as patched:
        patched.setattr(FolderStore, "create", crashing)
        with pytest.raises(Crash):
            accepted.do("deploy")
    live = registry.live(accepted.store)
    for sha256 in live["files"].values() if live else ():
        assert accepted.store.head(f"blobs/{sha256}")

    again = accepted.do("deploy")

    assert (again["generation"], again["promoted"]) == (1, True)
    assert len(versions(accepted)) == 1
    assert artifact.verify(accepted.store) == []


def test_a_write_whose_answer_was_lost_is_ours(accepted: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    create = FolderStore.create

    def lost(self: FolderStore, name: str, data: bytes | Path) -> bool:
        return create(self, name, data) and not name.startswith("registry/")

    monkeypatch.setattr(FolderStore, "create", lost)
    outputs = accepted.do("deploy")
    first = outputs["version"]
    accepted.until("deploy", OTHER)
    back = registry.roll_back(accepted.store)

    assert (outputs["generation"], outputs["promoted"]) == (1, True)
    assert (back["generation"], back["version"]) == (3, first)


def test_a_lost_race_for_the_generation_looks_again(accepted: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's package goes live between the look and the write."""
    add = registry.add

    def overtaken(store: Any, generation: dict[str, Any]) -> dict[str, Any] | None:
        add(store, {**generation, "version": "ffffffffffff", "train": "another", "package": "another"})
        return add(store, generation)

    monkeypatch.setattr(registry, "add", overtaken)

    with pytest.raises(MissingInput, match="moved from nothing to ffffffffffff"):
        accepted.do("deploy")


# --- rolling back ---------------------------------------------------------------------------------


def test_after_a_rollback_an_unchanged_run_does_nothing(accepted: Pipeline) -> None:
    first = accepted.do("deploy")["version"]
    second = accepted.until("deploy", OTHER)["deploy"]["version"]

    back = registry.roll_back(accepted.store)

    assert (back["version"], back["kind"], back["barred"], back["generation"]) == (first, "rollback", second, 3)
    for sets in ((), (OTHER,)):
        assert accepted.do("deploy", *sets)["state"] == "done"
    assert versions(accepted) == [first, second, first]


def test_a_barred_version_is_not_promoted(accepted: Pipeline) -> None:
    """Even when it comes anew: here by way of another champion."""
    first = accepted.do("deploy")["version"]
    second = accepted.until("deploy", OTHER)["deploy"]["version"]
    third = accepted.until("deploy", "train.seed=2")["deploy"]["version"]
    registry.roll_back(accepted.store, first)
    assert registry.barred(accepted.store) == {third}
    again = accepted.until("deploy", "train.seed=2", "evaluate.seed=1")["deploy"]

    assert len({first, second, third}) == 3
    assert (again["version"], again["promoted"], again["generation"]) == (third, False, 4)
    assert "barred" in again["reason"]
    assert versions(accepted)[-1] == first


def test_there_is_nothing_to_roll_back_to(accepted: Pipeline) -> None:
    with pytest.raises(MissingInput, match="nothing was ever promoted"):
        registry.roll_back(accepted.store)
    accepted.do("deploy")
    with pytest.raises(MissingInput, match="another version that was not rolled back is not in the history"):
        registry.roll_back(accepted.store)
    with pytest.raises(MissingInput, match="version abc is not in the history"):
        registry.roll_back(accepted.store, "abc")


def test_a_rollback_while_production_moves_is_told(accepted: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted.do("deploy")
    accepted.until("deploy", OTHER)
    monkeypatch.setattr(registry, "add", lambda *_: None)

    with pytest.raises(MissingInput, match="moved on from generation 2"):
        registry.roll_back(accepted.store)


def test_a_damaged_generation_is_told_and_never_trusted(accepted: Pipeline) -> None:
    """One flipped bit in production's record: no traceback, and nothing is promoted over it."""
    accepted.until("deploy")
    path = accepted.folder / "store" / "registry" / "production" / "00000001.json"
    path.write_bytes(path.read_bytes().replace(b'"promote"', b'"promotf"'))

    with pytest.raises(MissingInput, match=r"00000001\.json is damaged"):
        registry.live(accepted.store)
    with pytest.raises(MissingInput, match="damaged"):
        registry.roll_back(accepted.store)
