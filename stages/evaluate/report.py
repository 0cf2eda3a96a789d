"""One plain page about a run, and its numbers as JSON, drawn from the manifests that are there; it needs no ML library.

    python -m stages.evaluate.report --config <address in the store> --store S [--status Succeeded] [--outputs DIR]

In Argo it is the exit handler: it runs however the run ended, and says what is missing. No script, no picture from
elsewhere: Argo's server shows it under a policy that blocks both.
"""

import argparse
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from stages.common import artifact, contract, log, registry, step
from stages.common.address import Addresses
from stages.common.artifact import Artifact, Manifest
from stages.common.contract import STEPS
from stages.common.errors import MissingInput
from stages.common.store import Store, open_store
from stages.evaluate import trials
from stages.evaluate.markup import STYLE, Html, Line, Number, bars, folded, plot, said, shares, side_by_side, table, tag

METRICS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "log_loss": "log loss (less is better)",
    "recall_at_1pct_fpr": "recall at 1 % false alarms",
    "recall_at_1pct_alerts": "recall at 1 % alerts",
    "calibration_error": "calibration error (less is better)",
}
ARROWS = {"up": "\N{UPWARDS ARROW}", "down": "\N{DOWNWARDS ARROW}"}
REASONS = 3  # columns told of each of the highest-scored rows
FULL = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)  # ends of a picture's axes, or else 1
MEASURED = ("seconds", "peak_memory_mb", "estimated_memory_mb")  # of each step
OUTCOMES = {"made": "made by this run", "found": "was there", "gated": "not run: its gate is closed", "missing": "not there"}


# --- what is there --------------------------------------------------------------------------------


class Results:
    """What a run's steps left: manifests and JSON files, None where something is not there."""

    def __init__(self, addresses: Addresses, folder: Path) -> None:
        self.addresses = addresses
        self.config = addresses.config
        self.run = self.config.pinned.run if self.config.pinned else ""
        self._folder = folder
        self.manifests: dict[str, Manifest | None] = {}
        for name, one in STEPS.items():
            for item in self.config.items(name) if not one.effect_of else ():
                self.manifests[contract.label(name, item)] = addresses.find(name, item)

    def outcome(self, label: str) -> str:
        """Tell how a step stands: made (by this run), found, gated or missing."""
        manifest = self.manifests[label]
        if manifest:
            return "made" if self.run and manifest.document["run"] == self.run else "found"
        return "gated" if self.addresses.is_gated(label.split("/", maxsplit=1)[0]) else "missing"

    def outputs(self, label: str) -> dict[str, Any]:
        """Give a step's small outputs."""
        manifest = self.manifests.get(label)
        return manifest.outputs if manifest else {}

    def json(self, label: str, name: str) -> Any:
        """Give a JSON file of a step."""
        manifest = self.manifests.get(label)
        try:
            return Artifact(self.addresses.store, manifest, self._folder).read_json(name) if manifest else None
        except MissingInput as lost:
            log.warning("report.lost", file=name, message=str(lost))
            return None

    def degraded(self, label: str) -> list[str]:
        """Say what was not as asked when a step worked."""
        manifest = self.manifests.get(label)
        return list(manifest.document["degraded"]) if manifest else []

    def measured(self, label: str) -> dict[str, Any]:
        """Give what was measured while a step worked."""
        manifest = self.manifests.get(label)
        return manifest.document["measured"] if manifest else {}


# --- the record of a run --------------------------------------------------------------------------


def close(addresses: Addresses, status: str) -> tuple[dict[str, Any], str]:
    """Draw the page and keep all for good: ``runs/<run>/closed.json``, ``report.html``, and its numbers as ``report.json``.

    Closing again with the same outcome changes nothing (an exit handler may run twice). With another one, as after
    a retry that healed the run, it is kept beside the first as ``closed-2.json`` and ``report-2.html``.
    """
    with tempfile.TemporaryDirectory(prefix="surefoot-") as folder:
        results = Results(addresses, Path(folder))
        page, figures = _page(results, status), _numbers(results, status)
        steps = {label: results.outcome(label) for label in results.manifests}
        record = {"run": results.run, "status": status, "verdict": results.outputs("validate").get("verdict"), "steps": steps}
        record["degraded"] = results.degraded("evaluate")
    return (_keep(addresses.store, record, page, figures) if results.run else record), page


