"""The ``surefoot`` command."""

import argparse
import difflib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.common import artifact, checkpoint, config, contract, log, raw, registry, step
from stages.common.address import Addresses
from stages.common.artifact import sha256
from stages.common.config import Config
from stages.common.errors import ConfigError, MissingInput, NotNow, UsageError
from stages.common.store import Store, open_store

WATCH = 2.0  # seconds between two looks at a search
FEWEST = 100  # rows of a generated table


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit with the code that says how it ended."""
    asked = _parser().parse_args(argv)
    checkpoint.catch_signals()
    log.setup()
    code = 0

    def work() -> None:
        nonlocal code
        code = asked.command(asked)

    sys.exit(step.guarded(work) or code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="surefoot", description="From a table to a deployed model; nothing finished is ever lost.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        work: Callable[[argparse.Namespace], int], name: str, text: str, *, needs_config: bool | None = None, or_run: bool = False
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(command=work)
        if needs_config is not None:
            given = (
                ("CONFIG|RUN", "the dataset's YAML file, or a run's name, as submit prints it")
                if or_run
                else (None, "the dataset's YAML file")
            )
            made.add_argument("config", nargs=None if needs_config else "?", metavar=given[0], help=given[1])
            made.add_argument("--store", help="a folder or s3://bucket/prefix (default: the config's common.store)")
            made.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="set one option of the config")
        return made

    made = command(init, "init", "write a config for a table, with the reason beside each guess")
    made.add_argument("table")
    for option in ("label", "time", "id", "entity"):
        made.add_argument(f"--{option}", metavar="COLUMN")
    made.add_argument("--drop", action="append", default=[], metavar="COLUMN", help="a column that the model must not see")
    made.add_argument("--split", choices=("time", "order", "random"))
    made.add_argument("--out", type=Path, default=None, help="where to write it (default: configs/<table>.yaml)")
    made.add_argument("--force", action="store_true", help="replace a config that is there")
    made = command(generate, "generate", "write a made-up table of the shape of IEEE-CIS, as Kaggle's two files")
    made.add_argument("--rows", type=int, default=30_000)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, required=True, metavar="DIR")
    for work, name, text in (
        (plan, "plan", "say what a run will do, what is there, and what changed"),
        (run, "run", "do what is missing, on this machine"),
    ):
        command(work, name, text, needs_config=True).add_argument("--json", action="store_true", help="one JSON document on stdout")
    made = command(explain, "explain", "say what a config's options are, and who set each", needs_config=True)
    made.add_argument("options", nargs="*", metavar="SECTION.KEY", help="these alone, whole (default: what differs from the defaults)")
    command(schema, "schema", "print the JSON schema of a dataset's file, for editors")
    made = command(submit, "submit", "upload table and config, and run in the cluster", needs_config=True)
    made.add_argument("--wait", action="store_true", help="wait for the end; exit with the code of the step that failed, if one did")
    made.add_argument("--watch", action="store_true", help="wait, and say what begins and ends")
    made = command(ls, "ls", "list the finished steps", needs_config=False)
    made.add_argument("--digests", action="store_true", help="step, item, address, file, sha256: nothing measured")
    made.add_argument("--json", action="store_true", help="one JSON document on stdout")
    said = "say what is in production, and how a config's last run and search stand; or how each step of a run in the cluster stands"
    made = command(status, "status", said, needs_config=False, or_run=True)
    made.add_argument("--json", action="store_true", help="one JSON document on stdout")
    made.add_argument("--watch", action="store_true", help="say it again every few seconds, until the search, or the run, is over")
    made = command(logs, "logs", "print what the steps of a run in the cluster log")
    made.add_argument("run", metavar="RUN", help="its name, as submit prints it")
    made.add_argument("--step", metavar="STEP", help="of one step alone: train, train/xgboost")
    made.add_argument("--follow", action="store_true", help="until the run has ended")
    said = "write the report of a config's results, or of a run, and its numbers beside it as JSON"
    made = command(report, "report", said, needs_config=True, or_run=True)
    made.add_argument("--out", type=Path, default=Path("report.html"))
    made = command(doctor, "doctor", "check what this machine and a config give: one line each, and what to do", needs_config=False)
    made.add_argument("--json", action="store_true", help="one JSON document on stdout")
    command(verify, "verify", "hash every byte that counts; what is damaged is made again by the next run", needs_config=False)
    made = command(rollback, "rollback", "make an earlier package live again and bar the one that was", needs_config=False)
    made.add_argument("--to", metavar="VERSION", help="default: the one before")
    return parser


# --- the commands ---------------------------------------------------------------------------------


def init(asked: argparse.Namespace) -> int:
    """Write a config for a table."""
    from workflows.init import init_file

    out = asked.out or Path("configs") / f"{Path(asked.table).stem}.yaml"
    init_file(
        Path(asked.table),
        out,
        label=asked.label,
        time=asked.time,
        id=asked.id,
        entity=asked.entity,
        drop=tuple(asked.drop),
        split=asked.split,
        force=asked.force,
    )
    _say(f"wrote {out}; look at its guesses, then: surefoot run {out}")
    return 0


def generate(asked: argparse.Namespace) -> int:
    """Write a made-up table of the shape of IEEE-CIS, as Kaggle's two files."""
    from stages.prepare import ieee_cis

    if asked.rows < FEWEST:
        raise UsageError(f"--rows {asked.rows}: give at least {FEWEST}.")
    ieee_cis.write(asked.rows, asked.seed, asked.out)
    transaction, identity = (asked.out / f"train_{name}.csv" for name in ("transaction", "identity"))
    _say(f"wrote {transaction} and {identity}; next:")
    _say(f"surefoot run configs/ieee-cis.yaml --set prepare.path={transaction} --set prepare.join_path={identity}")
    return 0


