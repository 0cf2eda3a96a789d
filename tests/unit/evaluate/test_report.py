"""One page about a run, whatever became of it; what was written about a run stays."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stages.common import artifact, registry
from stages.evaluate import markup, report
from stages.evaluate.markup import Line, bars, plot, shares, tag
from tests.unit.pipelines import Pipeline, honest_table, new_pipeline
from workflows import dag

RUN = "20240101T000000Z-test"


class Page(HTMLParser):
    """Reads a page: its text, its elements, and whether they are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element that may load and run nothing."""
        self.elements.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep what people read."""
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def read(page: str) -> Page:
    """Read a page that loads nothing and runs nothing."""
    found = Page(page)
    assert not {"script", "img", "link", "iframe", "object", "base", "form"} & set(found.elements)
    assert not re.search(r"url\(|@import|https?://", page)
    return found


def test_an_accepted_run(accepted: Pipeline) -> None:
    accepted.do("deploy")
    page = read(report.draw(accepted.addresses()))
    live = registry.live(accepted.store)

    assert live
    assert page.elements.count("h1") == 1
    assert f"Accepted: version {live['version']} is in production since generation 1" in page.text
    for word in (
        "auc_floor pass",
        "xgboost (winner) valid",
        "logistic valid",
        "xgboost test",
        "None: no single column",
        "Columns that xgboost uses most",
        "How far to trust the score",
        "A random split Not measured: the split does not follow time.",
        "Entities of test that train knows Not measured: no entity is named.",
        "2 of 200 slots are finished, 1 of them pruned. Best average precision on valid: 0.5000, by slot 0, after 20 of the 30 rounds",
        "rounds that were fitted, with learning_rate 0.3, max_depth 3, subsample 0.8.",
    ):
        assert word in page.text
    assert "all 900" in page.text
    assert "learning_rate 0.3" in page.text
    assert accepted.addresses().config.pinned is not None
    assert f"raw table {accepted.addresses().config.pinned.raw['table']}" in page.text  # type: ignore[union-attr]


def test_what_the_score_is_worth() -> None:
    gap = {"random": 0.95, "time": 0.9, "gap": 0.05, "standard_error": 0.004, "rows": 20_000}
    drift = {"auc": 0.8123, "rows": 1234, "drifted": True, "features": ["c3", "c1"]}
    shuffled = {"auc": 0.6, "rows": 4321, "standard_error": 0.01}

    assert "AUC 0.9500 (optimistic); the time split of the same 20,000 rows 0.9000: a gap of +0.0500 ± 0.0040" in report._boast(gap)
    assert 'class="open"' in report._drift(drift)
    assert "They differ most in c3, c1: the score may fall" in report._drift(drift)
    assert "Of 1,234 rows, a booster tells those of test" in report._drift(drift)
    assert "differ" not in report._drift({**drift, "drifted": False})
    assert report._seen({"rows": 0.5, "entities": 1.0}) == "50.0% of the test rows, 100.0% of the entities."
    assert 'class="bad"' in report._shuffled({**shuffled, "passed": False})
    assert "as it must be" in report._shuffled({**shuffled, "passed": True})


def test_a_rejected_run_says_why_in_its_first_lines(accepted: Pipeline) -> None:
    accepted.do("validate", "validate.auc_floor=1.0")
    page = read(report.draw(accepted.addresses("validate.auc_floor=1.0"), "Succeeded"))

    assert (
        "run ended: Succeeded Rejected: auc_floor not passed auc_floor (required): test AUC is below the floor (measured: 0." in page.text
    )
    assert ", limit: 1) Checks" in page.text
    assert "deploy not run: its gate is closed" in page.text
    assert "Not there" not in page.text


def test_what_became_of_a_version_since(accepted: Pipeline) -> None:
    """Replaced, live again by a rollback, rolled back, and barred when it comes anew over another champion."""
    first = accepted.do("deploy")["version"]
    over_first = accepted.addresses("train.seed=1")
    accepted.until("deploy", "train.seed=1")
    third = accepted.until("deploy", "train.seed=2")["deploy"]["version"]
    registry.roll_back(accepted.store, first)
    pages = [report.draw(over_first), report.draw(accepted.addresses())]
    accepted.until("deploy", "train.seed=2")
    pages.append(report.draw(accepted.addresses("train.seed=2")))

    second, live, barred = (read(page).text for page in pages)
    assert "as generation 2; another one is live now" in second
    assert f"Accepted: version {first} is in production since generation 1" in live
    assert f"Accepted, but not promoted: version {third} was rolled back and is barred" in barred
    assert f"champion when planned version {first}, generation 4" in barred


