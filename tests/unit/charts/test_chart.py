"""The chart: valid, restricted, every value explained, and the workflow in it left as rendered."""

import dataclasses
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.common import config
from workflows import argo, dag

CHART = argo.CHART_FILE.parents[1]
PROGRAM = shutil.which("helm")
Document = dict[str, Any]

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="the helm program is not in PATH: the chart was not rendered")


def helm(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([PROGRAM or "", *words], capture_output=True, text=True, check=False)


def rendered(*sets: str, values: Path = CHART / "values.yaml") -> list[Document]:
    words = [word for one in sets for word in ("--set", one)]
    done = helm("template", "surefoot", str(CHART), "--namespace", "fraud", "--values", str(values), *words)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def one(documents: list[Document], kind: str, name: str) -> Any:
    return next(found for found in documents if found["kind"] == kind and found["metadata"]["name"] == name)


def parameters(workflow: Document) -> dict[str, Any]:
    return {found["name"]: found.get("value") for found in workflow["spec"]["arguments"]["parameters"]}


def variables(workflow: Document) -> list[Any]:
    return [entry for template in workflow["spec"]["templates"] for entry in template.get("container", {}).get("env", [])]


def test_helm_lint_passes() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_is_the_rendered_one_but_for_the_values() -> None:
    sets = "tag=v7", "room.train.memory=4096", "gpus.xgboost=1", "credentials.existingSecret=mine"
    workflow = one(rendered(*sets), "WorkflowTemplate", "surefoot")
    known = json.loads(argo.CHART_FILE.read_text(encoding="utf-8"))

    values, before = parameters(workflow), parameters(known)
    assert values["tag"] == "v7"
    assert json.loads(values["room"])["train"] == {"cpu": "500m", "memory": 4096}
    assert json.loads(values["room"])["prepare"] == json.loads(before["room"])["prepare"]
    assert json.loads(values["gpus"]) == argo.GPUS | {"xgboost": 1}
    assert argo.check(workflow) == []
    del workflow["metadata"]["labels"]
    workflow["spec"]["arguments"] = known["spec"]["arguments"]
    secrets = [entry["valueFrom"]["secretKeyRef"] for entry in variables(workflow) if "valueFrom" in entry]
    assert {secret["name"] for secret in secrets} == {"mine"}
    for secret in secrets:
        secret["name"] = argo.NAME
    assert workflow == known


def test_without_values_the_workflow_is_the_rendered_one() -> None:
    workflow = one(rendered(), "WorkflowTemplate", "surefoot")
    known = json.loads(argo.CHART_FILE.read_text(encoding="utf-8"))
    for document in (workflow, known):
        for found in document["spec"]["arguments"]["parameters"]:
            found["value"] = json.loads(found["value"]) if found["name"] in ("room", "gpus") else found.get("value")
    del workflow["metadata"]["labels"]
    assert workflow == known


SPOT: Document = {
    "parallelism": 20,
    "scheduling": {
        "all": {"priorityClassName": "low", "nodeSelector": {"pool": "cheap"}},
        "fits": {
            "nodeSelector": {"pool": "spot"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "priorityClassName": "lower",
        },
    },
}


def test_pods_go_where_the_values_say(tmp_path: Path) -> None:
    """All of them, the servers' too; those that fit models to nodes of their own."""
    (tmp_path / "values.yaml").write_text(json.dumps(SPOT), encoding="utf-8")
    documents = rendered(values=tmp_path / "values.yaml")
    workflow = one(documents, "WorkflowTemplate", "surefoot")
    assert workflow["spec"]["parallelism"] == 20
    assert (workflow["spec"]["podPriorityClassName"], workflow["spec"]["nodeSelector"]) == ("low", {"pool": "cheap"})
    elsewhere = {template["name"]: template for template in workflow["spec"]["templates"] if "nodeSelector" in template}
    assert set(elsewhere) == {task.step for task in dag.TASKS if task.fits}
    for template in elsewhere.values():
        assert {field: template[field] for field in SPOT["scheduling"]["fits"]} == SPOT["scheduling"]["fits"]
    for pod in pods(documents):
        assert (pod["priorityClassName"], pod["nodeSelector"]) == ("low", {"pool": "cheap"})

    if program := shutil.which("argo"):
        (tmp_path / "workflow.json").write_text(json.dumps(workflow), encoding="utf-8")
        done = subprocess.run([program, "lint", "--offline", tmp_path / "workflow.json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def pods(documents: list[Document]) -> list[Any]:
    return [found["spec"]["template"]["spec"] for found in documents if found["kind"] in ("Deployment", "Job")]


def test_pods_of_the_servers_are_restricted() -> None:
    found = pods(rendered())
    assert len(found) == 3
    for pod in found:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == argo.LOCKED.model_dump(by_alias=True, exclude_none=True)
            assert container["resources"]["limits"]["memory"]


def test_no_account_may_do_more_than_report() -> None:
    roles = [found["rules"] for found in rendered() if "Role" in found["kind"] and "rules" in found]
    assert roles == [[{"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}]]


def test_a_memory_asks_for_rights_to_one_configmap_for_argos_controller() -> None:
    """In the controller's namespace, under a name that holds ours: all namespaces' memories are there."""
    assert [found for found in rendered() if found["metadata"].get("namespace") == "argo"] == []
    sets = "memoize.enabled=true", "memoize.controllerNamespace=workflows", "memoize.controllerAccount=runner"
    documents = rendered(*sets)
    role, binding = (one(documents, kind, "surefoot-fraud-surefoot") for kind in ("Role", "RoleBinding"))
    assert {role["metadata"]["namespace"], binding["metadata"]["namespace"]} == {"workflows"}
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["surefoot-fraud-surefoot"], "verbs": ["get", "update"]},
    ]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "runner", "namespace": "workflows"}]
    workflow = one(documents, "WorkflowTemplate", "surefoot")
    assert argo.check(workflow) == []
    memories = [found.pop("memoize") for found in workflow["spec"]["templates"] if "memoize" in found]
    assert {found["cache"]["configMap"]["name"] for found in memories} == {"surefoot-fraud-surefoot"}
    known = json.loads(argo.MEMOIZED_FILE.read_text(encoding="utf-8"))
    assert len(memories) == sum("memoize" in found for found in known["spec"]["templates"]) == 6
    assert tasks(workflow) == tasks(known)


def tasks(workflow: Document) -> list[Any]:
    return [found["dag"]["tasks"] for found in workflow["spec"]["templates"] if "dag" in found]


def test_passwords_stand_in_the_secret_alone() -> None:
    documents = rendered("credentials.secretAccessKey=correct-horse")
    assert [found["kind"] for found in documents if "correct-horse" in json.dumps(found)] == ["Secret"]


def test_with_servers_of_ones_own_the_chart_makes_none() -> None:
    documents = rendered("minio.enabled=false", "postgres.enabled=false", "credentials.existingSecret=mine")
    assert {found["kind"] for found in documents} == {"ServiceAccount", "Secret", "ConfigMap", "Role", "RoleBinding", "WorkflowTemplate"}
    assert [found["metadata"]["name"] for found in documents if found["kind"] == "Secret"] == ["surefoot-executor.service-account-token"]


def cron(**values: Any) -> Document:
    """Render the CronWorkflow."""
    given = json.dumps({"enabled": True, "config": {"train": {"seed": 1}}, **values})
    done = helm("template", "surefoot", str(CHART), "--set-json", f"cron={given}")
    assert done.returncode == 0, done.stderr
    found: Document = one([document for document in yaml.safe_load_all(done.stdout) if document], "CronWorkflow", "surefoot")
    return found


def test_there_is_no_clock_unless_it_is_asked_for() -> None:
    assert "CronWorkflow" not in {found["kind"] for found in rendered()}


def test_a_tick_runs_the_template_with_the_config_of_the_values() -> None:
    own = {"profile": "production", "prepare": {"generated_rows": 1_000_000}, "search": {"space": {"xgboost": {"gamma": [1e-7, 0.5]}}}}
    spec = cron(config=own, name="weekly", schedule="30 2 * * 1-5", timezone="Europe/Berlin", suspend=True)["spec"]

    assert (spec["schedules"], spec["timezone"], spec["suspend"]) == (["30 2 * * 1-5"], "Europe/Berlin", True)
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] > 0
    assert spec["workflowSpec"]["workflowTemplateRef"] == {"name": argo.NAME}
    given = parameters({"spec": spec["workflowSpec"]})
    assert given["only-if-changed"] == "true"
    assert given.keys() <= parameters(json.loads(argo.CHART_FILE.read_text(encoding="utf-8"))).keys()
    assert config.inline(given["config"], (), {}) == dataclasses.replace(config.inline(json.dumps(own), (), {}), name="weekly")


def test_a_tick_may_run_a_config_that_is_in_the_store() -> None:
    address = f"config/{'0' * 64}.json"
    assert parameters({"spec": cron(config=address)["spec"]["workflowSpec"]})["config"] == address


def test_argo_lint_passes_the_clock_beside_its_template(tmp_path: Path) -> None:
    program = shutil.which("argo")
    if program is None:
        pytest.skip("the argo program is not in PATH: argo lint was not run")
    both = [cron(), one(rendered(), "WorkflowTemplate", "surefoot")]
    (tmp_path / "both.yaml").write_text(yaml.safe_dump_all(both), encoding="utf-8")
    done = subprocess.run([program, "lint", "--offline", str(tmp_path / "both.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


CLOCKS = [
    "cron.enabled=true",  # without a config
    "cron.schedule=monday",
    "cron.schedule=0 3 * *",
    "cron.timezone=2",
    "cron.suspend=never",
    "cron.name=a/b",
    "cron.config.prepar.path=x",
    "cron.config.profile=fast",
    "cron.concurrency=Allow",
]
OTHERS = [
    "store=folder",
    "room.train.memory=4Gi",
    "room.tune=512",
    "gpus.xgboost=-1",
    "gpus.forest=1",
    "parallelism=0",
    "memoize.controllerNamespace=Argo",
    "memoize.account=argo",
    "scheduling.fits.tolerations=spot",
    "tga=1",
    "minio.storage=big",
]


@pytest.mark.parametrize("wrong", CLOCKS + OTHERS)
def test_a_wrong_value_is_refused(wrong: str) -> None:
    done = helm("template", "surefoot", str(CHART), "--set", wrong)
    assert done.returncode != 0
    key, _, _ = wrong.partition("=")
    assert ("/cron" if wrong in CLOCKS else key.rpartition(".")[2]) in done.stderr


def test_every_value_has_a_comment_and_a_place_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def known(section: Document) -> Document:
        found: Document = schema["definitions"][section["$ref"].rpartition("/")[2]] if "$ref" in section else section
        return found

    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    section = ""
    for above, line in itertools.pairwise(lines):
        match = re.match(r"( {0,2})(\w+):", line)
        if match is None:
            continue
        section = section if match[1] else match[2]
        place = known(schema["properties"][section])
        assert match[2] in (place["properties"] if match[1] else schema["properties"])
        assert above.lstrip().startswith("#") or match[2] == "credentials", line


def test_what_the_owner_of_argo_sets_is_restricted() -> None:
    fragment = yaml.safe_load((CHART / "files" / "controller.yaml").read_text(encoding="utf-8"))
    assert (
        argo.LOCKED.model_dump(by_alias=True, exclude_none=True).items()
        <= yaml.safe_load(fragment["data"]["executor"])["securityContext"].items()
    )