def closed(store: Store, run: str) -> dict[str, Any] | None:
    """Give the record that counts: the last one that is whole."""
    keys = [key for key in store.list(f"runs/{run}/closed") if re.fullmatch(r"closed(-\d+)?\.json", key.rsplit("/", 1)[1])]
    records = (artifact.unsealed(store, _kept(run, "closed", "json", number)) for number in range(len(keys), 0, -1))
    return next(filter(None, records), None)


def kept(store: Store, record: dict[str, Any]) -> tuple[bytes, bytes]:
    """Give a run's page and numbers: those of its end, or else what is there by now.

    Raises:
        MissingInput: they are lost, or the run's config is.

    """
    end = closed(store, record["run"])
    if end is None:
        addresses = Addresses(step.resolve(record["config"], store, []), store)
        return draw(addresses).encode(), numbers(addresses)
    page: str = end["report"]
    try:
        return store.read(page), store.read(page.removesuffix(".html") + ".json")
    except KeyError as error:
        raise MissingInput(
            f"{store.address}/{page}: this report is lost. Submit again: what is there is kept, and a new one is drawn."
        ) from error


def _keep(store: Store, record: dict[str, Any], page: str, figures: bytes) -> dict[str, Any]:
    run, at = record["run"], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    number = 1
    while True:
        made = {**record, "at": at, "report": _kept(run, "report", "html", number)}
        key = _kept(run, "closed", "json", number)
        if not store.create(key, artifact.seal(key, made)):
            there = artifact.unsealed(store, key)
            if there is None or {**there, "at": at} != made:
                number += 1
                continue
            made = there
        store.create(made["report"], page.encode())
        store.create(_kept(run, "report", "json", number), figures)
        return made


def _kept(run: str, name: str, kind: str, number: int) -> str:
    return f"runs/{run}/{name}{f'-{number}' if number > 1 else ''}.{kind}"


def told(addresses: Addresses) -> dict[str, Any]:
    """Give what people ask first of a run, as Argo's UI shows it; empty where there is no answer."""
    with tempfile.TemporaryDirectory(prefix="surefoot-") as folder:
        results = Results(addresses, Path(folder))
        judged, found = results.outputs("evaluate"), {"headline": _headline(results)[0]}
    found |= {"verdict": results.outputs("validate").get("verdict", ""), "version": results.outputs("deploy").get("version", "")}
    return {**found, **{name: judged.get(name, "") for name in ("auc", "average_precision")}}


# --- the numbers ----------------------------------------------------------------------------------


def numbers(addresses: Addresses, status: str = "") -> bytes:
    """Give all numbers that the page shows, as JSON."""
    with tempfile.TemporaryDirectory(prefix="surefoot-") as folder:
        return _numbers(Results(addresses, Path(folder)), status)


def _numbers(results: Results, status: str) -> bytes:
    values = results.measured("validate").get("checks", {})
    steps = {}
    for label, manifest in results.manifests.items():
        made = manifest.document if manifest else {}
        told = {name: results.measured(label).get(name) for name in MEASURED}
        steps[label] = {"outcome": results.outcome(label), **told, **{name: made.get(name) for name in ("device", "degraded")}}
        steps[label]["manifest"] = manifest.key if manifest else None
    pinned, features = results.config.pinned, results.json("prepare", "features.json")
    document = {
        "name": results.config.name,
        "run": results.run or None,
        "status": status or None,
        "headline": _headline(results)[0],
        "verdict": results.outputs("validate").get("verdict"),
        "checks": [{**one, "measured": values.get(one["name"])} for one in results.json("validate", "checks.json") or []],
        "evaluation": results.json("evaluate", "evaluation.json"),
        "data": results.json("prepare", "data.json"),
        "columns": {"used": len(features["columns"]), "left_out": features["dropped"], "label": features["label"]} if features else None,
        "search": {label: _found(results, label, some) for label, some in _trials(results).items() if some},
        "steps": steps,
        "models": {label: results.json(label, "model.json") for label in results.manifests if label.startswith("train/")},
        "config": {name: section.model_dump(mode="json") for name, section in results.config.sections.items()},
        "raw": pinned.raw if pinned else {},
        "champion": pinned.champion if pinned else None,
    }
    return contract.dump(document)


