"""What large runs cost the API server, Argo and Postgres: the figures of docs/scale.md.

    python -m tests.scale cluster 4 16 40      the real workflow with so many workers each, whose steps sleep (KUBECONFIG, kubectl, helm)
    python -m tests.scale bytes WORKFLOW.json  what such a run's object weighs, and would weigh with more workers
    python -m tests.scale postgres 2 8         workers at one search, whose trials sleep: their connections, and transactions per trial

Nothing here passes or fails. The pods of the first do nothing but sleep; all that Argo and the API server do for them is real.
"""

import base64
import copy
import gzip
import json
import multiprocessing
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import psycopg2

from stages.common.contract import STEPS
from stages.search.slots import Slots
from tests import servers
from tests import slots as drill
from tests.bench import test_many_workers as many
from workflows import argo

Document = dict[str, Any]
IMAGE = "docker.io/library/python:3.12-slim-bookworm"
SECONDS = 5  # that a step sleeps
LIMIT = 1 << 20  # bytes of a Workflow, beyond which Argo compresses its nodes; 1.5 MiB is what etcd takes
CONFIG = f"config/{'0' * 64}.json"


def _call(*words: str, feed: str | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, input=feed)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _say(name: str, value: object) -> None:
    sys.stdout.write(f"{name:<52} {value}\n")
    sys.stdout.flush()


# --- the cluster ----------------------------------------------------------------------------------


def sleeping(template: Document, families: int, workers: int) -> Document:
    """Give the workflow as it is, but for what its containers run: they sleep, and plan hands out so many items."""
    found = copy.deepcopy(template)
    found["metadata"] = {"name": f"sleeping-{families}-{workers}"}
    names = [f"family{number}" for number in range(families)]
    labels = [f"{step}/{name}" if STEPS[step].item else step for step in STEPS for name in names]
    planned = {
        "config": CONFIG,
        "todo": dict.fromkeys(STEPS, "run"),
        "locks": {label: secrets.token_hex(8) for label in dict.fromkeys(labels)},
        "families": [{"family": name} for name in names],
        "workers": [str(number) for number in range(workers)],
    }
    said: dict[str, Document] = {"plan": planned, "validate": {"verdict": "accepted"}}
    for one in found["spec"]["templates"]:
        if "container" in one:
            words = {name: text if isinstance(text, str) else json.dumps(text) for name, text in said.get(one["name"], {}).items()}
            program = (
                f"import time, pathlib; time.sleep({SECONDS}); [pathlib.Path('/outputs', n).write_text(t) for n, t in {words!r}.items()]"
            )
            one["container"].update(image=IMAGE, command=["python", "-c", program], args=[])
    for parameter in found["spec"]["arguments"]["parameters"]:
        if parameter["name"] == "room":
            parameter["value"] = json.dumps({step: {"cpu": "10m", "memory": 48, "most": 48, "disk": 0} for step in argo.ROOM})
        if parameter["name"] == "gpus":
            parameter["value"] = json.dumps({"resource": "nvidia.com/gpu", **dict.fromkeys(names, 0)})
    return found


def requests() -> Counter[tuple[str, str]]:
    """Count what the API server was asked, by resource and verb; watches are connections, not requests."""
    found: Counter[tuple[str, str]] = Counter()
    for line in _call("kubectl", "get", "--raw", "/metrics").splitlines():
        if line.startswith("apiserver_request_total{"):
            label = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if label["verb"] not in ("WATCH", "CONNECT"):
                found[label["resource"], label["verb"]] += int(float(line.rpartition(" ")[2]))
    return found


def controllers() -> Counter[tuple[str, str]]:
    """Count what Argo's controller asked the API server since it began, by kind and verb."""
    pod = _call("kubectl", "--namespace", "argo", "get", "pod", "--selector", "app=workflow-controller", "--output", "name").split("/")[-1]
    found: Counter[tuple[str, str]] = Counter()
    for line in _call("kubectl", "get", "--raw", f"/api/v1/namespaces/argo/pods/https:{pod.strip()}:9090/proxy/metrics").splitlines():
        if line.startswith("argo_workflows_k8s_request_total{"):
            label = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if label["verb"] not in ("Watch", "List"):
                found[label["kind"], label["verb"]] += int(float(line.rpartition(" ")[2]))
    return found


