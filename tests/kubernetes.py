"""A namespace of a real cluster with the chart in it, as its user and kubectl see it."""

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from tests.programs import ROOT, Ended, surefoot

STAGES = ("plan", "prepare", "search", "train", "evaluate", "validate", "deploy")
LOAD = os.environ.get("SUREFOOT_LOAD", str(ROOT.parent / "shared" / "cluster" / "load"))
NODE_NAME = "workflows.argoproj.io/node-name"
Document = dict[str, Any]


def call(*words: str | Path, feed: str | None = None) -> str:
    """Run a program that must end well and give its stdout."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, input=feed)
    assert done.returncode == 0, f"{' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def loaded(root: Path) -> str:
    """Build all images of a checkout, and load them unless the cluster has these very ones; give their tag."""
    call(root / "images" / "build", "e2e")
    ids = [call("docker", "image", "inspect", "--format", "{{.Id}}", f"surefoot/{stage}:e2e").strip() for stage in STAGES]
    made = "e2e-" + "-".join(one.removeprefix("sha256:")[:4] for one in ids)
    names = [f"surefoot/{stage}:{made}" for stage in STAGES]
    there = call("kubectl", "get", "nodes", "--output", "jsonpath={.items[*].status.images[*].names}")
    if not all(name in there for name in names):
        for stage, name in zip(STAGES, names, strict=True):
            call("docker", "tag", f"surefoot/{stage}:e2e", name)
        call(*shlex.split(LOAD), *names)
        call("docker", "rmi", *names)
    return made


@dataclass(frozen=True)
class Place:
    """A namespace with the chart in it."""

    namespace: str
    tag: str
    environment: dict[str, str]

    def kubectl(self, *words: str) -> str:
        """Run kubectl in the namespace."""
        return call("kubectl", "--namespace", self.namespace, *words)

    def argo(self, *words: str) -> str:
        """Run the argo command in the namespace, against Kubernetes itself."""
        return call("argo", "--namespace", self.namespace, *words)

    def surefoot(self, *words: str | Path) -> Ended:
        """Run the surefoot command with what a user would have set."""
        return surefoot(*words, more=self.environment, limit=600)

    def submit(self, config: Path, store: str, *sets: str) -> str:
        """Submit a config and give the Workflow's name."""
        ended = self.surefoot("submit", config, "--store", store, *(word for one in sets for word in ("--set", one)))
        assert ended.code == 0, ended.err
        return ended.out.strip()

    def workflow(self, name: str) -> Document:
        """Give a Workflow as it is now."""
        found: Document = json.loads(self.kubectl("get", "workflow", name, "--output", "json"))
        return found

    def until(self, name: str, what: str, is_so: Callable[[Document], bool], limit: float = 600) -> Document:
        """Wait until something is so of a Workflow."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            found = self.workflow(name)
            if is_so(found):
                return found
            time.sleep(1)
        pytest.fail(f"{name}: not {what} after {limit} s\n{self.argo('get', name)}")

    def ended(self, name: str, limit: float = 600) -> Document:
        """Wait until a Workflow has ended."""
        return self.until(name, "ended", lambda found: found.get("status", {}).get("finishedAt") is not None, limit)

    def pods(self, name: str) -> dict[str, Document]:
        """Give all pods that a Workflow has, by their names."""
        listed = json.loads(self.kubectl("get", "pods", "--selector", f"workflows.argoproj.io/workflow={name}", "--output", "json"))
        return {pod["metadata"]["name"]: pod for pod in listed["items"]}

    def log(self, pod: str) -> str:
        """Give what a step wrote."""
        return self.kubectl("logs", pod, "--container", "main")

    def secret(self, key: str) -> str:
        """Give a value of the chart's Secret."""
        return self.kubectl("get", "secret", "surefoot", "--output", f'go-template={{{{index .data "{key}" | base64decode}}}}')

    def reach(self) -> None:
        """Set what a user would: where the servers are, and the keys."""
        self.environment.update(reached(self.namespace))

    def minio(self) -> Minio:
        """Give a client of the chart's object store."""
        keys = (self.environment["AWS_ACCESS_KEY_ID"], self.environment["AWS_SECRET_ACCESS_KEY"])
        return Minio(self.environment["AWS_ENDPOINT_URL"].removeprefix("http://"), *keys, secure=False)

    def finished(self) -> str:
        """Count the finished trials of each study."""
        asked = "SELECT study_id, count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED') GROUP BY 1 ORDER BY 1"
        program = 'PGPASSWORD="$POSTGRES_PASSWORD" psql --host=127.0.0.1 --username=surefoot --no-align --tuples-only --command="$0"'
        return self.kubectl("exec", "statefulset/surefoot-postgres", "--", "sh", "-c", program, asked)

    def digests(self, store: str) -> list[str]:
        """List the finished steps of a store."""
        ended = self.surefoot("ls", "--digests", "--store", store)
        assert ended.code == 0, ended.err
        return ended.out.splitlines()


def steps(pods: dict[str, Document]) -> list[str]:
    """Name the steps whose pods these are, without the family whose DAG they are in."""
    nodes = (pod["metadata"]["annotations"][NODE_NAME].partition(".")[2] for pod in pods.values())
    return sorted(re.sub(r"^family\(.*?\)\.", "", node) for node in nodes)


def step(workflow: Document, name: str) -> list[Document]:
    """Give the attempts of a step, as the Workflow's status has them."""
    nodes = workflow.get("status", {}).get("nodes", {}).values()
    return sorted((node for node in nodes if node["type"] == "Pod" and node["templateName"] == name), key=lambda node: node["startedAt"])


def asked(pod: Document) -> str:
    """Give the memory that a step's container asks for."""
    (main,) = [one for one in pod["spec"]["containers"] if one["name"] == "main"]
    return str(main["resources"]["requests"]["memory"])


def seconds(workflow: Document) -> float:
    """Give how long a Workflow took."""
    first, last = (datetime.fromisoformat(workflow["status"][name]) for name in ("startedAt", "finishedAt"))
    return (last - first).total_seconds()


def reached(namespace: str) -> dict[str, str]:
    """Give what a user of the Surefoot in a namespace would have set."""
    secret = Place(namespace, "", {}).secret
    return {
        **{key: secret(key) for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
        "AWS_ENDPOINT_URL": f"http://{service(namespace, 'surefoot-minio')}:9000",
        "ARGO_SERVER": f"http://{service('argo', 'argo-server')}:2746",
        "ARGO_NAMESPACE": namespace,
    }


def service(namespace: str, name: str) -> str:
    """Give the address of a service."""
    return call("kubectl", "--namespace", namespace, "get", "service", name, "--output", "jsonpath={.spec.clusterIP}")


def config(folder: Path, **sections: Document) -> Path:
    """Write a config with the generated table, small, whose model is good enough."""
    document: Document = {"prepare": {"generated_rows": 4000}, "search": {"n_trials": 3}, "validate": {"auc_floor": 0.6}}
    for name, values in sections.items():
        document[name] = {**document.get(name, {}), **values}
    path = folder / "small.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
    return path
