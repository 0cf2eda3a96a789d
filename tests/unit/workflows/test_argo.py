"""The workflow that the cluster runs: as checked in, without the faults that hang or hide, and submitted whole."""

import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hera.workflows import Workflow
from hera.workflows import models as m

from stages import families
from stages.common import contract
from stages.common import store as stores
from stages.common.errors import ConfigError, NotNow
from tests import programs, small
from tests.argo_server import Server, server
from tests.programs import ROOT
from workflows import argo, cluster, dag, lint

__all__ = ["server"]

Template = dict[str, Any]


FORMS = {"skipping": argo.CHART_FILE, "memoized": argo.MEMOIZED_FILE}


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    return {"skipping": argo.text(argo.render()), "memoized": argo.text(argo.memoized())}


@pytest.fixture
def template(rendered: dict[str, str]) -> Template:
    document = json.loads(rendered["skipping"])
    assert isinstance(document, dict)
    return document


@pytest.fixture
def memoized(rendered: dict[str, str]) -> Template:
    document = json.loads(rendered["memoized"])
    assert isinstance(document, dict)
    return document


@pytest.fixture(params=[*FORMS])
def either(rendered: dict[str, str], request: pytest.FixtureRequest) -> Template:
    document = json.loads(rendered[request.param])
    assert isinstance(document, dict)
    return document


def step(template: Template, name: str) -> Any:
    return next(one for one in template["spec"]["templates"] if one["name"] == name)


def tasks(template: Template, dags: tuple[str, ...] = ("main", argo.FAMILY)) -> dict[str, Any]:
    return {one["name"]: one for name in dags for one in step(template, name)["dag"]["tasks"]}


def task(template: Template, name: str) -> Any:
    return tasks(template)[name]


def test_the_chart_holds_what_the_dag_renders_to(rendered: dict[str, str]) -> None:
    """`python -m workflows.argo --write` (make render) brings the files up to date."""
    assert {form: path.read_text(encoding="utf-8") for form, path in FORMS.items()} == rendered


def test_every_step_of_the_contract_is_in_the_workflow(either: Template) -> None:
    names = {"plan", *contract.STEPS}
    assert set(tasks(either)) == names | {argo.FAMILY}
    assert {one["name"] for one in either["spec"]["templates"]} == names | {"main", argo.FAMILY, "exit", dag.CLOSE.step}
    assert set(argo.ROOM) == names | {dag.CLOSE.step}


def test_nothing_waits_for_a_result_that_plan_found(template: Template) -> None:
    """A step is skipped on plan's word, of its own family alone, and deploy also where the verdict is another one."""
    evaluate, train = (task(template, name)["when"] for name in ("evaluate", "train"))
    assert (
        evaluate
        == "'{{= jsonpath(tasks.plan.outputs.parameters.todo, `$['evaluate']`) == 'run' ? 'run' : 'its result is there' }}' == 'run'"
    )
    of_family = "`$['train/` + jsonpath(inputs.parameters.item, `$.family`) + `']`"
    assert train == f"'{{{{= jsonpath(inputs.parameters.todo, {of_family}) == 'run' ? 'run' : 'its result is there' }}}}' == 'run'"
    deploy = task(template, "deploy")["when"]
    assert "tasks.validate.outputs.parameters.verdict == 'accepted') ? 'run' : " in deploy
    assert "`$['deploy']`) == 'done' ? 'its result is there' : 'the verdict is not accepted' }}'" in deploy


def test_what_argo_remembers_is_named_by_plan(template: Template, memoized: Template) -> None:
    """The same DAG otherwise: what has a result is never skipped, and what has none, or no open gate, is."""
    keys = {one["name"]: one.pop("memoize")["key"] for one in memoized["spec"]["templates"] if "memoize" in one}
    assert set(keys) == {name for name, one in contract.STEPS.items() if not one.effect_of}
    assert keys["prepare"] == "{{= jsonpath(workflow.outputs.parameters.memos, `$['prepare']`) }}"
    assert keys["train"] == step(template, "train")["synchronization"]["mutexes"][0]["name"].removeprefix("train-").replace(
        "locks", "memos"
    )
    assert next(one for one in step(memoized, "plan")["outputs"]["parameters"] if one["name"] == "memos")["globalName"] == "memos"
    whens = {name: one.pop("when", None) for name, one in tasks(memoized).items()}
    assert {name for name, when in whens.items() if when} == {"search-create", "search-work", "deploy"}
    assert whens["search-work"] == task(template, "search-work")["when"]
    gate = "tasks.validate.outputs.parameters.verdict == 'accepted' ? 'run' : 'the verdict is not accepted'"
    assert whens["deploy"] == f"'{{{{= {gate} }}}}' == 'run'"
    for one in tasks(template).values():
        one.pop("when", None)
    for name in ("search-collect", "train"):
        assert task(memoized, name)["depends"] == f"search-create && {task(template, name)['depends']}"
        task(template, name)["depends"] = task(memoized, name)["depends"]
    assert memoized == template


