"""A run in the cluster, seen from here: how it stands, why a step was skipped or failed, what its steps log.

A run is known by its Workflow's name, as ``surefoot submit`` prints it, or by the one that its record has in the store.
"""

import functools
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import requests
from hera import exceptions as refused
from hera.workflows import models as m

from stages.common import artifact, log
from stages.common.errors import NotNow, UsageError
from stages.common.store import Store, retry
from workflows import argo, cluster, dag

FIELDS = "metadata.name,spec,status.phase,status.message"  # a Workflow of many pods is a large object
ALL = f"{FIELDS},status.nodes,status.startedAt,status.finishedAt"
ENDED = ("Succeeded", "Failed", "Error")
WORDS = {"Pending": "waits", "Running": "runs", "Failed": "failed", "Error": "failed", "Skipped": "skipped", "Omitted": "omitted"}
ORDER = [task.step for task in (dag.PLAN, *dag.TASKS, dag.CLOSE)]
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")  # of a Workflow
STARTING = ("PodInitializing", "ContainerCreating")
PAUSE = 2.0  # seconds between two looks
# What Argo calls a node: the step; its number and its value in a fan-out; its attempt.
NODE = re.compile(r"(?:.*\.)?(?P<step>[\w-]+)(?:\(\d+:(?P<value>[^()]*)\))?(?:\((?P<attempt>\d+)\))?")
SKIPPED = re.compile(r"when ''(.*)' == 'run'' evaluated false")
EXECUTOR = re.compile(r'^time="[^"]*" level=\w+ .* argo=true')  # lines that Argo writes into a step's log
EXIT = re.compile(r"(?:main: )?Error \(exit code (-?\d+)\)(?:: (.*))?", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """How a step, with its item, stands in a Workflow."""

    label: str  # train/xgboost; search-work/xgboost/0 is a worker
    state: str  # made, done (was there), gated, skipped, failed, omitted; waits, runs
    attempts: int
    seconds: float  # from its first attempt's start to its last one's end
    why: str  # it is skipped, failed or waiting; how far it is, where it runs
    code: int | None  # the exit code of the last attempt that failed

    def __str__(self) -> str:
        tried = f"{self.attempts} {'attempt ' if self.attempts == 1 else 'attempts'} {self.seconds:>7.0f} s" if self.attempts else " " * 20
        return f"{self.label:<26} {self.state:<8} {tried}  {self.why}".rstrip()


@dataclass(frozen=True)
class Seen:
    """A Workflow as it is now."""

    name: str
    phase: str
    message: str
    store: str  # its address
    seconds: float
    steps: tuple[Row, ...]
    told: dict[str, str]  # headline, verdict, version and scores, as far as they are known

    @property
    def code(self) -> int:
        """Give 0 unless it failed: then the exit code of the first step that did; 1 where there is none, as of a run that was stopped."""
        if self.phase not in ("Failed", "Error"):
            return 0
        return next((row.code for row in self.steps if row.state == "failed" and row.code and row.code > 0), 1)


# --- how it stands --------------------------------------------------------------------------------


def look(name: str) -> Seen | None:
    """Ask the Argo server how a run stands; None where it knows no such Workflow.

    Raises:
        ConfigError: the server's address is not given, or it refuses.
        NotNow: the server is not there right now.

    """
    found = _workflow(name, ALL)
    return None if found is None else _seen(found)


def _workflow(name: str, fields: str) -> m.Workflow | None:
    server = cluster.service()
    if not NAME.fullmatch(name):
        return None

    def question() -> m.Workflow | None:
        try:
            return server.get_workflow(name, fields=fields)
        except refused.NotFound:
            return None

    return cluster.ask(question)


def _seen(workflow: m.Workflow) -> Seen:
    status = workflow.status or m.WorkflowStatus()
    given = {one.name: one.value for one in (workflow.spec.arguments and workflow.spec.arguments.parameters) or []}
    nodes = list((status.nodes or {}).values())
    known = {
        one.name: one.value for node in sorted(nodes, key=_end) for one in (node.outputs and node.outputs.parameters) or [] if one.value
    }
    return Seen(
        name=str(workflow.metadata.name),
        phase=status.phase or "Pending",
        message=status.message or "",
        store=str(given.get("store", "")),
        seconds=_seconds(status),
        steps=tuple(_rows(nodes)),
        told={name: str(known[name]) for name in dag.CLOSE.outputs if name in known},
    )


def _rows(nodes: list[m.NodeStatus]) -> Iterator[Row]:
    """Give a row per step and item that has begun, or was skipped, in the order of their beginnings."""
    retried = {node.name for node in nodes if node.type == "Retry"}
    attempts: dict[str, list[m.NodeStatus]] = {}
    for node in sorted(nodes, key=_begin):
        whole = re.sub(r"\(\d+\)$", "", node.name)
        if node.type == "Pod" and whole in retried:
            attempts.setdefault(whole, []).append(node)
    for node in sorted(nodes, key=_begin):
        alone = node.type == "Pod" and re.sub(r"\(\d+\)$", "", node.name) not in retried
        if node.type in ("Retry", "Skipped") or alone or node.phase == "Omitted":
            yield _row(node, [node] if alone else attempts.get(node.name, []))


def _row(node: m.NodeStatus, pods: list[m.NodeStatus]) -> Row:
    last = pods[-1] if pods else node
    given = {one.name: one.value for one in (node.outputs and node.outputs.parameters) or []}
    state = WORDS.get(node.phase or "Pending", given.get("state") or "made")
    if node.phase == "Running" and last.phase == "Pending":
        state = "waits"
    # One with attempts worked, and found in the end what it had given Argo to remember itself.
    if node.memoization_status is not None and node.memoization_status.hit and pods in ([], [node]):
        return Row(label(node.name), "skipped", 0, 0.0, argo.IS_THERE, None)
    message = (node.message if node.phase in ("Skipped", "Omitted") else last.message or node.message) or ""
    failed = next((pod for pod in reversed(pods) if pod.outputs and pod.outputs.exit_code not in (None, "0")), None)
    code = int(failed.outputs.exit_code) if failed and failed.outputs and failed.outputs.exit_code else None
    why = (last.progress or "") if state == "runs" and last.progress != "0/1" else _why(state, message)  # which Argo says of all pods
    return Row(label(node.name), str(state), len(pods), _seconds(node), why, code)


def _why(state: str, message: str) -> str:
    """Say in a line why a step is skipped, failed or waiting."""
    if state not in ("skipped", "failed", "waits", "omitted") or message in STARTING:
        return ""
    if found := SKIPPED.fullmatch(message):
        return found[1]
    if message == "Skipped, empty params":  # what Argo says of a fan-out whose condition is false
        return argo.IS_THERE
    if found := EXIT.fullmatch(message):
        return f"exit {found[1]}: {' '.join((found[2] or 'it said nothing').split())}"
    return " ".join(message.split())


def label(node: str) -> str:
    """Name a node as people name a step with its item: ``train/xgboost``, ``search-work/xgboost/0``."""
    family = re.search(rf"\b{argo.FAMILY}\(\d+:family:([\w-]+)\)\.", node)
    found = NODE.fullmatch(node.partition(".")[2] or node)
    if found is None:
        return node
    return "/".join(filter(None, (found["step"], family and family[1], (found["value"] or "").removeprefix("family:"))))


def _begin(node: m.NodeStatus) -> tuple[str, int, str]:
    step = label(node.name).partition("/")[0]
    return (str(node.started_at.root) if node.started_at else "", ORDER.index(step) if step in ORDER else -1, node.name)


def _end(node: m.NodeStatus) -> str:
    return str(node.finished_at.root) if node.finished_at else ""


def _seconds(one: m.NodeStatus | m.WorkflowStatus) -> float:
    if one.started_at is None:
        return 0.0
    until = one.finished_at.root if one.finished_at else datetime.now(UTC)
    return (until - one.started_at.root).total_seconds()


# --- until its end --------------------------------------------------------------------------------


def wait(name: str, pause: float = PAUSE, tell: Callable[[str], None] | None = None) -> int:
    """Wait until a Workflow has ended; give 0 where it succeeded, else the code of the step that failed, and say why in the log.

    ``tell`` is given a line whenever a step comes to another state.

    Raises:
        UsageError: there is no such Workflow, or no longer.

    """
    told: dict[str, tuple[str, int, str]] = {}
    while True:
        found = retry(f"the state of {name}", functools.partial(_workflow, name, ALL if tell else FIELDS))
        if found is None:
            raise UsageError(f"{name}: there is no such run in {cluster.where()}; perhaps it was deleted.")
        seen = _seen(found)
        for row in seen.steps if tell else ():
            now = (row.state, row.attempts, "" if row.state == "runs" else row.why)
            if tell and told.get(row.label) != now:
                told[row.label] = now
                tell(str(row))
        if seen.phase == "Succeeded":
            log.info("workflow.succeeded", workflow=name)
            return 0
        if seen.phase in ENDED:
            seen = look(name) or seen
            log.error(
                "workflow.failed", workflow=name, phase=seen.phase, exit=seen.code, message=seen.message, so=f"surefoot status {name}"
            )
            return seen.code
        time.sleep(pause)


# --- what its steps log ---------------------------------------------------------------------------


def logs(name: str, step: str | None, tell: Callable[[str], None], *, follow: bool = False) -> None:
    """Tell what a run's steps log, each line after its step's name; with ``follow``, until the run has ended.

    Raises:
        UsageError: there is no such run, or no such step in it.

    """
    seen, known = _known(name)
    if step and not follow and not any(_is_of(one, step) for one in known.values()):
        raise UsageError(f"{name}: no pod of a step {step}. Those that had pods: {', '.join(dict.fromkeys(known.values())) or 'none yet'}.")
    said = False
    for pod, line in _lines(name, follow=follow):
        if pod not in known:
            _, known = _known(name)
            known.setdefault(pod, pod)
        if (not step or _is_of(known[pod], step)) and not EXECUTOR.search(line):
            tell(f"{known[pod]:<26} {line}")
            said = True
    if not said and seen.phase in ENDED:
        log.warning("run.no_logs", run=name, why="its pods are gone, and their logs with them")


def _is_of(label: str, step: str) -> bool:
    return label == step or label.startswith(f"{step}/")


def _known(name: str) -> tuple[Seen, dict[str, str]]:
    """Give a run, and its steps by the names of their pods: the Workflow's, the template's, and the hash in the node's id."""
    found = _workflow(name, ALL)
    if found is None:
        raise UsageError(f"{name}: there is no such run in {cluster.where()}.")
    nodes = (found.status and found.status.nodes) or {}
    pods = [node for node in nodes.values() if node.type == "Pod"]
    return _seen(found), {f"{name}-{node.template_name}-{node.id.rpartition('-')[2]}": label(node.name) for node in pods}


def _lines(name: str, *, follow: bool) -> Iterator[tuple[str, str]]:
    """Stream the log's lines, each with its pod."""
    server = cluster.service()
    asked = {"logOptions.container": "main", "logOptions.follow": json.dumps(follow)}

    def question() -> requests.Response:
        answer = server.session.get(
            f"{server.host}api/v1/workflows/{server.namespace}/{name}/log",
            params=asked,
            headers={"Authorization": server.token} if server.token else {},
            verify=server.verify_ssl,
            stream=True,
            timeout=(cluster.TIMEOUT[0], None if follow else cluster.TIMEOUT[1]),  # a step may say nothing for long
        )
        if not answer.ok:
            raise refused.exception_from_server_response(answer)
        return answer

    answer = cluster.ask(question)
    line = b""
    try:
        for line in filter(None, answer.iter_lines()):
            entry = json.loads(line)["result"]
            yield str(entry["podName"]), str(entry.get("content", ""))
    except (requests.RequestException, ValueError, LookupError, TypeError, AttributeError) as error:
        raise NotNow(f"the log of {name} breaks off after {line[:200]!r}: {error}") from error


# --- in the store ---------------------------------------------------------------------------------


def record(store: Store, name: str) -> dict[str, Any] | None:
    """Find a run's record in the store, by its name or its Workflow's."""
    for key in reversed([key for key in store.list("runs/") if key.endswith("/record.json")]):
        run = key.split("/")[1]
        if name in (run, run.partition("-")[2]):
            return artifact.unsealed(store, key)
    return None
