"""A run in the cluster, seen from a laptop: what the Argo server says of it, in words that help."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.common import checkpoint, config
from stages.common import store as stores
from stages.common.address import Addresses
from stages.common.errors import UsageError
from stages.common.store import open_store
from stages.evaluate import report
from stages.plan import plan as plans
from tests import small
from tests.argo_server import Document, Server, server
from tests.programs import Ended
from workflows import cli, runs

__all__ = ["server"]

Command = Callable[..., Ended]
NAME = "surefoot-abcde"
ENDS = ("evaluate", "validate", "deploy")
FIT = "family(0:family:xgboost)"
HIT = {"hit": True, "key": "k", "cacheName": "c"}
LOCK = "Waiting for fraud/Mutex/train-1 lock. Lock status: 0/1"


@pytest.fixture
def surefoot(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process: starting one takes seconds, and these are many."""
    monkeypatch.setattr(checkpoint, "catch_signals", lambda: None)
    monkeypatch.setattr(cli, "WATCH", 0.01)

    def run(*words: str | Path) -> Ended:
        with pytest.raises(SystemExit) as ended:
            cli.main([*map(str, words)])
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, said.out, said.err, 0.0)

    return run


def node(name: str, phase: str, kind: str = "Pod", begin: int = 0, end: int = 0, **more: Any) -> Document:
    """Give a node as Argo has it; what it hands out is given by its names."""
    said: Document = {key: more.pop(key) for key in ("message", "progress", "memoizationStatus", "synchronizationStatus") if key in more}
    code = more.pop("exitCode", None)
    outputs = {"parameters": [{"name": key, "value": value} for key, value in more.items()], **({"exitCode": code} if code else {})}
    times = {"startedAt": f"2026-01-01T00:{begin // 60:02}:{begin % 60:02}Z"}
    times |= {"finishedAt": f"2026-01-01T00:{end // 60:02}:{end % 60:02}Z"} if end else {}
    template = name.rpartition(".")[2].partition("(")[0]
    known = {"id": f"{NAME}-{abs(hash(name))}", "name": f"{NAME}.{name}", "displayName": name, "type": kind, "phase": phase}
    return {**known, "templateName": template, "outputs": outputs, **times, **said}


def status(phase: str, *nodes: Document, **more: str) -> Document:
    return {"phase": phase, "nodes": {one["id"]: one for one in nodes}, "startedAt": "2026-01-01T00:00:00Z", **more}


def retried(name: str, phase: str, *attempts: Document, begin: int = 0, end: int = 0, **outputs: Any) -> list[Document]:
    return [node(name, phase, "Retry", begin, end, **outputs), *attempts]


