"""The two models, and what is left behind."""

import json

import pytest

from stages.common.errors import NotNow
from stages.families import device
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


def test_checkpoints_go_when_the_result_is_safe(pipeline: Pipeline) -> None:
    pipeline.do("train", "train.seed=1", "common.checkpoint_interval_minutes=0")
    assert pipeline.store.list("scratch/train/") == []


def test_a_fit_on_the_cpu_beside_a_gpu_is_a_fallback(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The locked wheel has no CUDA: on a machine with a GPU its result says so, and counts only where the config accepts that."""
    monkeypatch.setattr(device, "gpus", lambda: 1)
    pipeline.do("train", "train.seed=1")
    manifest = pipeline.addresses("train.seed=1").find("train", XGBOOST)
    assert manifest
    assert (manifest.document["degraded"], manifest.document["device"]) == (["CPU for GPU"], "cpu")
    with pytest.raises(NotNow, match=r"only a fallback was possible \(CPU for GPU\), and common\.accept_degraded is false"):
        pipeline.do("train", "train.seed=1", "common.accept_degraded=false")
    pipeline.do("train", "train.seed=1", "train.gpu_enabled=false", "common.accept_degraded=false")
