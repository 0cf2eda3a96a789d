"""The DAG as an Argo WorkflowTemplate, what ``argo lint`` does not see in it, and how a run is submitted.

    python -m workflows.argo             prints the template
    python -m workflows.argo --write     writes both forms of it into the chart

The *skipping* form: plan says per step whether there is something to do, and ``when`` listens, so that what is done costs no
pod. The *memoized* form of the same DAG: a step that is done is a hit in Argo's memory, with its outputs. What looks odd here was
seen to hang, hide or repeat work otherwise; ``check`` names each, with its reason.
"""

import ast
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, override

import requests
from hera import exceptions as refused
from hera.workflows import (
    DAG,
    Artifact,
    Container,
    EmptyDirVolume,
    Env,
    NoneArchiveStrategy,
    Parameter,
    Resources,
    RetryStrategy,
    SecretEnv,
    Task,
    Workflow,
    WorkflowsService,
    WorkflowTemplate,
)
from hera.workflows import models as m

from stages.common import log
from stages.common.contract import STEPS
from stages.common.errors import ConfigError, NotNow
from stages.common.store import retry
from stages.families import NAMES
from workflows import dag

PLANNED = "tasks.plan.outputs.parameters"
NAME = "surefoot"  # of the WorkflowTemplate, its accounts and its Secret: one Surefoot per namespace
TIMEOUT = (5, 30)  # seconds to connect, and without a byte
CHART_FILE = Path(__file__).parents[1] / "charts" / "surefoot" / "files" / "workflowtemplate.json"
MEMOIZED_FILE = CHART_FILE.with_name("memoized.json")

# Per step: CPU asked for, and main memory in MiB (asked for and at most). The chart's values go over it.
ROOM: dict[str, dict[str, str | int]] = {
    "plan": {"cpu": "100m", "memory": 256},
    "prepare": {"cpu": "250m", "memory": 1024},
    "search-create": {"cpu": "100m", "memory": 512},
    "search-work": {"cpu": "500m", "memory": 1024},
    "search-collect": {"cpu": "100m", "memory": 512},
    "train": {"cpu": "500m", "memory": 1024},
    "evaluate": {"cpu": "250m", "memory": 1024},
    "validate": {"cpu": "250m", "memory": 1024},
    "deploy": {"cpu": "100m", "memory": 256},
    "evaluate-report": {"cpu": "100m", "memory": 512},
}
FAMILY = "family"  # the DAG of all that is done for each family by itself
OF_FAMILY = {task.step: task for task in dag.TASKS if task.fan_out}
ENTRY = next(iter(OF_FAMILY))  # of that DAG: never a hit, since it has no result
# Per family: how many of this resource a pod that fits its models asks for. The chart's values go over it.
GPUS: dict[str, str | int] = {"resource": "nvidia.com/gpu", **dict.fromkeys(NAMES, 0)}
IS_THERE = "its result is there"
# Argo sees no progress. What fits models and lived so long has made some, and saved it; on spot nodes that is most of its ends.
LIVED_SECONDS, MOST_RETRIES = 120, 20
DEFAULTS = {"todo": "{}", "locks": "{}", "memos": "{}", "families": "[]", "workers": "[]"}  # of outputs; the others' is empty
LOCKED = m.SecurityContext(allow_privilege_escalation=False, read_only_root_filesystem=True, capabilities=m.Capabilities(drop=["ALL"]))
# The user stands on the pod alone: init and wait must have main's, or they cannot read its files.
POD = m.PodSecurityContext(
    run_as_non_root=True, run_as_user=1000, run_as_group=1000, fs_group=1000, seccomp_profile=m.SeccompProfile(type="RuntimeDefault")
)
# What a workflow of ours, or around ours, says of all its pods.
PODS: dict[str, Any] = {
    "service_account_name": NAME,
    "automount_service_account_token": False,
    "executor": m.ExecutorConfig(service_account_name=f"{NAME}-executor"),
    "security_context": POD,
    "pod_metadata": m.Metadata(labels={"app.kubernetes.io/part-of": NAME}),
}


# --- rendering ------------------------------------------------------------------------------------