REFUSED = status(
    "Failed",
    *retried(
        "plan", "Failed", node("plan(0)", "Failed", exitCode="78", message="Error (exit code 78): /tmp: 12.0 GB are free,\nand more"), end=4
    ),
    node("prepare", "Omitted", "Skipped", 4, 4, message="omitted: depends condition not met"),
    finishedAt="2026-01-01T00:00:10Z",
)
BROKEN = status(
    "Failed",
    *retried("plan", "Succeeded", node("plan(0)", "Succeeded", end=3), end=3),
    node("prepare", "Skipped", "Skipped", 3, 3, message="when ''its result is there' == 'run'' evaluated false"),
    node("family", "Failed", "TaskGroup", 4, 80),
    node(FIT, "Failed", "DAG", 4, 80),
    *retried(
        f"{FIT}.search-work(0:0)",
        "Failed",
        node(f"{FIT}.search-work(0:0)(0)", "Failed", begin=5, end=20, message="OOMKilled (exit code 137)", exitCode="137"),
        node(f"{FIT}.search-work(0:0)(1)", "Failed", begin=30, end=40, message="Error (exit code 75): no Postgres", exitCode="75"),
        begin=5,
        end=40,
        message="No more retries left",
    ),
    *retried("onExit.evaluate-report", "Succeeded", begin=81, end=85, headline="No verdict: train/xgboost is not there", verdict=""),
    finishedAt="2026-01-01T00:01:25Z",
    message="child failed",
)
AT_WORK = status(
    "Running",
    *retried("prepare", "Succeeded", node("prepare(0)", "Succeeded", begin=1, end=9), begin=1, end=9, state="done", rows="500"),
    *retried(f"{FIT}.search-work(0:0)", "Running", node(f"{FIT}.search-work(0:0)(0)", "Pending", message="Insufficient nvidia.com/gpu")),
    *retried("search-create", "Running", node("search-create(0)", "Running", begin=10, progress="30/200"), begin=10),
    node(f"{FIT}.train", "Pending", "Retry", 40, message=LOCK, synchronizationStatus={"waiting": "fraud/Mutex/train-1"}),
    node("evaluate", "Succeeded", "Retry", 41, 41, memoizationStatus=HIT),
    node("family", "Skipped", "Skipped", 42, 42, message="Skipped, empty params"),
    node("deploy", "Skipped", "Skipped", 42, 42, message="when ''the verdict is not accepted' == 'run'' evaluated false"),
)
DONE = status(
    "Succeeded",
    *retried("validate", "Succeeded", node("validate(0)", "Succeeded"), state="made", verdict="rejected", memoizationStatus=HIT),
    *retried("onExit.evaluate-report", "Succeeded", begin=81, end=85, headline="Rejected: auc_floor not passed", auc="0.7"),
    finishedAt="2026-01-01T00:01:25Z",
)


# --- status ---------------------------------------------------------------------------------------


def test_each_step_says_how_it_stands_and_why(server: type[Server]) -> None:
    server.looks[:] = [BROKEN]
    seen = runs.look(NAME)
    assert seen
    assert [(row.label, row.state, row.attempts, row.seconds, row.why) for row in seen.steps] == [
        ("plan", "made", 1, 3, ""),
        ("prepare", "skipped", 0, 0, "its result is there"),
        ("search-work/xgboost/0", "failed", 2, 35, "exit 75: no Postgres"),
        ("evaluate-report", "made", 0, 4, ""),
    ]
    assert (seen.phase, seen.code, seen.seconds, seen.store) == ("Failed", 75, 85, "s3://bucket/prefix")
    assert seen.told == {"headline": "No verdict: train/xgboost is not there"}


def test_what_waits_is_done_or_gated_says_so(server: type[Server]) -> None:
    server.looks[:] = [AT_WORK]
    seen = runs.look(NAME)
    assert seen
    assert [(row.label, row.state, row.why) for row in seen.steps] == [
        ("search-work/xgboost/0", "waits", "Insufficient nvidia.com/gpu"),
        ("prepare", "done", ""),
        ("search-create", "runs", "30/200"),
        ("train/xgboost", "waits", LOCK),
        ("evaluate", "skipped", "its result is there"),
        ("family", "skipped", "its result is there"),
        ("deploy", "skipped", "the verdict is not accepted"),
    ]
    assert seen.code == 0


@pytest.mark.parametrize(
    ("nodes", "code"),
    [
        (REFUSED["nodes"], 78),
        ({}, 1),  # stopped by somebody
        ({"a": node("a", "Failed", exitCode="-1")}, 1),  # a lost pod
        ({"b": node("b", "Failed", begin=9, exitCode="65"), "a": node("a", "Failed", begin=1, exitCode="70")}, 70),
    ],
)
def test_a_failed_run_ends_with_the_code_of_the_first_step_that_failed(server: type[Server], nodes: Document, code: int) -> None:
    server.looks[:] = [{"phase": "Failed", "nodes": nodes}]
    assert runs.wait(NAME, pause=0.01) == code


