"""Faults in a real cluster amid the fan-out of a search, and what Postgres says of it, asked from outside, past Optuna and our code.

Wants KUBECONFIG, and in the namespace ARGO_NAMESPACE a Surefoot with its own Postgres and MinIO, which nobody else uses. The faults of
memory and of the API server take root on the one node that there is; those of the controller, the API server and the node are felt by all.
"""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from tests.kubernetes import Document, Place, call, reached, seconds, service, step
from tests.servers import Missing

WORKERS = 3
AWAY = 30  # seconds that a server is away
DRAINED = 15  # seconds that a node takes no pods
LIMIT = 300  # seconds until a search must be at work again
STORE = "s3://surefoot/drills"
CONFIG: Document = {
    "common": {"checkpoint_interval_minutes": 0.02},
    "prepare": {"generated_rows": 500, "min_per_class": 1},
    "search": {
        "workers": WORKERS,
        "rounds": 4000,
        "early_stopping_rounds": 4000,
        "pruning_enabled": False,
        "space": {"xgboost": {"min_child_weight": [0.1, 1.0], "learning_rate": [0.003, 0.01]}},
    },
    "train": {"rounds": 50},
}
CLUSTER = Path(os.environ.get("CLUSTER_HOME", "/opt/cluster"))  # of ../shared/cluster/up

# Run in a worker's container: Argo's own process there has the same words in its command line, and this one, too.
KILL = """
import os, signal
for process in filter(str.isdigit, os.listdir("/proc")):
    words = open(f"/proc/{process}/cmdline").read().split("\\0")
    if words[1:3] == ["-m", "stages.search.work"]:
        os.kill(int(process), signal.SIGKILL)
"""
# Run on the node, in the container's group of processes: the kernel takes the largest of those that it may take first.
FILL = """
import os, sys, time
from pathlib import Path
group = Path(sys.argv[1])
there = [Path("/proc", process) for process in group.read_text().split()]
group.write_text(str(os.getpid()))
held = []
while all(one.exists() for one in there) and len(held) < 64:
    held.append(b"x" * (16 << 20))
    time.sleep(0.02)
"""


# --- the search, as Postgres has it ---------------------------------------------------------------


@dataclass
class Study:
    """The newest study in a Postgres that may be away."""

    url: str
    number: int = 0

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask one question."""
        options = "-c statement_timeout=5000"
        connection = psycopg2.connect(self.url, connect_timeout=2, tcp_user_timeout=5000, options=options)
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return [*cursor.fetchall()]

    def do(self, statement: str) -> None:
        """Change something."""
        with contextlib.closing(psycopg2.connect(self.url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def newest(self) -> int:
        """Give the newest study's number; 0 where there is none yet."""
        with contextlib.suppress(psycopg2.errors.UndefinedTable):
            return int(self.ask("SELECT coalesce(max(study_id), 0) FROM studies")[0][0])
        return 0

    def finished(self) -> dict[int, tuple[int, float]]:
        """Give each finished slot's trial, and what it is worth."""
        asked = """SELECT a.value_json::int, t.trial_id, v.value FROM trials t
            JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'slot' JOIN trial_values v ON v.trial_id = t.trial_id
            WHERE t.study_id = %s AND t.state IN ('COMPLETE', 'PRUNED')"""
        rows = self.ask(asked, self.number)
        found = {slot: (trial, value) for slot, trial, value in rows}
        assert len(found) == len(rows), rows
        return found

    def owners(self) -> list[str]:
        """Give who works at each slot that is open, or did last."""
        asked = "SELECT owner FROM surefoot_slots JOIN studies ON study_name = study WHERE study_id = %s AND NOT closed AND attempt > 0"
        return [owner for (owner,) in self.ask(asked, self.number)]

    def done(self) -> tuple[Any, ...]:
        """Count what was done: trials begun and ended, and their reports."""
        trials = "SELECT count(*), count(datetime_complete) FROM trials WHERE study_id = %s"
        reports = "SELECT count(*) FROM trial_intermediate_values JOIN trials USING (trial_id) WHERE study_id = %s"
        return (*self.ask(trials, self.number)[0], *self.ask(reports, self.number)[0])

    def check(self, budget: int, before: dict[int, tuple[int, float]]) -> None:
        """See that the budget was met exactly, nothing finished was lost, changed or done again, and nothing runs."""
        found = self.finished()
        assert sorted(found) == [*range(budget)], found
        assert found.items() >= before.items(), (before, found)
        again = """SELECT count(*) FROM trials t JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'slot'
            JOIN trials f ON f.study_id = t.study_id AND f.state IN ('COMPLETE', 'PRUNED') AND f.trial_id < t.trial_id
            JOIN trial_user_attributes b ON b.trial_id = f.trial_id AND b.key = 'slot' AND b.value_json = a.value_json
            WHERE t.study_id = %s"""
        assert self.ask(again, self.number) == [(0,)], "a finished trial was done again"
        assert self.ask("SELECT count(*) FROM trials WHERE study_id = %s AND state IN ('RUNNING', 'WAITING')", self.number) == [(0,)]