@pytest.mark.parametrize(
    ("step_name", "retries", "status", "code", "message", "is_tried_again"),
    [
        *((name, 2, "Failed", code, "", True) for name in ("prepare", "train", "search-work") for code in (75, 137, 143)),
        *((name, 0, "Failed", code, "", False) for name in ("prepare", "train") for code in (1, 2, 65, 66, 70, 78)),
        *(("train", 3, "Failed", code, "", False) for code in (75, 76, 137, 139, 142)),
        *((name, 19, "Failed", code, "", True) for name in ("train", "search-work") for code in (143, -1)),
        *(("train", retries, "Failed", code, f"Pod was {argo.OVER}", retries == 2) for retries in (2, 3) for code in (143, -1)),
        *(("prepare", 0, "Failed", code, f"Pod was {argo.OVER}", False) for code in (143, -1)),
        ("train", 19, "Error", -1, "", True),
    ],
)
def test_a_fit_whose_pod_is_taken_away_is_tried_again_more_often(
    either: Template, step_name: str, retries: int, status: str, code: int, message: str, is_tried_again: bool
) -> None:
    """As Argo would read it: what it knows of the last attempt are texts. One whose day is over was not taken away."""
    retry = step(either, step_name)["retryStrategy"]
    said = retry["expression"].replace("||", "or").replace("&&", "and").replace("lastRetry.", "last_")
    said = re.sub(r'!\((\S+) contains (".*?")\)', r"(\2 not in \1)", said)
    known = {"asInt": int, "retries": str(retries), "last_status": status, "last_exitCode": str(code), "last_message": message}
    assert eval(said, {"__builtins__": {}}, known) is is_tried_again  # noqa: S307 - the checked in template's
    assert retry["limit"] == {"prepare": "3"}.get(step_name, "20")


@pytest.mark.parametrize(("step_name", "most"), [("train", 40960), ("prepare", 24576)])
def test_memory_grows_with_each_attempt_up_to_the_most(either: Template, step_name: str, most: int) -> None:
    """A pod that was taken away more often than it was killed for its memory still fits a node."""
    patch = step(either, step_name)["podSpecPatch"]
    asked, at_most = re.findall(r'"memory": "\{\{= (.*?) \}\}Mi"', patch)
    assert asked == at_most
    said = re.sub(rf"jsonpath\(workflow\.parameters\.room, `\$\['{step_name}'\]\.(\w+)`\)", r"\1", asked)
    said = re.sub(r"asInt\((.*) \? (.*) : (.*)\)$", r"asInt(\2 if \1 else \3)", said)
    room = {"memory": 16384, "most": most, "asInt": int}
    grown = [eval(said, {"__builtins__": {}}, room | {"retries": str(count)}) for count in range(20)]  # noqa: S307 - as above
    assert grown == [min(16384 + count * 8192, most) for count in range(20)]


