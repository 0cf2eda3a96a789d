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
import urllib3
import yaml

from stages.common import config
from tests import servers
from workflows import argo, dag, lint

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
    assert json.loads(values["room"])["train"] == {"cpu": "500m", "memory": 4096, "most": 10240, "disk": 0}
    assert json.loads(values["room"])["prepare"] == json.loads(before["room"])["prepare"]
    assert json.loads(values["gpus"]) == argo.GPUS | {"xgboost": 1}
    assert lint.check(workflow) == []
    del workflow["metadata"]["labels"]
    workflow["spec"]["arguments"] = known["spec"]["arguments"]
    secrets = [entry["valueFrom"]["secretKeyRef"] for entry in variables(workflow) if "valueFrom" in entry]
    assert {secret["name"] for secret in secrets} == {"mine"}
    for secret in secrets:
        secret["name"] = argo.NAME
    assert workflow == known


def test_room_grows_with_the_memory_that_is_asked_for_unless_it_may_not() -> None:
    known = {"search-work": {"cpu": "500m"}, "prepare": {"cpu": "250m"}, "train": {"cpu": "500m"}}
    sets = "room.search-work.memory=16384", "room.prepare.disk=51200", "room.train.memory=8192", "room.train.most=12288"
    workflow = one(rendered(*sets, "deadlines.prepare=14400", "activeDeadlineSeconds=1200000"), "WorkflowTemplate", "surefoot")
    room = json.loads(parameters(workflow)["room"])
    assert room["search-work"] == known["search-work"] | {"memory": 16384, "most": 40960, "disk": 0}
    assert room["prepare"] == known["prepare"] | {"memory": 1024, "most": 2560, "disk": 51200}
    assert room["train"] == known["train"] | {"memory": 8192, "most": 12288, "disk": 0}
    ours = {found["name"]: found["activeDeadlineSeconds"] for found in workflow["spec"]["templates"] if "container" in found}
    assert ours == {task.step: task.deadline_seconds for task in (dag.PLAN, *dag.TASKS, dag.CLOSE)} | {"prepare": 14400}
    assert workflow["spec"]["activeDeadlineSeconds"] == 1200000
    assert lint.check(workflow) == []


def test_a_registry_that_asks_who_is_there_is_told() -> None:
    """By each pod, or its account; the executor's is no pod's."""
    secrets = [{"name": "registry"}]
    documents = rendered("imagePullSecrets[0].name=registry", "dashboard.image=dashboard")
    told = {
        found["metadata"]["name"] for found in documents if found["kind"] == "ServiceAccount" and found.get("imagePullSecrets") == secrets
    }
    assert told == {"surefoot", "surefoot-test"}
    assert one(documents, "WorkflowTemplate", "surefoot")["spec"]["serviceAccountName"] in told
    pods = [found["spec"]["template"]["spec"] for found in documents if found["kind"] in ("StatefulSet", "Deployment", "Job")]
    pods += [found["spec"] for found in documents if found["kind"] == "Pod"]
    assert len(pods) == 5
    for pod in pods:
        assert pod.get("serviceAccountName") in told or pod["imagePullSecrets"] == secrets


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


def labelled_pods(documents: list[Document]) -> dict[str, Any]:
    """Give all pods that are not steps, with their labels."""
    held = {
        found["metadata"]["name"]: found["spec"]["template"] for found in documents if found["kind"] in ("Deployment", "StatefulSet", "Job")
    }
    return held | {found["metadata"]["name"]: found for found in documents if found["kind"] == "Pod"}


def pods(documents: list[Document]) -> list[Any]:
    return [found["spec"] for found in labelled_pods(documents).values()]


def test_pods_of_the_servers_are_restricted() -> None:
    """And none but the test's may speak to the API server."""
    found = labelled_pods(rendered("dashboard.image=mine"))
    assert {name for name, pod in found.items() if pod["spec"]["automountServiceAccountToken"] is not False} == {"surefoot-test"}
    assert found.keys() == {"surefoot-minio", "surefoot-postgres", "surefoot-buckets", "surefoot-test", "surefoot-dashboard"}
    for pod in (one["spec"] for one in found.values()):
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == argo.LOCKED.model_dump(by_alias=True, exclude_none=True)
            assert container["resources"]["limits"]["memory"]