def study(place: Place) -> Study:
    """Give a place's database."""
    said = place.kubectl("get", "secret", "surefoot", "--output", "go-template={{.data.SUREFOOT_STUDY | base64decode}}")
    return Study(re.sub(r"@[^/]*/", f"@{service(place.namespace, 'surefoot-postgres')}:5432/", said))


# --- one drill ------------------------------------------------------------------------------------


@dataclass
class Drill:
    """A run amid whose fan-out something happens."""

    place: Place
    study: Study
    name: str = ""  # of its Workflow
    inside: dict[str, str] = field(default_factory=dict)  # by the uid of a worker's pod: the namespace of its processes
    recovery: dict[str, float] = field(default_factory=dict)  # by fault: seconds until the search, or what was hit of it, was at work again
    said: list[str] = field(default_factory=list)  # by Argo, of the attempts that failed
    seconds: float = 0.0

    def workers(self) -> dict[str, str]:
        """Give the pods that are at a slot, once all are, and the namespace of each one's processes, by which Postgres knows it."""
        at_work = {f"pid:{one.partition('/pid:')[2].partition('/')[0]}" for one in self.study.owners()}
        if len(at_work) < WORKERS:
            return {}
        there = self.place.pods(self.name).items()
        pods = {pod: one["metadata"]["uid"] for pod, one in there if "-search-work-" in pod and one["status"]["phase"] == "Running"}
        for pod, uid in pods.items():
            if uid not in self.inside:
                self.inside[uid] = self.place.kubectl("exec", pod, "--container", "main", "--", "readlink", "/proc/self/ns/pid").strip()
        return {pod: self.inside[uid] for pod, uid in pods.items() if self.inside[uid] in at_work}

    def at_a_slot(self, inside: str) -> str:
        """Name the process in a worker's pod that is at a slot; nothing where none is. The next pod may have the same namespace."""
        return next((owner for owner in self.study.owners() if f"/{inside}/" in owner), "")

    def until(self, what: str, is_so: Callable[[], bool], limit: float = LIMIT) -> None:
        """Wait until something is so; a server that does not answer says that it is not."""
        end = time.monotonic() + limit
        while True:
            with contextlib.suppress(psycopg2.Error, AssertionError):
                if is_so():
                    return
            assert time.monotonic() < end, f"{self.name}: not {what} after {limit} s\n{self.place.argo('get', self.name)}"
            time.sleep(0.2)


def drill(place: Place, rng: random.Random, *groups: tuple[str, ...]) -> Drill:
    """Submit a run, let one group of faults after the other happen amid its search, and see that it ends well, by itself."""
    made = Drill(place, study(place))
    before = made.study.newest()
    budget = sum(FAULTS[fault].trials for group in groups for fault in group)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drill.yaml"
        path.write_text(json.dumps(CONFIG), encoding="utf-8")
        made.name = place.submit(path, STORE, f"search.n_trials={budget}", f"search.seed={rng.randrange(2**31)}")
    made.until("searching", lambda: made.study.newest() > before)
    made.study.number = made.study.newest()
    finished: dict[int, tuple[int, float]] = {}
    at_work: dict[str, str] = {}
    for group in groups:

        def are_amid(least: int = len(finished)) -> bool:
            if len(made.study.finished()) == budget:
                raise RuntimeError(f"{made.name}: its search was over before its last fault: too few trials for this machine")
            at_work.clear()
            at_work.update(made.workers() if len(made.study.finished()) > least else {})
            return len(at_work) == WORKERS

        made.until("amid its fan-out", are_amid)
        time.sleep(rng.uniform(0, 2))
        finished |= made.study.finished()
        hit = rng.sample(sorted(at_work.items()), len(group))
        with ThreadPoolExecutor(len(group)) as pool:
            waits = {fault: pool.submit(FAULTS[fault].do, made, *one) for fault, one in zip(group, hit, strict=True)}
        made.recovery |= {fault: wait.result() for fault, wait in waits.items()}
        sys.stderr.write(f"{made.name}: {', '.join(f'{fault}, at work after {made.recovery[fault]:.1f} s' for fault in group)}\n")
    workflow = place.ended(made.name, 1200)
    assert workflow["status"]["phase"] == "Succeeded", place.argo("get", made.name)
    made.study.check(budget, finished)
    made.said = [node["message"] for node in step(workflow, "search-work") if node["phase"] != "Succeeded"]
    for fault in made.recovery:
        leaves = FAULTS[fault].leaves
        assert not leaves or any(re.search(leaves, one) for one in made.said), (fault, made.said)
    made.seconds = seconds(workflow)
    return made