def test_a_version_that_was_rolled_back(accepted: Pipeline) -> None:
    """Its run finds everything done, but the page does not say that it is live."""
    accepted.do("deploy")
    second = accepted.until("deploy", "train.seed=1")["deploy"]["version"]
    registry.roll_back(accepted.store)

    page = read(report.draw(accepted.addresses("train.seed=1")))

    assert f"Accepted, but version {second} was rolled back after generation 2, and is barred" in page.text


def test_suspicious_columns_and_times(tmp_path: Path) -> None:
    table = honest_table().assign(when=[f"2024-01-{1 + row // 60:02d} {row % 24:02d}:00:00" for row in range(900)])
    pipeline = new_pipeline(tmp_path, table.assign(told=table["fraud"] * 2))
    pipeline.until("evaluate", "prepare.time=when")

    page = read(report.draw(pipeline.addresses("prepare.time=when")))

    assert "If not, name it in prepare.drop. column valid AUC with all columns without it told 1.0000" in page.text
    assert "2024-01-01 00:00 2024-01-" in page.text
    assert "No verdict: validate is not there" in page.text


@pytest.mark.parametrize("last", ["", "prepare", "train", "evaluate", "validate"])
def test_a_run_that_failed_half_way(accepted: Pipeline, tmp_path: Path, last: str) -> None:
    """What is there is shown, what is missing is named."""
    pipeline = new_pipeline(tmp_path / "new", honest_table())
    if last:
        shutil.copytree(accepted.folder, tmp_path / "new", dirs_exist_ok=True)
        for step in ("evaluate", "validate"):
            if (last, step) in {("prepare", "evaluate"), ("train", "evaluate")} or (last != "validate" and step == "validate"):
                shutil.rmtree(tmp_path / "new" / "store" / step)
        if last == "prepare":
            shutil.rmtree(tmp_path / "new" / "store" / "train")
    missing = ["prepare", "search-collect/xgboost", "train/xgboost", "evaluate", "validate", "deploy"]
    there = {"": 0, "prepare": 2, "train": 3, "evaluate": 4, "validate": 5}[last]

    page = read(report.draw(pipeline.addresses(), "Failed"))

    assert f"Not there: {', '.join(missing[there:])}. Run the same command again" in page.text
    assert ("Accepted, but not deployed yet" if last == "validate" else f"No verdict: {missing[there]} is not there") in page.text
    assert ("Nothing to show: prepare is not there." in page.text) == (last == "")
    assert ("Nothing to show: evaluate is not there." in page.text) == (last in ("", "prepare", "train"))


def test_a_damaged_file_is_not_shown(accepted: Pipeline) -> None:
    manifest = accepted.addresses().find("evaluate", {})
    assert manifest
    blob = accepted.store.local(f"blobs/{manifest.files['evaluation.json']['sha256']}")
    assert blob
    blob.write_bytes(blob.read_bytes().replace(b"xgboost", b"XGBOOST"))

    assert "Nothing to show: evaluate is not there." in read(report.draw(accepted.addresses())).text
    assert accepted.addresses().find("evaluate", {}) is None, "and the next run makes it again"


def test_what_comes_from_the_table_is_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert('1')</script>&amp;\"><img src=x onerror=alert(2)>"
    table = honest_table().rename(columns={"fraud": "</title><svg onload=x>"})
    pipeline = new_pipeline(tmp_path, table.assign(**{hostile: table.iloc[:, 3] * 2, "<b>same</b>": table["amount"] * 0}))
    sets = ("prepare.label='</title><svg onload=x>'",)
    pipeline.until("evaluate", *sets)

    page = report.draw(pipeline.addresses(*sets), "<i>Failed</i>")

    for text in (hostile, "</title><svg onload=x>", "<b>same</b>", "<i>Failed</i>"):
        assert text in read(page).text
    assert not re.search(r"<script|<img|<svg on|<b>same|<i>", page)


def test_all_numbers_stand_beside_the_page(accepted: Pipeline) -> None:
    """And the same run says them in the same bytes."""
    accepted.do("deploy")
    data = report.numbers(accepted.addresses(), "Succeeded")
    told = json.loads(data)

    assert told["headline"].startswith("Accepted: version ")
    assert told["evaluation"] == json.loads(accepted.read("evaluate", "evaluation.json"))
    assert told["data"]["rows"] == 900
    assert {one["name"]: one["measured"] for one in told["checks"]}["memory_mb"] == 200
    assert told["steps"]["train/xgboost"]["seconds"] > 0
    searched = told["search"]["search-collect/xgboost"]
    assert (searched["finished"], searched["pruned"], searched["best"], len(searched["drawn"])) == (2, 1, 0, 2)
    assert told["models"]["train/xgboost"]["params"]["learning_rate"] == 0.3
    assert data == report.numbers(accepted.addresses(), "Succeeded")