def plan(asked: argparse.Namespace) -> int:
    """Say what a run will do."""
    from stages.plan import plan as plans

    resolved, store = _open(asked)
    made = plans.plan(resolved, store, copy=False)
    if asked.json:
        _say(json.dumps({"steps": [{**vars(row), "label": row.label} for row in made.rows]}))
        return 0
    words = {"done": "is there", "run": "will run", "depends": "depends on what it reads", "gated": "is gated: the verdict is no"}
    for row in made.rows:
        changes = "" if row.state == "done" else "  " + ", ".join(row.why)
        _say(f"{row.label:<24} {words[row.state]:<26}{changes}")
    return 0


def explain(asked: argparse.Namespace) -> int:
    """Say who set a config's options."""
    options = config.explain(Path(asked.config), asked.set)
    known = {option.name: option for option in options}
    if unknown := [name for name in asked.options if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=3, cutoff=0.5)
        raise UsageError(f"{unknown[0]}: there is no such option" + (f"; did you mean {' or '.join(near)}?" if near else "."))
    base = str(config.CONFIGS / "base.yaml")
    for name in asked.options:
        option = known[name]
        _say(f"{name} = {_value(option.value)}")
        _say(f"  {option.description}")
        _say("  a change of it makes its step, and what reads it, run again" if option.changes_result else "  it cannot change a result")
        for number, (who, what) in enumerate(reversed(option.said)):
            _say(f"  {'over' if number else 'by'} {who}: {_value(what)}")
    for option in () if asked.options else options:
        if option.said and option.said[-1][0] != base:
            _say(f"{option.name + ' = ' + _value(option.value):<50} {option.said[-1][0]}")
    return 0


def schema(_asked: argparse.Namespace) -> int:
    """Print the JSON schema of a dataset's file."""
    from workflows import options

    _say(json.dumps(options.schema(), indent=1))
    return 0


def _value(value: Any) -> str:
    return json.dumps(value, default=lambda one: one.model_dump(mode="json"))