def parameters() -> list[Parameter]:
    """Give what a workflow is told; the chart's values go over what stands here."""
    return [
        Parameter(name="config", description="address of the config in the store, a dataset's YAML file in the image, or its text as JSON"),
        Parameter(name="store", value="s3://surefoot/store", description="s3://bucket/prefix that keeps everything"),
        Parameter(name="only-if-changed", value="false", description="true: where all is done, end in plan's pod, without a run's record"),
        Parameter(name="images", value="surefoot/", description="what stands before the stage in an image's name"),
        Parameter(name="tag", value="dev", description="version of the images"),
        Parameter(name="room", value=json.dumps(ROOM, sort_keys=True), description="per step: CPU asked for, memory in MiB"),
        Parameter(name="gpus", value=json.dumps(GPUS, sort_keys=True), description="per family: GPUs asked for; the resource's name"),
    ]


def render() -> dict[str, Any]:
    """Render ``dag.TASKS`` and the exit handler as a WorkflowTemplate."""
    with WorkflowTemplate(
        name=NAME,
        entrypoint="main",
        on_exit="exit",
        arguments=parameters(),
        parallelism=8,
        ttl_strategy=m.TTLStrategy(seconds_after_completion=7 * 24 * 3600),
        **PODS,
    ) as template:
        programs = {task.step: _program(task) for task in (dag.PLAN, *dag.TASKS, dag.CLOSE)}
        # A DAG per family: one that fails does not stop the others, and `argo retry` does again all that failed in it. In one DAG for all
        # of them it would leave a failed worker alone, if what comes after the workers went well for another family.
        with DAG(name=FAMILY, fail_fast=False, inputs=[Parameter(name=name) for name in ("config", "item", "todo", "workers")]) as family:
            for task in OF_FAMILY.values():
                _task(task, programs[task.step], "inputs.parameters")
        with DAG(name="main", fail_fast=False):
            for task in (dag.PLAN, *dag.TASKS):
                if task.step not in OF_FAMILY:
                    _task(task, programs[task.step], PLANNED)
            _families(family)
        with DAG(name="exit"):
            # Where plan refused, or found nothing to do and was asked to end there, there is no run to report on.
            planned = _when("(workflow.outputs?.parameters?.config ?? '') != ''", "'plan named no run to report on'")
            known = {"config": "{{workflow.outputs.parameters.config}}"}
            Task(name=dag.CLOSE.step, template=programs[dag.CLOSE.step], when=planned, arguments=known)
    rendered = template.to_dict()
    assert isinstance(rendered, dict)
    return rendered


def memoized() -> dict[str, Any]:
    """Render the form in which Argo remembers each result under the name that plan gives it: what is done is a hit, with its outputs.

    Plan's word is in the name: only what the store still holds has one that Argo may know. What has no result is skipped, as ever.
    """
    template = render()
    made = {task.step: task for task in dag.TASKS if not STEPS[task.step].effect_of}
    for program in _containers(template):
        if task := made.get(program["name"]):
            # The chart says the name: all namespaces' memories are in that of Argo's controller.
            program["memoize"] = {"key": f"{{{{= {_named(task, 'memos')} }}}}", "cache": {"configMap": {"name": NAME}}}
    for one in _tasks(template):
        if one["name"] in (FAMILY, *made):
            del one["when"]
        if one["name"] in made and (gate := STEPS[one["name"]].gate):
            step, output, value = gate
            one["when"] = _when(f"tasks.{step}.outputs.parameters.{output} == '{value}'", f"'the {output} is not {value}'")
        if one["name"] in OF_FAMILY and one["name"] != ENTRY:
            one["depends"] = " && ".join(dict.fromkeys([ENTRY, *one["depends"].split(" && ")]))
    return template