def test_no_account_may_do_more_than_report() -> None:
    """But for the test's, which is there as long as the test works: it starts workflows."""
    documents = rendered()
    roles = {found["metadata"]["name"]: found["rules"] for found in documents if "Role" in found["kind"] and "rules" in found}
    assert roles == {
        "surefoot-executor": [{"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}],
        "surefoot-test": [{"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["create", "get"]}],
    }
    bound = {found["metadata"]["name"]: found["subjects"] for found in documents if found["kind"] == "RoleBinding"}
    assert bound == {name: [{"kind": "ServiceAccount", "name": name}] for name in roles}
    for kind in ("ServiceAccount", "Role", "RoleBinding"):
        hook = one(documents, kind, "surefoot-test")["metadata"]["annotations"]
        assert (hook["helm.sh/hook"], "hook-succeeded" in hook["helm.sh/hook-delete-policy"]) == ("test", True)


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
    assert lint.check(workflow) == []
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


OWN = "minio.enabled=false", "postgres.enabled=false", "artifactBucket=ours", "credentials.region=eu-west-1"


def test_with_servers_of_ones_own_the_chart_makes_none() -> None:
    documents = [found for found in rendered(*OWN, "credentials.existingSecret=mine") if "surefoot-test" not in found["metadata"]["name"]]
    assert {found["kind"] for found in documents} == {"ServiceAccount", "Secret", "ConfigMap", "Role", "RoleBinding", "WorkflowTemplate"}
    assert [found["metadata"]["name"] for found in documents if found["kind"] == "Secret"] == ["surefoot-executor.service-account-token"]


def containers(workflow: Document) -> list[Any]:
    return [template["container"] for template in workflow["spec"]["templates"] if "container" in template]


def environment(container: Document) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def artifacts(documents: list[Document]) -> Any:
    return yaml.safe_load(one(documents, "ConfigMap", "artifact-repositories")["data"]["surefoot"])["s3"]


def is_sound(workflow: Document, folder: Path) -> bool:
    """Tell whether our own check and Argo's find no fault; the latter where it is here."""
    path = folder / "workflow.json"
    path.write_text(json.dumps(workflow), encoding="utf-8")
    program = shutil.which("argo") or "true"
    return (
        lint.check(workflow) == []
        and subprocess.run([program, "lint", "--offline", path], capture_output=True, check=False).returncode == 0
    )


def test_an_authority_of_ones_own_is_trusted_by_every_step_and_by_argo(tmp_path: Path) -> None:
    """The Secret may hold a key beside the certificate: it is not mounted."""
    sets = "caSecret=ours", "dashboard.image=mine", "credentials.endpointUrl=https://s3.example:9000"
    study = "credentials.study=postgresql://u@db.example/d"
    for own, documents in ((False, rendered(*sets)), (True, rendered(*sets, study, *OWN))):
        workflow, dashboard = one(documents, "WorkflowTemplate", "surefoot"), labelled_pods(documents)["surefoot-dashboard"]["spec"]
        volume = {"name": "ca", "secret": {"secretName": "ours", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
        assert workflow["spec"]["volumes"] == [volume]
        assert volume in dashboard["volumes"]
        for container in (*containers(workflow), *dashboard["containers"]):
            given = environment(container)
            assert (given["SSL_CERT_FILE"], given["PGSSLROOTCERT"]) == ("/ca/ca.crt", "/ca/ca.crt")
            # The chart's own Postgres has no certificate.
            assert given.get("PGSSLMODE") == ("verify-full" if own else None)
            assert {"name": "ca", "mountPath": "/ca", "readOnly": True} in container["volumeMounts"]
        assert artifacts(documents)["caSecret"] == {"name": "ours", "key": "ca.crt"}
        assert (artifacts(documents)["endpoint"], artifacts(documents)["insecure"]) == ("s3.example:9000", False)
        assert is_sound(workflow, tmp_path)


ROLE = "credentials.role.enabled=true", "credentials.study=postgresql://u@db.example/d", *OWN


def test_with_a_role_there_are_no_access_keys(tmp_path: Path) -> None:
    """What gives it may be the account's annotation, a cloud's agent or the node; no pod has a token for that."""
    arn = "arn:aws:iam::123456789012:role/surefoot"
    documents = rendered(*ROLE, f"serviceAccount.annotations.eks\\.amazonaws\\.com/role-arn={arn}")
    workflow = one(documents, "WorkflowTemplate", "surefoot")
    assert one(documents, "ServiceAccount", "surefoot")["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": arn}
    assert "AWS_ACCESS_KEY_ID" not in json.dumps(documents)
    assert "AWS_SECRET_ACCESS_KEY" not in json.dumps(documents)
    for container in containers(workflow):
        given = environment(container)
        assert (given["AWS_REGION"], given["AWS_EC2_METADATA_SERVICE_ENDPOINT"]) == ("eu-west-1", "http://169.254.169.254")
        assert {mount["name"] for mount in container["volumeMounts"]} == {"outputs", "tmp"}
    assert not {"volumes", "podSpecPatch"} & workflow["spec"].keys()
    repository = artifacts(documents)
    assert repository["useSDKCreds"] is True
    assert (repository["endpoint"], repository["region"]) == ("s3.eu-west-1.amazonaws.com", "eu-west-1")
    assert not {"accessKeySecret", "secretKeySecret"} & repository.keys()
    assert is_sound(workflow, tmp_path)


def test_a_token_for_a_role_is_given_where_it_is_asked_for(tmp_path: Path) -> None:
    """Good for the role's server alone; Argo's own container, which uploads the report, has it as well."""
    arn = "arn:aws:iam::123456789012:role/surefoot"
    role = f"credentials.role.arn={arn}", "credentials.role.audience=sts.amazonaws.com", "credentials.role.stsUrl=https://sts.example"
    workflow = one(rendered(*ROLE, *role, "caSecret=ours"), "WorkflowTemplate", "surefoot")
    token = {"path": "token", "audience": "sts.amazonaws.com", "expirationSeconds": 3600}
    assert {"name": "role", "projected": {"sources": [{"serviceAccountToken": token}]}} in workflow["spec"]["volumes"]
    patch = json.loads(workflow["spec"]["podSpecPatch"])
    (wait,) = patch["containers"]
    assert wait["name"] == "wait"
    assert patch["volumes"] == workflow["spec"]["volumes"]  # else they are in those pods alone whose main has them
    assert {volume["name"] for volume in patch["volumes"]} == {mount["name"] for mount in wait["volumeMounts"]} == {"ca", "role"}
    assert environment(wait)["SSL_CERT_FILE"] == "/ca/ca.crt"
    for container in (wait, *containers(workflow)):
        given = environment(container)
        assert (given["AWS_WEB_IDENTITY_TOKEN_FILE"], given["AWS_REGION"]) == ("/role/token", "eu-west-1")
        assert (given["AWS_ROLE_ARN"], given["AWS_ENDPOINT_URL_STS"]) == (arn, "https://sts.example")
        assert {"name": "role", "mountPath": "/role", "readOnly": True} in container["volumeMounts"]
    assert is_sound(workflow, tmp_path)


def test_an_endpoint_in_the_values_is_used_with_a_secret_of_ones_own() -> None:
    documents = rendered("credentials.existingSecret=mine", "credentials.endpointUrl=https://s3.example", *OWN)
    assert {environment(found)["AWS_ENDPOINT_URL"] for found in containers(one(documents, "WorkflowTemplate", "surefoot"))} == {
        "https://s3.example"
    }
    assert artifacts(documents)["endpoint"] == "s3.example"


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("minio.enabled=false",), "endpointUrl or region must say where your own object store is"),
        (("minio.enabled=false", "credentials.region=eu-west-1"), "artifactBucket: name a bucket of your own object store"),
        (
            ("minio.enabled=false", "credentials.existingSecret=mine", "artifactBucket=ours"),
            "endpointUrl must say where your own object store is, or region in AWS itself",
        ),
        (("postgres.enabled=false",), "study must say where your own database is"),
        (("credentials.role.enabled=true",), "minio.enabled"),
        (("networkPolicy.enabled=true", "credentials.existingSecret=mine", *OWN), "egress must say where your own store and database are"),
    ],
)
def test_what_cannot_work_is_refused(sets: tuple[str, ...], said: str) -> None:
    done = helm("template", "surefoot", str(CHART), *(word for one in sets for word in ("--set", one)))
    assert done.returncode != 0
    assert said in done.stderr.replace("/", ".")


# --- who may speak with whom ----------------------------------------------------------------------

ANYWHERE = {"ipBlock": {"cidr": "0.0.0.0/0"}}
ARGO = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "argo"}}}


