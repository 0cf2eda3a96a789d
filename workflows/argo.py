"""The DAG as an Argo WorkflowTemplate.

    python -m workflows.argo             prints the template
    python -m workflows.argo --write     writes both forms of it into the chart

The *skipping* form: plan says per step whether there is something to do, and ``when`` listens, so that what is done costs no
pod. The *memoized* form of the same DAG: a step that is done is a hit in Argo's memory, with its outputs. What looks odd here was
seen to hang, hide or repeat work otherwise; ``lint`` names each, with its reason.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    WorkflowTemplate,
)
from hera.workflows import models as m

from stages.common.contract import STEPS
from stages.families import NAMES
from workflows import dag

PLANNED = "tasks.plan.outputs.parameters"
NAME = "surefoot"  # of the WorkflowTemplate, its accounts and its Secret: one Surefoot per namespace
CHART_FILE = Path(__file__).parents[1] / "charts" / "surefoot" / "files" / "workflowtemplate.json"
MEMOIZED_FILE = CHART_FILE.with_name("memoized.json")

# Per step: CPU asked for, and memory in MiB (asked for and at most) of the first attempt. The chart's values go over it.
FIRST: dict[str, dict[str, str | int]] = {
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
# And what no attempt goes beyond, where each has half of the first one's memory more; scratch files in MiB, none asked for where 0.
ROOM = {step: {**room, "most": int(room["memory"]) * (2 + dag.RETRIES) // 2, "disk": 0} for step, room in FIRST.items()}
FAMILY = "family"  # the DAG of all that is done for each family by itself
OF_FAMILY = {task.step: task for task in dag.TASKS if task.fan_out}
ENTRY = next(iter(OF_FAMILY))  # of that DAG: never a hit, since it has no result
# Per family: how many of this resource a pod that fits its models asks for. The chart's values go over it.
GPUS: dict[str, str | int] = {"resource": "nvidia.com/gpu", **dict.fromkeys(NAMES, 0)}
WEEK = 7 * 24 * 3600  # seconds
IS_THERE = "its result is there"
# A pod that was taken away, as on spot nodes, did nothing wrong; where that was a fit's, what it saved is not begun anew.
TAKEN, MOST_RETRIES = (143, -1), 20
OVER = "active on the node longer than the specified deadline"  # kubelet's word: such a pod has the same codes
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
        Parameter(
            name="room", value=json.dumps(ROOM, sort_keys=True), description="per step: CPU asked for; memory and scratch disk in MiB"
        ),
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
        active_deadline_seconds=WEEK,
        ttl_strategy=m.TTLStrategy(seconds_after_completion=WEEK),
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
    for program in containers(template):
        if task := made.get(program["name"]):
            # The chart says the name: all namespaces' memories are in that of Argo's controller.
            program["memoize"] = {"key": f"{{{{= {_named(task, 'memos')} }}}}", "cache": {"configMap": {"name": NAME}}}
    for one in tasks(template):
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
    """Say when, and how often, a step is tried again: one that fits models more often, where its pod is taken before its time is over.

    What has used up its time goes on from what it saved, if it fits models; all else would begin anew, to end as it did.
    """
    in_time = f'!(lastRetry.message contains "{OVER}")'
    limit, expression = dag.RETRIES, f"asInt(lastRetry.exitCode) in {[*dag.RETRIED]} && {in_time}"
    if task.fits:
        others = f"asInt(retries) < {dag.RETRIES} && asInt(lastRetry.exitCode) in {[*dag.RETRIED]}"
        limit, expression = MOST_RETRIES, f"asInt(lastRetry.exitCode) in {[*TAKEN]} && {in_time} || {others}"
    expression = f'lastRetry.status == "Error" || {expression}'
    backoff = m.Backoff(duration=f"{dag.BACKOFF_SECONDS}s", factor=2, cap="1m")
    return RetryStrategy(limit=str(limit), backoff=backoff, expression=expression)


def _patch(task: dag.Task) -> str:
    """Patch a pod with the room that the workflow's parameter gives, more memory with each retry, and with its family's GPUs."""
    # Backticks, since quotes would be escaped twice: this is JSON in JSON.
    cpu, memory, most, disk = (
        f"jsonpath(workflow.parameters.room, `$['{task.step}'].{name}`)" for name in ("cpu", "memory", "most", "disk")
    )
    grown = f"{memory} * (2 + asInt(retries)) / 2"
    room = {"memory": f"{{{{= asInt({grown} < {most} ? {grown} : {most}) }}}}Mi"}
    # Null, which leaves the line out: even no GPU would give the pod the tolerations of a node with GPUs in some clusters.
    scratch = f"{{{{= {disk} > 0 ? asInt({disk} * 1048576) : `null` }}}}"
    room["ephemeral-storage"] = scratch
    count = f"jsonpath(workflow.parameters.gpus, {_of_item('')})"
    gpus = f"{{{{= {count} > 0 ? {count} : `null` }}}}"
    gpu = {"{{= jsonpath(workflow.parameters.gpus, `$.resource`) }}": gpus} if task.fits else {}
    resources = {"requests": {"cpu": f"{{{{= {cpu} }}}}", **room}, "limits": {**room, **gpu}}
    patch = json.dumps({"containers": [{"name": "main", "resources": resources}]})
    return patch.replace(f'"{gpus}"', gpus).replace(f'"{scratch}"', scratch)


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


def containers(template: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the templates of a workflow that are containers."""
    return (one for one in template["spec"]["templates"] if "container" in one)


def tasks(template: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the tasks of all its DAGs."""
    return (task for one in template["spec"]["templates"] if "dag" in one for task in one["dag"]["tasks"])


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        CHART_FILE.write_text(text(render()), encoding="utf-8")
        MEMOIZED_FILE.write_text(text(memoized()), encoding="utf-8")
    else:
        sys.stdout.write(text(render()))