# --- the page -------------------------------------------------------------------------------------


def draw(addresses: Addresses, status: str = "") -> str:
    """Draw the page of a run's results, as they are now."""
    with tempfile.TemporaryDirectory(prefix="surefoot-") as folder:
        return _page(Results(addresses, Path(folder)), status)


def _page(results: Results, status: str) -> str:
    name = results.config.name
    ended = f" · run ended: {status}" if status else ""
    judged = (_champion, _scores, _curves, _threshold, _calibration, _slices, _trust, _suspicious, _importance, _highest)
    parts = (_verdict, _checks, *judged, _search, _data, _steps, _settings, _lineage)
    main = tag("main", tag("p", f"Surefoot · {name} · {results.run or 'no run'}{ended}", class_="small"), [part(results) for part in parts])
    meta = Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">')
    head = tag("head", meta, tag("title", f"{name}: {_headline(results)[0]}"), tag("style", Html(STYLE)))
    return "<!doctype html>\n" + tag("html", head, tag("body", main), lang="en") + "\n"


def _headline(results: Results) -> tuple[str, str]:
    """Say the verdict in a line, and its kind: good, bad or open."""
    verdict, deployed = results.outputs("validate").get("verdict"), results.outputs("deploy")
    if verdict == "rejected":
        return f"Rejected: {', '.join(results.outputs('validate')['failed'])} not passed", "bad"
    if deployed and not deployed["promoted"]:
        return f"Accepted, but not promoted: {deployed['reason']}", "open"
    if deployed:
        return _in_production(results, deployed["version"], deployed["generation"])
    if verdict:
        return "Accepted, but not deployed yet", "open"
    return f"No verdict: {next(label for label in results.manifests if results.outcome(label) == 'missing')} is not there", "open"


def _in_production(results: Results, version: str, generation: int) -> tuple[str, str]:
    """Say of a promoted version whether it still is what is live."""
    store = results.addresses.store
    live = registry.live(store)
    if live and live["version"] == version:
        return f"Accepted: version {version} is in production since generation {generation}", "good"
    if version in registry.barred(store):
        return f"Accepted, but version {version} was rolled back after generation {generation}, and is barred", "open"
    return f"Accepted: version {version} went to production as generation {generation}; another one is live now", "open"


def _verdict(results: Results) -> list[Html]:
    line, kind = _headline(results)
    missing = [label for label in results.manifests if results.outcome(label) == "missing"]
    checks = results.json("validate", "checks.json") or []
    values = results.measured("validate").get("checks", {})
    reasons = [
        f"{c['name']} ({c['need']}): {c['reason']} (measured: {said(values.get(c['name']))}, limit: {c['limit']:g})"
        for c in checks
        if c["answer"] != "pass"
    ]
    made = [tag("h1", line, class_=kind)]
    if reasons:
        made.append(tag("ul", [tag("li", reason) for reason in reasons]))
    if degraded := results.degraded("evaluate"):
        made.append(tag("p", f"Judged without all that was asked for: {', '.join(degraded)}.", class_="open"))
    if missing:
        made.append(
            tag("p", f"Not there: {', '.join(missing)}. Run the same command again to make what is missing; what is there is kept.")
        )
    return made


def _checks(results: Results) -> list[Html]:
    kinds = {"pass": "good", "fail": "bad", "cannot tell": "open"}
    values = results.measured("validate").get("checks", {})
    rows = [
        [
            c["name"],
            tag("b", c["answer"], class_=kinds[c["answer"]]),
            values.get(c["name"]),
            Number(f"{c['limit']:g}"),
            c["need"],
            c["reason"],
        ]
        for c in results.json("validate", "checks.json") or []
    ]
    note = tag("p", "What a model must pass before it goes to production. Advisory ones are only told.", class_="small")
    head = ["check", "answer", "measured", "limit", "need", "reason"]
    return _section("Checks", [note, table(head, rows)] if rows else [_absent("validate")])


