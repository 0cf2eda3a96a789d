"""What a run in a cluster costs outside its stages, beside a chain of as many pods that do nothing, on the same controller.

Wants KUBECONFIG, and in the namespace ARGO_NAMESPACE a Surefoot that nobody else uses.
"""

import json
import os
import secrets
import statistics
import sys
from datetime import datetime
from pathlib import Path

import pytest

from tests.kubernetes import Document, Place, call, config, reached, seconds
from workflows.argo import LOCKED, POD

TIMES = 5  # runs of each kind, in turns


def outside(place: Place, name: str) -> tuple[float, int]:
    """Give the seconds of a Workflow in which no step was at work, and the number of its pods, of which there is one at a time."""
    workflow = place.ended(name)
    assert workflow["status"]["phase"] == "Succeeded", place.argo("get", name)
    pods = place.pods(name).values()
    mains = [one["state"]["terminated"] for pod in pods for one in pod["status"]["containerStatuses"] if one["name"] == "main"]
    at_work = [datetime.fromisoformat(main["finishedAt"]) - datetime.fromisoformat(main["startedAt"]) for main in mains]
    return seconds(workflow) - sum(each.total_seconds() for each in at_work), len(mains)


def chain(place: Place, pods: int) -> str:
    """Start so many pods that do nothing, one after the other, the last one as exit handler; give the Workflow's name."""
    template = json.loads(place.kubectl("get", "workflowtemplate", "surefoot", "--output", "json"))
    given = {one["name"]: one.get("value") for one in template["spec"]["arguments"]["parameters"]}
    nothing: Document = {"image": f"{given['images']}plan:{given['tag']}", "command": ["true"], "imagePullPolicy": "IfNotPresent"}
    nothing |= {"securityContext": LOCKED.model_dump(by_alias=True, exclude_none=True), "resources": {"requests": {"cpu": "100m"}}}
    tasks = [{"name": f"t{each}", "template": "nothing", "depends": f"t{each - 1}" if each else ""} for each in range(pods - 1)]
    spec = {
        **{name: template["spec"][name] for name in ("serviceAccountName", "automountServiceAccountToken", "executor")},
        "securityContext": POD.model_dump(by_alias=True, exclude_none=True),
        "entrypoint": "main",
        "onExit": "nothing",
        "templates": [{"name": "main", "dag": {"tasks": tasks}}, {"name": "nothing", "container": nothing}],
    }
    made = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "chain-"}, "spec": spec}
    words = ("create", "--filename", "-", "--output", "jsonpath={.metadata.name}")
    return call("kubectl", "--namespace", place.namespace, *words, feed=json.dumps(made))


@pytest.mark.bench
def test_price_of_the_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One run of all steps in a store of its own, then one chain, and again."""
    if not (os.environ.get("KUBECONFIG") and os.environ.get("ARGO_NAMESPACE")):
        pytest.skip("KUBECONFIG and ARGO_NAMESPACE are not set: nothing was tried on a cluster")
    place = Place(os.environ["ARGO_NAMESPACE"], "", reached(os.environ["ARGO_NAMESPACE"]))
    path = config(tmp_path, search={"n_trials": 2})
    runs, chains = [], []
    for _ in range(TIMES):
        spent, pods = outside(place, place.submit(path, f"s3://surefoot/price-{secrets.token_hex(3)}"))
        runs.append(spent)
        beside, _ = outside(place, chain(place, pods))
        chains.append(beside)
        with capsys.disabled():
            sys.stdout.write(f"\n{pods} pods: outside its steps a run {spent:.0f} s, a chain of no-ops {beside:.0f} s")
    ratio = statistics.median(runs) / statistics.median(chains)
    with capsys.disabled():
        sys.stdout.write(f"\n{ratio:.2f} x, medians {statistics.median(runs):.0f} and {statistics.median(chains):.0f} s\n")
    assert len(runs) == len(chains) == TIMES
