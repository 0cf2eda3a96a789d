"""The pipeline on a real Kubernetes with Argo, in a namespace that enforces Pod Security "restricted".

Wants KUBECONFIG, Docker, the programs kubectl, argo and helm, and a cluster whose service addresses can be reached from
here. Images are put into it by SUREFOOT_LOAD (``kind load docker-image``, say; default ../shared/cluster/load).
What happened is counted from outside: pods by kubectl, nodes in the Workflow's status.
"""

import json
import os
import random
import re
import secrets
import shlex
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stages.prepare import generate
from tests import cluster_drills
from tests.kubernetes import LOAD, NODE_NAME, Document, Place, asked, call, config, loaded, reached, seconds, step, steps
from tests.programs import ROOT, python, surefoot

pytestmark = pytest.mark.cluster

CHAIN = ("prepare", "search-create", "search-work", "search-collect", "train", "evaluate", "validate", "deploy")
CHART = ROOT / "charts" / "surefoot"
ADULT = ROOT.parent / "shared" / "data" / "adult.csv"
CARDS = ADULT.with_name("card-transactions.parquet")
LONG = pytest.mark.skipif(not os.environ.get("SUREFOOT_LONG"), reason="SUREFOOT_LONG=1 runs this one, too: it takes minutes")


# --- the cluster ----------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    """Skip with a clear word where something is not there."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set: nothing was tried on a cluster")
    home = Path(os.environ.get("CLUSTER_HOME", "/opt/cluster")) / "bin"
    os.environ["PATH"] = f"{home}{os.pathsep}{os.environ['PATH']}"
    for program in ("docker", "kubectl", "argo", "helm", shlex.split(LOAD)[0]):
        if shutil.which(program) is None:
            pytest.skip(f"the program {program} is not there: nothing was tried on a cluster")


@pytest.fixture(scope="session")
def tag(programs: None) -> str:
    """Give the tag of this checkout's images."""
    assert programs is None
    return loaded(ROOT)


