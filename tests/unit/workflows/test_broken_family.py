"""A whole pipeline of three families of which some fail, with real parts (search.min_families)."""

from pathlib import Path
from typing import Any

import pytest

from stages.common import config, contract, step
from stages.common.address import Addresses
from stages.common.contract import Item
from stages.evaluate import report
from stages.plan import plan as plans
from stages.validate import validate
from tests.unit.pipelines import SETTINGS, Pipeline, honest_table, new_pipeline, publish
from workflows import dag, local

pytestmark = pytest.mark.faults

SEARCH = "search: {families: [xgboost, lightgbm, logistic], min_families: 2, n_trials: 1, rounds: 20}\n"
FANNED = ("search-create", "search-work", "search-collect", "train")
# LightGBM refuses more leaves than 131,072: each fit fails, of each slot's other parameters, too.
BROKEN = "search.space={lightgbm: {num_leaves: [200000, 200001]}}"


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Do each step in this process, since a program more is some seconds more."""
    monkeypatch.setattr(validate, "_peak_mb", lambda _: 200.0)
    monkeypatch.setattr(dag, "BACKOFF_SECONDS", 0)

    def run(task: dag.Task, item: Item, addresses: Addresses, *_: Any) -> tuple[int, dict[str, Any]]:
        outputs: dict[str, Any] = {}
        code = step.guarded(lambda: outputs.update(step.run_step(task.step, item, Addresses(addresses.config, addresses.store))))
        return code, outputs

    monkeypatch.setattr(local, "_run", run)
    return new_pipeline(tmp_path, honest_table(600), SETTINGS + SEARCH)


def walk(pipeline: Pipeline, *sets: str) -> tuple[dict[str, tuple[str, int]], Addresses]:
    made = plans.plan(config.load(pipeline.folder / "config.yaml", sets, {}), pipeline.store)
    outcomes = local.walk(made.addresses, plans.write(made))
    report.close(made.addresses, "Failed" if outcomes[-1].code else "Succeeded")
    return {o.label: (o.state, o.code) for o in outcomes}, made.addresses


def degraded(addresses: Addresses) -> dict[str, list[str]]:
    found = {name: addresses.find(name, {}) for name in ("evaluate", "validate", "deploy")}
    return {name: manifest.document["degraded"] for name, manifest in found.items() if manifest}


def test_a_family_whose_fits_all_fail_is_left_out_and_made_when_it_is_repaired(pipeline: Pipeline) -> None:
    outcomes, addresses = walk(pipeline, BROKEN)
    assert outcomes.pop("search-work/lightgbm") == ("failed", 70)
    assert {state for state, _ in outcomes.values()} == {"made"}
    assert not {"search-collect/lightgbm", "train/lightgbm"} & outcomes.keys()
    assert degraded(addresses) == {"evaluate": ["no model of lightgbm"], "validate": [], "deploy": []}
    page = report.draw(addresses, "Succeeded")
    assert "Judged without all that was asked for: no model of lightgbm." in page
    assert "Not there: search-collect/lightgbm, train/lightgbm." in page
    assert addresses.config.pinned
    closed = report.closed(pipeline.store, addresses.config.pinned.run)
    assert closed
    assert (closed["status"], closed["degraded"]) == ("Succeeded", ["no model of lightgbm"])

    planned = plans.plan(config.load(pipeline.folder / "config.yaml", (BROKEN,), {}), pipeline.store)
    done = {contract.label(name, {"family": family}) for name in FANNED for family in ("xgboost", "logistic")}
    assert {label for label, word in planned.todo().items() if word == "done"} == {"prepare"} | done

    outcomes, addresses = walk(pipeline)
    work = {label for label, (state, _) in outcomes.items() if state == "made"}
    mine = {contract.label(name, {"family": "lightgbm"}) for name in FANNED}
    assert work == mine | {"evaluate", "validate", "deploy"}
    assert degraded(addresses) == {"evaluate": [], "validate": [], "deploy": []}
    assert "Not there" not in report.draw(addresses)


def test_a_family_whose_training_fails_is_left_out_too(pipeline: Pipeline) -> None:
    """Its search came to settings that LightGBM refuses. What is accepted of fewer counts for nobody who asks for all."""
    addresses, lightgbm = pipeline.addresses(), {"family": "lightgbm"}
    pipeline.work("prepare", addresses)
    best = {"family": "lightgbm", "metric": "average_precision", "params": {"num_leaves": 200_000}, "slot": 0, "value": 0.5}
    best |= {"options": {}, "rung": 0}
    publish(addresses, "search-collect", lightgbm, {"best.json": contract.dump(best), "trials.json": contract.dump([])}, {})
    outcomes, addresses = walk(pipeline)
    assert outcomes["train/lightgbm"] == ("failed", 70)
    assert [label for label, (_, code) in outcomes.items() if code] == ["train/lightgbm"]
    assert degraded(addresses)["evaluate"] == ["no model of lightgbm"]
    for strict in ("search.min_families=all", "common.accept_degraded=false"):
        addresses = pipeline.addresses(strict)
        assert degraded(addresses) == {}
        assert "No verdict: train/lightgbm is not there" in report.draw(addresses)
