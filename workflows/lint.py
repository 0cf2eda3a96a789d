"""What ``argo lint`` passes and what hangs, hides or repeats work at run time, looked for in a WorkflowTemplate of ``argo``'s."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from stages.common.contract import STEPS
from workflows import argo


def check(template: dict[str, Any]) -> list[str]:
    """Find the faults that ``argo lint`` passes and that hang, hide or repeat work at run time. No finding: an empty list."""
    return [finding for one in CHECKS for finding in one(template)]


def accounts(template: dict[str, Any]) -> Iterator[str]:
    """Give the executor an account of its own, since main has no token; without one the workflow errs at run time."""
    spec = template["spec"]
    if spec.get("automountServiceAccountToken") is not False:
        yield "spec: automountServiceAccountToken is not false"
    if not spec.get("executor", {}).get("serviceAccountName"):
        yield "spec: executor.serviceAccountName is missing"


def entries(template: dict[str, Any]) -> Iterator[str]:
    """Where results are hits, each task names its DAG's entry in its depends, and that is none: Argo hangs after a hit otherwise."""
    hits = {one["name"] for one in argo.containers(template) if "memoize" in one}
    for entry, name in (("plan", "main"), *([(argo.ENTRY, argo.FAMILY)] if hits else [])):
        for task in next(one["dag"]["tasks"] for one in template["spec"]["templates"] if one["name"] == name):
            if task["name"] != entry and entry not in re.findall(r"[\w-]+", task.get("depends", "")):
                yield f"{task['name']}: its depends does not name {entry}"
        if entry in hits:
            yield f"{entry}: is memoized, and the entry of its DAG"


def memories(template: dict[str, Any]) -> Iterator[str]:
    """Name what Argo remembers by the result that plan found: Argo never looks whether it is still there. An effect is no result."""
    for one in argo.containers(template):
        if (memoize := one.get("memoize")) and one["name"] in STEPS:
            item = "jsonpath(inputs.parameters.item," if "item" in str(one.get("inputs")) else f"`$['{one['name']}']`"
            if not memoize["key"].startswith("{{= jsonpath(workflow.outputs.parameters.memos, ") or item not in memoize["key"]:
                yield f"{one['name']}: its memory is not named by its result"
            if STEPS[one["name"]].effect_of:
                yield f"{one['name']}: is memoized, and has no result"


def joins(template: dict[str, Any]) -> Iterator[str]:
    """Take each end of a fan-out, Skipped too, and never its aggregate, which hangs when no child succeeded."""
    fanned = [task["name"] for task in argo.tasks(template) if "withParam" in task or "withItems" in task]
    for task in argo.tasks(template):
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
    for one in argo.containers(template):
        retry = one.get("retryStrategy", {})
        if not re.fullmatch(r"\d+", str(retry.get("limit", ""))):
            yield f"{one['name']}: its retry has no limit"
        expression = retry.get("expression", "")
        if expression and not _parses(expression):
            yield f"{one['name']}: its retry's expression does not parse"
        if not expression or "exitCode" in re.sub(r"asInt\(lastRetry\.exitCode\)", "", expression):
            yield f"{one['name']}: its retry does not ask asInt(lastRetry.exitCode)"
        if re.search(r"\bretries\b", expression.replace("asInt(retries)", "")):
            yield f"{one['name']}: its retry does not ask asInt(retries)"
        if not retry.get("backoff", {}).get("duration"):
            yield f"{one['name']}: its back-off has no duration"


def commands(template: dict[str, Any]) -> Iterator[str]:
    """Each container names its command: the controller asks a registry for it otherwise."""
    return (f"{one['name']}: its container has no command" for one in argo.containers(template) if not one["container"].get("command"))


def deadlines(template: dict[str, Any]) -> Iterator[str]:
    """Each container ends some day."""
    return (f"{one['name']}: has no deadline" for one in argo.containers(template) if not one.get("activeDeadlineSeconds"))


def outputs(template: dict[str, Any]) -> Iterator[str]:
    """Each output has a default or is optional: a good step whose file is missing would run again."""
    for one in argo.containers(template):
        given = one.get("outputs", {})
        for parameter in given.get("parameters", []):
            if "default" not in parameter["valueFrom"]:
                yield f"{one['name']}: output {parameter['name']} has no default"
        for artifact in given.get("artifacts", []):
            if not artifact.get("optional"):
                yield f"{one['name']}: output {artifact['name']} is not optional"


def volumes(template: dict[str, Any]) -> Iterator[str]:
    """Each mounted volume is there, and outputs are on one."""
    for one in argo.containers(template):
        known = {volume["name"] for volume in [*one.get("volumes", []), *template["spec"].get("volumes", [])]}
        mounts = one["container"].get("volumeMounts", [])
        for mount in mounts:
            if mount["name"] not in known:
                yield f"{one['name']}: volume {mount['name']} is not there"
        if not any(mount["mountPath"] == "/outputs" for mount in mounts):
            yield f"{one['name']}: /outputs is on no volume"


def restricted(template: dict[str, Any]) -> Iterator[str]:
    """Pods satisfy the Pod Security level restricted, with a read-only root; the user stands on the pod alone."""
    if template["spec"].get("securityContext") != argo.POD.model_dump(by_alias=True, exclude_none=True):
        yield "spec: the pods' securityContext is another"
    for one in argo.containers(template):
        if one["container"].get("securityContext") != argo.LOCKED.model_dump(by_alias=True, exclude_none=True):
            yield f"{one['name']}: its securityContext is another"


def patches(template: dict[str, Any]) -> Iterator[str]:
    """Each podSpecPatch is JSON that patches main, and grows by retries alone: the last exit code is lost by an eviction."""
    for one in argo.containers(template):
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
    for one in argo.containers(template):
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
    for task in argo.tasks(template):
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
    said = re.sub(r"!(?!=)", " not ", said.replace(" contains ", " in "))
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
    for one in argo.containers(template):
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