def _program(task: dag.Task) -> Container:
    """Render one step as a container template."""
    stage = task.step.split("-", maxsplit=1)[0]
    entry = "stages." + task.step.replace("-", ".")
    is_plan = task is dag.PLAN
    given = "{{workflow.parameters.config}}" if is_plan else "{{inputs.parameters.config}}"
    args = ["--config", given, "--store", "{{workflow.parameters.store}}"]
    args += ["--run", "{{workflow.name}}", "--only-if-changed", "{{workflow.parameters.only-if-changed}}"] if is_plan else []
    args += ["--item", "{{inputs.parameters.item}}"] if task.fan_out else []
    args += ["--status", "{{workflow.status}}"] if task is dag.CLOSE else []
    takes = ([] if is_plan else ["config"]) + (["item"] if task.fan_out else [])
    room = ROOM[task.step]
    return Container(
        name=task.step,
        image=f"{{{{workflow.parameters.images}}}}{stage}:{{{{workflow.parameters.tag}}}}",
        image_pull_policy="IfNotPresent",
        command=["python", "-m", entry],
        args=[*args, "--outputs", "/outputs"],
        env=[
            Env(name="HOME", value="/tmp"),  # noqa: S108 - an emptyDir: the root is read-only
            Env(name="SUREFOOT_ATTEMPT", value="{{retries}}"),
            *(SecretEnv(name=name, secret_name=NAME, secret_key=name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
            SecretEnv(name="AWS_ENDPOINT_URL", secret_name=NAME, secret_key="AWS_ENDPOINT_URL", optional=True),  # noqa: S106 - a key's name
            *(SecretEnv(name=name, secret_name=NAME, secret_key=name) for name in ("SUREFOOT_STUDY",) if stage in ("plan", "search")),
        ],
        inputs=[Parameter(name=name) for name in takes],
        outputs=[*_parameters(task), *_artifacts(task)],
        # /outputs outlives a container that is killed for memory; a file in the container's own layer would not.
        volumes=[EmptyDirVolume(name="outputs", mount_path="/outputs"), EmptyDirVolume(name="tmp", mount_path="/tmp")],  # noqa: S108
        resources=Resources(cpu_request=str(room["cpu"]), memory_request=f"{room['memory']}Mi", memory_limit=f"{room['memory']}Mi"),
        security_context=LOCKED,
        retry_strategy=_retry(task),
        pod_spec_patch=_patch(task),
        synchronization=_mutex(task) if task.alone else None,
        active_deadline_seconds=task.deadline_seconds,
    )


def _retry(task: dag.Task) -> RetryStrategy:
    """Say when, and how often, a step is tried again."""
    limit, expression = dag.RETRIES, f'lastRetry.status == "Error" || asInt(lastRetry.exitCode) in {list(dag.RETRIED)}'
    if task.fits:
        limit = MOST_RETRIES
        expression = f"({expression}) && (asInt(retries) < {dag.RETRIES} || asFloat(lastRetry.duration) >= {LIVED_SECONDS})"
    backoff = m.Backoff(duration=f"{dag.BACKOFF_SECONDS}s", factor=2, cap="1m")
    return RetryStrategy(limit=str(limit), backoff=backoff, expression=expression)


def _patch(task: dag.Task) -> str:
    """Patch a pod with the room that the workflow's parameter gives, half of it more on the first retries, and with its family's GPUs."""
    # Backticks, since quotes would be escaped twice: this is JSON in JSON.
    asked = f"jsonpath(workflow.parameters.room, `$['{task.step}']"
    times = f"(asInt(retries) < {dag.RETRIES} ? asInt(retries) : {dag.RETRIES})" if task.fits else "asInt(retries)"
    memory = {"memory": f"{{{{= asInt({asked}.memory`) * (2 + {times}) / 2) }}}}Mi"}
    cpu = {"cpu": f"{{{{= {asked}.cpu`) }}}}"}
    count = f"jsonpath(workflow.parameters.gpus, {_of_item('')})"
    # Null, which leaves the line out: even 0 of them would give the pod the tolerations of a node with GPUs in some clusters.
    gpus = f"{{{{= {count} > 0 ? {count} : `null` }}}}"
    gpu = {"{{= jsonpath(workflow.parameters.gpus, `$.resource`) }}": gpus} if task.fits else {}
    patch = json.dumps({"containers": [{"name": "main", "resources": {"requests": {**cpu, **memory}, "limits": {**memory, **gpu}}}]})
    return patch.replace(f'"{gpus}"', gpus)


def _mutex(task: dag.Task) -> m.Synchronization:
    """Hold a mutex while a step is at work, its attempts and pauses included: another run then finds the work done."""
    return m.Synchronization(mutexes=[m.Mutex(name=f"{task.step}-{{{{= {_named(task, 'locks')} }}}}")])


def _named(task: dag.Task, names: str) -> str:
    """Write what gives the name that plan has for a step's work: of a global output, since Argo asks where a task's own is not known."""
    mine = _of_item(f"{task.step}/") if task.fan_out else f"`$['{task.step}']`"
    return f"jsonpath(workflow.outputs.parameters.{names}, {mine})"


def _parameters(task: dag.Task) -> list[Parameter]:
    # The exit handler, mutexes and memories see no task's outputs, only global ones; so do people, by `argo get`.
    seen_everywhere = {"config", "locks", "memos"} if task is dag.PLAN else {*dag.CLOSE.outputs} if task is dag.CLOSE else set()
    return [
        Parameter(
            name=name,
            global_name=name if name in seen_everywhere else None,
            value_from=m.ValueFrom(path=f"/outputs/{name}", default=DEFAULTS.get(name, "")),
        )
        for name in ((() if task in (dag.PLAN, dag.CLOSE) else ("state",)) + task.outputs)
    ]


def _artifacts(task: dag.Task) -> list[Artifact]:
    return [Artifact(name=Path(name).stem, path=f"/outputs/{name}", optional=True, archive=NoneArchiveStrategy()) for name in task.files]


def _task(task: dag.Task, program: Container, known: str) -> None:
    """Render a step as a task; ``known`` is where plan's words are."""
    words: dict[str, Any] = {}
    if task is not dag.PLAN:
        words["arguments"] = {"config": f"{{{{{known}.config}}}}"}
        words["depends"] = _depends(task)
        words["when"] = _when(_has_work(task, known), _why_not(task, known))
    if task.fan_out:
        words["arguments"]["item"] = f"{{{{{known}.item}}}}"
    if task.fan_out == "workers":
        words["with_param"] = f"{{{{{known}.workers}}}}"
        words["arguments"]["item"] = f'{{"family": "{{{{= jsonpath({known}.item, `$.family`) }}}}", "worker": "{{{{item}}}}"}}'
    Task(name=task.step, template=program, **words)


def _families(family: DAG) -> None:
    """Render the task that does for each family all that is done for it by itself."""
    before = [name for task in OF_FAMILY.values() for name in task.depends if name not in OF_FAMILY]
    handed = {name: f"{{{{{PLANNED}.{name}}}}}" for name in ("config", "todo", "workers")}
    Task(
        name=FAMILY,
        template=family,
        depends=" && ".join(["plan", *before]),
        when=_when(" || ".join(_has_work(task, PLANNED) for task in OF_FAMILY.values()), f"'{IS_THERE}'"),
        with_param=f"{{{{{PLANNED}.families}}}}",
        arguments={**handed, "item": "{{item}}"},
    )


def _depends(task: dag.Task) -> str | None:
    """Say what a task waits for, in the DAG where it stands: plan, where it is not in a family's."""
    is_inside = task.step in OF_FAMILY
    before = [name for name in task.depends if name in OF_FAMILY]
    if not is_inside:
        before = [FAMILY if name in OF_FAMILY else name for name in task.depends if name != "plan"]
    waits = [_ended(name) if task.ended else name for name in before]
    return " && ".join(waits if is_inside else ["plan", *waits]) or None


def _ended(step: str) -> str:
    # A list that is empty makes a fan-out Skipped.
    return f"({step}.Succeeded || {step}.Failed || {step}.Errored || {step}.Skipped)"


def _of_item(label: str) -> str:
    """Write the path of what is said of an item's family."""
    return f"`$['{label}` + jsonpath(inputs.parameters.item, `$.family`) + `']`"


def _when(has_work: str, why_not: str) -> str:
    """Write a condition that is shown, where it is false, with the reason in it: when ''...' == 'run'' evaluated false."""
    return f"'{{{{= {has_work} ? 'run' : {why_not} }}}}' == 'run'"


def _said(step: str, known: str) -> str:
    label = f"`$['{step}']`" if known == PLANNED else _of_item(f"{step}/")
    return f"jsonpath({known}.todo, {label})"


def _has_work(task: dag.Task, known: str) -> str:
    """Ask plan's word, of one family where there is one, and of a gate the output that it waits for (plan knows it if that is skipped)."""
    gate, said = STEPS[task.step].gate, _said(task.step, known)
    if gate is None:
        return f"{said} == 'run'"
    step, output, value = gate
    return f"{said} == 'run' && ({_said(step, known)} != 'run' || tasks.{step}.outputs.parameters.{output} == '{value}')"


def _why_not(task: dag.Task, known: str) -> str:
    gate = STEPS[task.step].gate
    return f"{_said(task.step, known)} == 'done' ? '{IS_THERE}' : 'the {gate[1]} is not {gate[2]}'" if gate else f"'{IS_THERE}'"


def text(template: dict[str, Any]) -> str:
    """Give a template as JSON: the same bytes from every version of Hera, and no bare ``n`` that reads as a boolean."""
    return json.dumps(template, indent=2, sort_keys=True) + "\n"


# --- what argo lint does not see ------------------------------------------------------------------


def check(template: dict[str, Any]) -> list[str]:
    """Find the faults that ``argo lint`` passes and that hang, hide or repeat work at run time. No finding: an empty list."""
    return [finding for one in CHECKS for finding in one(template)]


def _containers(template: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (one for one in template["spec"]["templates"] if "container" in one)


def _tasks(template: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (task for one in template["spec"]["templates"] if "dag" in one for task in one["dag"]["tasks"])


def accounts(template: dict[str, Any]) -> Iterator[str]:
    """Give the executor an account of its own, since main has no token; without one the workflow errs at run time."""
    spec = template["spec"]
    if spec.get("automountServiceAccountToken") is not False:
        yield "spec: automountServiceAccountToken is not false"
    if not spec.get("executor", {}).get("serviceAccountName"):
        yield "spec: executor.serviceAccountName is missing"


def entries(template: dict[str, Any]) -> Iterator[str]:
    """Where results are hits, each task names its DAG's entry in its depends, and that is none: Argo hangs after a hit otherwise."""
    hits = {one["name"] for one in _containers(template) if "memoize" in one}
    for entry, name in (("plan", "main"), *([(ENTRY, FAMILY)] if hits else [])):
        for task in next(one["dag"]["tasks"] for one in template["spec"]["templates"] if one["name"] == name):
            if task["name"] != entry and entry not in re.findall(r"[\w-]+", task.get("depends", "")):
                yield f"{task['name']}: its depends does not name {entry}"
        if entry in hits:
            yield f"{entry}: is memoized, and the entry of its DAG"


def memories(template: dict[str, Any]) -> Iterator[str]:
    """Name what Argo remembers by the result that plan found: Argo never looks whether it is still there. An effect is no result."""
    for one in _containers(template):
        if (memoize := one.get("memoize")) and one["name"] in STEPS:
            item = "jsonpath(inputs.parameters.item," if "item" in str(one.get("inputs")) else f"`$['{one['name']}']`"
            if not memoize["key"].startswith("{{= jsonpath(workflow.outputs.parameters.memos, ") or item not in memoize["key"]:
                yield f"{one['name']}: its memory is not named by its result"
            if STEPS[one["name"]].effect_of:
                yield f"{one['name']}: is memoized, and has no result"


def joins(template: dict[str, Any]) -> Iterator[str]:
    """Take each end of a fan-out, Skipped too, and never its aggregate, which hangs when no child succeeded."""
    fanned = [task["name"] for task in _tasks(template) if "withParam" in task or "withItems" in task]
    for task in _tasks(template):
        for name in fanned:
            said = task.get("depends", "")
            if f"{name}." in said and not all(f"{name}.{end}" in said for end in ("Succeeded", "Failed", "Errored", "Skipped")):
                yield f"{task['name']}: its depends does not take every end of {name}"
            if f"tasks.{name}.outputs" in json.dumps(task):
                yield f"{task['name']}: reads the aggregate of {name}"


def chains(template: dict[str, Any]) -> Iterator[str]:
    """No fan-out follows another one: a retry leaves a failed child alone, where what comes after it succeeded for another child."""
    for one in (one for one in template["spec"]["templates"] if "dag" in one):
        fanned = {task["name"]: re.findall(r"[\w-]+", task.get("depends", "")) for task in one["dag"]["tasks"] if "withParam" in task}
        for name, words in fanned.items():
            yield from (f"{name}: is a fan-out and follows another one, {word}" for word in dict.fromkeys(words) if word in fanned)


def retries(template: dict[str, Any]) -> Iterator[str]:
    """Each container says how often, how soon and after which exit codes it is tried again."""
    for one in _containers(template):
        retry = one.get("retryStrategy", {})
        if not re.fullmatch(r"\d+", str(retry.get("limit", ""))):
            yield f"{one['name']}: its retry has no limit"
        expression = retry.get("expression", "")
        if expression and not _parses(expression):
            yield f"{one['name']}: its retry's expression does not parse"
        if not expression or "exitCode" in re.sub(r"asInt\(lastRetry\.exitCode\)", "", expression):
            yield f"{one['name']}: its retry does not ask asInt(lastRetry.exitCode)"
        if "duration" in re.sub(r"asFloat\(lastRetry\.duration\)", "", expression):
            yield f"{one['name']}: its retry does not ask asFloat(lastRetry.duration), which may have decimals"
        if not retry.get("backoff", {}).get("duration"):
            yield f"{one['name']}: its back-off has no duration"


def commands(template: dict[str, Any]) -> Iterator[str]:
    """Each container names its command: the controller asks a registry for it otherwise."""
    return (f"{one['name']}: its container has no command" for one in _containers(template) if not one["container"].get("command"))


def deadlines(template: dict[str, Any]) -> Iterator[str]:
    """Each container ends some day."""
    return (f"{one['name']}: has no deadline" for one in _containers(template) if not one.get("activeDeadlineSeconds"))


def outputs(template: dict[str, Any]) -> Iterator[str]:
    """Each output has a default or is optional: a good step whose file is missing would run again."""
    for one in _containers(template):
        given = one.get("outputs", {})
        for parameter in given.get("parameters", []):
            if "default" not in parameter["valueFrom"]:
                yield f"{one['name']}: output {parameter['name']} has no default"
        for artifact in given.get("artifacts", []):
            if not artifact.get("optional"):
                yield f"{one['name']}: output {artifact['name']} is not optional"


def volumes(template: dict[str, Any]) -> Iterator[str]:
    """Each mounted volume is there, and outputs are on one."""
    for one in _containers(template):
        known = {volume["name"] for volume in [*one.get("volumes", []), *template["spec"].get("volumes", [])]}
        mounts = one["container"].get("volumeMounts", [])
        for mount in mounts:
            if mount["name"] not in known:
                yield f"{one['name']}: volume {mount['name']} is not there"
        if not any(mount["mountPath"] == "/outputs" for mount in mounts):
            yield f"{one['name']}: /outputs is on no volume"


def restricted(template: dict[str, Any]) -> Iterator[str]:
    """Pods satisfy the Pod Security level restricted, with a read-only root; the user stands on the pod alone."""
    if template["spec"].get("securityContext") != POD.model_dump(by_alias=True, exclude_none=True):
        yield "spec: the pods' securityContext is another"
    for one in _containers(template):
        if one["container"].get("securityContext") != LOCKED.model_dump(by_alias=True, exclude_none=True):
            yield f"{one['name']}: its securityContext is another"


def patches(template: dict[str, Any]) -> Iterator[str]:
    """Each podSpecPatch is JSON that patches main, and grows by retries alone: the last exit code is lost by an eviction."""
    for one in _containers(template):
        patch = one.get("podSpecPatch", "{}")
        try:
            whole = json.loads(re.sub(r"\{\{=.*?\}\}", "0", patch))
            patched = whole.get("containers", [])
        except (ValueError, AttributeError):
            yield f"{one['name']}: its podSpecPatch is no JSON object"
            continue
        if set(whole) - {"containers"} or any(
            set(container) - {"name", "resources"} or container.get("name") != "main" for container in patched
        ):
            yield f"{one['name']}: its podSpecPatch patches more than main's resources"
        if any(set(container.get("resources", {})) - {"requests", "limits"} for container in patched):
            yield f"{one['name']}: its podSpecPatch gives main something else than requests and limits"
        if "lastRetry" in patch:
            yield f"{one['name']}: its podSpecPatch asks lastRetry"


def rooms(template: dict[str, Any]) -> Iterator[str]:
    """No container asks for more than its limit: its pod would be refused, attempt after attempt."""
    for one in _containers(template):
        resources = one["container"].get("resources", {})
        limits = resources.get("limits", {})
        for name, asked in resources.get("requests", {}).items():
            if name in limits and _quantity(asked) > _quantity(limits[name]):
                yield f"{one['name']}: asks for more {name} than its limit"


def _quantity(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(m|[kMGT]i?|)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1.0, "m": 0.001}.get(unit, (1024.0 if unit[1:] else 1000.0) ** ("kMGT".find(unit[:1]) + 1))


def memos(template: dict[str, Any]) -> Iterator[str]:
    """Each memoized template names its cache, and has a key and an age that Argo takes: else its node errs at run time."""
    for one in (one for one in template["spec"]["templates"] if "memoize" in one):
        memo = one["memoize"]
        if not memo.get("cache", {}).get("configMap", {}).get("name"):
            yield f"{one['name']}: is memoized without a cache"
        if not re.fullmatch(r"[a-zA-Z0-9][-a-zA-Z0-9]*", re.sub(r"\{\{.*?\}\}", "x", memo.get("key", ""))):
            yield f"{one['name']}: its memo's key has other letters than a-z, A-Z, 0-9 and -"
        if not re.fullmatch(r"((\d+(\.\d+)?(ms|s|m|h))+)?", memo.get("maxAge", "")):
            yield f"{one['name']}: its memo's age is no duration such as 720h"


def conditions(template: dict[str, Any]) -> Iterator[str]:
    """Each ``when`` parses: one that does not makes the task an error."""
    for task in _tasks(template):
        if not _parses(re.sub(r"\{\{.*?\}\}", "x", task.get("when", "x"))):
            yield f"{task['name']}: its when does not parse"


def expressions(template: dict[str, Any]) -> Iterator[str]:
    """Each ``{{= ... }}`` parses and reads what there is: what cannot be resolved is left standing, and fails or hangs at run time."""
    spec = template["spec"]
    everywhere = {"retries", "item", "lastRetry.status", "lastRetry.exitCode"}
    everywhere |= {f"workflow.{name}" for name in ("name", "namespace", "uid", "status", "creationTimestamp")}
    everywhere |= {f"workflow.parameters.{one['name']}" for one in spec.get("arguments", {}).get("parameters", [])}
    handed = {one["name"]: one.get("outputs", {}).get("parameters", []) for one in spec["templates"]}
    everywhere |= {f"workflow.outputs.parameters.{out['globalName']}" for outs in handed.values() for out in outs if "globalName" in out}
    for one in spec["templates"]:
        known = everywhere | {f"inputs.parameters.{given['name']}" for given in one.get("inputs", {}).get("parameters", [])}
        for task in one.get("dag", {}).get("tasks", []):
            known |= {f"tasks.{task['name']}.outputs.parameters.{out['name']}" for out in handed.get(task.get("template", ""), [])}
        for said in dict.fromkeys(re.findall(r"\{\{=(.*?)\}\}", "\n".join(_texts(one)))):
            if not _parses(said):
                yield f"{one['name']}: does not parse: {said.strip()}"
            elif unknown := [name for name in _names(said) if name not in known]:
                yield f"{one['name']}: reads {unknown[0]}, which is not there"


def _texts(document: Any) -> Iterator[str]:
    """Give every text in a document."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict | list):
        for one in document.values() if isinstance(document, dict) else document:
            yield from _texts(one)


def _bare(expression: str) -> str:
    """Give an expression without its strings, which are names then."""
    return re.sub(r"'[^']*'|`[^`]*`|\"[^\"]*\"", " text ", expression)


def _parses(expression: str) -> bool:
    """Tell whether an expression parses: it is one of Python's, but for some signs, in the part of the language that is used here."""
    said = _bare(expression).replace("??", " or ").replace("?.", ".").replace("&&", " and ").replace("||", " or ")
    said = re.sub(r"!(?!=)", " not ", said)
    if said.count("?") != said.count(":"):
        return False
    try:
        ast.parse(said.replace("?", " and ").replace(":", " or ").strip(), mode="eval")
    except SyntaxError:
        return False
    return True


def _names(expression: str) -> list[str]:
    """Give what an expression reads: its names, without functions and the words of the language."""
    names = re.findall(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?![\w.]*\()", _bare(expression).replace("?.", "."))
    return [name for name in names if name not in ("text", "in", "not", "and", "or", "nil", "true", "false")]


def mutexes(template: dict[str, Any]) -> Iterator[str]:
    """Name each mutex by the work that it guards: runs that do something else never wait, nor do the items of a fan-out for each other."""
    for one in _containers(template):
        for mutex in one.get("synchronization", {}).get("mutexes", []):
            wanted = ["workflow.outputs.parameters.locks", *(["inputs.parameters.item"] if "item" in str(one.get("inputs")) else [])]
            if not all(f"{word}," in mutex["name"] for word in wanted):
                yield f"{one['name']}: its mutex is not named by its work"


CHECKS: tuple[Callable[[dict[str, Any]], Iterator[str]], ...] = (
    accounts,
    entries,
    memories,
    joins,
    chains,
    retries,
    commands,
    deadlines,
    outputs,
    volumes,
    restricted,
    patches,
    rooms,
    memos,
    conditions,
    expressions,
    mutexes,
)


# --- submitting -----------------------------------------------------------------------------------


def submit(config: str, store: str, around: Workflow | None = None, **parameters: str) -> str:
    """Create a Workflow from the cluster's WorkflowTemplate, or one of your own ``around`` it, and give its name.

    Every parameter of the template is copied into the Workflow, since ``argo retry -p`` forgets those that it does not state.
    ``config`` is an address in ``store``; ``parameters`` go over the template's values. The Argo server, a token and the
    namespace are taken from ARGO_SERVER, ARGO_TOKEN and ARGO_NAMESPACE.

    Raises:
        ConfigError: the server's address is not given, or it refuses.
        NotNow: the server is not there for a minute.

    """
    server = service()
    found = retry("the workflow template", lambda: ask(lambda: server.get_workflow_template(NAME)))
    known = {parameter.name: parameter.value for parameter in (found.spec.arguments and found.spec.arguments.parameters) or []}
    given = {**known, **parameters, "config": config, "store": store}
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"WorkflowTemplate {NAME} knows no parameter {', '.join(unknown)}. Known: {', '.join(known)}.")
    workflow = around or Workflow(generate_name=f"{NAME}-", workflow_template_ref=m.WorkflowTemplateRef(name=NAME))
    workflow.arguments = [Parameter(name=name, value=value) for name, value in given.items()]
    workflow.name = workflow.name or f"{workflow.generate_name}{os.urandom(4).hex()}"  # its own: who asks again makes no second one
    built: Any = workflow.build()
    tries = itertools.count()

    def create() -> None:
        is_first = next(tries) == 0
        try:
            ask(lambda: server.create_workflow(m.WorkflowCreateRequest(workflow=built)))
        except AlreadyThere:
            if is_first:
                raise
            log.info("workflow.created", workflow=workflow.name, so="the answer to an earlier try was lost")

    retry("the workflow", create)
    return str(workflow.name)


class AlreadyThere(ConfigError):
    """There is a Workflow of that name."""


class _Session(requests.Session):
    """Does not wait for ever: a forwarded port can be open with nobody behind it."""

    @override
    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        return super().request(*arguments, **{"timeout": TIMEOUT, **options})


def service() -> WorkflowsService:
    """Give a client of the Argo server that ARGO_SERVER, ARGO_NAMESPACE and ARGO_TOKEN name.

    Raises:
        ConfigError: one of the first two is not set.

    """
    server, namespace = os.environ.get("ARGO_SERVER", ""), os.environ.get("ARGO_NAMESPACE", "")
    if missing := [name for name, value in (("ARGO_SERVER", server), ("ARGO_NAMESPACE", namespace)) if not value]:
        wanted = "Set ARGO_SERVER=https://host:2746, ARGO_NAMESPACE, and ARGO_TOKEN where the server asks for one."
        raise ConfigError(f"{' and '.join(missing)} not set. {wanted}")
    if "://" not in server:  # as the argo command takes it
        server = f"{'http' if os.environ.get('ARGO_SECURE') == 'false' else 'https'}://{server}"
    verify = os.environ.get("ARGO_INSECURE_SKIP_VERIFY") != "true"
    token = os.environ.get("ARGO_TOKEN")
    return WorkflowsService(server.rstrip("/") + "/", verify_ssl=verify, token=token, namespace=namespace, session=_Session())


def where() -> str:
    """Name the Argo server and the namespace."""
    return f"the Argo server {os.environ.get('ARGO_SERVER')}, namespace {os.environ.get('ARGO_NAMESPACE')}"


def ask[T](question: Callable[[], T]) -> T:
    """Ask the Argo server and say its refusals in words that help."""
    try:
        return question()
    except refused.NotFound as error:
        raise ConfigError(f"{where()}: {error}. Install the chart there: helm install surefoot charts/surefoot.") from error
    except (refused.Unauthorized, refused.Forbidden) as error:
        raise ConfigError(f"{where()}: {error}. Set ARGO_TOKEN to the token of an account that may use workflows there.") from error
    except refused.AlreadyExists as error:
        raise AlreadyThere(f"{where()}: {error}") from error
    except refused.BadRequest as error:
        raise ConfigError(f"{where()}: {error}") from error
    except (refused.HeraException, requests.RequestException) as error:
        raise NotNow(f"{where()}: {error}") from error


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        CHART_FILE.write_text(text(render()), encoding="utf-8")
        MEMOIZED_FILE.write_text(text(memoized()), encoding="utf-8")
    else:
        sys.stdout.write(text(render()))
