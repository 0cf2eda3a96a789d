"""The compose file: every step in its order, as the program that the cluster starts, and the chart's servers."""

import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.common.contract import STEPS
from tests.programs import ROOT

PATH = ROOT / "images" / "compose.yaml"
STEP_NAMES = ("plan", *STEPS)


@pytest.fixture
def compose() -> dict[str, Any]:
    """Read the file with what stands for each variable where it is not set, as Compose does."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", PATH.read_text(encoding="utf-8"))
    assert "$" not in "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    document = yaml.safe_load(text)
    assert isinstance(document, dict)
    return document


def test_every_step_follows_the_one_before_it(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert list(services) == ["minio", "postgres", "buckets", *STEP_NAMES]
    done = {"condition": "service_completed_successfully"}
    assert services["plan"]["depends_on"] == {"postgres": {"condition": "service_healthy"}, "buckets": done}
    for before, name in itertools.pairwise(STEP_NAMES):
        assert services[name]["depends_on"] == {before: done}


def test_every_step_is_the_program_that_the_cluster_starts(compose: dict[str, Any]) -> None:
    for name in STEP_NAMES:
        stage, _, word = name.partition("-")
        service = compose["services"][name]
        item = ["--item", json.dumps({"family": "xgboost"})] if name in STEPS and STEPS[name].item else []
        given = ["--config", "/data/configs/example.yaml", "--store", "s3://surefoot/store", *item]
        assert service["image"] == f"surefoot/{stage}:dev"
        assert service["command"] == [*([word] if word else []), *given]
        assert service["read_only"]
        assert set(service["environment"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "SUREFOOT_STUDY"}


def test_servers_are_those_of_the_chart_and_reached_from_this_machine_alone(compose: dict[str, Any]) -> None:
    values = yaml.safe_load((ROOT / "charts" / "surefoot" / "values.yaml").read_text(encoding="utf-8"))
    for name in ("minio", "postgres"):
        assert compose["services"][name]["image"] == values[name]["image"]
        assert all(port.startswith("127.0.0.1:") for port in compose["services"][name]["ports"])
    mounted = {mount.partition(":")[0] for service in compose["services"].values() for mount in service.get("volumes", [])}
    assert mounted == {"..", *compose["volumes"]}


def test_docker_compose_reads_it(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not there: the file was not read by it")
    (tmp_path / "env").touch()
    command = [docker, "compose", "--file", str(PATH), "--env-file", str(tmp_path / "env"), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stderr