def run(asked: argparse.Namespace) -> int:
    """Do what is missing, on this machine."""
    from stages.evaluate import report as reports
    from stages.plan import plan as plans
    from workflows import local

    started = time.monotonic()
    resolved, store = _open(asked)
    made = plans.plan(resolved, store)
    outcomes = local.walk(made.addresses, plans.write(made))
    failed = outcomes[-1].code
    closed, _ = reports.close(made.addresses, "Failed" if failed else "Succeeded")
    page = str(store.local(closed["report"]) or f"{store.address}/{closed['report']}")
    known = {name: value for outcome in outcomes for name, value in outcome.outputs.items()}
    steps = [{"step": o.label, "outcome": o.state, "seconds": o.seconds, "exit": o.code} for o in outcomes]
    seconds = round(time.monotonic() - started, 2)
    result = {name: known.get(name) for name in ("verdict", "version", "auc", "average_precision", "suspicious")}
    result["barred"] = result["version"] in registry.barred(store)
    result["left_out"] = [outcome.item["family"] for outcome in outcomes[:-1] if outcome.code]
    if asked.json:
        _say(json.dumps({**result, "steps": steps, "seconds": seconds, "report": page, "exit": failed}))
    else:
        _tell(outcomes, result, seconds, page)
    return failed


def _tell(outcomes: list[Any], result: dict[str, Any], seconds: float, page: str) -> None:
    for o in outcomes:
        _say(f"{o.label:<24} {o.state:<8} {o.seconds:>7.1f} s" if o.seconds else f"{o.label:<24} {o.state}")
    if result["auc"] is not None:
        _say(f"test AUC {result['auc']:.4f}, average precision {result['average_precision']:.4f}")
    for family in result["left_out"]:
        _say(f"without  {family}, which failed: run the same command again to make it")
    for column in result["suspicious"] or ():
        _say(f"suspicious: column {column!r} carries much of the score; is it known before the label is?")
    if result["verdict"]:
        barred = " (rolled back: not in production)" if result["barred"] else ""
        _say(f"verdict  {result['verdict']}" + (f", version {result['version']}{barred}" if result["version"] else ""))
    _say(f"report   {page}  ({seconds} s)")


def submit(asked: argparse.Namespace) -> int:
    """Upload table and config create-once and create the Workflow."""
    from workflows import cluster, runs

    resolved, store = _open(asked)
    if not store.address.startswith("s3://"):
        raise UsageError("submit needs a store that the cluster reaches: --store s3://bucket/prefix.")
    name = cluster.submit(upload(resolved, store), store.address)
    _shown(name)
    if not (asked.wait or asked.watch):
        return 0
    code = runs.wait(name, tell=_shown if asked.watch else None)
    if asked.watch and (seen := runs.look(name)):
        _tell_end(seen)
    return code


def upload(resolved: Config, store: Store) -> str:
    """Upload a config and its raw files, each by its digest; give the config's address in the store."""
    sections = {name: _uploaded(resolved[name], store) for name in raw.SECTIONS}
    document = Config(resolved.name, {**resolved.sections, **sections}).dump()
    digest = sha256(document)
    artifact.keep(store, address := f"config/{digest}.json", document, digest)
    return address


def _uploaded(section: Any, store: Store) -> Any:
    """Upload a section's raw files; give the section with their addresses. At what is in a bucket, the cluster looks at each run."""
    section = section.model_copy(update={section.RAW[name]: None for name in section.raw().keys() - raw.files(section).keys()})
    for name, place in section.raw().items():
        if place.startswith(raw.NO_FILE):
            continue
        key = f"raw/{_put(store, Path(place))}"
        if (head := store.head(key)) is None or head.sha256 not in (None, key.removeprefix("raw/")):
            raise MissingInput(f"{place}: its bytes changed while it was uploaded. Submit again.")
        section = section.model_copy(update={section.RAW[name]: key})
    return section


def _put(store: Store, path: Path) -> str:
    """Upload a raw file, or a folder's files and their listing; give its digest."""
    if not path.is_dir():
        return str(artifact.put(store, path, "raw")["sha256"])
    files = raw.listing(store, path)
    for name, digest in files["files"].items():
        if artifact.put(store, path / name, "raw")["sha256"] != digest:
            raise MissingInput(f"{path / name}: its bytes changed while it was uploaded. Submit again.")
    document = contract.dump(files)
    artifact.keep(store, f"raw/{sha256(document)}", document, sha256(document))
    return sha256(document)