def _champion(results: Results) -> list[Html]:
    found = results.json("evaluate", "evaluation.json")
    if not found:
        return []
    champion = found["champion"]
    kind = {"better": "good", "not worse": "good", "worse": "bad"}.get(champion["answer"], "open")
    inside = [tag("p", tag("b", _capital(champion["answer"]), class_=kind), f": {_compared(champion)}")]
    if "interval" in champion:
        note = "Both models score the same rows, all later than the last one that the model in production was fitted on."
        inside.append(tag("p", note, class_="small"))
    return _section("Against what is in production", inside)


def _compared(champion: dict[str, Any]) -> str:
    if champion["answer"] == "no champion":
        return "nothing is in production yet."
    if "interval" not in champion:
        return f"compared with version {champion['version']}: {champion['reason']}."
    low, high = champion["interval"]
    return (
        f"on {champion['rows']:,} rows ({champion['positives']:,} positives), {METRICS[champion['metric']].split(' (')[0]} changes from "
        f"{abs(champion['champion']):.4f} (version {champion['version']}) to {abs(champion['challenger']):.4f}. The gain is "
        f"{champion['difference']:+.4f}; its 95 % interval goes from {low:+.4f} to {high:+.4f}. Below {champion['min_gain']:g} is noise."
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _scores(results: Results) -> list[Html]:
    found = results.json("evaluate", "evaluation.json")
    if not found:
        return _section("Scores", [_absent("evaluate")])
    valid = {**found["valid"], **found["baseline"]}
    rows = [
        [f"{name} (winner)" if name == found["winner"] else name, "valid", *(scores[m] for m in METRICS)] for name, scores in valid.items()
    ]
    rows.append([tag("b", found["winner"]), tag("b", "test"), *(tag("b", found["test"][m]) for m in METRICS)])
    rows += [[name, "test", *(scores[m] for m in METRICS)] for name, scores in found["baseline_test"].items()]
    if outside := found["outside"]:
        rows += [["outside scores", split, *(outside[split][m] for m in METRICS)] for split in ("valid", "test")]
    metric = found["metric"]
    ends = {name: scores[metric] for name, scores in valid.items()}
    return _section(
        "Scores",
        [
            table(["model", "split", *METRICS.values()], rows),
            tag(
                "p",
                f"The winner is chosen by {METRICS[metric]} on valid, and scored once on test. The logistic regression is the baseline.",
            ),
            tag("p", _sure(found["intervals"])),
            *([tag("p", _outside(outside, found["winner"]))] if outside else []),
            bars([(f"{name}, valid", value) for name, value in ends.items()] + [(f"{found['winner']}, test", found["test"][metric])]),
        ],
    )


def _outside(outside: dict[str, Any], winner: str) -> str:
    if "interval" not in outside:
        return f"Whether {winner} is better than the outside scores cannot be told: they are no probabilities."
    low, high = outside["interval"]
    said = f"{outside['difference']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}"
    return f"Against the outside scores on test, {winner}: {outside['answer']} ({said}, on the same rows)."


def _sure(intervals: dict[str, list[float]]) -> str:
    said = [f"{METRICS[name]} {low:.4f} to {high:.4f}" for name, (low, high) in intervals.items()]
    return f"95 % intervals on test, by resampling who acts: {', '.join(said) or 'none, since one class is too rare'}."


def _curves(results: Results) -> list[Html]:
    found = results.json("evaluate", "evaluation.json")
    if not found:
        return []
    kinds = {found["winner"]: "main"} | dict.fromkeys(found["baseline_test"], "other")

    def lines(which: str) -> list[Line]:
        return [Line(name, found["curves"][name][which], kind) for name, kind in kinds.items()]

    guess = Line("a guess", [[0, 0], [1, 1]], "guide")
    note = (
        "Each point is a threshold, on test. Recall: share of the positives that are found. Precision: share of the alarms that are right."
    )
    return _section(
        "How much is found at what price",
        [
            tag("p", note, class_="small"),
            side_by_side(
                plot("ROC curve", [*lines("roc"), guess], shares("false alarms, of the negatives"), shares("recall")),
                plot("Precision-recall curve", lines("precision_recall"), shares("recall"), shares("precision")),
            ),
        ],
    )


def _threshold(results: Results) -> list[Html]:
    found = results.json("evaluate", "evaluation.json")
    if not found:
        return []
    chosen = found["threshold"]
    part = f"the {chosen['chosen_on']} part" + (f" ({chosen['reason']})" if chosen["reason"] else ", which nothing else uses")
    at = "Nobody is alarmed" if chosen["threshold"] is None else f"Alarm from a score of {chosen['threshold']:.4f} on"
    words = (
        f"{at}: chosen by {chosen['rule']} on {part}, where it alarms {chosen['alert_rate']:.2%} of the rows. Then applied once on test:"
    )
    test = chosen["test"]
    rows: list[list[Any]] = [["alarms", test["alerts"]]]
    if test["alerts_per_day"] is not None:
        rows.append(["alarms a day", Number(f"{test['alerts_per_day']:,.1f}")])
    rows += [["alarms that are right (precision)", _percent(test["precision"])], ["positives found (recall)", _percent(test["recall"])]]
    if "saved" in test:
        rows.append(["saved against alarming nobody", Number(f"{test['saved']:,.2f}")])
        rows.append(["lost when nobody is alarmed", Number(f"{test['lost_without']:,.2f}")])
    return _section("The threshold", [tag("p", words), table(["on test", "value"], rows)])


def _percent(value: float | None) -> Number | None:
    return None if value is None else Number(f"{value:.1%}")


def _calibration(results: Results) -> list[Html]:
    found = results.json("evaluate", "evaluation.json")
    if not found:
        return []
    told = found["calibration"]
    note = "Of all rows that get a probability of 10 %, one in ten should be a positive. Ten groups of test rows, by what they get."
    shown = {"as the model says": told["before"]} | ({"calibrated": told["after"]} if "after" in told else {})
    kinds = dict(zip(shown, ("other", "main") if "after" in told else ("main",), strict=True))
    points = {name: [[one["probability"], one["share"]] for one in part["bins"]] for name, part in shown.items()}
    highest = max(value for line in points.values() for point in line for value in point)
    most = next((one for one in FULL if one >= highest), 1.0)
    lines = [Line(name, line, kinds[name], has_dots=True) for name, line in points.items()]
    made = [tag("p", note, class_="small")]
    if "after" in told:
        words = f"Platt scaling on {told['rows']:,} rows ({told['positives']:,} positives) that nothing else uses"
        helps = told["after"]["log_loss"] < told["before"]["log_loss"]
        so = (
            "On test it brings probabilities nearer to what happened."
            if helps
            else "On test it does not help: take them as the model says."
        )
        made.append(tag("p", f"{words}: the log-odds times {told['slope']:.4f}, plus {told['intercept']:.4f}. {so}"))
    else:
        made.append(tag("p", _capital(f"{told['reason']}."), class_="open"))
    rows = [[name, part["calibration_error"], part["log_loss"]] for name, part in shown.items()]
    made.append(table(["test", "calibration error", "log loss"], rows))
    perfect = Line("perfect", [[0, 0], [most, most]], "guide")
    across, up = (shares(title, most, is_stretched=True) for title in ("mean probability (near 0 stretched)", "share of positives"))
    made.append(plot("Reliability", [*lines, perfect], across, up))
    return _section("Can a probability be taken at its word?", made)


def _slices(results: Results) -> list[Html]:
    found = results.json("evaluate", "evaluation.json")
    if not found or not found["slices"]:
        return []
    head = ["by", "value", "rows", "positives", "AUC", "average precision"]
    rows = [
        [one["by"], one["value"], one["rows"], one["positives"], one.get("auc"), one.get("average_precision")] for one in found["slices"]
    ]
    note = tag("p", "The test score where it holds. Without a score: too few rows of one class.", class_="small")
    return _section("Slices of the test rows", [table(head, rows), note])


def _trust(results: Results) -> list[Html]:
    found = results.json("evaluate", "evaluation.json")
    if not found:
        return []
    leaks = found["leaks"]
    parts = (
        ("A random split", leaks["random_split"], _boast),
        ("Test against train", leaks["drift"], _drift),
        ("Entities of test that train knows", leaks["entities"] or {"not_measured": "no entity is named"}, _seen),
        ("Shuffled labels", leaks["shuffled_labels"], _shuffled),
    )
    rows = [[title, f"Not measured: {part['not_measured']}." if "not_measured" in part else say(part)] for title, part, say in parts]
    note = "Fitted by one booster's settings and few rounds, the same in every report: these figures can be compared from run to run."
    return _section("How far to trust the score", [table(["what was tried", "what came of it"], rows), tag("p", note, class_="small")])


def _boast(part: dict[str, Any]) -> str:
    return (
        f"AUC {part['random']:.4f} (optimistic); the time split of the same {part['rows']:,} rows {part['time']:.4f}: "
        f"a gap of {part['gap']:+.4f} ± {part['standard_error']:.4f}. "
        "A large gap means that rows of the same customer or day give each other away under a random split: judge by the time split."
    )


def _drift(part: dict[str, Any]) -> Html:
    told = f"Of {part['rows']:,} rows, a booster tells those of test with an AUC of {part['auc']:.4f}, where .5 means that they are alike."
    if not part["drifted"]:
        return tag("span", told)
    return tag("span", f"{told} They differ most in {', '.join(part['features'])}: the score may fall as time goes on.", class_="open")


def _seen(part: dict[str, Any]) -> str:
    return f"{part['rows']:.1%} of the test rows, {part['entities']:.1%} of the entities."


def _shuffled(part: dict[str, Any]) -> Html:
    told = f"Of {part['rows']:,} rows with shuffled labels, AUC {part['auc']:.4f} ± {part['standard_error']:.4f}, where chance gives .5"
    if part["passed"]:
        return tag("span", f"{told}: as it must be.")
    return tag("span", f"{told}: labels leak through the pipeline. Believe no score before the leak is found.", class_="bad")


def _suspicious(results: Results) -> list[Html]:
    found = results.json("evaluate", "evaluation.json")
    if not found:
        return []
    if not found["suspicious"]:
        return _section("Suspicious columns", [tag("p", "None: no single column carries the score.")])
    rows = [[one["column"], one["auc"], one["auc_without"]] for one in found["suspicious"]]
    advice = "Fitted without one of these, the score falls far. Is it known when the model must answer? If not, name it in prepare.drop."
    return _section(
        "Suspicious columns", [tag("p", advice, class_="bad"), table(["column", "valid AUC with all columns", "without it"], rows)]
    )


def _importance(results: Results) -> list[Html]:
    found = results.json("evaluate", "evaluation.json")
    if not found or not found["importance"]:
        return []
    shown = found["importance"]
    note = (
        f"How far a column moves a row's log-odds: mean absolute SHAP value over {found['explained_rows']:,} test rows. "
        f"{ARROWS['up']} more of it means more risk, {ARROWS['down']} less; without an arrow it is a category, or has no direction."
    )
    drawn = bars([(_pointed(one["feature"], one["direction"]), one["shap"]) for one in shown])
    rows = [[one["feature"], one["shap"], Number(f"{one['gain']:,.1f}")] for one in shown]
    gains = folded("With the gain of its splits in training", table(["column", "mean |SHAP|", "total gain"], rows))
    return _section(f"Columns that {found['winner']} uses most", [tag("p", note, class_="small"), drawn, gains])


def _pointed(name: str, direction: str | None) -> str:
    return f"{name}\N{NO-BREAK SPACE}{ARROWS[direction]}" if direction else name


def _highest(results: Results) -> list[Html]:
    found = results.json("evaluate", "evaluation.json")
    if not found or not found["highest"]:
        return []
    rows = [
        [Number(rank), *(_pointed(one["feature"], one["moves"]) for one in row), *[None] * (REASONS - len(row))]
        for rank, row in enumerate(found["highest"], 1)
    ]
    words = f"The columns that moved each most, {ARROWS['up']} up or {ARROWS['down']} down. No values are shown."
    head = ["row", "first", "second", "third"]
    return _section("The highest-scored test rows", [tag("p", words, class_="small"), table(head, rows)])


def _search(results: Results) -> list[Html]:
    metric, found = METRICS[results.config["search"].metric], _trials(results)
    best = {label: trials.best(some) for label, some in found.items() if some}
    made: list[Html] = []
    if len(best) > 1:
        rows = [[label.split("/")[1], len(found[label]), _pruned(found[label]), abs(one.value)] for label, one in best.items()]
        made.append(table(["family", "finished", "of them pruned", f"best {metric} on valid"], rows))
    for label, some in found.items():
        made.append(tag("h3", label.split("/")[1]))
        if some:
            made += [tag("p", _searched(results, label, some)), *trials.pictures(some, metric)]
        else:
            made.append(_absent(label))
    return _section("The search", made)


def _trials(results: Results) -> dict[str, list[trials.Trial]]:
    """Give each family's finished trials; none where its search is not collected."""
    labels = [label for label in results.manifests if label.startswith("search-collect/")]
    return {label: trials.read(results.json(label, "trials.json") or []) for label in labels}


def _found(results: Results, label: str, some: list[trials.Trial]) -> dict[str, Any]:
    return {
        "finished": len(some),
        "pruned": _pruned(some),
        "best": trials.best(some).slot,
        "drawn": [trial._replace(curve=trials.spread(trial.curve, trials.POINTS))._asdict() for trial in trials.shown(some)],
        "seconds_saved": results.measured(label).get("seconds_saved"),
    }


def _pruned(some: list[trials.Trial]) -> int:
    return sum(trial.is_pruned for trial in some)


def _searched(results: Results, label: str, some: list[trials.Trial]) -> str:
    config, best, drawn = results.config["search"], trials.best(some), len(trials.shown(some))
    settings = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in best.params.items())
    rounds = f", after {best.best_rounds:,} of the {best.rounds:,} rounds that were fitted" if best.rounds > 1 else ""
    words = [
        f"{len(some):,} of {config.n_trials:,} slots are finished, {_pruned(some):,} of them pruned.",
        f"Best {METRICS[config.metric]} on valid: {abs(best.value):.4f}, by slot {best.slot}{rounds}, with {settings}.",
    ]
    saved = {how: seconds for how, seconds in results.measured(label).get("seconds_saved", {}).items() if seconds}
    if saved:
        told = " and ".join(f"{_span(seconds)} by {how}" for how, seconds in saved.items())
        words.append(f"Saved, by an estimate at the complete trials' pace: {told}.")
    if drawn < len(some):
        words.append(f"{drawn:,} of them are drawn.")
    return " ".join(words)


