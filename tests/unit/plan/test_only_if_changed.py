"""What a tick of the clock does: nothing, where data, options and code are those of what is there."""

import json
from pathlib import Path
from typing import Any

from stages.common import config, contract, registry, yaml
from stages.plan import plan as plans
from tests import programs
from tests.unit.pipelines import SETTINGS, Pipeline

OTHER = "train.seed=1"


def tick(pipeline: Pipeline, outputs: Path, **sections: Any) -> programs.Ended:
    """Plan as a CronWorkflow does, with the config as JSON."""
    given = {"name": "cron", **yaml.load(SETTINGS, "settings"), **sections}
    words = ("--store", pipeline.store.address, "--run", "surefoot-1", "--only-if-changed", "true", "--outputs", outputs)
    ended = programs.python("-m", "stages.plan", "--config", json.dumps(given), *words, cwd=pipeline.folder, root=programs.ROOT)
    assert ended.code == 0, ended.err
    return ended


def is_unchanged(pipeline: Pipeline, *sets: str) -> bool:
    return plans.plan(config.load(pipeline.folder / "config.yaml", sets, {}), pipeline.store).is_unchanged()


def test_a_tick_on_which_nothing_changed_ends_with_plan(accepted: Pipeline, tmp_path: Path) -> None:
    accepted.until("deploy")
    before = accepted.store.list("")
    ended = tick(accepted, tmp_path / "out")

    assert ended.answer["config"] == (tmp_path / "out" / "config").read_text() == ""
    assert set(ended.answer["todo"].values()) == {"done"}
    assert ended.answer["todo"].keys() >= {*contract.STEPS, "train/xgboost"}
    (line,) = ended.named("run.unchanged")
    assert line["deploy"] == "done"
    assert accepted.store.list("") == before, "no record, no config"


def test_a_tick_after_new_data_is_a_run_of_its_name(accepted: Pipeline, tmp_path: Path) -> None:
    accepted.until("deploy")
    with (accepted.folder / "table.csv").open("a") as file:
        file.write("12.5,30.0,web,0\n")
    ended = tick(accepted, tmp_path / "out")

    assert ended.answer["todo"]["prepare"] == "run"
    assert ended.named("run.unchanged") == []
    record = plans.last_record(accepted.store, "cron")
    assert record["config"] == ended.answer["config"]
    assert record["run"].endswith("-surefoot-1")


def test_what_is_missing_is_made_whatever_the_clock_says(accepted: Pipeline) -> None:
    """Deploy was never done, or its result is lost."""
    assert not is_unchanged(accepted)
    accepted.do("deploy")
    assert is_unchanged(accepted)
    (package,) = [key for key in accepted.store.list("deploy/") if "manifest" in key]
    local = accepted.store.local(package)
    assert local
    local.unlink()
    assert not is_unchanged(accepted)


def test_a_model_that_was_rejected_is_not_judged_again(accepted: Pipeline) -> None:
    strict = "validate.auc_floor=1.0"
    assert accepted.until("validate", strict)["validate"]["verdict"] == "rejected"
    assert is_unchanged(accepted, strict)


def test_a_version_that_was_rolled_back_stays_out(accepted: Pipeline, tmp_path: Path) -> None:
    """Somebody went back; the clock ticks on, with the config that had made what is barred now."""
    first = accepted.do("deploy")["version"]
    second = accepted.until("deploy", OTHER)["deploy"]["version"]
    assert programs.surefoot("rollback", "--store", accepted.store.address).code == 0

    train = {**yaml.load(SETTINGS, "settings")["train"], "seed": 1}
    assert tick(accepted, tmp_path / "out", train=train).answer["config"] == ""
    assert is_unchanged(accepted)
    assert [one["version"] for one in registry.history(accepted.store)] == [first, second, first]