def test_a_family_has_a_dag_of_its_own(template: Template) -> None:
    """So that one that fails does not stop the others; what compares them waits for the end of all, and looks for itself who is there."""
    family = tasks(template, (argo.FAMILY,))
    assert {name: one.get("depends", "").split(".")[0] for name, one in family.items()} == {
        "search-create": "",
        "search-work": "search-create",
        "search-collect": "(search-work",
        "train": "search-collect",
    }
    assert family["search-work"]["withParam"] == "{{inputs.parameters.workers}}"
    given = {one["name"]: one["value"] for one in family["search-work"]["arguments"]["parameters"]}
    assert given["item"] == '{"family": "{{= jsonpath(inputs.parameters.item, `$.family`) }}", "worker": "{{item}}"}'
    assert task(template, "family")["withParam"] == "{{tasks.plan.outputs.parameters.families}}"
    assert task(template, "family")["depends"] == "plan && prepare"
    whens = task(template, "family")["when"].removeprefix("'{{= ").partition(" ? ")[0].split(" || ")
    assert [re.findall(r"\['(.*)'\]", one) for one in whens] == [[name] for name in family]
    ends = "(family.Succeeded || family.Failed || family.Errored || family.Skipped)"  # not Omitted: prepare failed
    assert {name: task(template, name)["depends"] for name in ("evaluate", "validate", "deploy")} == {
        "evaluate": f"plan && {ends}",
        "validate": "plan && evaluate",
        "deploy": "plan && validate",
    }


def test_pods_that_fit_models_ask_for_their_familys_gpus(either: Template) -> None:
    """By the item that they are given; and every family has a number, since one that has none would fail the pod."""
    asking = {one["name"] for one in either["spec"]["templates"] if "parameters.gpus" in one.get("podSpecPatch", "")}
    assert asking == {"search-work", "train"}
    patch = step(either, "train")["podSpecPatch"]
    count = "jsonpath(workflow.parameters.gpus, `$['` + jsonpath(inputs.parameters.item, `$.family`) + `']`)"
    assert f'"{{{{= jsonpath(workflow.parameters.gpus, `$.resource`) }}}}": {{{{= {count} > 0 ? {count} : `null` }}}}}}' in patch
    assert set(argo.GPUS) == {"resource", *families.NAMES}


def test_two_runs_at_the_same_work_do_it_once(either: Template) -> None:
    """Mutexes are named by what plan says, which is a global output; a worker of a search holds none, since it shares its trials."""
    names = {one["name"]: one["synchronization"]["mutexes"] for one in either["spec"]["templates"] if "synchronization" in one}
    assert set(names) == {"prepare", "search-collect", "train", "evaluate", "validate"}
    assert names["prepare"] == [{"name": "prepare-{{= jsonpath(workflow.outputs.parameters.locks, `$['prepare']`) }}"}]
    item = "jsonpath(inputs.parameters.item, `$.family`)"
    assert names["train"] == [{"name": f"train-{{{{= jsonpath(workflow.outputs.parameters.locks, `$['train/` + {item} + `']`) }}}}"}]
    locks = next(one for one in step(either, "plan")["outputs"]["parameters"] if one["name"] == "locks")
    assert locks["globalName"] == "locks"


def test_a_submit_is_a_run_whatever_is_there_unless_it_says_otherwise(template: Template) -> None:
    values = {one["name"]: one.get("value") for one in template["spec"]["arguments"]["parameters"]}
    assert values["only-if-changed"] == "false"
    words = step(template, "plan")["container"]["args"]
    assert words[words.index("--only-if-changed") + 1] == "{{workflow.parameters.only-if-changed}}"


def test_the_rendered_workflow_has_none_of_the_faults(either: Template) -> None:
    assert lint.check(either) == []


def change(name: str, *path: str | int, to: Any = None) -> Callable[[Template], None]:
    """Set what is at the path in one template, or drop it."""

    def mutate(template: Template) -> None:
        found = template["spec"] if name == "spec" else step(template, name)
        for key in path[:-1]:
            found = found[key]
        if to is None:
            del found[path[-1]]
        else:
            found[path[-1]] = to

    return mutate


def retask(name: str, key: str, value: Any) -> Callable[[Template], None]:
    return lambda template: task(template, name).update({key: value})