def test_the_command_says_how_a_run_stands(server: type[Server], surefoot: Command) -> None:
    server.looks[:] = [REFUSED]
    ended = surefoot("status", NAME)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [
        f"{NAME}  Failed, 10 s, s3://bucket/prefix",
        f"{'plan':<26} failed   1 attempt        4 s  exit 78: /tmp: 12.0 GB are free, and more",
        f"{'prepare':<26} omitted                        omitted: depends condition not met",
    ]
    as_json = surefoot("status", NAME, "--json").answer
    assert (as_json["phase"], as_json["exit"], as_json["steps"][0]["code"]) == ("Failed", 78, 78)


def test_watching_a_run_ends_with_it(server: type[Server], surefoot: Command) -> None:
    server.looks[:] = [AT_WORK, DONE]
    ended = surefoot("status", NAME, "--watch")
    assert ended.code == 0, ended.err
    assert [line.split(",")[0] for line in ended.out.splitlines() if line.startswith(NAME)] == [f"{NAME}  Running", f"{NAME}  Succeeded"]
    told = [line.split(maxsplit=1) for line in ended.out.splitlines()[-3:]]
    assert told == [["headline", "Rejected: auc_floor not passed"], ["verdict", "rejected"], ["auc", "0.7"]]


RECORDED = json.loads(
    Path(__file__).with_name("recorded.json").read_text(encoding="utf-8")
)  # what Argo 3.7.18 answered, cut to what is read
CHAIN = ("plan", "prepare", "search-create/xgboost", "search-work/xgboost/0", "search-collect/xgboost", "train/xgboost", *ENDS)


def test_what_a_real_server_answered_is_understood(server: type[Server]) -> None:
    """A run that made all, the same again, and one that failed."""
    seen = {}
    for title in ("made", "unchanged", "failed"):
        server.looks[:] = [RECORDED[title]["status"]]
        seen[title] = runs.look(NAME)
    made, unchanged, failed = seen["made"], seen["unchanged"], seen["failed"]
    assert made
    assert [(row.label, row.state, row.attempts, row.why) for row in made.steps] == [
        (label, "made", 1, "") for label in (*CHAIN, "evaluate-report")
    ]
    assert made.told["headline"] == "Accepted: version 686ff3058dad is in production since generation 1"
    assert (made.told["verdict"], made.told["version"], made.seconds) == ("accepted", "686ff3058dad", 342)
    assert unchanged
    assert {(row.label, row.state, row.why) for row in unchanged.steps if row.attempts == 0} == {
        (label, "skipped", "its result is there") for label in ("prepare", "family", *ENDS)
    }
    assert unchanged.told == made.told
    assert failed
    (broken,) = [row for row in failed.steps if row.state == "failed"]
    assert (broken.label, failed.code, broken.why[:41]) == ("prepare", 65, "exit 65: the generated table: valid has 3")
    assert {row.why for row in failed.steps if row.state == "omitted"} == {"omitted: depends condition not met"}


def test_what_a_real_server_logged_is_told(server: type[Server]) -> None:
    server.looks[:], server.lines[:] = [RECORDED["failed"]["status"]], RECORDED["log of failed"]
    told: list[str] = []
    runs.logs(NAME, "prepare", told.append)
    assert [json.loads(line.removeprefix("prepare").strip())["event"] for line in told] == ["step.started", "step.failed"]


# --- neither --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_name_of_nothing_says_where_it_was_looked_for(server: type[Server], command: str, tmp_path: Path, surefoot: Command) -> None:
    server.looks[:] = [DONE]
    words = ("nobody", "--store", tmp_path / "store") if command == "report" else ("nobody",)
    ended = surefoot(command, *words)
    assert ended.code == 2
    (line,) = ended.named("step.failed")
    assert line["message"].startswith("nobody: no config is at this path, and no run of this name in ")
    assert (str(tmp_path) if command == "report" else "namespace fraud") in line["message"]


def test_a_name_that_none_can_have_is_not_asked_for(server: type[Server], surefoot: Command) -> None:
    for name in ("surefoot-abcde?fields=x", "surefoot-abcde#", "a b", "-x", "%2e"):
        assert surefoot("logs", "--", name).code == 2
    assert server.tokens == []


