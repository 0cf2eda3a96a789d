"""Faults by the hundred: what a crash costs, counted part by part.

    python -m tests.scoreboard PART [COUNT] [SEED]
    python -m tests.scoreboard table                  the table for the README, of all parts so far

    resume-FAMILY                                     fits are killed, and go on to the same model
    slots, slots-postgres                             workers without work are killed at any commit, and sleep beyond their leases
    searches, searches-postgres                       workers of whole searches are killed, told to stop, and put to sleep amid fits
    many-searches, many-searches-postgres             the same in short searches, of four workers; their database may be dropped in between
    leases                                            workers of another machine are killed: their leases run out
    trainings                                         trainings are killed and told to stop, and started again until they end
    postgres, minio, network                          amid searches, the study's database, or the store, is restarted, the network cut
    clock                                             amid searches, the database's clock is set an hour off
    disk                                              the store's disk is full, and is not
    damage, fuzz                                      whatever is stored is damaged; whatever is read is made up
    plain-script, optuna-alone                        the same kills without Surefoot
    cluster-workers, cluster-servers, cluster-control in a cluster (KUBECONFIG, ARGO_NAMESPACE), amid fan-outs: workers are killed, the
                                                      servers go and come back, and so do Argo's controller, the API server and the node

Each part appends its counts to docs/scoreboard.jsonl; a seed that was run is not counted again. Its verdict is written with the counts
of all its seeds: whole numbers are added, of others the highest counts.
"""

import contextlib
import functools
import json
import multiprocessing
import os
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna

from stages import families
from stages.common.checkpoint import Checkpoint
from stages.common.store import open_store
from stages.families.borders import Borders
from stages.search.slots import LEASE, Slots
from tests import alone, cluster_drills, disk, network, servers, trainings
from tests import searches as drills
from tests import slots as drill
from tests.damage import damage
from tests.fuzz import fuzz
from tests.unit.families.test_families import BOOSTED, PARAMS, table, written

FILE = Path(__file__).resolve().parents[1] / "docs" / "scoreboard.jsonl"
SETTINGS: dict[str, Any] = {"rounds": 400, "early_stopping_rounds": 80, "seed": 3, "metric": "auc"}
LEFT = 1_500_000  # bytes of a full disk that may be free when a search goes on
DROPPED = 0.2  # of the times that a short search's budget is raised, its database is dropped before
SLOW = 0.03  # a fit's learning rate: its best border comes late


def fit(name: str, threads: int, folder: str | None, began: Any = None) -> families.Fitted:
    """Fit a small table with early stopping; every border is saved."""
    saved = Checkpoint(open_store(folder), "fit", 0) if folder else None
    params = {**PARAMS[name], "learning_rate": SLOW}
    if began is not None:
        began.set()
    return families.fit(name, params, table(1000, 0), table(400, 1), threads=threads, checkpoint=saved, **SETTINGS)