@pytest.fixture(scope="session")
def place(tag: str) -> Iterator[Place]:
    """Install the chart into a fresh namespace."""
    namespace = f"surefoot-{secrets.token_hex(3)}"
    call("kubectl", "create", "namespace", namespace)
    call("kubectl", "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    # What the chart's notes ask of the owner of Argo.
    patch = ("patch", "configmap", "workflow-controller-configmap", "--type", "merge", "--patch-file", CHART / "files" / "controller.yaml")
    call("kubectl", "--namespace", "argo", *patch)
    notes = call("helm", "install", "surefoot", CHART, "--namespace", namespace, "--set-string", f"tag={tag}", "--wait", "--timeout", "5m")
    assert "securityContext: {runAsNonRoot: true" in notes

    yield Place(namespace, tag, reached(namespace))
    if not os.environ.get("SUREFOOT_KEEP"):  # to look around in it
        call("kubectl", "delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="session")
def first(place: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Document]:
    """Give a config, its store, and its Workflow after the first run."""
    path, store = config(tmp_path_factory.mktemp("first")), "s3://surefoot/first"
    return path, store, place.ended(place.submit(path, store))


# --- what it must show ----------------------------------------------------------------------------


def test_kubernetes_accepts_the_chart() -> None:
    """Strictly: no field is unknown to it. In a namespace without the chart, since a job cannot be changed."""
    where = ("--namespace", "default")
    cron = ("--set-json", 'cron={"enabled": true, "config": {"train": {"seed": 1}}}')
    more = ("--set", "networkPolicy.enabled=true,dashboard.image=mine,caSecret=ours")
    made = call("helm", "template", "surefoot", CHART, *where, *cron, *more, "--skip-tests")
    accepted = call("kubectl", "apply", *where, "--dry-run=server", "--validate=strict", "--filename", "-", feed=made)
    wanted = {"workflowtemplate.argoproj.io/surefoot", "cronworkflow.argoproj.io/surefoot", "networkpolicy.networking.k8s.io/surefoot"}
    assert wanted <= {*accepted.split()}


def test_each_account_may_do_the_least(place: Place) -> None:
    """Beside what everybody may: ask what oneself may, and what the server is."""
    may = {"surefoot": {}, "surefoot-executor": {"workflowtaskresults.argoproj.io": "[create patch]"}, "default": {}}
    for account, wanted in may.items():
        who = f"--as=system:serviceaccount:{place.namespace}:{account}"
        listed = place.kubectl(
            "auth", "can-i", "--list", "--no-headers", who, "--as-group=system:serviceaccounts", "--as-group=system:authenticated"
        )
        rows = [re.split(r"\s{2,}", line.strip()) for line in listed.splitlines() if not line.startswith(" ")]
        assert {row[0]: row[-1] for row in rows if not row[0].startswith("self")} == wanted


def test_a_run_succeeds_and_its_model_is_live(place: Place, first: tuple[Path, str, Document]) -> None:
    path, store, workflow = first
    assert workflow["status"]["phase"] == "Succeeded", place.argo("get", workflow["metadata"]["name"])

    pods = place.pods(workflow["metadata"]["name"])
    fanned = {"search-work": "(0:0)"}
    assert steps(pods) == sorted([f"{name}{fanned.get(name, '')}(0)" for name in ("plan", *CHAIN)] + ["onExit.evaluate-report(0)"])
    (validated,) = step(workflow, "validate")
    assert {one["name"]: one["value"] for one in validated["outputs"]["parameters"]}["verdict"] == "accepted"
    ended = place.surefoot("status", path, "--store", store, "--json")
    assert json.loads(ended.out)["production"]["generation"] == 1
    assert json.loads(ended.out)["closed"]["status"] == "Succeeded"


def test_main_has_no_token_and_the_passwords_stand_nowhere(place: Place, first: tuple[Path, str, Document]) -> None:
    """In no object but Secrets, no log, and nothing that is in the store: configs, manifests, records, the report."""
    name = first[2]["metadata"]["name"]
    for pod in place.pods(name).values():
        (main,) = [one for one in pod["spec"]["containers"] if one["name"] == "main"]
        assert not [mount for mount in main["volumeMounts"] if "serviceaccount" in mount["mountPath"]]

    kinds = "pods,deployments,jobs,configmaps,workflows,workflowtemplates,workflowtaskresults,events"
    said = place.kubectl("get", kinds, "--output", "json")
    pods = [pod["metadata"]["name"] for pod in json.loads(place.kubectl("get", "pods", "--output", "json"))["items"]]
    said += "".join(place.kubectl("logs", pod, "--all-containers") for pod in pods)
    store = place.minio()
    kept = [found.object_name or "" for found in store.list_objects("surefoot", prefix="first/", recursive=True)]
    said += "".join(store.get_object("surefoot", key).data.decode(errors="replace") for key in kept)
    assert "step.done" in said
    assert "<html" in said
    for key in ("AWS_SECRET_ACCESS_KEY", "POSTGRES_PASSWORD", "SUREFOOT_STUDY"):
        assert place.secret(key) not in said


def test_the_report_is_shown_by_argos_server(place: Place, first: tuple[Path, str, Document]) -> None:
    workflow = first[2]
    (report,) = step(workflow, "evaluate-report")
    where = f"artifact-files/{place.namespace}/workflows/{workflow['metadata']['name']}/{report['id']}/outputs/report"
    with urllib.request.urlopen(f"{place.environment['ARGO_SERVER']}/{where}", timeout=30) as answer:  # noqa: S310 - ours
        page = answer.read().decode()
        assert answer.headers["Content-Type"].startswith("text/html")
    assert "Accepted: version" in page


def test_the_same_submit_again_starts_plan_and_the_exit_handler_alone(place: Place, first: tuple[Path, str, Document]) -> None:
    path, store, _ = first
    before = place.digests(store)
    watched = place.surefoot("submit", path, "--store", store, "--watch")
    assert watched.code == 0, watched.err
    name, *told = watched.out.splitlines()
    workflow = place.ended(name)

    assert workflow["status"]["phase"] == "Succeeded"
    assert {line.split()[0] for line in told if line.split()[1] == "made"} == {"plan", "evaluate-report"}, told
    skipped = {line.split()[0] for line in told if re.search("skipped +its result is there$", line)}
    assert {"prepare", "evaluate", "validate", "deploy"} <= skipped, told
    assert "verdict            accepted" in told
    assert steps(place.pods(workflow["metadata"]["name"])) == ["onExit.evaluate-report(0)", "plan(0)"]
    assert place.digests(store) == before
    print(f"\nthe same submit again: {seconds(workflow):.0f} s")  # noqa: T201 - a figure that we promise


def test_a_run_is_seen_from_a_laptop(place: Place, first: tuple[Path, str, Document], tmp_path: Path) -> None:
    """Each step's state, attempts, seconds and outputs; what it logs; the report: by the run's name, as submit printed it."""
    name = first[2]["metadata"]["name"]
    seen = place.surefoot("status", name, "--json").answer
    assert (seen["phase"], seen["exit"], seen["store"]) == ("Succeeded", 0, first[1])
    rows = {row["label"]: row for row in seen["steps"]}
    labels = [f"{one}/xgboost" if one.startswith(("search", "train")) else one for one in CHAIN]
    assert list(rows) == ["plan", *(f"{one}/0" if "work" in one else one for one in labels), "evaluate-report"]
    assert {(row["state"], row["attempts"], row["why"]) for row in rows.values()} == {("made", 1, "")}
    assert all(0 < row["seconds"] < 600 for row in rows.values())
    assert (seen["told"]["verdict"], len(seen["told"]["version"])) == ("accepted", 12)
    assert re.search(rf"verdict: +accepted\b.*auc: +{seen['told']['auc']}", place.argo("get", name), re.DOTALL)

    logs = place.surefoot("logs", name, "--step", "train")
    assert {line.split()[0] for line in logs.out.splitlines()} == {"train/xgboost"}
    assert '"event": "step.done"' in logs.out
    assert "argo=true" not in logs.out
    ended = place.surefoot("report", name, "--out", tmp_path / "page.html")
    assert ended.code == 0, ended.err
    assert f"Accepted: version {seen['told']['version']}" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_workflow_of_ones_own_runs_around_it(place: Place, first: tuple[Path, str, Document]) -> None:
    """The example in docs/: its own pods under the same account, in the same namespace, and the verdict handed on at the end."""
    path, store, _ = first
    submitted = python(ROOT / "docs" / "around.py", path, store, more=place.environment)
    assert submitted.code == 0, submitted.err
    name = submitted.out.strip()
    workflow = place.ended(name)
    assert workflow["status"]["phase"] == "Succeeded", place.argo("get", name)
    pods = place.pods(name)
    assert steps(pods) == ["onExit.report.evaluate-report(0)", "onExit.tell", "surefoot.plan(0)", "wait"]
    (tell,) = [pod for pod in pods if "-tell-" in pod]
    assert "the verdict is accepted" in place.log(tell)
    assert [row["label"] for row in place.surefoot("status", name, "--json").answer["steps"]][:2] == ["wait", "plan"]


def test_argo_submit_takes_the_address_of_a_config(place: Place, first: tuple[Path, str, Document]) -> None:
    _, store, workflow = first
    (given,) = [one["value"] for one in workflow["spec"]["arguments"]["parameters"] if one["name"] == "config"]
    words = ("submit", "--from", "workflowtemplate/surefoot", "--parameter", f"config={given}", "--parameter", f"store={store}")
    name = place.argo(*words, "--output", "name").strip()

    assert place.ended(name)["status"]["phase"] == "Succeeded"
    assert steps(place.pods(name)) == ["onExit.evaluate-report(0)", "plan(0)"]


def test_a_lost_file_is_made_again_by_a_new_submit(place: Place, first: tuple[Path, str, Document]) -> None:
    """Plan sees that it is gone; what follows finds the same bytes, and stops there."""
    path, store, _ = first
    before = place.digests(store)
    (lost,) = [line.split()[-1] for line in before if line.startswith("train ") and " judged.ubj " in line]
    place.minio().remove_object("surefoot", f"first/blobs/{lost}")

    workflow = place.ended(place.submit(path, store))
    assert workflow["status"]["phase"] == "Succeeded", place.argo("get", workflow["metadata"]["name"])
    pods = place.pods(workflow["metadata"]["name"])
    made = {steps({name: pod})[0].partition("(")[0] for name, pod in pods.items() if '"state":"made"' in place.log(name)}
    assert made <= {"train", "deploy"}
    assert "train" in made
    assert not [name for name in steps(pods) if name.startswith(("prepare", "search"))]
    assert place.digests(store) == before
    assert place.surefoot("verify", "--store", store).code == 0


def test_a_refused_config_fails_at_once_in_one_pod(place: Place, tmp_path: Path) -> None:
    path = config(tmp_path, plan={"disk_space_required_gb": 1e6})
    submitted = place.surefoot("submit", path, "--store", "s3://surefoot/refused", "--wait")
    assert submitted.code == 78
    name = submitted.out.strip()
    workflow = place.ended(name)
    assert workflow["status"]["phase"] == "Failed"
    assert steps(place.pods(name)) == ["plan(0)"]
    (plan,) = step(workflow, "plan")
    assert plan["outputs"]["exitCode"] == "78"
    assert re.search(r"exit code 78.*plan\.disk_space_required_gb asks for", place.argo("get", name).replace("\n", " "))
    (row,) = [row for row in place.surefoot("status", name, "--json").answer["steps"] if row["state"] == "failed"]
    assert (row["label"], row["attempts"]) == ("plan", 1)
    assert re.fullmatch(r"exit 78: .*plan\.disk_space_required_gb asks for .*", row["why"])
    assert seconds(workflow) < 20
    print(f"\na refused config: {seconds(workflow):.0f} s")  # noqa: T201


def test_a_pod_that_no_node_takes_ends_the_run_in_time_with_a_report(place: Place, tmp_path: Path) -> None:
    """Nobody counts how long a pod waits for a node but Argo, for the whole run; what holds a mutex meanwhile lets it go.

    Argo looks when something happens to a run, or else every twenty minutes: here something happens.
    """
    where = ("--namespace", place.namespace, "--reuse-values", "--wait")
    call("helm", "upgrade", "surefoot", CHART, *where, "--set", "activeDeadlineSeconds=40,room.prepare.memory=8000000")
    try:
        name = place.submit(path := config(tmp_path), "s3://surefoot/no-node")
        place.until(name, "waiting for a node", lambda _: any("-prepare-" in pod for pod in place.pods(name)))
        time.sleep(45)
        place.kubectl("label", "workflow", name, "looked=at")
        workflow = place.ended(name)
    finally:
        call("helm", "upgrade", "surefoot", CHART, *where, "--set", "activeDeadlineSeconds=604800,room.prepare.memory=1024")
    assert workflow["status"]["phase"] == "Failed", place.argo("get", name)
    assert not [one for pod, one in place.pods(name).items() if "-prepare-" in pod and one["spec"].get("nodeName")]
    assert [one["phase"] for one in step(workflow, "evaluate-report")] == ["Succeeded"]
    print(f"\na run that no node takes: {seconds(workflow):.0f} s, of which 40 were allowed")  # noqa: T201
    assert place.ended(place.submit(path, "s3://surefoot/no-node"))["status"]["phase"] == "Succeeded"


def test_a_run_outlives_a_pod_deleted_in_mid_train(place: Place, tmp_path: Path) -> None:
    """The next attempt goes on from the last border, to the same bytes as a run that was left alone; nobody has to do anything."""
    rounds = 20_000
    long = config(
        tmp_path,
        prepare={"generated_rows": 20_000},
        train={"rounds": rounds, "early_stopping_rounds": rounds},
        common={"checkpoint_interval_minutes": 0.1},
    )
    store = "s3://surefoot/deleted"
    name = place.submit(long, store)

    def is_half_trained(workflow: Document) -> bool:
        (node,) = step(workflow, "train") or [{}]
        done, _, total = node.get("progress", "0/1").partition("/")
        return node.get("phase") == "Running" and total == str(rounds) and int(done) > rounds / 3

    place.until(name, "training", is_half_trained)
    (pod,) = [one for one in place.pods(name) if "-train-" in one]
    place.kubectl("delete", "pod", pod, "--wait=false")

    workflow = place.ended(name)
    assert workflow["status"]["phase"] == "Succeeded", place.argo("get", name)
    cut, whole = step(workflow, "train")
    # The controller sees the pod gone, or already its main container's exit by SIGTERM: which of the two is chance.
    assert re.fullmatch(r"pod deleted|main: Error \(exit code 143\).*", cut["message"]), cut["message"]
    assert whole["phase"] == "Succeeded"
    memory = [asked(one) for one in place.pods(name).values() if whole["name"].endswith(one["metadata"]["annotations"][NODE_NAME])]
    assert memory == ["1536Mi"], "half more on each retry"
    manifests = {one["step"]: one["measured"] for one in json.loads(place.surefoot("ls", "--json", "--store", store).out)}
    assert {made: measured["attempt"] for made, measured in manifests.items() if measured["attempt"]} == {"train": 1}

    alone = surefoot("run", long, "--store", tmp_path / "alone", "--json", limit=900)
    assert alone.code == 0, alone.err
    assert place.digests(str(tmp_path / "alone")) == place.digests(store)
    (undisturbed,) = [one["seconds"] for one in alone.answer["steps"] if one["step"] == "train/xgboost"]
    print(  # noqa: T201 - figures that we promise
        f"\na pod deleted in mid-train: run {seconds(workflow):.0f} s, its second attempt {manifests['train']['seconds']:.0f} s;"
        f" left alone on this machine, training takes {undisturbed:.0f} s"
    )


def test_argo_retry_after_a_repaired_fault_starts_what_is_missing(place: Place, tmp_path: Path) -> None:
    """The database is away until two runs have failed; then it is back: one is retried by the command, one as the UI's button does."""
    names = [place.submit(config(tmp_path, search={"seed": seed}), f"s3://surefoot/retried-{seed}") for seed in (1, 4)]
    for name in names:
        place.until(name, "preparing", lambda found: bool(step(found, "prepare")))
    place.kubectl("scale", "statefulset/surefoot-postgres", "--replicas=0")
    try:
        for name in names:
            failed = place.ended(name)
            assert failed["status"]["phase"] == "Failed"
            assert {node["outputs"]["exitCode"] for node in step(failed, "search-create")} == {"75"}
    finally:
        place.kubectl("scale", "statefulset/surefoot-postgres", "--replicas=1")
        place.kubectl("rollout", "status", "statefulset/surefoot-postgres", "--timeout=120s")
    before = {name: place.pods(name) for name in names}

    by_command, by_button = names
    place.argo("retry", by_command)
    where = f"{place.environment['ARGO_SERVER']}/api/v1/workflows/{place.namespace}/{by_button}/retry"
    asked = urllib.request.Request(where, data=b"{}", method="PUT", headers={"Content-Type": "application/json"})  # noqa: S310 - ours
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 - ours
        assert answer.status == 200
    for name in names:
        place.until(name, "going on", lambda found: found["status"].get("finishedAt") is None)
    for name in names:
        assert place.ended(name)["status"]["phase"] == "Succeeded", place.argo("get", name)
        after, were = place.pods(name), before[name]
        good = {pod: one["metadata"]["uid"] for pod, one in were.items() if one["status"]["phase"] == "Succeeded" and "-report-" not in pod}
        assert len(good) == 2
        assert {pod: after[pod]["metadata"]["uid"] for pod in good} == good
        known = {one["metadata"]["uid"] for one in were.values()}
        started = {pod: one for pod, one in after.items() if one["metadata"]["uid"] not in known}
        assert [re.sub(r"\(.*", "", one) for one in steps(started)] == sorted([*CHAIN[1:], "onExit.evaluate-report"])
        print(f"\nstarted by {'argo retry' if name == by_command else 'PUT .../retry'}:", *sorted(started), sep="\n  ")  # noqa: T201


def test_workers_ask_for_their_familys_gpus_and_nodes(place: Place, tmp_path: Path) -> None:
    """Four of them on the two GPUs that the node says it has: never more than two at once, and those of LightGBM ask for none.

    Nor are there ever more than five pods, and those that fit, alone, go to the nodes that the values say.
    """
    where = ("--namespace", place.namespace, "--reuse-values", "--wait")
    spot: Document = {"nodeSelector": {"kubernetes.io/os": "linux"}, "tolerations": [{"key": "spot", "operator": "Exists"}]}
    values = (
        "--set",
        "gpus.xgboost=1,room.search-work.cpu=50m,room.train.disk=512,parallelism=5",
        "--set-json",
        f"scheduling.fits={json.dumps(spot)}",
    )
    call("helm", "upgrade", "surefoot", CHART, *where, *values)

    def holding(pods: dict[str, Document]) -> list[str]:
        return [
            pod
            for pod, one in pods.items()
            if gpus(one) and one["spec"].get("nodeName") and one["status"]["phase"] in ("Pending", "Running")
        ]

    most, at_once = 0, 0

    def has_ended(workflow: Document) -> bool:
        nonlocal most, at_once
        pods = place.pods(name)
        most = max(most, len(holding(pods)))
        at_once = max(at_once, sum(one["status"]["phase"] in ("Pending", "Running") for one in pods.values()))
        return workflow.get("status", {}).get("finishedAt") is not None

    try:
        search = {"families": ["xgboost", "lightgbm"], "workers": 4, "n_trials": 4, "seed": 3}
        name = place.submit(config(tmp_path, search=search), "s3://surefoot/gpus")
        workflow = place.until(name, "ended", has_ended)
    finally:
        back = "gpus.xgboost=0,room.train.disk=0,parallelism=8,scheduling.fits.nodeSelector=null,scheduling.fits.tolerations=null"
        call("helm", "upgrade", "surefoot", CHART, *where, "--set", back)
    assert workflow["status"]["phase"] == "Succeeded", place.argo("get", name)
    assert (most, at_once) == (2, 5)
    pods = place.pods(name)
    fits = {pod: one for pod, one in pods.items() if "-search-work-" in pod or "-train-" in pod}
    assert len(fits) == 10
    for pod, one in pods.items():
        assert disk(one) == ([str(512 << 20)] * 2 if "-train-" in pod else [None] * 2)
        assert gpus(one) == ("1" if pod in fits and "family:xgboost" in one["metadata"]["annotations"][NODE_NAME] else None)
        assert ("nodeSelector" in one["spec"]) == (pod in fits)
        assert any(each.get("key") == "spot" for each in one["spec"]["tolerations"]) == (pod in fits)


def disk(pod: Document) -> list[str | None]:
    """Give the scratch disk that a step's container asks for, and may use."""
    (main,) = [one for one in pod["spec"]["containers"] if one["name"] == "main"]
    return [main["resources"][kind].get("ephemeral-storage") for kind in ("requests", "limits")]


def gpus(pod: Document) -> str | None:
    """Give the number of GPUs that a step's container asks for."""
    (main,) = [one for one in pod["spec"]["containers"] if one["name"] == "main"]
    number: str | None = main["resources"]["limits"].get("nvidia.com/gpu")
    return number


@pytest.mark.parametrize("part", ["workers", "servers", "control"])
def test_faults_amid_a_fan_out(place: Place, part: str) -> None:
    """One fault after the other, and the run ends well by itself: of workers, of servers, of Argo, Kubernetes and its node."""
    if part == "control" and not (cluster_drills.CLUSTER / "state" / "kube-apiserver.pid").exists():
        pytest.skip("the cluster is none of ../shared/cluster: its control plane was left alone")
    where = ("--namespace", place.namespace, "--reuse-values", "--wait")
    call("helm", "upgrade", "surefoot", CHART, *where, "--set", "room.search-work.cpu=50m")
    faults = cluster_drills.PARTS[part]
    groups = [faults] if part == "workers" else [(fault,) for fault in faults]
    made = cluster_drills.drill(place, random.Random(part), *groups)
    print(f"\na run amid faults: {made.seconds:.0f} s; at work again after", made.recovery)  # noqa: T201


@LONG
def test_argo_retry_does_what_a_broken_family_lacks(place: Place, tmp_path: Path) -> None:
    """LightGBM's worker fails for good, as the database takes no trial of it; XGBoost's does not. Then that is repaired."""
    study = cluster_drills.study(place)
    study.do("""CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF (SELECT study_name FROM studies WHERE study_id = NEW.study_id) LIKE 'lightgbm-%' THEN RAISE EXCEPTION 'no room'; END IF;
        RETURN NEW; END $$; CREATE TRIGGER refuse BEFORE INSERT ON trials FOR EACH ROW EXECUTE FUNCTION refuse()""")
    try:
        name = place.submit(config(tmp_path, search={"families": ["xgboost", "lightgbm"], "seed": 5}), "s3://surefoot/broken")
        failed = place.ended(name)
    finally:
        study.do("DROP TRIGGER refuse ON trials")
    assert failed["status"]["phase"] == "Failed"
    before = place.pods(name)
    codes = {node["outputs"]["exitCode"] for node in step(failed, "search-work") if node["phase"] == "Failed"}
    good = [one for one in before.values() if "family:xgboost" in one["metadata"]["annotations"][NODE_NAME]]
    assert steps({str(place): one for place, one in enumerate(good)})[-1].startswith("train"), "the other family went on"

    place.argo("retry", name)
    place.until(name, "going on", lambda found: found["status"].get("finishedAt") is None)
    assert place.ended(name)["status"]["phase"] == "Succeeded"
    known = {one["metadata"]["uid"] for one in before.values()}
    started = {pod: one for pod, one in place.pods(name).items() if one["metadata"]["uid"] not in known}
    assert not [one for one in started.values() if "family:xgboost" in one["metadata"]["annotations"][NODE_NAME]]
    assert [re.sub(r"\(.*", "", one) for one in steps(started)] == sorted([*CHAIN[2:], "onExit.evaluate-report"])
    print(f"\nstarted by argo retry, after exit {codes}:", *sorted(started), sep="\n  ")  # noqa: T201


def test_two_submits_at_once_do_the_work_once(place: Place, tmp_path: Path) -> None:
    """One waits for the other's mutexes, and finds the work done."""
    path, store = config(tmp_path, search={"seed": 2}), "s3://surefoot/twice"
    names = [place.submit(path, store) for _ in range(2)]
    for name in names:
        assert place.ended(name)["status"]["phase"] == "Succeeded", place.argo("get", name)

    pods = {pod: one for name in names for pod, one in place.pods(name).items()}
    made = [steps({pod: one})[0].partition("(")[0] for pod, one in pods.items() if '"state":"made"' in place.log(pod)]
    once = ("prepare", "search-collect", "train", "evaluate", "validate")
    assert {step: made.count(step) for step in once} == dict.fromkeys(once, 1)


def test_the_clock_trains_once_and_then_looks_in_one_pod(place: Place, tmp_path: Path) -> None:
    """A tick each minute, over a table in a bucket; the second finds it unchanged."""
    client = place.minio()
    client.make_bucket("tables")
    generate.table(4000, 0).to_csv(tmp_path / "payments.csv", index=False)
    client.fput_object("tables", "payments.csv", str(tmp_path / "payments.csv"))
    roles = {"label": "is_fraud", "time": "time", "id": "transaction", "entity": "customer"}
    given: Document = {"prepare": {"source": "file", "path": "s3://tables/payments.csv", **roles}, "search": {"n_trials": 3}}
    given["validate"] = {"auc_floor": 0.6}
    (tmp_path / "cron.yaml").write_text(json.dumps(given), encoding="utf-8")

    upgrade = ("helm", "upgrade", "surefoot", CHART, "--namespace", place.namespace, "--reuse-values", "--timeout", "5m")
    call(*upgrade, "--set-json", f"cron={json.dumps({'enabled': True, 'schedule': '* * * * *', 'config': given})}")
    try:
        ticks = until_two_ticks_ended(place)
    finally:
        call(*upgrade, "--set", "cron.suspend=true")
    first, second = (tick["metadata"]["name"] for tick in ticks)
    assert [tick["status"]["phase"] for tick in ticks] == ["Succeeded"] * 2, place.argo("get", first) + place.argo("get", second)
    assert {"plan(0)", "deploy(0)", "onExit.evaluate-report(0)"} <= {*steps(place.pods(first))}
    assert steps(place.pods(second)) == ["plan(0)"]
    assert all("run.unchanged" in place.log(pod) for pod in place.pods(second))
    told = json.loads(place.surefoot("status", tmp_path / "cron.yaml", "--store", "s3://surefoot/store", "--json").out)
    assert (told["production"]["generation"], told["run"].endswith(first), told["closed"]["status"]) == (1, True, "Succeeded")
    print(f"\na tick that trains: {seconds(ticks[0]):.0f} s, one that finds nothing changed: {seconds(ticks[1]):.0f} s")  # noqa: T201


@LONG
def test_a_tick_that_argos_controller_missed_is_caught_up(place: Place) -> None:
    """It is away from some seconds before a full minute until some seconds after it."""
    upgrade = ("helm", "upgrade", "surefoot", CHART, "--namespace", place.namespace, "--reuse-values", "--timeout", "5m")
    given: Document = {"prepare": {"generated_rows": 500, "min_per_class": 1}, "search": {"n_trials": 2}}
    controller = ("kubectl", "--namespace", "argo", "scale", "deployment/workflow-controller")

    def ticks() -> dict[str, Document]:
        asked = ("get", "workflows", "--selector", "workflows.argoproj.io/cron-workflow=surefoot", "--output", "json")
        found = [one for one in json.loads(place.kubectl(*asked))["items"] if one["metadata"]["uid"] not in old]
        assert sum(not one.get("status", {}).get("finishedAt") for one in found) <= 1
        return {one["metadata"]["annotations"]["workflows.argoproj.io/scheduled-time"]: one for one in found}

    def until(what: str, is_so: Callable[[], object], limit: float = 600) -> None:
        end = time.monotonic() + limit
        while not is_so():
            assert time.monotonic() < end, f"not {what} after {limit} s\n{place.argo('list')}"
            time.sleep(0.5)

    old: set[str] = set()
    old = {one["metadata"]["uid"] for one in ticks().values()}
    call(*upgrade, "--set-json", f"cron={json.dumps({'enabled': True, 'suspend': False, 'schedule': '* * * * *', 'config': given})}")
    try:
        until("ended", lambda: any(one.get("status", {}).get("phase") == "Succeeded" for one in ticks().values()))
        until("late in a minute", lambda: time.time() % 60 > 50)
        missed = datetime.fromtimestamp((time.time() // 60 + 1) * 60, UTC).isoformat().replace("+00:00", "Z")
        call(*controller, "--replicas=0")
        until("early in the next one", lambda: 5 < time.time() % 60 < 50)
        assert missed not in ticks()
        call(*controller, "--replicas=1")
        back = time.time()
        until("caught up", lambda: missed in ticks())
        caught_up = time.time() - back
        until("ended", lambda: ticks()[missed].get("status", {}).get("phase") == "Succeeded")
    finally:
        call(*controller, "--replicas=1")
        call(*upgrade, "--set", "cron.suspend=true")
    print(f"\nthe tick of {missed} was caught up {caught_up:.0f} s after the controller was back")  # noqa: T201


def until_two_ticks_ended(place: Place, limit: float = 300) -> list[Document]:
    """Wait until the clock's first two Workflows have ended, of which there are never two at once."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        asked = ("get", "workflows", "--selector", "workflows.argoproj.io/cron-workflow=surefoot", "--output", "json")
        ticks = sorted(json.loads(place.kubectl(*asked))["items"], key=lambda found: str(found["metadata"]["creationTimestamp"]))
        at_work = [tick["metadata"]["name"] for tick in ticks if not tick.get("status", {}).get("finishedAt")]
        assert len(at_work) <= 1, at_work
        if len(ticks) - len(at_work) >= 2:
            return ticks[:2]
        time.sleep(1)
    pytest.fail(f"no two ticks ended within {limit} s\n{place.argo('cron', 'get', 'surefoot')}{place.argo('list')}")


@pytest.mark.skipif(not ADULT.exists(), reason="../shared/data/adult.csv is not there: three hosts were not compared")
def test_three_hosts_give_one_result(place: Place, tmp_path: Path) -> None:
    """The same table by `surefoot run`, by plain `docker run` step after step, and by `surefoot submit`."""
    shutil.copy(ADULT, tmp_path / "adult.csv")
    path = tmp_path / "adult.yaml"
    assert surefoot("init", tmp_path / "adult.csv", "--out", path).code == 0
    families = ("xgboost", "lightgbm", "catboost")
    short = f"n_trials: 2\n  rounds: 100\n  families: [{', '.join(families)}]"
    text = re.sub(r"n_trials: \d+", short, path.read_text(encoding="utf-8"))
    path.write_text(f"{text}\ntrain: {{rounds: 100}}\n", encoding="utf-8")

    name = place.submit(path, "s3://surefoot/adult")  # works while the others do
    ran = surefoot("run", path, "--store", tmp_path / "here", limit=600)
    assert ran.code == 0, ran.err
    in_docker(place.tag, tmp_path, families)
    workflow = place.ended(name)
    assert workflow["status"]["phase"] == "Succeeded", place.argo("get", name)

    here = place.digests(str(tmp_path / "here"))
    assert len({line.split()[0] for line in here}) == 6
    assert place.digests(str(tmp_path / "docker")) == here
    assert place.digests("s3://surefoot/adult") == here
    print(f"\nadult.csv: here {ran.seconds:.0f} s, in the cluster {seconds(workflow):.0f} s, {len(here)} equal files")  # noqa: T201


@LONG
@pytest.mark.skipif(not CARDS.exists(), reason="../shared/data/card-transactions.parquet is not there: no large table was tried")
def test_a_large_table_in_a_bucket_gives_what_it_gives_here(place: Place, tmp_path: Path) -> None:
    place.minio().make_bucket("tables")
    place.minio().fput_object("tables", "cards/all.parquet", str(CARDS))
    given: Document = {"source": "file", "label": "TX_FRAUD", "time": "TX_DATETIME", "id": "TRANSACTION_ID", "amount": "TX_AMOUNT"}
    given |= {"drop": ["TX_FRAUD_SCENARIO"], "keys": {"customer": ["CUSTOMER_ID"], "terminal": ["TERMINAL_ID"]}, "label_delay_days": 7}
    more: Document = {"search": {"n_trials": 2, "rounds": 100}, "train": {"rounds": 100}, "validate": {"auc_floor": 0.5}}
    there = config(tmp_path, prepare={**given, "path": "s3://tables/cards/all.parquet"}, **more)
    name = place.submit(there, "s3://surefoot/cards")
    here = tmp_path / "here.yaml"
    here.write_text(there.read_text().replace("s3://tables/cards/all.parquet", str(CARDS)))
    ran = surefoot("run", here, "--store", tmp_path / "here", limit=1200)
    assert ran.code == 0, ran.err
    workflow = place.ended(name, 1200)
    assert workflow["status"]["phase"] == "Succeeded", place.argo("get", name)
    digests = place.digests(str(tmp_path / "here"))
    assert place.digests("s3://surefoot/cards") == digests
    assert json.loads(place.surefoot("status", there, "--store", "s3://surefoot/cards", "--json").out)["production"]["generation"] == 1
    print(f"\ncard-transactions: here {ran.seconds:.0f} s, in the cluster {seconds(workflow):.0f} s, {len(digests)} equal files")  # noqa: T201


@LONG
def test_images_with_another_train_do_that_stage_and_what_follows(place: Place, first: tuple[Path, str, Document], tmp_path: Path) -> None:
    """One line of its code is another: what stands before it is there; what follows it looks at its inputs, which are the same bytes."""
    _, store, before = first
    checkout = tmp_path / "checkout"
    for name in ("stages", "configs", "images"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    with (checkout / "stages" / "train" / "train.py").open("a", encoding="utf-8") as file:
        file.write("\nANOTHER = 1\n")
    (given,) = [one["value"] for one in before["spec"]["arguments"]["parameters"] if one["name"] == "config"]
    words = ("-p", f"config={given}", "-p", f"store={store}", "-p", f"tag={loaded(checkout)}")
    name = place.argo("submit", "--from", "workflowtemplate/surefoot", *words, "--output", "name").strip()
    workflow = place.ended(name)
    assert workflow["status"]["phase"] == "Succeeded", place.argo("get", name)
    found = [re.sub(r"\(.*", "", one) for one in steps(place.pods(name))]
    assert found == sorted(["plan", "train", "evaluate", "validate", "deploy", "onExit.evaluate-report"])


def in_docker(tag: str, folder: Path, families: tuple[str, ...]) -> None:
    """Run every step in a container of its own: no network, a read-only root, one folder."""
    folder.chmod(0o777)
    (folder / "docker").mkdir(mode=0o777)
    (folder / "docker").chmod(0o777)
    for path in (folder / "adult.csv", folder / "adult.yaml"):
        path.chmod(0o644)
    closed = ("--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--volume", f"{folder}:/data")  # noqa: S108
    given = ("--config", "/data/adult.yaml", "--store", "/data/docker")
    for name in ("plan", *CHAIN):
        stage, _, word = name.partition("-")
        items = [json.dumps({"family": family, "worker": "0"}) for family in families] if stage in ("search", "train") else [""]
        for item in items:
            words = [*([word] if word else []), *given, *(("--item", item) if item else ())]
            call("docker", "run", *closed, f"surefoot/{stage}:e2e", *words)
    assert tag.startswith("e2e-")


@pytest.mark.parametrize("server", ["postgres", "minio"])
def test_a_server_never_writes_twice_to_its_volume(place: Place, first: tuple[Path, str, Document], server: str) -> None:
    """Deleted, and scaled to none and back: the next one is made when the last one is gone. Two Postgres on one folder destroy it."""
    before = place.digests(first[1]), place.finished()
    found = ("get", "pods", "--selector", f"app.kubernetes.io/name=surefoot-{server}", "--output", "json")

    def listed() -> list[Document]:
        items: list[Document] = json.loads(place.kubectl(*found))["items"]
        return items

    for order in (("delete", "pod", f"surefoot-{server}-0", "--wait=false"), ("scale", f"statefulset/surefoot-{server}", "--replicas=0")):
        (last,) = listed()
        uid, until = last["metadata"]["uid"], time.monotonic() + 120
        place.kubectl(*order)
        while (there := listed()) and there[0]["metadata"]["uid"] == uid and "deletionTimestamp" not in there[0]["metadata"]:
            assert time.monotonic() < until, there  # a controller that never saw 0 would leave it alone
        place.kubectl("scale", f"statefulset/surefoot-{server}", "--replicas=1")
        while not there or there[0]["metadata"]["uid"] == uid or not there[0]["status"].get("containerStatuses", [{}])[0].get("ready"):
            there = listed()
            assert len(there) <= 1, [one["metadata"]["name"] for one in there]
            assert time.monotonic() < until, there
    assert (place.digests(first[1]), place.finished()) == before


def test_what_is_kept_outlives_the_release(place: Place, first: tuple[Path, str, Document]) -> None:
    """Upgraded, rolled back, uninstalled and installed again: store, studies and production are there, and `helm test` passes.

    The last test, since it stops what others need.
    """
    path, store, _ = first
    before, finished = place.digests(store), place.finished()
    assert finished
    where = ("--namespace", place.namespace, "--wait", "--timeout", "5m")
    call("helm", "upgrade", "surefoot", CHART, *where, "--reuse-values", "--set", "postgres.resources.limits.memory=600Mi")
    assert (place.digests(store), place.finished()) == (before, finished)
    call("helm", "rollback", "surefoot", *where)
    assert (place.digests(store), place.finished()) == (before, finished)
    call("helm", "uninstall", "surefoot", "--namespace", place.namespace)
    call("helm", "install", "surefoot", CHART, *where, "--set-string", f"tag={place.tag}", "--set", "networkPolicy.enabled=true")
    place.reach()
    assert (place.digests(store), place.finished()) == (before, finished)
    assert json.loads(place.surefoot("status", path, "--store", store, "--json").out)["production"]["generation"] == 1

    told = call("helm", "test", "surefoot", "--namespace", place.namespace, "--logs", "--timeout", "10m")
    assert re.search(r"^Succeeded deploy", told, re.MULTILINE), told
    assert "surefoot-test" not in place.kubectl("get", "serviceaccounts,roles,rolebindings")
    assert place.surefoot("ls", "--digests", "--store", "s3://surefoot/store/helm-test").out
    assert place.digests(store) == before