@pytest.mark.usefixtures("minio")
def test_a_report_of_a_run_that_plan_refused_says_so(server: type[Server], s3_address: str, surefoot: Command) -> None:
    server.looks[:], server.store = [REFUSED], s3_address
    ended = surefoot("report", NAME)
    assert (ended.code, f"plan wrote no record of it into {s3_address}" in ended.err) == (66, True), ended.err


def test_without_a_server_a_name_of_nothing_says_so(monkeypatch: pytest.MonkeyPatch, surefoot: Command) -> None:
    monkeypatch.delenv("ARGO_SERVER", raising=False)
    ended = surefoot("status", "nobody")
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert "since ARGO_SERVER is not set" in ended.err


def test_what_looks_like_a_config_is_one(server: type[Server], tmp_path: Path, surefoot: Command) -> None:
    """A file that is not there is said to be that, and no cluster is asked."""
    for given in (f"{tmp_path}/surefoot-abcde", "surefoot-abcde.yaml"):
        ended = surefoot("status", given)
        assert (ended.code, "No such file" in ended.err) == (78, True)
    assert server.tokens == []


# --- report ---------------------------------------------------------------------------------------


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Path, Addresses]:
    """Give a store in which a run was planned, and nothing was done yet."""
    store = open_store(str(tmp_path / "store"))
    made = plans.plan(config.load(small.lay_out(tmp_path), (), {}), store, NAME)
    plans.write(made)
    return tmp_path / "store", made.addresses


@pytest.mark.usefixtures("server")
def test_a_runs_report_is_that_of_its_end(planned: tuple[Path, Addresses], tmp_path: Path, surefoot: Command) -> None:
    """Found by the run's name or its Workflow's; while it is at work, drawn of what is there."""
    (store, addresses), page = planned, tmp_path / "page.html"
    at_work = surefoot("report", NAME, "--store", store, "--out", page)
    assert (at_work.code, at_work.out) == (0, f"{page} (its numbers: {tmp_path}/page.json)\n"), at_work.err
    assert "run ended" not in page.read_text()

    closed, _ = report.close(addresses, "Failed")
    for name in (NAME, closed["run"]):
        assert surefoot("report", name, "--store", store, "--out", page).code == 0
        assert page.read_bytes() == (store / closed["report"]).read_bytes()
        assert json.loads(page.with_suffix(".json").read_text())["status"] == "Failed"
    (store / closed["report"]).unlink()
    lost = surefoot("report", NAME, "--store", store, "--out", page)
    assert (lost.code, "this report is lost" in lost.err) == (66, True)


def test_a_run_that_the_cluster_forgot_is_told_from_its_record(
    planned: tuple[Path, Addresses], monkeypatch: pytest.MonkeyPatch, surefoot: Command
) -> None:
    monkeypatch.delenv("ARGO_SERVER", raising=False)
    store, addresses = planned
    at_work = surefoot("status", NAME, "--store", store)
    assert (at_work.code, at_work.out.partition(": ")[2]) == (0, "running, or stopped\n")
    report.close(addresses, "Failed")
    lines = surefoot("status", NAME, "--store", store).out.splitlines()
    assert lines[0].endswith(f"-{NAME}: Failed")
    assert lines[1:] == [f"{label:<26} missing" for label in ("prepare", "search-collect/xgboost", "train/xgboost", *ENDS)]
    assert surefoot("status", NAME, "--store", store, "--json").answer["closed"]["status"] == "Failed"


# --- logs -----------------------------------------------------------------------------------------


def pod(name: str) -> str:
    (one,) = [one for look in (BROKEN, AT_WORK) for one in look["nodes"].values() if one["name"] == f"{NAME}.{name}"]
    return f"{NAME}-{one['templateName']}-{one['id'].rpartition('-')[2]}"