def ls(asked: argparse.Namespace) -> int:
    """List the finished steps."""
    _, store = _open(asked)
    manifests = list(artifact.all_manifests(store))
    if asked.json:
        _say(json.dumps([manifest.document for manifest in manifests]))
    for manifest in () if asked.json else manifests:
        head = [manifest.document["step"], json.dumps(manifest.document["item"]), manifest.document["address"]]
        if asked.digests:
            for name, file in sorted(manifest.files.items()):
                _say("  ".join([*head, name, file["sha256"]]))
        else:
            made = manifest.document
            _say(f"{manifest.label:<24} {made['address'][:12]}  {made['at']}  {made['measured']['seconds']:>8.1f} s  {made['run']}")
    return 0


def status(asked: argparse.Namespace) -> int:
    """Say what is in production, how the last run ended, and how the search stands."""
    if asked.watch and not asked.config:
        raise UsageError("--watch: name the config whose search, or the run that, is to be watched.")
    look = _status_of_run if _is_run(asked) else _status
    while not look(asked) and asked.watch:
        sys.stdout.flush()
        time.sleep(WATCH)
    return 0


def _is_run(asked: argparse.Namespace) -> bool:
    """Tell whether a name is a run's: a config is a file, or looks like the path of one."""
    return bool(asked.config) and not Path(asked.config).is_file() and not re.search(r"/|\.(ya?ml|json)$", asked.config)


def _status_of_run(asked: argparse.Namespace) -> bool:
    """Say how a run stands, by the Argo server, or by its record where a store is given; tell whether it is over."""
    from workflows import runs

    seen = runs.look(asked.config) if os.environ.get("ARGO_SERVER") else None
    if seen is None:
        return _tell_record(asked)
    if asked.json:
        _say(json.dumps({**vars(seen), "steps": [vars(row) for row in seen.steps], "exit": seen.code}))
    else:
        _say(f"{seen.name}  {seen.phase}, {seen.seconds:.0f} s, {seen.store}")
        for row in seen.steps:
            _say(str(row))
        _tell_end(seen)
    return seen.phase in runs.ENDED


def _tell_end(seen: Any) -> None:
    for name, value in seen.told.items():
        _say(f"{name.replace('_', ' '):<17}  {value}")
    if seen.message:
        _say(f"{'message':<17}  {seen.message}")


def _tell_record(asked: argparse.Namespace) -> bool:
    from stages.evaluate import report as reports

    record, store = _record(asked)
    closed = reports.closed(store, record["run"])
    if asked.json:
        _say(json.dumps({"run": record["run"], "closed": closed}))
        return closed is not None
    _say(f"{record['run']}: {closed['status'] if closed else 'running, or stopped'}")
    states = closed["steps"] if closed else {}
    for label in sorted(states, key=lambda label: [*contract.STEPS].index(label.partition("/")[0])):
        _say(f"{label:<26} {states[label]}")
    if closed and closed["verdict"]:
        _say(f"verdict  {closed['verdict']}")
    return closed is not None


def _record(asked: argparse.Namespace) -> tuple[dict[str, Any], Store]:
    """Find a run's record, in the store that is given, or else in the one that its Workflow works in."""
    from workflows import cluster, runs

    address, is_asked = asked.store, bool(os.environ.get("ARGO_SERVER"))
    if not address and is_asked and (seen := runs.look(asked.config)):
        found = runs.record(store := open_store(seen.store), asked.config)
        if found is None:
            raise MissingInput(f"{asked.config}: plan wrote no record of it into {seen.store}. See surefoot status {asked.config}.")
        return found, store
    if not address or (found := runs.record(store := open_store(address), asked.config)) is None:
        where = address or (cluster.where() if is_asked else "a cluster, since ARGO_SERVER is not set")
        raise UsageError(
            f"{asked.config}: no config is at this path, and no run of this name in {where}. Give --store to find a run that is gone there."
        )
    return found, store