def resume(name: str, points: int, seed: int) -> list[dict[str, Any]]:
    """Kill fits of a family at moments spread evenly over them, and let each go on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.unit.families.test_families"])
    found = []
    for threads in (1, 2):
        rng = random.Random(f"{seed}/{name}/{threads}")
        with tempfile.TemporaryDirectory() as folder:
            whole = fit(name, threads, None)
            expected = written(name, whole.model, Path(folder)), whole.rounds, whole.score
            seconds = _seconds(lambda threads=threads, folder=folder: fit(name, threads, f"{folder}/store"))  # type: ignore[misc]
        begun: list[int] = []  # the rounds that the fits went on from
        same, first = 0, 0.0  # of the time, where the first border is
        while len(begun) < points:
            with tempfile.TemporaryDirectory() as folder:
                share = first + (1 - first) * (len(begun) + rng.random()) / points
                code = _killed(context, name, threads, folder, seconds * share)
                borders = Borders(None, "auc", 1, 1, Checkpoint(open_store(f"{folder}/store"), "fit", 0))
                if code == -signal.SIGKILL and borders.load() is not None:
                    again = fit(name, threads, f"{folder}/store")
                    begun.append(borders.rounds)
                    same += (written(name, again.model, Path(folder)), again.rounds, again.score) == expected
                elif code == 0:  # it was over: the machine is quicker now
                    seconds *= 0.98
                else:  # it had not reached its first border
                    first = min(first + 0.01, 0.5)
        fault = f"a fit of {name} is killed, {threads} thread{'s' * (threads > 1)}"
        how = f"SIGKILL at moments spread over it; it went on from rounds {min(begun)} to {max(begun)}"
        found.append({"fault": fault, "how": how, "runs": points, "lost": points - same, "verdict": "the same model, byte for byte"})
    return found


def _killed(context: Any, name: str, threads: int, folder: str, moment: float) -> int:
    """Kill a fit so many seconds after its beginning; give its exit code."""
    began = context.Event()
    process = context.Process(target=fit, args=(name, threads, f"{folder}/store", began))
    process.start()
    began.wait()
    process.join(moment)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return int(process.exitcode)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


@contextlib.contextmanager
def database(place: str, folder: Path) -> Iterator[str]:
    """Give the address of a database: a Postgres of its own, or the SQLite file that a store has (nothing is said of it then)."""
    if place == "SQLite":
        yield ""
        return
    (folder / "postgres").mkdir()
    with servers.PostgresServer(folder / "postgres") as server:
        yield server.address


def slots(place: str, faults: int, seed: int) -> list[dict[str, Any]]:
    """Kill and put to sleep four workers at one study, whose budget grows, until there were so many of both."""
    with tempfile.TemporaryDirectory() as folder, database(place, Path(folder)) as given:
        url = given or f"sqlite:///{folder}/study.db"
        name, storage = secrets.token_hex(6), drill.storage(url, create=True)
        made = Slots(optuna.create_study(study_name=name, storage=storage, direction="maximize"), storage)
        made.create()
        (Path(folder) / "records").mkdir()
        crew = drill.Crew(url, name, Path(folder) / "records", random.Random(f"{seed}/{place}"), 4)
        budget = 0
        while crew.killed < faults or crew.stopped < faults:
            budget += 10
            made.grow(budget)
            crew.meet(budget, faults, faults)
            drill.check(url, name, budget, crew.records)
        drill.let_go()
    found = {"lost": 0, "verdict": "{slots:,} slots finished once each, none running", "counts": {"slots": budget}}
    killed = {"fault": f"a search worker is killed, {place}", "how": "SIGKILL at a random commit or record", "runs": crew.killed}
    asleep = {"fault": f"a search worker sleeps beyond its lease, {place}", "how": "SIGSTOP, SIGCONT", "runs": crew.stopped}
    return [killed | found, asleep | found]


def searches(place: str, are_short: bool, faults: int, seed: int) -> list[dict[str, Any]]:
    """Kill, stop and put to sleep the workers of whole searches, one study after the other, whose budgets are raised twice."""
    rng = random.Random(f"{seed}/searches" + ("" if place == "SQLite" else f"/{place}"))
    sums: Counter[str] = Counter()
    budgets, rounds = ((2, 3, 4), 300) if are_short else ((4, 6, 8), 1000)
    recovery: list[float] = []
    with tempfile.TemporaryDirectory() as name, database(place, Path(name)) as given:
        folder = Path(name)
        address = drills.lay_out(folder).store.address
        while sum(sums[kind] for kind in ("killed", "told to stop", "put to sleep")) < faults:
            search = sums["searches"]
            workers = 4 if given or are_short else (1, 2, 4)[search % 3]
            crew = drills.Crew(folder, address, given, rng, drills.Journal(folder / f"{search}.journal"), workers)
            for budget in budgets:
                sets = (f"search.seed={seed * 100_000 + search}", f"search.n_trials={budget}", f"search.rounds={rounds}")
                if budget == budgets[0]:
                    crew.do("search-create", sets)
                elif are_short and rng.random() < DROPPED:
                    crew.lose_database(sets)
                    sums["dropped"] += 1
                crew.search(sets, 2 if are_short else 2 + workers, 0.1 if are_short else 0.3)
                drills.check(crew, sets, budget)
            drills.collected(crew, sets)
            fitted, redone = crew.journal.redone()
            assert redone <= drills.allowed(crew), (redone, crew)
            assert crew.journal.lost() == 0
            recovery += crew.journal.recovery(crew.killed)
            sums.update({"killed": len(crew.killed), "told to stop": crew.told, "put to sleep": crew.slept})
            sums.update(searches=1, slots=budgets[-1], fitted=fitted, redone=redone)
    verdict = "{searches:,} searches" + (" of four workers" if are_short else "") + ", {slots:,} slots, each finished once"
    verdict += "; {redone:,} of {fitted:,} borders fitted twice; back at work in {seconds:.1f} s (95 %)"
    counts = {**{one: sums[one] for one in ("searches", "slots", "redone", "fitted")}, "seconds": _percentile(sorted(recovery), 95)}
    amid = "amid short fits" if are_short else "amid fits"
    how = {"killed": "SIGKILL", "told to stop": "SIGTERM", "put to sleep": "SIGSTOP beyond its lease, SIGCONT"}
    found: list[dict[str, Any]] = [
        {"fault": f"a worker {amid} is {kind}, {place}", "how": f"{how[kind]} at random", "runs": sums[kind], "lost": 0}
        | {"verdict": verdict, "counts": counts}
        for kind in how
    ]
    if are_short:
        fault = f"the study's database is dropped before its budget is raised, {place}"
        verdict = "each finished trial is there again, as it was, and none was fitted again"
        found.append({"fault": fault, "how": "all its tables at once", "runs": sums["dropped"], "lost": 0, "verdict": verdict})
    return found


def leases(faults: int, seed: int) -> list[dict[str, Any]]:
    """Kill workers of which the others know by their leases alone, as those of another machine, with the lease that searches have."""
    rng, sums = random.Random(f"{seed}/leases"), Counter[str]()
    recovery: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        address = drills.lay_out(folder).store.address
        while sums["killed"] < faults:
            journal = drills.Journal(folder / f"{sums['searches']}.journal")
            crew = drills.Crew(folder, address, "", rng, journal, 2, lease=LEASE, net=drills.ELSEWHERE)
            sets = (f"search.seed={seed * 100_000 + sums['searches']}", "search.n_trials=8")
            crew.do("search-create", sets)
            crew.search(sets, 6, 4)
            drills.check(crew, sets, 8)
            recovery += journal.recovery(crew.killed)
            sums.update(searches=1, killed=len(crew.killed))
    verdict = "{searches:,} searches, each slot finished once; back at work in {seconds:.1f} s (95 %)"
    counts = {"searches": sums["searches"], "seconds": _percentile(sorted(recovery), 95)}
    how, runs = f"SIGKILL at random; its lease of {LEASE:.0f} s runs out", sums["killed"]
    fault = "a worker of another machine is killed, SQLite"
    return [{"fault": fault, "how": how, "runs": runs, "lost": 0, "verdict": verdict, "counts": counts}]


def trained(faults: int, seed: int) -> list[dict[str, Any]]:
    """Kill trainings, and tell them to stop, one after the other."""
    rng, sums = random.Random(f"{seed}/trainings"), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        (folder := Path(name) / "drill").mkdir()
        trainings.searched(folder)
        while sums["killed"] + sums["told to stop"] < faults:
            sums += trainings.train(folder, rng, seed * 100_000 + sums["trainings"], Path(name) / "alone")
    verdict = "{trainings:,} trainings, the same two models, byte for byte; {again:,} of {fitted:,} borders fitted twice"
    found = {"lost": 0, "verdict": verdict, "counts": {one: sums[one] for one in ("trainings", "again", "fitted")}}
    kinds = (("killed", "SIGKILL at random"), ("told to stop", "SIGTERM at random"))
    return [{"fault": f"a training is {kind}", "how": how, "runs": sums[kind]} | found for kind, how in kinds]


def beside(kind: str, faults: int, seed: int) -> list[dict[str, Any]]:
    """Kill the workers of a plain script, or of Optuna by itself, amid the same fits."""
    rng = random.Random(f"{seed}/{kind}")
    sums: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        address = drills.lay_out(Path(name)).store.address
        while sums["killed"] < faults:
            how = (alone.script, 1, 3) if kind == "a plain script" else (alone.work, 2, 4)
            sums += alone.search(how[0], Path(name), address, rng, sums["searches"], how[1], how[2])
            sums["searches"] += 1
    verdict, named = "{again:,} of {fitted:,} borders fitted again", ["again", "fitted"]
    if kind != "a plain script":
        verdict += "; {beyond:,} trials beyond the budgets of {searches:,} searches, {running:,} left running or waiting"
        verdict += ", {crashed:,} workers crashed by themselves"
        named += ["beyond", "searches", "running", "crashed"]
    fault, runs, lost = f"{kind}: its worker is killed amid fits, SQLite", sums["killed"], sums["lost"]
    counts = {one: sums[one] for one in named}
    return [{"fault": fault, "how": "SIGKILL at random", "runs": runs, "lost": lost, "verdict": verdict, "counts": counts}]


def gone(what: str, how: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Let the database, the store, or the network to both be gone amid searches of two workers, none of whom may end for it."""
    rng = random.Random(f"{seed}/{what}")
    back: list[float] = []
    waits: list[float] = []
    slots = 0
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for one in ("postgres", "minio"):
            (folder / one).mkdir()
        own_clock = what == "the database's clock"
        database = stack.enter_context(servers.PostgresServer(folder / "postgres", own_clock=own_clock))
        study, address, net = database.address, str(folder / "store"), ""
        fault = functools.partial(servers.restart, database, signal.SIGQUIT, rng)
        if own_clock:
            fault = functools.partial(_set_wrong, database, rng)
        elif what != "Postgres":
            minio = stack.enter_context(servers.MinioServer(folder / "minio"))
            os.environ |= minio.environment
            address = f"s3://{minio.bucket()}/drill"
            fault = functools.partial(servers.restart, minio, signal.SIGKILL, rng)
        if what == "the network":
            cable = stack.enter_context(network.Network())
            net, fault = cable.path, functools.partial(cable.cut, rng)
            study = study.replace(f"127.0.0.1:{database.port}", f"{network.HERE}:{cable.reach(database.port)}")
            os.environ["AWS_ENDPOINT_URL"] = f"http://{network.HERE}:{cable.reach(minio.port)}"
        os.environ["SUREFOOT_STUDY"] = study
        drills.lay_out(folder, address)
        while len(back) < count:
            crew = drills.Crew(folder, address, study, rng, drills.Journal(folder / f"{slots}.journal"), 2, net=net)
            sets = (f"search.seed={seed * 100_000 + slots}", "search.n_trials=8")
            crew.do("search-create", sets)
            ended = threading.Event()
            mine: list[float] = []
            long, pauses = (0.25 if net else 0.05), ((0.5, 2.0) if own_clock else (5.5, 7.0))
            thread = threading.Thread(target=_again_and_again, args=(fault, rng, long, pauses, ended, crew.journal, mine))
            thread.start()
            try:
                crew.search(sets, 0, 1)
            finally:
                ended.set()
                thread.join()
            drills.check(crew, sets, 8)
            assert crew.codes.keys() == {0}, crew.codes
            waits += crew.journal.waits(mine)
            back += mine
            slots += 8
    verdict = "{slots:,} slots, each finished once, no worker ended; at work {seconds:.1f} s after it was back (95 %)"
    counts = {"slots": slots, "seconds": _percentile(sorted(waits), 95)}
    how += "" if own_clock else f", back within 3 s; one in {'four' if net else 'twenty'} after up to 30 s"
    fault_said = f"{what} is {'cut' if net else 'set' if own_clock else 'restarted'} amid searches"
    return [{"fault": fault_said, "how": how, "runs": len(back), "lost": 0, "verdict": verdict, "counts": counts}]