# --- what happens ---------------------------------------------------------------------------------


def worker_deleted(at: Drill, pod: str, inside: str) -> float:
    """Delete a worker's pod by force."""
    return _hit(at, inside, lambda: at.place.kubectl("delete", "pod", pod, "--force", "--grace-period=0"))


def worker_killed(at: Drill, pod: str, inside: str) -> float:
    """Kill a worker's process in its container."""
    return _hit(at, inside, lambda: at.place.kubectl("exec", pod, "--container", "main", "--", "python", "-c", KILL))


def worker_out_of_memory(at: Drill, pod: str, inside: str) -> float:
    """Lower the limit of a worker's memory to what it uses, and use some more."""
    (main,) = [one for one in at.place.pods(at.name)[pod]["status"]["containerStatuses"] if one["name"] == "main"]
    folder = _group_of(main["containerID"].rpartition("/")[2])
    names = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
    limit, used = next((folder / one, folder / other) for one, other in names.items() if (folder / one).exists())

    def fill() -> None:
        limit.write_text(used.read_text())
        subprocess.run([sys.executable, "-c", FILL, folder / "cgroup.procs"], check=False)

    return _hit(at, inside, fill)


def postgres_away(at: Drill, _pod: str, _inside: str) -> float:
    """Scale Postgres to none, and back."""
    return _scaled_to_none(at, "statefulset/surefoot-postgres")


def minio_away(at: Drill, _pod: str, _inside: str) -> float:
    """Scale MinIO to none, and back."""
    return _scaled_to_none(at, "statefulset/surefoot-minio")


def controller_killed(at: Drill, _pod: str, _inside: str) -> float:
    """Delete the pod of Argo's controller by force."""
    began, leader = time.monotonic(), _leader()
    call("kubectl", "--namespace", "argo", "delete", "pod", "--selector", "app=workflow-controller", "--force", "--grace-period=0")
    at.until("led by another controller", lambda: _leader() != leader)
    _until_looked_at(at)
    return time.monotonic() - began


def api_server_killed(at: Drill, _pod: str, _inside: str) -> float:
    """Kill the API server, and start it again as it was."""
    file, log = CLUSTER / "state" / "kube-apiserver.pid", CLUSTER / "logs" / "kube-apiserver.log"
    if not file.exists():
        raise Missing(f"{file} is not there: the API server cannot be started again from here")
    process = Path("/proc") / file.read_text().strip()
    words = (process / "cmdline").read_text().split("\0")[:-1]
    program = (process / "exe").readlink()
    began = time.monotonic()
    os.kill(int(process.name), 9)
    at.until("gone", lambda: not process.exists())
    again: list[str | Path] = ["sh", "-c", 'setsid nohup "$@" >>"$0" 2>&1 </dev/null & echo $!', log, program, *words[1:]]
    file.write_text(subprocess.run(again, check=True, stdout=subprocess.PIPE, text=True).stdout)
    ready = ("kubectl", "get", "--raw", "/readyz", "--request-timeout=2s")
    at.until("answered by the API server", lambda: not subprocess.run(ready, check=False, capture_output=True).returncode)
    _until_looked_at(at)
    return time.monotonic() - began


def node_drained(at: Drill, pod: str, _inside: str) -> float:
    """Let a worker's node take no pods, evict all that are ours from it, servers too, and let it take pods again."""
    node = at.place.pods(at.name)[pod]["spec"]["nodeName"]
    began = time.monotonic()
    call("kubectl", "cordon", node)
    try:
        there = at.place.kubectl(
            "get", "pods", "--field-selector", f"spec.nodeName={node},status.phase=Running", "--output", "name"
        ).split()
        for name in (one.removeprefix("pod/") for one in there):
            metadata = {"name": name, "namespace": at.place.namespace}
            asked = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
            where = f"/api/v1/namespaces/{at.place.namespace}/pods/{name}/eviction"
            call("kubectl", "create", "--raw", where, "--filename", "-", feed=json.dumps(asked))
        time.sleep(DRAINED)
    finally:
        call("kubectl", "uncordon", node)
    _until_at_work(at)
    return time.monotonic() - began