def _status(asked: argparse.Namespace) -> bool:
    """Say how a config stands; tell whether its search is over."""
    from stages.evaluate import report as reports
    from stages.plan import plan as plans

    resolved, store = _open(asked)
    searches = _searches(resolved, store) if asked.config else []
    live = registry.live(store)
    record = plans.last_record(store, resolved.name) if asked.config else {}
    closed = reports.closed(store, record["run"]) if record else None
    if asked.json:
        _say(json.dumps({"production": live, "run": record.get("run"), "closed": closed, "searches": [vars(one) for one in searches]}))
        return bool(searches) and all(search.is_over for search in searches)
    _say(
        f"production  version {live['version']}, generation {live['generation']}, since {live['at']}" if live else "production  nothing yet"
    )
    if record:
        ended = ", ".join([closed["status"], *closed.get("degraded", ())]) if closed else "running, or stopped: run it again to go on"
        _say(f"last run    {record['run']}: {ended}")
    for search in searches:
        _say(f"{search.family:<11} {search}")
    return bool(searches) and all(search.is_over for search in searches)


def logs(asked: argparse.Namespace) -> int:
    """Print what the steps of a run in the cluster log."""
    from workflows import runs

    runs.logs(asked.run, asked.step, _shown, follow=asked.follow)
    return 0


def _searches(resolved: Config, store: Store) -> list[Any]:
    """Ask how the searches stand; nothing where this machine does not reach their database."""
    from stages.search import progress

    try:
        return [*progress.stand(Addresses(step.pin(resolved, store, copy=False), store))]
    except (ConfigError, MissingInput, NotNow) as error:
        log.debug("search.not_asked", why=str(error))
        return []


def report(asked: argparse.Namespace) -> int:
    """Draw the report of what is there for a config; or give a run's, as it was drawn at its end."""
    from stages.evaluate import report as reports

    beside = asked.out.with_suffix(".json")
    if beside == asked.out:
        raise UsageError("--out names the page, an HTML file; its numbers are written beside it, as .json.")
    if _is_run(asked):
        record, store = _record(asked)
        page, numbers = reports.kept(store, record)
    else:
        resolved, store = _open(asked)
        addresses = Addresses(step.pin(resolved, store, copy=False), store)
        page, numbers = reports.draw(addresses).encode(), reports.numbers(addresses)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    beside.write_bytes(numbers)
    asked.out.write_bytes(page)
    _say(f"{asked.out} (its numbers: {beside})")
    return 0


def doctor(asked: argparse.Namespace) -> int:
    """Check what this machine and a config give; write nothing that stays."""
    from workflows import doctor as doctors

    findings = doctors.examine(asked.config, asked.store, asked.set)
    code = next((one.code for one in findings if one.state == "fail"), 0)
    if asked.json:
        _say(json.dumps({"checks": [vars(one) for one in findings], "exit": code}))
    for one in () if asked.json else findings:
        _say(f"{one.state:<5} {one.name:<10} {one.said}" + (f". {one.do}" if one.do else ""))
    return code


def verify(asked: argparse.Namespace) -> int:
    """Hash every byte that counts."""
    _, store = _open(asked)
    found = [*artifact.verify(store), *registry.verify(store)]
    for line in found:
        _say(line)
    _say(
        f"{store.address}: {len(found)} damaged; what a step made is made again by the next run"
        if found
        else f"{store.address}: every byte is as it was written"
    )
    return MissingInput.code if found else 0


def rollback(asked: argparse.Namespace) -> int:
    """Make an earlier package live again."""
    _, store = _open(asked)
    made = registry.roll_back(store, asked.to)
    _say(f"live: version {made['version']} (generation {made['generation']}); barred: {made['barred']}")
    return 0


# --- what they share ------------------------------------------------------------------------------


def _open(asked: argparse.Namespace) -> tuple[Config, Store]:
    resolved = config.load(Path(asked.config), asked.set) if asked.config else config.load(config.CONFIGS / "base.yaml", asked.set)
    log.setup(resolved["common"].log_level)
    return resolved, open_store(asked.store or resolved["common"].store)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _shown(line: str) -> None:
    """Say a line at once, also where nobody sits at a terminal."""
    _say(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