def _set_wrong(database: servers.PostgresServer, rng: random.Random, _seconds: float) -> tuple[float, float]:
    """Set a database's clock an hour off, or right."""
    database.set_clock(rng.choice([wrong for wrong in (-3600, 0, 3600) if wrong != database.wrong]))
    return time.time(), time.time()


def full_disk(faults: int, seed: int) -> list[dict[str, Any]]:
    """Let the store's disk, with the study in it, be full amid searches, and start their worker again once there is room."""
    rng, sums = random.Random(f"{seed}/disk"), Counter[str]()
    os.environ["SUREFOOT_STUDY"] = ""
    with tempfile.TemporaryDirectory() as name, disk.Disk(Path(name) / "disk") as full:
        folder = Path(name)
        address = drills.lay_out(folder, str(full.folder / "store")).store.address
        while sums["ended"] < faults:
            crew = drills.Crew(folder, address, "", rng, drills.Journal(folder / f"{sums['searches']}.journal"), 1)
            sets = (f"search.seed={seed * 100_000 + sums['searches']}", "search.n_trials=4")
            crew.do("search-create", sets)
            code = -1
            while code:
                full.fill(rng, LEFT)
                process = crew.start("search-work", sets)
                process.join()
                code = int(process.exitcode or 0)
                assert code in (0, 75), (code, crew.said())
                full.empty()
                sums["ended"] += code == 75
            drills.check(crew, sets, 4)
            drills.collected(crew, sets)
            fitted, again = crew.journal.redone()
            sums.update(searches=1, fitted=fitted, again=again)
    verdict = "it ended with 75; {searches:,} searches, each slot finished once; {again:,} of {fitted:,} borders fitted twice"
    counts = {one: sums[one] for one in ("searches", "again", "fitted")}
    how, runs = f"a tmpfs of {disk.SIZE} MiB, which is filled but for up to {LEFT / 1e6} MB", sums["ended"]
    return [{"fault": "the store's disk is full, SQLite", "how": how, "runs": runs, "lost": 0, "verdict": verdict, "counts": counts}]