def cluster(sizes: list[int]) -> None:
    """Run the sleeping workflow with so many workers, one size after the other, and count."""
    namespace = f"scale-{secrets.token_hex(3)}"
    _call("kubectl", "create", "namespace", namespace)
    outside = "minio.enabled=false,postgres.enabled=false,credentials.endpointUrl=http://none,credentials.study=postgresql://none,artifactBucket=none"
    chart = str(argo.CHART_FILE.parents[1])
    there = ("kubectl", "--namespace", namespace)
    try:
        _call("helm", "install", "surefoot", chart, "--namespace", namespace, "--set", f"{outside},credentials.secretAccessKey=none-at-all")
        template = json.loads(_call(*there, "get", "workflowtemplate", "surefoot", "--output", "json"))
        for workers in sizes:
            made = sleeping(template, 1, workers)
            _call(*there, "apply", "--filename", "-", feed=json.dumps(made))
            name = f"run-{workers}"
            given = [{"name": one["name"], "value": one.get("value", CONFIG)} for one in made["spec"]["arguments"]["parameters"]]
            run: Document = {"apiVersion": made["apiVersion"], "kind": "Workflow", "metadata": {"name": name}}
            run["spec"] = {"workflowTemplateRef": {"name": made["metadata"]["name"]}, "arguments": {"parameters": given}}
            before, began = requests(), time.monotonic()
            _call(*there, "create", "--filename", "-", feed=json.dumps(run))
            while not (found := json.loads(_call(*there, "get", "workflow", name, "--output", "json"))).get("status", {}).get("finishedAt"):
                time.sleep(5)
            seconds, after = time.monotonic() - began, requests()
            path = Path(f"scale-{workers}.json")
            path.write_text(json.dumps(found), encoding="utf-8")
            pods = [node for node in found["status"]["nodes"].values() if node["type"] == "Pod"]
            _say(f"{workers} workers", f"{found['status']['phase']} after {seconds:.0f} s, {len(pods)} pods; its object: {path}")
            asked = after - before
            made_pods = asked["pods", "POST"]
            _say(
                "  requests of the whole cluster meanwhile",
                f"{asked.total()}, pods made {made_pods}, a pod {asked.total() / made_pods:.1f}",
            )
            for (resource, verb), count in asked.most_common(16):
                _say(f"    {verb} {resource}", f"{count}, a pod {count / made_pods:.2f}")
            asked = controllers()
            made_pods = asked["pods", "Create"]
            _say("  the controller since it began, a pod", f"{asked.total()}, {asked.total() / made_pods:.1f}")
            for (kind, verb), count in asked.most_common(10):
                _say(f"    {verb} {kind}", f"{count}, a pod {count / made_pods:.2f}")
            weigh(found)
    finally:
        _call("kubectl", "delete", "namespace", namespace, "--wait=false")


# --- bytes ----------------------------------------------------------------------------------------


def size(document: Any) -> int:
    """Give the bytes of a document as Kubernetes keeps it."""
    return len(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())


def compressed(workflow: Document) -> int:
    """Give the bytes of a Workflow whose nodes Argo has compressed."""
    nodes = json.dumps(workflow["status"]["nodes"], separators=(",", ":"), ensure_ascii=False).encode()
    rest = {**workflow, "status": {**workflow["status"], "nodes": None}}
    return size(rest) + len(base64.b64encode(gzip.compress(nodes, 6)))