def test_the_judging_is_said_in_words(tmp_path: Path) -> None:
    pipeline, sets = new_pipeline(tmp_path, honest_table()), ("prepare.calibration_share=0.6",)
    pipeline.until("evaluate", *sets)
    page, told = read(report.draw(pipeline.addresses(*sets))), json.loads(pipeline.read("evaluate", "evaluation.json", *sets))
    threshold, calibration = told["threshold"], told["calibration"]

    assert "No champion : nothing is in production yet." in page.text
    assert f"Alarm from a score of {threshold['threshold']:.4f} on: chosen by 1 % false alarms on the calibration part" in page.text
    assert f"positives found (recall) {threshold['test']['recall']:.1%}" in page.text
    assert f"Platt scaling on 108 rows ({calibration['positives']} positives)" in page.text
    assert f"calibrated {calibration['after']['calibration_error']:.4f}" in page.text
    helps = calibration["after"]["log_loss"] < calibration["before"]["log_loss"]
    assert ("On test it brings probabilities nearer" in page.text) == helps != ("On test it does not help" in page.text)
    assert "logistic test" in page.text
    assert "amount \N{UPWARDS ARROW}" in page.text
    for picture in ("ROC curve", "Precision-recall curve", "Reliability"):
        assert picture in page.text
    assert page.elements.count("polyline") == 3 + 2 + 3 + (1 + 2), "and the search's"


CHAMPION: dict[str, Any] = {"answer": "better", "version": "abc", "metric": "auc", "min_gain": 0.005, "rows": 1600, "positives": 40} | {
    "challenger": 0.91,
    "champion": 0.89,
    "difference": 0.02,
    "interval": [0.0061, 0.034],
}


def test_the_champion_in_a_sentence() -> None:
    assert report._compared(CHAMPION) == (
        "on 1,600 rows (40 positives), AUC changes from 0.8900 (version abc) to 0.9100. The gain is +0.0200; "
        "its 95 % interval goes from +0.0061 to +0.0340. Below 0.005 is noise."
    )
    losses = {**CHAMPION, "metric": "log_loss", "challenger": -0.2, "champion": -0.3}
    assert "log loss changes from 0.3000 (version abc) to 0.2000." in report._compared(losses)
    untold = {"answer": "cannot tell", "version": "abc", "reason": "there are no later rows"}
    assert report._compared(untold) == "compared with version abc: there are no later rows."


def test_what_was_not_calibrated_says_so(tmp_path: Path) -> None:
    pipeline, sets = new_pipeline(tmp_path, honest_table()), ("prepare.calibration_share=0",)
    pipeline.until("evaluate", *sets)
    page = read(report.draw(pipeline.addresses(*sets)))

    assert "Not calibrated: the calibration part has 0 positives" in page.text
    assert "on the valid part (the calibration part has 0 positives" in page.text
    assert "calibration 0 0 0.00%" in page.text


def test_a_picture_stays_in_its_frame() -> None:
    line = Line("one", [[0, 0], [0.04, 0.16], [0.16, 0.16]], "main", has_dots=True)
    axis = shares("share", 0.16, is_stretched=True)
    drawn = plot("Title", [line], axis, axis)
    points = [tuple(map(float, one.split(","))) for one in re.findall(r'polyline points="([^"]+)"', drawn)[0].split()]

    frame = markup.LARGE
    assert points[0] == (frame.left, frame.height - frame.bottom)
    assert points[2] == (frame.width - frame.right, frame.top)
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2), "a quarter is half of the way"
    assert drawn.count("<circle") == 3


# --- closing a run --------------------------------------------------------------------------------


def test_a_run_is_closed_once(accepted: Pipeline) -> None:
    """An exit handler may run twice: the record and the page of the first stay."""
    addresses = accepted.addresses(run=RUN)
    record, page = report.close(addresses, "Failed")
    again, _ = report.close(addresses, "Failed")

    assert again == record
    assert accepted.store.read(f"runs/{RUN}/report.html") == page.encode()
    assert artifact.unsealed(accepted.store, f"runs/{RUN}/closed.json") == record == report.closed(accepted.store, RUN)
    assert (record["status"], record["verdict"]) == ("Failed", "accepted")
    assert record["steps"]["train/xgboost"] == "found"
    assert record["steps"]["deploy"] == "missing"
    assert accepted.store.list(f"runs/{RUN}/") == [f"runs/{RUN}/{name}" for name in ("closed.json", "report.html", "report.json")]
    assert json.loads(accepted.store.read(f"runs/{RUN}/report.json"))["status"] == "Failed"