def picks(selector: Document, labels: dict[str, str]) -> bool:
    return bool(selector["matchLabels"].items() <= labels.items())


def may(policies: list[Document], way: str, labels: dict[str, str], other: Any, port: int) -> bool:
    """Tell whether a pod may reach (egress) or be reached by (ingress) labels of the same namespace, or that very peer."""
    mine = [
        policy["spec"]
        for policy in policies
        if picks(policy["spec"]["podSelector"], labels) and way.title() in policy["spec"]["policyTypes"]
    ]

    def is_meant(peer: Document) -> bool:
        return peer == other or (set(peer) == {"podSelector"} and "ipBlock" not in other and picks(peer["podSelector"], other))

    return not mine or any(
        port in [one["port"] for one in rule["ports"]]
        and any(is_meant(peer) for peer in rule.get("to" if way == "egress" else "from", [other]))
        for policy in mine
        for rule in policy.get(way, [])
    )


def test_pods_speak_with_whom_they_must_and_with_nobody_else() -> None:
    documents = rendered("networkPolicy.enabled=true", "dashboard.image=mine")
    policies = [found for found in documents if found["kind"] == "NetworkPolicy"]
    ours = {name: pod["metadata"]["labels"] for name, pod in labelled_pods(documents).items()}
    ours["step"] = one(documents, "WorkflowTemplate", "surefoot")["spec"]["podMetadata"]["labels"]
    stranger = {"app.kubernetes.io/name": "stranger"}
    ports = {"surefoot-minio": 9000, "surefoot-postgres": 5432}

    for server, port in ports.items():
        for client in ("step", "surefoot-buckets", "surefoot-test", "surefoot-dashboard"):
            assert may(policies, "egress", ours[client], ours[server], port)
            assert may(policies, "ingress", ours[server], ours[client], port)
        assert not may(policies, "ingress", ours[server], stranger, port)
        assert not may(policies, "ingress", ours[server], ours["step"], port + 1)
        assert may(policies, "ingress", ours[server], ARGO, port) == (server == "surefoot-minio")
    for pod in ours.values():
        assert may(policies, "egress", pod, ANYWHERE, 6443)
        assert may(policies, "egress", pod, stranger, 53)
        assert not may(policies, "egress", pod, ANYWHERE, 80)
        assert not may(policies, "egress", pod, stranger, 443)
    for name in ours.keys() - ports.keys():
        assert not may(policies, "ingress", ours[name], ours["step"], 8080)
    assert "NetworkPolicy" not in {found["kind"] for found in rendered()}


