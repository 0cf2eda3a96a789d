"""The two models, and what is left behind."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages import families
from stages.common import contract
from stages.common.errors import ConfigError, NotNow, OutOfMemory
from stages.common.store import open_store
from stages.families import device, need
from tests import small
from tests.unit.pipelines import PARAMS, XGBOOST, Pipeline


def test_two_models_and_how_they_were_made(pipeline: Pipeline) -> None:
    model = json.loads(pipeline.read("train", "model.json"))
    assert (model["family"], model["params"]) == ("xgboost", PARAMS)
    assert set(model["valid"]) == {
        "auc",
        "average_precision",
        "log_loss",
        "recall_at_1pct_fpr",
        "recall_at_1pct_alerts",
        "calibration_error",
    }
    assert pipeline.read("train", "judged.ubj") != pipeline.read("train", "shipped.ubj")


@pytest.mark.parametrize("family", families.NAMES)
def test_each_family_goes_from_a_table_to_production(tmp_path: Path, family: str) -> None:
    store = open_store(str(tmp_path / "store"))
    planned = small.addresses(small.lay_out(tmp_path), store, f"search.families=[{family}]", "search.space={}", "search.balanced=true")
    outputs = {name: small.do(name, planned) for name in contract.STEPS}
    assert outputs["evaluate"]["winner"] == family
    assert outputs["deploy"]["promoted"]
    assert planned.find("train", {"family": family})


def test_all_fits_are_given_the_searchs_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    real = families.fit

    def fit(*arguments: Any, **options: Any) -> families.Fitted:
        given.append((options["monotone"], options["balanced"]))
        return real(*arguments, **options)

    monkeypatch.setattr(families, "fit", fit)
    sets = ["search.monotone={amount: 1}", "search.balanced=true", "search.n_trials=1"]
    planned = small.addresses(small.lay_out(tmp_path), open_store(str(tmp_path / "store")), *sets)
    for name in ("prepare", "search-create", "search-work", "search-collect", "train"):
        small.do(name, planned)
    assert given == [({"amount": 1}, True)] * 3, "a trial, and two final fits"


def test_a_monotone_column_that_is_no_number_is_refused(tmp_path: Path) -> None:
    planned = small.addresses(small.lay_out(tmp_path), open_store(str(tmp_path / "store")), "search.monotone={colour: 1}")
    small.do("prepare", planned)
    with pytest.raises(ConfigError, match=r"search\.monotone names 'colour', which is no number among the features: "):
        small.do("search-create", planned)


def test_out_of_memory_goes_down_the_ladder_with_the_next_attempt(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt is a process of its own: what is left to the next one is in the store."""
    bins = []
    real = families.fit

    def fit(*arguments: Any, **options: Any) -> families.Fitted:
        bins.append(options["bins"])
        if options["bins"] != 64:
            raise OutOfMemory("xgboost on cpu: bad_alloc")
        return real(*arguments, **options)

    monkeypatch.setattr(families, "fit", fit)
    for _ in range(2):
        with pytest.raises(OutOfMemory):
            pipeline.do("train", "train.seed=1")
    pipeline.do("train", "train.seed=1")
    assert bins == [None, 128, 64, 64]
    manifest = pipeline.addresses("train.seed=1").find("train", XGBOOST)
    assert manifest
    assert manifest.document["degraded"] == ["64 bins for lack of memory"]
    assert pipeline.store.list("scratch/train/") == []


def test_without_room_for_all_bins_it_begins_with_fewer_or_is_refused(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if columns had a thousand million values, and the library made as many bins by itself."""
    monkeypatch.setitem(need.BINS, "xgboost", 10**9)
    monkeypatch.setattr(need, "_values", lambda _path, names: (10**9,) * len(names))
    with pytest.raises(ConfigError, match=r"^xgboost needs about [0-9.]+ GB of memory, [0-9.]+ GB are allowed by .+\. Give the step more"):
        pipeline.do("train", "train.seed=1", "common.accept_degraded=false")
    pipeline.do("train", "train.seed=1")
    manifest = pipeline.addresses("train.seed=1").find("train", XGBOOST)
    assert manifest
    assert manifest.document["degraded"] == ["128 bins for lack of memory"]
    assert manifest.document["measured"].keys() >= {"estimated_memory_mb", "peak_memory_mb"}


def test_checkpoints_go_when_the_result_is_safe(pipeline: Pipeline) -> None:
    pipeline.do("train", "train.seed=1", "common.checkpoint_interval_minutes=0")
    assert pipeline.store.list("scratch/train/") == []


@pytest.mark.parametrize("there", [True, False], ids=["beside a GPU", "in an image for GPUs"])
def test_a_fit_on_the_cpu_where_a_gpu_is_meant_is_a_fallback(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """The locked wheel has no CUDA: on a machine with a GPU its result says so, and counts only where the config accepts that."""
    if there:
        monkeypatch.setattr(device, "gpus", lambda: 1)
    else:
        monkeypatch.setenv("SUREFOOT_FLAVOUR", "gpu")
    pipeline.do("train", "train.seed=1")
    manifest = pipeline.addresses("train.seed=1").find("train", XGBOOST)
    assert manifest
    assert (manifest.document["degraded"], manifest.document["device"]) == (["CPU for GPU"], "cpu")
    monkeypatch.setattr(families, "fit", None)  # it is known before anything is fitted
    with pytest.raises(
        NotNow, match=r"no GPU works here, and common\.accept_degraded is false\. Run again where one does, or accept a CPU"
    ):
        pipeline.do("train", "train.seed=1", "common.accept_degraded=false")
    assert pipeline.do("train", "train.seed=1")["state"] == "done", "what others accept is still there"
    monkeypatch.undo()
    pipeline.do("train", "train.seed=1", "train.gpu_enabled=false", "common.accept_degraded=false")