def test_a_run_that_was_healed_is_closed_anew_beside_the_first(accepted: Pipeline) -> None:
    """As after ``argo retry``: the same run ends a second time."""
    addresses = accepted.addresses(run=RUN)
    report.close(addresses, "Failed")
    accepted.work("deploy", addresses)

    record, page = report.close(addresses, "Succeeded")

    assert record["steps"]["deploy"] == "made"
    assert record["report"] == f"runs/{RUN}/report-2.html"
    assert accepted.store.read(record["report"]) == page.encode()
    assert json.loads(accepted.store.read(f"runs/{RUN}/report-2.json"))["steps"]["deploy"]["outcome"] == "made"
    assert report.closed(accepted.store, RUN) == record
    assert report.close(addresses, "Succeeded")[0] == record
    assert json.loads(accepted.store.read(f"runs/{RUN}/closed.json"))["status"] == "Failed"


def test_a_damaged_record_is_closed_beside(accepted: Pipeline) -> None:
    addresses = accepted.addresses(run=RUN)
    report.close(addresses, "Succeeded")
    path = accepted.store.local(f"runs/{RUN}/closed.json")
    assert path
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"Succeeded", b"Succeedee"))
    assert report.closed(accepted.store, RUN) is None

    record, _ = report.close(addresses, "Succeeded")

    assert record["report"] == f"runs/{RUN}/report-2.html"
    assert report.closed(accepted.store, RUN) == record


def test_a_close_that_was_cut_off_is_completed(accepted: Pipeline) -> None:
    addresses = accepted.addresses(run=RUN)
    record, _ = report.close(addresses, "Succeeded")
    page = accepted.store.local(record["report"])
    assert page
    page.unlink()

    report.close(addresses, "Succeeded")

    assert page.exists()


def test_nothing_is_closed_without_a_run(accepted: Pipeline) -> None:
    record, page = report.close(accepted.addresses(), "Succeeded")

    assert "at" not in record
    assert accepted.store.list("runs/") == []
    assert read(page).text.startswith("config: Accepted, but not deployed yet")
    assert report.closed(accepted.store, RUN) is None


# --- the program ----------------------------------------------------------------------------------


def test_the_program_writes_the_page_and_one_line(accepted: Pipeline, tmp_path: Path) -> None:
    """As Argo's exit handler: a config by its address, a status, a folder for the page."""
    document = accepted.addresses(run=RUN).config.dump()
    address = f"config/{hashlib.sha256(document).hexdigest()}.json"
    accepted.store.create(address, document)
    command = ["--config", address, "--store", accepted.store.address, "--status", "Failed", "--outputs", str(tmp_path / "outputs")]

    done = subprocess.run([sys.executable, "-m", "stages.evaluate.report", *command], check=True, capture_output=True, text=True)

    (line,) = done.stdout.splitlines()
    assert json.loads(line)["status"] == "Failed"
    told = {name: (tmp_path / "outputs" / name).read_text() for name in dag.CLOSE.outputs}
    assert 0 < float(told.pop("average_precision")) <= float(told.pop("auc")) <= 1
    assert told == {"headline": "Accepted, but not deployed yet", "verdict": "accepted", "version": ""}
    assert "run ended: Failed" in read((tmp_path / "outputs" / "report.html").read_text()).text
    assert accepted.store.head(f"runs/{RUN}/report.html")


def test_the_program_takes_a_config_file_too(accepted: Pipeline) -> None:
    command = ["--config", str(accepted.folder / "config.yaml"), "--store", accepted.store.address]

    done = subprocess.run([sys.executable, "-m", "stages.evaluate.report", *command], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "accepted"


def test_drawing_needs_no_ml_library() -> None:
    """The exit handler starts in a small pod, and ``surefoot run`` ends with it."""
    heavy = "{'numpy', 'pandas', 'pyarrow', 'sklearn', 'xgboost', 'scipy', 'optuna'}"
    code = f"import sys, stages.evaluate.report; print(sorted({heavy} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_markup_escapes_text_and_attributes() -> None:
    assert tag("p", "a<b", title='"x"') == '<p title="&quot;x&quot;">a&lt;b</p>'
    assert bars([]) == '<div class="bars"></div>'
    assert 'width="50.00"' in bars([("half", 1), ("whole", 2)])