TRAINED = "{{= jsonpath(workflow.outputs.parameters.memos, `$['train/` + jsonpath(inputs.parameters.item, `$.family`) + `']`) }}"
FAULTS = {
    "spec: automountServiceAccountToken is not false": change("spec", "automountServiceAccountToken"),
    "spec: executor.serviceAccountName is missing": change("spec", "executor"),
    "spec: the pods' securityContext is another": change("spec", "securityContext", "runAsNonRoot", to=False),
    "evaluate: its depends does not name plan": retask("evaluate", "depends", "family"),
    "search-collect: its depends does not take every end of search-work": retask(
        "search-collect", "depends", "search-create && (search-work.Succeeded || search-work.Failed)"
    ),
    "train: reads the aggregate of search-work": retask("train", "when", "{{tasks.search-work.outputs.parameters.finished}} > 0"),
    "search-collect: is a fan-out and follows another one, search-work": retask("search-collect", "withParam", "[1, 2]"),
    "train: its retry has no limit": change("train", "retryStrategy", "limit"),
    "train: its retry does not ask asInt(lastRetry.exitCode)": change(
        "train", "retryStrategy", "expression", to="lastRetry.exitCode in [75, 76]"
    ),
    "train: its retry does not ask asInt(retries)": change(
        "train", "retryStrategy", "expression", to="asInt(lastRetry.exitCode) == 75 && retries < 3"
    ),
    "train: its back-off has no duration": change("train", "retryStrategy", "backoff", "duration"),
    "prepare: its container has no command": change("prepare", "container", "command"),
    "prepare: has no deadline": change("prepare", "activeDeadlineSeconds"),
    "plan: output config has no default": change("plan", "outputs", "parameters", 0, "valueFrom", "default"),
    "evaluate-report: output report is not optional": change("evaluate-report", "outputs", "artifacts", 0, "optional"),
    "deploy: volume outputs is not there": change("deploy", "volumes", to=[{"name": "tmp", "emptyDir": {}}]),
    "deploy: /outputs is on no volume": change("deploy", "container", "volumeMounts", to=[]),
    "deploy: its securityContext is another": change("deploy", "container", "securityContext", "readOnlyRootFilesystem"),
    "prepare: its mutex is not named by its work": change("prepare", "synchronization", "mutexes", 0, "name", to="prepare"),
    "train: its mutex is not named by its work": change(
        "train",
        "synchronization",
        "mutexes",
        0,
        "name",
        to="train-{{= jsonpath(workflow.outputs.parameters.locks, `$['train/xgboost']`) }}",
    ),
    "train: its podSpecPatch is no JSON object": change("train", "podSpecPatch", to='{"containers": ['),
    "train: its podSpecPatch patches more than main's resources": change("train", "podSpecPatch", to='{"containers": [{"name": "wait"}]}'),
    "prepare: its podSpecPatch is no JSON object": change("prepare", "podSpecPatch", to='{"containers": {{= retries }} {{= 1 }}}'),
    "train: its podSpecPatch gives main something else than requests and limits": change(
        "train", "podSpecPatch", to='{"containers": [{"name": "main", "resources": {"nvidia.com/gpu": "1"}}]}'
    ),
    "deploy: reads inputs.parameters.item, which is not there": change(
        "deploy", "podSpecPatch", to='{"containers": [{"name": "main", "resources": {"limits": {"cpu": "{{= inputs.parameters.item }}"}}}]}'
    ),
    "train: its podSpecPatch patches more than main's resources ": change("train", "podSpecPatch", to='{"container": []}'),
    "train: its retry's expression does not parse": change(
        "train", "retryStrategy", "expression", to='lastRetry.status == "Error" || asInt(lastRetry.exitCode) in [75, 76'
    ),
    "train: its retry's expression does not parse ": change(
        "train", "retryStrategy", "expression", to='lastRetry.status = "Error" || asInt(lastRetry.exitCode) == 75'
    ),
    "train: asks for more memory than its limit": change("train", "container", "resources", "requests", "memory", to="2Gi"),
    "evaluate: its when does not parse": retask("evaluate", "when", "{{tasks.plan.outputs.parameters.todo}} == 'run"),
    "evaluate: its when does not parse ": retask("evaluate", "when", "'{{tasks.plan.outputs.parameters.todo}}' 'run'"),
    "main: does not parse: (tasks.plan.outputs.parameters.todo == 'run'": retask(
        "evaluate", "when", "{{= (tasks.plan.outputs.parameters.todo == 'run' }}"
    ),
    "main: does not parse: tasks.plan.outputs.parameters.todo ? 'run'": retask(
        "evaluate", "when", "'{{= tasks.plan.outputs.parameters.todo ? 'run' }}' == 'run'"
    ),
    "main: reads tasks.plan.outputs.parameters.tood, which is not there": retask(
        "evaluate", "when", "{{= tasks.plan.outputs.parameters.tood == 'run' }}"
    ),
    "family: reads inputs.parameters.tood, which is not there": retask("train", "when", "{{= inputs.parameters.tood == 'run' }}"),
    "family: reads tasks.search, which is not there": retask("train", "when", "{{= tasks.search-collect.outputs.parameters.best != '' }}"),
    "train: does not parse: workflow.parameters.only-if-changed": change(
        "train", "container", "args", to=["{{= workflow.parameters.only-if-changed }}"]
    ),
    "train: reads workflow.outputs.parameters.lock, which is not there": change(
        "train", "container", "args", to=["{{= workflow.outputs.parameters.lock }}"]
    ),
    "train: its podSpecPatch asks lastRetry": change(
        "train", "podSpecPatch", to='{"containers": [{"name": "main", "resources": {"limits": {"cpu": "{{=lastRetry.exitCode}}"}}}]}'
    ),
}