def test_with_servers_of_ones_own_pods_reach_what_is_named() -> None:
    named = "networkPolicy.egress[0].ports[0].port=5432", "networkPolicy.egress[0].to[0].ipBlock.cidr=10.1.2.0/24"
    server = "networkPolicy.apiServer[0].ipBlock.cidr=10.0.0.1/32"
    documents = rendered("networkPolicy.enabled=true", "credentials.existingSecret=mine", *named, server, *OWN)
    (policy,) = [found for found in documents if found["kind"] == "NetworkPolicy"]
    step = one(documents, "WorkflowTemplate", "surefoot")["spec"]["podMetadata"]["labels"]
    assert may([policy], "egress", step, {"ipBlock": {"cidr": "10.1.2.0/24"}}, 5432)
    assert may([policy], "egress", step, {"ipBlock": {"cidr": "10.0.0.1/32"}}, 443)
    assert not may([policy], "egress", step, ANYWHERE, 443)


# --- seen from outside ----------------------------------------------------------------------------


def test_the_figures_of_minio_are_where_prometheus_is_told(tmp_path: Path) -> None:
    assert "ServiceMonitor" not in {found["kind"] for found in rendered()}
    documents = rendered("serviceMonitor.enabled=true", "serviceMonitor.labels.release=prometheus")
    monitor, service = one(documents, "ServiceMonitor", "surefoot-minio"), one(documents, "Service", "surefoot-minio")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert picks(monitor["spec"]["selector"], service["metadata"]["labels"])
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}

    (container,) = labelled_pods(documents)["surefoot-minio"]["spec"]["containers"]
    more = {name: value for name, value in environment(container).items() if name.startswith("MINIO_PROMETHEUS")}
    try:
        server = servers.MinioServer(tmp_path, more=more)
    except servers.Missing as error:
        pytest.skip(f"{error}: no figures were asked for")
    with server:
        answer = urllib3.request("GET", f"{server.endpoint}{endpoint['path']}", timeout=30)
    assert (answer.status, b"minio_" in answer.data) == (200, True)


def test_helm_test_runs_the_template_apart_from_what_is_kept() -> None:
    (container,) = labelled_pods(rendered("store=s3://bucket/deep/store"))["surefoot-test"]["spec"]["containers"]
    workflow = json.loads(container["args"][-1])
    assert workflow["spec"]["workflowTemplateRef"] == {"name": argo.NAME}
    given = parameters(workflow)
    assert given["store"] == "s3://bucket/deep/store/helm-test"
    assert config.inline(given["config"], (), {}).name == "helm-test"
    compile(container["args"][0], "test", "exec")


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
    "caSecret=Not_A_Name",
    "credentials.endpointUrl=s3.example",
    "credentials.role.arn=surefoot",
    "networkPolicy.apiServer=null",
    "networkPolicy.peers=all",
    "dashboard.img=x",
    "serviceMonitor.interval=often",
    "serviceMonitor.labels.release=1",
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