def _hit(at: Drill, inside: str, do: Callable[[], object]) -> float:
    """Hit a worker amid a fit; give the seconds until another one is at the slot that it had."""
    it = ""

    def is_seen() -> bool:
        nonlocal it
        return bool(it := at.at_a_slot(inside))

    at.until("at a slot", is_seen)
    began = time.monotonic()
    do()
    while True:
        at.until("at its slot again", lambda: it not in at.study.owners())
        ended = time.monotonic()
        time.sleep(1)
        if it not in at.study.owners():  # else it lived on for a moment, and was between two slots
            return ended - began


def _scaled_to_none(at: Drill, server: str) -> float:
    began = time.monotonic()
    at.place.kubectl("scale", server, "--replicas=0")
    try:
        time.sleep(AWAY)
    finally:
        at.place.kubectl("scale", server, "--replicas=1")
    _until_at_work(at)
    return time.monotonic() - began


def _until_at_work(at: Drill) -> None:
    """Wait until Postgres answers, and then for the next thing that is done."""
    seen: list[tuple[Any, ...]] = []

    def moved() -> bool:
        seen.append(at.study.done())
        return seen[-1] != seen[0]

    at.until("at work again", moved)


def _until_looked_at(at: Drill) -> None:
    """Wait until Argo's controller writes something into the Workflow, which it does for each step of its workers' progress."""
    before = at.place.workflow(at.name)["metadata"]["resourceVersion"]
    at.until("looked at by Argo", lambda: at.place.workflow(at.name)["metadata"]["resourceVersion"] != before)


def _leader() -> str:
    return call("kubectl", "--namespace", "argo", "get", "lease", "workflow-controller", "--output", "jsonpath={.spec.holderIdentity}")


def _group_of(container: str) -> Path:
    """Find the folder of a container's memory, of either version of cgroups."""
    for root in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup"):
        for folder, _, files in os.walk(root):
            if container in folder and {"memory.max", "memory.limit_in_bytes"} & {*files}:
                return Path(folder)
    raise Missing(f"the memory of container {container} is not bounded on this machine")


@dataclass(frozen=True)
class Fault:
    """Something that happens to a cluster."""

    what: str
    how: str
    do: Callable[[Drill, str, str], float]
    leaves: str = ""  # what Argo says of a worker then
    trials: int = 24  # of its run, for it: the search must outlast it, and workers go on that it does not hit


FAULTS = {
    # Argo says "pod deleted", or makes the pod anew as the same attempt, where it has not seen it run yet.
    "deleted": Fault("a worker's pod is deleted", "kubectl delete --force", worker_deleted),
    "killed": Fault("a worker is killed", "SIGKILL", worker_killed, r"Error \(exit code 137\)"),
    "memory": Fault("a worker is killed for its memory", "its limit is lowered to what it uses", worker_out_of_memory, "OOMKilled"),
    "postgres": Fault("Postgres is away", f"scaled to none for {AWAY} s", postgres_away),
    "minio": Fault("MinIO is away", f"scaled to none for {AWAY} s", minio_away),
    "controller": Fault("Argo's controller is killed", "kubectl delete --force", controller_killed, trials=80),
    "api-server": Fault("the API server is restarted", "SIGKILL", api_server_killed, trials=60),
    "node": Fault("the node is drained, servers too,", f"cordon, evictions, and back after {DRAINED} s", node_drained),
}


PARTS = {"workers": ("deleted", "killed", "memory"), "servers": ("postgres", "minio"), "control": ("controller", "api-server", "node")}


def drills(names: tuple[str, ...], count: int, seed: int) -> list[Document]:
    """Let these faults happen, in an order that chance gives, amid one run after the other."""
    namespace = os.environ["ARGO_NAMESPACE"]
    rng = random.Random(f"{seed}/cluster/{','.join(names)}")
    made = []
    for _ in range(count):
        groups = [(name,) for name in rng.sample(names, len(names))]
        made.append(one := drill(Place(namespace, "", reached(namespace)), rng, *groups))
        sys.stderr.write(f"{one.name}: Succeeded after {one.seconds:.0f} s {one.said}\n")
    verdict = "{slots:,} slots, each finished once, each run Succeeded; at work again after {seconds:.0f} s at most"
    found = []
    for name in names:
        row = {"fault": f"in a cluster, {FAULTS[name].what} amid a fan-out", "how": FAULTS[name].how, "runs": count, "lost": 0}
        back = sorted(round(one.recovery[name], 1) for one in made)
        counts = {"slots": sum(FAULTS[one].trials for one in names) * count, "seconds": back[-1]}
        found.append({**row, "verdict": verdict, "counts": counts, "recovery": back})
    return found