def _span(seconds: float) -> str:
    """Say how long something takes, in the largest unit of which it is two or more."""
    size, unit = next((one for one in ((3600, "hours"), (60, "minutes")) if seconds >= 2 * one[0]), (1, "seconds"))
    return f"{seconds / size:.1f} {unit}"


def _data(results: Results) -> list[Html]:
    data, features = results.json("prepare", "data.json"), results.json("prepare", "features.json")
    if not data or not features:
        return _section("Data", [_absent("prepare")])
    sizes = {**{name: data["splits"][name] for name in ("train", "valid", "calibration", "test")}, "all": data}
    rows = [[name, one["rows"], one["positives"], Number(f"{one['positives'] / (one['rows'] or 1):.2%}")] for name, one in sizes.items()]
    head = ["split", "rows", "positives", "share"]
    if "first" in data["splits"]["train"]:
        head += ["from", "to"]
        rows = [[*row, _when(one.get("first")), _when(one.get("last"))] for row, one in zip(rows, sizes.values(), strict=True)]
    label, used = features["label"], len(features["columns"])
    words = f"Label {label['column']}: {label['positive']} is looked for. Columns used: {used}. Split: {data['split']}."
    made = [tag("p", words), table(head, rows)]
    if data["notes"]:
        made.append(tag("ul", [tag("li", note) for note in data["notes"]]))
    if features["dropped"]:
        made.append(folded("Columns left out", table(["column", "reason"], [[one["name"], one["reason"]] for one in features["dropped"]])))
    return _section("Data", made)