def line(pod: str, text: str) -> str:
    return json.dumps({"result": {"content": text, "podName": pod}})


def test_logs_are_told_with_the_steps_that_wrote_them(server: type[Server]) -> None:
    server.looks[:] = [BROKEN]
    work, plan = pod(f"{FIT}.search-work(0:0)(1)"), f"{NAME}-plan-{abs(hash('plan(0)'))}"
    server.lines[:] = [line(plan, '{"event": "run.planned"}'), line(work, "Traceback"), line(work, ""), line("surefoot-abcde-other-1", "x")]
    told: list[str] = []
    runs.logs(NAME, None, told.append)
    assert [one.split(maxsplit=1) for one in told] == [
        ["plan", '{"event": "run.planned"}'],
        ["search-work/xgboost/0", "Traceback"],
        ["search-work/xgboost/0"],
        ["surefoot-abcde-other-1", "x"],
    ]
    told.clear()
    runs.logs(NAME, "search-work/xgboost", told.append)
    assert [one.split()[-1] for one in told] == ["Traceback", "search-work/xgboost/0"]
    assert "logOptions.container=main&logOptions.follow=false" in next(path for path in server.asked if "/log?" in path)
    assert set(server.tokens) == {"Bearer secret"}


def test_a_step_without_pods_is_named(server: type[Server], surefoot: Command) -> None:
    server.looks[:] = [BROKEN]
    ended = surefoot("logs", NAME, "--step", "search-wrok")
    assert ended.code == 2
    assert "no pod of a step search-wrok. Those that had pods: plan, search-work/xgboost/0." in ended.err
    assert surefoot("logs", "nobody").code == 2


def test_a_log_that_breaks_off_says_so(server: type[Server], surefoot: Command) -> None:
    server.looks[:] = [BROKEN]
    for broken in ('{"error": {"message": "pod gone"}}', "{", "5"):
        server.lines[:] = [broken]
        ended = surefoot("logs", NAME, "--follow")
        assert (ended.code, "breaks off" in ended.err) == (75, True), ended.err


def test_logs_that_went_with_their_pods_are_missed_aloud(server: type[Server], surefoot: Command) -> None:
    server.looks[:] = [BROKEN]
    ended = surefoot("logs", NAME)
    assert (ended.code, ended.out, ended.events[0]["event"]) == (0, "", "run.no_logs")


# --- until its end --------------------------------------------------------------------------------


def test_waiting_ends_with_the_workflow(server: type[Server]) -> None:
    server.looks[:] = [{"phase": "Running"}, {"phase": "Succeeded"}]
    assert runs.wait(NAME, pause=0.01) == 0
    assert all("nodes" not in path for path in server.asked), "no more than the phase: a workflow of many pods is a large object"
    with pytest.raises(UsageError, match="perhaps it was deleted"):
        runs.wait("nobody")


def test_watching_tells_what_came_to_another_state(server: type[Server]) -> None:
    then = {**AT_WORK, "phase": "Succeeded", "nodes": {**AT_WORK["nodes"], **DONE["nodes"]}}
    server.looks[:] = [AT_WORK, AT_WORK, then]
    told: list[str] = []
    assert runs.wait(NAME, pause=0.01, tell=told.append) == 0
    assert [one.split()[:2] for one in told] == [
        ["search-work/xgboost/0", "waits"],
        ["prepare", "done"],
        ["search-create", "runs"],
        ["train/xgboost", "waits"],
        ["evaluate", "skipped"],
        ["family", "skipped"],
        ["deploy", "skipped"],
        ["validate", "made"],
        ["evaluate-report", "made"],
    ]
    assert told[3].endswith(LOCK)


def test_a_server_that_is_away_for_a_moment_does_not_end_the_waiting(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PAUSES", (0, 0))
    server.looks[:] = [{"phase": "Running"}, "away", "away", {"phase": "Succeeded"}]
    assert runs.wait(NAME, pause=0.01) == 0