def grown(workflow: Document, workers: int) -> Document:
    """Give a Workflow with so many workers, by copies of those that it has, each under a name and an id of its own."""
    made = copy.deepcopy(workflow)
    status = made["status"]
    nodes, done = status["nodes"], status.get("taskResultsCompletionStatus", {})
    heads = [node for node in nodes.values() if node["type"] == "Retry" and node["templateName"] == "search-work"]
    group = next(node for node in nodes.values() if node["type"] == "TaskGroup" and heads[0]["id"] in node.get("children", []))
    for number in range(len(heads), workers):
        head = heads[number % len(heads)]
        other = {one: f"{made['metadata']['name']}-{secrets.randbelow(1 << 32)}" for one in (head["id"], *head.get("children", []))}
        old = re.search(r"\((\d+):", head["displayName"])
        assert old
        for before, after in other.items():
            if before not in nodes or nodes[before].get("templateName") != "search-work":
                continue
            text = json.dumps(nodes[before]).replace(f"({old[1]}:", f"({number}:")
            text = re.sub(r"\d\d:\d\dZ", lambda _: f"{secrets.randbelow(60):02}:{secrets.randbelow(60):02}Z", text)
            for was, now in other.items():
                text = text.replace(was.rpartition("-")[2], now.rpartition("-")[2])
            nodes[after] = json.loads(text)
            if before in done:
                done[after] = done[before]
        group["children"].append(other[head["id"]])
    return made


def weigh(workflow: Document) -> None:
    """Say what a Workflow's object weighs, and what it would with more workers."""
    nodes = workflow["status"]["nodes"]
    of_workers = [node for node in nodes.values() if node.get("templateName") == "search-work"]
    workers = sum(1 for node in of_workers if node["type"] == "Retry")
    template = workflow["status"].get("storedWorkflowTemplateSpec", {})
    _say("  the object, its template's copy, its nodes", f"{size(workflow)}, {size(template)}, {size(nodes)} bytes, {len(nodes)} nodes")
    _say("  a worker's nodes", f"{sum(map(size, of_workers)) / workers:.0f} bytes in {len(of_workers) / workers:.0f} nodes")
    for more in (100, 300, 500, 1000, 2000, 3000):
        if more > workers:
            large = grown(workflow, more)
            fits = size(large) <= LIMIT
            _say(f"  with {more} workers", f"{size(large)} bytes, {'as it is' if fits else f'compressed {compressed(large)}'}")


# --- Postgres -------------------------------------------------------------------------------------


def postgres(workers: int, rounds: int = 3) -> None:
    """Let so many workers search with trials that sleep, and count their connections and transactions."""
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder, servers.PostgresServer(Path(folder), connections=3 * workers + 10) as server:
        storage = drill.storage(server.address, create=True)
        slots = Slots(optuna.create_study(study_name="many", storage=storage, direction="maximize"), storage)
        slots.create()
        slots.grow(workers * rounds)
        drill.let_go()
        looking = psycopg2.connect(server.address)
        looking.autocommit = True
        cursor, seen = looking.cursor(), list[int]()
        before, began = _ask(cursor, COMMITS), time.monotonic()
        words = (server.address, "many", workers * rounds, f"{folder}/told")
        crew = [context.Process(target=many.worker, args=words) for _ in range(workers)]
        for process in crew:
            process.start()
        while any(process.is_alive() for process in crew):
            seen.append(_ask(cursor, CONNECTIONS))
            time.sleep(0.1)
        seconds = time.monotonic() - began
        commits = _ask(cursor, COMMITS) - before
        looking.close()
    _say(f"{workers} workers, {workers * rounds} trials in {seconds:.0f} s", f"at most {max(seen)} connections")
    _say("  transactions that wrote", f"{commits / workers / rounds:.0f} a trial of {many.SECONDS} s with {many.REPORTS} reports")


COMMITS = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"  # of transactions that wrote
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


def _ask(cursor: Any, question: str) -> int:
    cursor.execute(question)
    return int(cursor.fetchone()[0])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["cluster", *sizes]:
            cluster([int(one) for one in sizes] or [4, 16, 32])
        case ["postgres", *sizes]:
            for size_ in sizes or ["2", "8"]:
                postgres(int(size_))
        case ["bytes", path]:
            weigh(json.loads(Path(path).read_bytes()))
        case _:
            sys.exit(__doc__)