def _when(value: Any) -> Any:
    """Say an event time: large integers are nanoseconds since 1970, others the table's own numbers."""
    if isinstance(value, int) and abs(value) > 10**16:
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(value // 10**9))
    return value


def _steps(results: Results) -> list[Html]:
    rows = []
    for label, manifest in results.manifests.items():
        made, measured = manifest.document if manifest else {}, results.measured(label)
        told = [Number(f"{measured[name]:,.1f}") if name in measured else None for name in MEASURED]
        rows.append([label, OUTCOMES[results.outcome(label)], *told, _device(made, measured), ", ".join(made.get("degraded", ()))])
    return _section("Steps", [table(["step", "outcome", "seconds", "peak memory, MB", "estimated before, MB", "device", "fallback"], rows)])


def _device(made: dict[str, Any], measured: dict[str, Any]) -> str | None:
    device: str | None = made.get("device")
    if "gpu_memory_mb" not in measured:
        return device
    return f"{device}: {measured['gpu_memory_mb']:,.1f} MB, {measured['estimated_gpu_memory_mb']:,.1f} estimated"


def _settings(results: Results) -> list[Html]:
    made = []
    for label in results.manifests:
        model = results.json(label, "model.json") if label.startswith("train/") else None
        if model:
            rows = [["rounds", model["rounds"]], *sorted(model["params"].items())]
            made.append(folded(f"{model['family']}: settings that the search chose", table(["parameter", "value"], rows)))
    for name, section in results.config.sections.items():
        values = [[key, json.dumps(value)] for key, value in section.model_dump(mode="json").items()]
        if values:
            made.append(folded(f"config: {name}", table(["option", "value"], values)))
    return _section("Settings", made)


def _lineage(results: Results) -> list[Html]:
    pinned = results.config.pinned
    champion = pinned.champion if pinned else None
    over = f"version {champion['version']}, generation {champion['generation']}" if champion else "none"
    raw = [[f"raw {name}", digest] for name, digest in (pinned.raw if pinned else {}).items()]
    rows: list[list[Any]] = [["run", results.run or None], ["champion when planned", over], *raw]
    rows += [[label, manifest.key if manifest else None] for label, manifest in results.manifests.items()]
    return _section("Lineage", [folded("Where everything is in the store", table(["what", "where"], rows))])


def _section(title: str, inside: list[Html]) -> list[Html]:
    return [tag("section", tag("h2", title), inside)]


def _absent(name: str) -> Html:
    return tag("p", f"Nothing to show: {name} is not there.", class_="open")


# --- the program ----------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> NoReturn:
    """Close a run as a program."""
    name = "evaluate-report"
    parser = step.arguments(name, "stages.evaluate.report")
    parser.add_argument("--status", default="", help="how the run ended: Succeeded, Failed, Error")

    def work(asked: argparse.Namespace) -> dict[str, Any]:
        store = open_store(asked.store)
        resolved = step.resolve(asked.config, store, asked.set)
        log.setup(resolved["common"].log_level, step=name)
        addresses = Addresses(resolved if resolved.pinned else step.pin(resolved, store), store)
        record, page = close(addresses, asked.status)
        if asked.outputs:
            Path(asked.outputs).mkdir(parents=True, exist_ok=True)
            (Path(asked.outputs) / "report.html").write_text(page, encoding="utf-8")
            (Path(asked.outputs) / "report.json").write_bytes(numbers(addresses, asked.status))
        return {"step": name, **record, **told(addresses)}

    step.program(name, parser, work, argv)


if __name__ == "__main__":
    main()