def _again_and_again(
    fault: Callable[[float], tuple[float, float]],
    rng: random.Random,
    long: float,
    pauses: tuple[float, float],
    ended: threading.Event,
    journal: drills.Journal,
    back: list[float],
) -> None:
    """Take something away soon, and again and again, whenever there was some work since, and all who waited for it could try again."""
    pause = rng.uniform(0.5, 2)
    while not ended.wait(pause):
        if any(line[0] > max(back, default=0) for line in journal.lines()[-1:]):
            back.append(fault(30 if rng.random() < long else 3)[1])
            pause = rng.uniform(*pauses)


def _percentile(values: list[float], percent: int) -> float:
    return values[min(len(values) - 1, len(values) * percent // 100)] if values else 0.0


def rows() -> list[dict[str, Any]]:
    """Read all parts so far."""
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()] if FILE.exists() else []


def markdown() -> str:
    """Write the table of all parts: equal faults are one row."""
    by_fault: dict[str, list[dict[str, Any]]] = {}
    for row in rows():
        by_fault.setdefault("a stored object is damaged" if row["part"] == "damage" else row["fault"], []).append(row)
    lines = ["| fault | how it is injected | runs | lost | what was found |", "|---|---|---|---|---|"]
    for fault, parts in by_fault.items():
        counts = [sum(part[name] for part in parts) for name in ("runs", "lost")]
        found = "refused, healed, or of no effect" if parts[-1]["part"] == "damage" else parts[-1]["verdict"].format(**_together(parts))
        lines.append(f"| {fault} | {parts[0]['how']} | {counts[0]:,} | {counts[1]} | {found} |")
    return "\n".join(lines) + "\n"


def _together(parts: list[dict[str, Any]]) -> dict[str, float]:
    """Add up what parts counted; of what they measured, the highest counts."""
    found: dict[str, float] = {}
    for part in parts:
        for name, count in part.get("counts", {}).items():
            found[name] = found.get(name, 0) + count if isinstance(count, int) else max(found.get(name, 0.0), count)
    return found


PARTS: dict[str, Callable[[int, int], list[dict[str, Any]]]] = {
    **{f"resume-{name}": functools.partial(resume, name) for name in BOOSTED},
    "slots": functools.partial(slots, "SQLite"),
    "slots-postgres": functools.partial(slots, "Postgres"),
    "searches": functools.partial(searches, "SQLite", False),
    "searches-postgres": functools.partial(searches, "Postgres", False),
    "many-searches": functools.partial(searches, "SQLite", True),
    "many-searches-postgres": functools.partial(searches, "Postgres", True),
    "leases": leases,
    "trainings": trained,
    "plain-script": functools.partial(beside, "a plain script"),
    "optuna-alone": functools.partial(beside, "Optuna alone"),
    "postgres": functools.partial(gone, "Postgres", "SIGQUIT"),
    "minio": functools.partial(gone, "MinIO", "SIGKILL"),
    "network": functools.partial(gone, "the network", "the cable of its namespace: what is sent is lost, and nobody says so"),
    "clock": functools.partial(gone, "the database's clock", "an hour ahead, an hour behind, or right"),
    "disk": full_disk,
    "damage": damage,
    "fuzz": fuzz,
    **{f"cluster-{name}": functools.partial(cluster_drills.drills, faults) for name, faults in cluster_drills.PARTS.items()},
}

if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    match sys.argv[1:]:
        case ["table"]:
            sys.stdout.write(markdown())
        case [part, *numbers] if part in PARTS:
            count, seed = (*map(int, numbers), *(20, 1)[len(numbers) :])
            if any((row["part"], row["seed"]) == (part, seed) for row in rows()):
                sys.exit(f"{part} was run with seed {seed}: give another one")
            made = [{"part": part, "seed": seed, **row} for row in PARTS[part](count, seed)]
            with FILE.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in made)
            sys.stdout.writelines(json.dumps(row) + "\n" for row in made)
        case _:
            sys.exit(__doc__)