def remember(name: str, like: str) -> Callable[[Template], None]:
    return lambda template: step(template, name).update(memoize=step(template, like)["memoize"])


FORGETFUL = {
    "search-collect: its depends does not name search-create": retask(
        "search-collect", "depends", "(search-work.Succeeded || search-work.Failed || search-work.Errored || search-work.Skipped)"
    ),
    "train: its memory is not named by its result": change("train", "memoize", "key", to="train"),
    "evaluate: its memory is not named by its result": change(
        "evaluate", "memoize", "key", to="{{= jsonpath(workflow.outputs.parameters.memos, `$['train']`) }}"
    ),
    "train: is memoized without a cache": change("train", "memoize", "cache"),
    "train: its memo's key has other letters than a-z, A-Z, 0-9 and -": change("train", "memoize", "key", to=f"{TRAINED}_old"),
    "train: its memo's age is no duration such as 720h": change("train", "memoize", "maxAge", to="30d"),
    "search-work: is memoized, and has no result": remember("search-work", "train"),
    "plan: is memoized, and the entry of its DAG": remember("plan", "prepare"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_no_other(fault: str, either: Template) -> None:
    FAULTS[fault](either)
    assert lint.check(either) == [fault.strip()]


def test_what_is_right_is_not_refused(memoized: Template) -> None:
    """Else the checks above could refuse anything."""
    template = memoized
    change("train", "memoize", "maxAge", to="720h")(template)
    change("train", "memoize", "key", to=f"{TRAINED}-1")(template)
    change("train", "container", "resources", "requests", "memory", to="1Gi")(template)
    change("train", "container", "resources", "requests", "cpu", to="1500m")(template)
    change("train", "container", "resources", "limits", "cpu", to="2")(template)
    retask("evaluate", "when", "{{tasks.plan.outputs.parameters.todo}} != run && !('a' == \"b\" || true)")(template)
    assert lint.check(template) == []


@pytest.mark.parametrize("fault", FORGETFUL)
def test_each_fault_of_a_memory_is_found_and_no_other(fault: str, memoized: Template) -> None:
    FORGETFUL[fault](memoized)
    assert lint.check(memoized) == [fault]


def test_every_check_has_a_fault_that_it_finds(memoized: Template) -> None:
    silent = set(lint.CHECKS)
    for fault in [*FAULTS.values(), *FORGETFUL.values()]:
        changed = json.loads(json.dumps(memoized))
        fault(changed)
        silent -= {one for one in lint.CHECKS if list(one(changed))}
    assert silent == set()


@pytest.mark.parametrize("form", FORMS)
def test_argo_lint_passes_it(form: str) -> None:
    program = shutil.which("argo")
    if program is None:
        pytest.skip("the argo program is not in PATH: argo lint was not run")
    done = subprocess.run([program, "lint", "--offline", str(FORMS[form])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no linting errors" in done.stdout + done.stderr


def test_a_workflow_has_as_many_bytes_with_1000_trials_as_with_16(tmp_path: Path) -> None:
    """All that it holds of a run comes from the template and from what plan hands out; docs/scale.md says what grows it."""
    path = small.lay_out(tmp_path)
    sizes, fanned = [], []
    for trials in (16, 1000):
        words = ("--config", path, "--store", tmp_path / str(trials), "--outputs", tmp_path / f"out-{trials}")
        ended = programs.python("-m", "stages.plan", *words, "--set", f"search.n_trials={trials}", "--set", "search.workers=8")
        assert ended.code == 0, ended.err
        handed = {file.name: file.read_text() for file in (tmp_path / f"out-{trials}").iterdir()}
        assert {*handed} == {*dag.PLAN.outputs}
        sizes.append({name: len(value) for name, value in handed.items()})
        fanned.append([json.loads(handed[name]) for name in ("families", "workers", "todo")])
    assert sizes[0] == sizes[1]
    assert fanned[0] == fanned[1]
    assert len(fanned[0][1]) == 8


# --- submitting -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # Hera's
def test_a_submit_states_every_parameter(server: type[Server], template: Template) -> None:
    """`argo retry -p` forgets the template's values that the Workflow does not state."""
    name = cluster.submit("config/1.json", "s3://other/store", tag="7")

    (workflow,) = server.created
    assert re.fullmatch(r"surefoot-[0-9a-f]{8}", name)
    assert workflow["metadata"]["name"] == name
    values = {one["name"]: one["value"] for one in workflow["spec"]["arguments"]["parameters"]}
    assert set(values) == {one["name"] for one in template["spec"]["arguments"]["parameters"]}
    assert values["config"] == "config/1.json"
    assert values["store"] == "s3://other/store"
    assert values["tag"] == "7"
    assert workflow["spec"]["workflowTemplateRef"] == {"name": "surefoot"}
    assert set(server.tokens) == {"Bearer secret"}


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # Hera's
@pytest.mark.parametrize("faults", [["away"], ["", "away"], ["away", "away", "", "away"], ["", "lost"], ["", "lost", "away"]])
def test_a_submit_outlasts_a_slow_server_and_makes_one_run(
    faults: list[str], server: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the run was made and the answer lost."""
    monkeypatch.setattr(stores, "PAUSES", (0,) * 5)
    server.faults[:] = faults
    name = cluster.submit("config/1.json", "s3://other/store")
    assert server.faults == []
    assert server.created[0]["metadata"]["name"] == name
    assert len(server.created) == 1


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # Hera's
@pytest.mark.parametrize("faults", [[], ["", "away"]])
def test_a_name_that_is_taken_is_refused(faults: list[str], server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Workflow of one's own that says it: that one is another run."""
    monkeypatch.setattr(stores, "PAUSES", (0,) * 5)
    around = Workflow(name="mine", workflow_template_ref=m.WorkflowTemplateRef(name=argo.NAME))
    assert cluster.submit("config/1.json", "s3://other/store", around=around) == "mine"
    server.faults[:] = faults
    with pytest.raises(ConfigError, match="already exists"):
        cluster.submit("config/1.json", "s3://other/store", around=around)
    assert len(server.created) == 1


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # Hera's
def test_one_object_is_submitted_twice_and_a_long_name_is_cut(server: type[Server]) -> None:
    around = Workflow(generate_name=f"{'n' * 57}-", workflow_template_ref=m.WorkflowTemplateRef(name=argo.NAME))
    first, second = (cluster.submit("config/1.json", "s3://other/store", around=around) for _ in range(2))
    assert first != second
    assert [one["metadata"]["name"] for one in server.created] == [first, second]
    assert len(first) == 63


def test_what_no_time_heals_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain HTTP where TLS is spoken; no address."""
    monkeypatch.setattr(stores, "PAUSES", (60,))
    monkeypatch.setenv("ARGO_NAMESPACE", "fraud")
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as plain:
        threading.Thread(target=plain.serve_forever, args=(0.02,), daemon=True).start()
        for address in (f"127.0.0.1:{plain.server_port}", "ftp://host", "https://", "http://.host"):
            monkeypatch.setenv("ARGO_SERVER", address)
            with pytest.raises(ConfigError):
                cluster.submit("config/1.json", "s3://other/store")
        plain.shutdown()


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(cluster, "TIMEOUT", (0.2, 0.2))
        monkeypatch.setattr(stores, "PAUSES", (0,))
        monkeypatch.setenv("ARGO_SERVER", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("ARGO_NAMESPACE", "fraud")
        with pytest.raises(NotNow, match="timed out"):
            cluster.submit("config/1.json", "s3://other/store")


@pytest.mark.usefixtures("server")
def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(ConfigError, match=r"knows no parameter gpu\. Known: config, store"):
        cluster.submit("config/1.json", "s3://other/store", gpu="1")


@pytest.mark.usefixtures("server")
def test_a_namespace_without_the_chart_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGO_NAMESPACE", "other")
    with pytest.raises(ConfigError, match=r"namespace other.*helm install surefoot"):
        cluster.submit("config/1.json", "s3://other/store")


def test_a_server_that_is_not_there_is_not_now(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    monkeypatch.setattr(stores, "PAUSES", (0,))
    monkeypatch.setenv("ARGO_SERVER", f"127.0.0.1:{closed_port}")
    monkeypatch.setenv("ARGO_SECURE", "false")
    monkeypatch.setenv("ARGO_NAMESPACE", "fraud")
    with pytest.raises(NotNow, match=f"127.0.0.1:{closed_port}"):
        cluster.submit("config/1.json", "s3://other/store")


@pytest.fixture
def closed_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return server.server_port


def test_what_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ARGO_")]:
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="ARGO_SERVER and ARGO_NAMESPACE not set"):
        cluster.submit("config/1.json", "s3://other/store")


def test_the_command_prints_it(rendered: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-m", "workflows.argo"], capture_output=True, text=True, check=True)
    assert done.stdout == rendered["skipping"]


# --- a Workflow of one's own around it --------------------------------------------------------------


@pytest.fixture
def around() -> Workflow:
    """Give the example's Workflow."""
    made: Workflow = runpy.run_path(str(ROOT / "docs" / "around.py"))["nightly"]()
    return made


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # Hera's
def test_a_workflow_of_ones_own_is_submitted_with_the_charts_values(server: type[Server], around: Workflow) -> None:
    server.template["spec"]["arguments"]["parameters"][1]["value"] = "s3://the/charts"
    name = cluster.submit("config/1.json", "s3://other/store", around=around, tag="7")
    (made,) = server.created
    values = {one["name"]: one.get("value") for one in made["spec"]["arguments"]["parameters"]}
    assert (values["config"], values["store"], values["tag"]) == ("config/1.json", "s3://other/store", "7")
    assert set(values) == {one["name"] for one in server.template["spec"]["arguments"]["parameters"]}
    assert made["metadata"]["name"] == name
    assert name.startswith("nightly-")
    refs = [
        task["templateRef"] for one in made["spec"]["templates"] for task in one.get("dag", {}).get("tasks", []) if "templateRef" in task
    ]
    assert refs == [{"name": "surefoot", "template": "main"}, {"name": "surefoot", "template": "exit"}]


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # Hera's
def test_a_workflow_of_ones_own_has_what_argo_asks_it_for_alone(server: type[Server], around: Workflow) -> None:
    """Volumes that the steps mount, and what holds for all pods, unless it says so itself."""
    ours = {
        "volumes": [{"name": "ca", "secret": {"secretName": "ours"}}],
        "podSpecPatch": '{"volumes": []}',
        "nodeSelector": {"pool": "spot"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "podPriorityClassName": "low",
        "parallelism": 5,
        "activeDeadlineSeconds": 1000,
    }
    server.template["spec"] |= ours
    cluster.submit("config/1.json", "s3://other/store", around=around)
    around.parallelism, around.volumes = 2, [m.Volume(name="ca", empty_dir=m.EmptyDirVolumeSource()), m.Volume(name="mine")]
    cluster.submit("config/1.json", "s3://other/store", around=around)
    first, second = (one["spec"] for one in server.created)
    assert {name: first[name] for name in ours} == ours
    assert first["ttlStrategy"] == server.template["spec"]["ttlStrategy"]
    assert second["parallelism"] == 2
    assert [volume["name"] for volume in second["volumes"]] == ["ca", "mine"]
    assert "emptyDir" in second["volumes"][0]


def test_the_example_has_none_of_the_faults_that_concern_it(around: Workflow) -> None:
    document = around.to_dict()
    ours = (lint.accounts, lint.commands, lint.deadlines, lint.restricted, lint.rooms, lint.conditions)
    assert [finding for one in ours for finding in one(document)] == []


def test_argo_lint_passes_the_example(around: Workflow, tmp_path: Path) -> None:
    program = shutil.which("argo")
    if program is None:
        pytest.skip("the argo program is not in PATH: argo lint was not run")
    (tmp_path / "around.json").write_text(json.dumps(around.to_dict()), encoding="utf-8")
    command = [program, "lint", "--offline", str(tmp_path / "around.json"), str(argo.CHART_FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
