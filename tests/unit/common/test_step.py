"""The life of a step, shown on the toy of three steps: tests/toy."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stages.common import address, artifact, checkpoint, config, contract, log, raw, registry, step
from stages.common.errors import ConfigError, DataError, Interrupted, MissingInput, NotNow, OutOfMemory, SurefootError, UsageError
from stages.common.store import Store, Unreadable, open_store
from tests import programs
from tests.toy import work
from tests.toy.fixtures import toy
from tests.toy.pipeline import LETTERS, Pipeline, digests, item


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the lines that are logged."""
    said: list[str] = []
    for level in ("info", "warning"):
        monkeypatch.setattr(log, level, lambda event, **_: said.append(event))
    return said


__all__ = ["toy"]


# --- done is done ---


def test_a_done_step_starts_nothing_and_hands_out_the_same(toy: Pipeline, events: list[str]) -> None:
    first = toy.do_all()
    before = toy.store.list("")
    assert work.calls() == ["toy-a", "toy-b", "toy-c"]
    events.clear()

    second = toy.do_all()

    assert work.calls() == ["toy-a", "toy-b", "toy-c"]
    assert [outputs.pop("state") for outputs in first] == ["made"] * 3
    assert [outputs.pop("state") for outputs in second] == ["done"] * 3
    assert first == second
    assert events == ["step.already_done"] * 3
    assert toy.store.list("") == before


def test_a_program_says_the_same_when_its_work_is_done(toy: Pipeline, tmp_path: Path) -> None:
    first, second = (toy.program("a", "--outputs", tmp_path / name) for name in ("first", "second"))
    assert (first.code, second.code) == (0, 0)
    assert {**first.answer, "state": ""} == {**second.answer, "state": ""}
    assert [program.answer["state"] for program in (first, second)] == ["made", "done"]
    assert [line["event"] for line in second.events] == ["step.already_done"]
    assert work.calls() == ["toy-a"]
    files = [{path.name: path.read_text() for path in (tmp_path / name).iterdir()} for name in ("first", "second")]
    assert {**files[0], "state": "done"} == files[1]
    assert files[1] == {"step": "toy-a", "item": "{}", "state": "done", "verdict": "yes", "a_value": second.answer["a_value"]}


def test_the_manifest_says_what_was_made_from_what_and_how(toy: Pipeline) -> None:
    toy.do_all()
    made = toy.find("b").document
    assert made["step"] == "toy-b"
    assert made["item"] == {"family": "xgboost"}
    assert made["recipe"]["config"] == {"rounds": 5, "value": 1}
    assert made["recipe"]["python"] == f"3.{sys.version_info[1]}"
    assert made["inputs"] == {"toy-a": {"manifest": toy.find("a").key, "content": toy.find("a").content}}
    assert made["plan_key"] == toy.addresses().plan_key("toy-b", item("b"))
    assert made["address"] == toy.addresses().address("toy-b", item("b"), {"toy-a": toy.find("a")})
    assert made["files"].keys() == {"b.json"}
    assert made["outputs"]["verdict"] == "yes"
    assert made["degraded"] == []
    assert made["device"] == "cpu"
    assert made["measured"].keys() == {"seconds", "peak_memory_mb", "attempt", "host", "rounds_here"}
    assert made["at"].endswith("Z")
    assert toy.find("c").document["inputs"].keys() == {"toy-a", "toy-b/xgboost"}


def test_a_blob_holds_nothing_that_another_run_would_not_write(toy: Pipeline, tmp_path: Path) -> None:
    toy.do_all()
    other = Pipeline(toy.config, open_store(str(tmp_path / "other")))
    other.do_all("common.threads=1", "common.log_level=ERROR")
    assert digests(toy.store) == digests(other.store)


def test_a_program_of_another_folder_finds_the_same_address(toy: Pipeline, tmp_path: Path) -> None:
    toy.do("a")
    (tmp_path / "else").mkdir()
    copy = tmp_path / "else" / "other.yaml"
    copy.write_text("# written otherwise\ntoy:\n  value: 1\n")
    assert Pipeline(copy, toy.store).program("a").answer["state"] == "done"


# --- addresses ---


def test_a_result_field_changes_the_address_and_another_does_not(toy: Pipeline) -> None:
    toy.do_all()
    assert [outputs["state"] for outputs in toy.do_all("common.threads=3", "toy.act=x")] == ["done"] * 3
    assert [outputs["state"] for outputs in toy.do_all("toy.rounds=6")] == ["made"] * 3


def test_equal_bytes_stop_a_change_from_spreading(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the code of a change, but not what it makes: b's address is of a's content."""
    toy.do_all()
    real = address._recipe
    monkeypatch.setattr(
        address, "_recipe", lambda name, family: {**real(name, family), "source": f"other {name}" if name == "toy-a" else ""}
    )
    assert toy.addresses().find("toy-b", item("b")) is None

    assert [outputs["state"] for outputs in toy.do_all()] == ["made", "made", "made"]  # b and c changed too: the source was not ""
    monkeypatch.setattr(address, "_recipe", lambda name, family: {**real(name, family), "source": f"new {name}" if name == "toy-a" else ""})
    assert [outputs["state"] for outputs in toy.do_all()] == ["made", "done", "done"]


def test_an_input_that_is_not_there_is_said_with_the_command_that_makes_it(toy: Pipeline) -> None:
    toy.do("a")
    with pytest.raises(MissingInput) as raised:
        toy.do("c")
    assert str(raised.value) == (
        f"toy-c: its input toy-b/xgboost is not in {toy.store.address}. "
        """Make it: python -m tests.toy.b --item '{"family":"xgboost"}' with the same --config and --store."""
    )


def test_the_index_leads_to_a_result_whose_inputs_are_lost(toy: Pipeline) -> None:
    toy.do_all()
    artifact.void(toy.store, toy.find("b"), "for the test")
    artifact.void(toy.store, toy.find("a"), "for the test")
    assert toy.addresses().find("toy-b", item("b")) is None
    assert toy.find("c").outputs["verdict"] == "yes"


def test_a_result_of_other_inputs_does_not_count(toy: Pipeline) -> None:
    """Make a again with other bytes, as a GPU may: b and c, although of the same plan key, are of the old bytes."""
    toy.do_all("toy.act=a:file-random")
    artifact.void(toy.store, toy.find("a"), "for the test")
    assert toy.find("b")
    assert toy.find("c")

    assert toy.do("a", "toy.act=a:file-random")["state"] == "made"

    assert toy.addresses().find("toy-b", item("b")) is None
    assert [outputs["state"] for outputs in toy.do_all()] == ["done", "made", "made"]
    artifact.void(toy.store, toy.find("a"), "for the test")
    assert [outputs["state"] for outputs in toy.do_all()] == ["made", "made", "made"], "of no random bytes again"


def test_a_lost_index_entry_costs_nothing_while_the_inputs_are_there(toy: Pipeline) -> None:
    toy.do_all()
    for key in toy.store.list("index/"):
        damaged(toy, key, "lost")
    assert all(toy.find(letter) for letter in LETTERS)

    assert [outputs["state"] for outputs in toy.do_all()] == ["done"] * 3
    assert work.calls() == ["toy-a", "toy-b", "toy-c"]
    assert len(toy.store.list("index/")) == 3


# --- manifests, voids and k ---


def damaged(toy: Pipeline, key: str, how: str) -> None:
    path = toy.store.local(key)
    assert path
    data = path.read_bytes()
    path.chmod(0o644)
    match how:
        case "lost":
            path.unlink()
        case "cut":
            path.write_bytes(data[:-3])
        case "flipped":
            path.write_bytes(data[:5] + bytes([data[5] ^ 1]) + data[6:])
        case "empty":
            path.write_bytes(b"")


@pytest.mark.parametrize("how", ["lost", "cut", "empty"])
def test_a_lost_or_cut_blob_is_a_miss_and_is_made_again(toy: Pipeline, how: str) -> None:
    toy.do_all()
    before = digests(toy.store)
    damaged(toy, toy.blob("a"), how)

    assert [outputs["state"] for outputs in toy.do_all()] == ["made", "done", "done"]
    assert digests(toy.store) == before
    assert artifact.verify(toy.store) == []
    assert toy.find("a").key.endswith("manifest-1")


def test_a_flipped_blob_is_found_by_who_reads_it(toy: Pipeline) -> None:
    toy.do("a")
    blob = toy.blob("a")
    damaged(toy, blob, "flipped")
    with pytest.raises(MissingInput) as raised:
        toy.do("b")
    assert str(raised.value) == f"toy-a: a.json ({blob}) is damaged. Run the same command again: it is made anew."

    assert [outputs["state"] for outputs in toy.do_all()] == ["made", "made", "made"]
    assert toy.find("a").key.endswith("manifest-1")
    assert artifact.verify(toy.store) == []


def test_a_blob_that_is_lost_while_a_step_reads_is_said_to_be_lost(toy: Pipeline) -> None:
    toy.do("a")
    addresses = toy.addresses()
    assert addresses.find("toy-a", {})
    damaged(toy, toy.blob("a"), "lost")
    with pytest.raises(MissingInput, match=r"^toy-a: a\.json \(blobs/[0-9a-f]{64}\) is lost\. Run the same command again"):
        step.run_step("toy-b", item("b"), addresses)
    assert toy.addresses().find("toy-a", {}) is None


@pytest.mark.parametrize("how", ["flipped", "cut", "empty"])
def test_a_damaged_manifest_is_voided_and_the_next_one_counts(toy: Pipeline, events: list[str], how: str) -> None:
    toy.do_all()
    damaged(toy, toy.find("a").key, how)
    assert [outputs["state"] for outputs in toy.do_all()] == ["made", "done", "done"]
    assert toy.find("a").key.endswith("manifest-1")
    assert "manifest.voided" in events


def test_a_lost_manifest_is_made_again_under_its_number(toy: Pipeline) -> None:
    toy.do_all()
    damaged(toy, toy.find("a").key, "lost")
    assert [outputs["state"] for outputs in toy.do_all()] == ["made", "done", "done"]
    assert toy.find("a").key.endswith("manifest-0")


def test_the_highest_k_that_is_not_void_counts(toy: Pipeline) -> None:
    toy.do("a")
    found = toy.find("a")
    for k in (1, 2, 10):
        assert artifact.publish(toy.store, k, {**found.document, "run": f"number {k}"})[1]
    assert toy.find("a").document["run"] == "number 10"
    for k in (10, 2):
        artifact.void(toy.store, artifact.Manifest(found.key.replace("manifest-0", f"manifest-{k}"), {}), "for the test")
    assert toy.find("a").document["run"] == "number 1"
    artifact.void(toy.store, toy.find("a"), "for the test")
    artifact.void(toy.store, toy.find("a"), "for the test")

    assert toy.do("a")["state"] == "made"
    assert toy.find("a").key.endswith("manifest-11")


def test_a_void_stands_for_ever_and_says_why(toy: Pipeline, events: list[str]) -> None:
    toy.do("a")
    found = toy.find("a")
    artifact.void(toy.store, found, "the first reason")
    artifact.void(toy.store, found, "the second reason")
    assert json.loads(toy.store.read(found.void_key)) == {"reason": "the first reason"}
    assert events.count("manifest.voided") == 1


def test_who_comes_second_takes_the_winners_result(toy: Pipeline, monkeypatch: pytest.MonkeyPatch, events: list[str]) -> None:
    """Let another process finish while this one works; random bytes tell their results apart."""
    real = step._work
    others: list[Any] = []

    def slow(*arguments: Any) -> Any:
        made = real(*arguments)
        if not others:
            others.append(None)
            others[0] = toy.do("a", "toy.act=a:file-random")
        return made

    monkeypatch.setattr(step, "_work", slow)
    mine = toy.do("a", "toy.act=a:file-random")

    assert mine == others[0]
    assert events.count("step.adopted") == 1
    assert len([key for key in toy.store.list("toy/a/") if "manifest" in key]) == 1
    assert toy.find("a").document["outputs"] == {name: value for name, value in mine.items() if name != "state"}
    assert artifact.verify(toy.store) == []


def test_who_publishes_after_a_void_takes_the_next_number(toy: Pipeline) -> None:
    toy.do("a")
    found = toy.find("a")
    artifact.void(toy.store, found, "meanwhile")
    manifest, won = artifact.publish(toy.store, 0, {**found.document, "run": "late"})
    assert won
    assert manifest.key.endswith("manifest-1")


def test_a_file_whose_name_is_no_name_of_a_blob_is_a_bug(toy: Pipeline) -> None:
    with pytest.raises(AssertionError, match=r"No Name\.bin"):
        toy.do("a", "toy.act=a:file-No Name.bin")


def test_verify_names_each_damaged_file_and_voids_what_holds_it(toy: Pipeline) -> None:
    toy.do_all()
    assert artifact.verify(toy.store) == []
    for letter, how in (("a", "flipped"), ("c", "lost")):
        damaged(toy, toy.blob(letter), how)
    assert [line.split(" (")[0] for line in artifact.verify(toy.store)] == ["toy-a: a.json", "toy-c: c.json"]
    assert artifact.verify(toy.store) == []
    assert [outputs["state"] for outputs in toy.do_all()] == ["made", "done", "made"]


def test_a_blob_of_other_bytes_than_its_name_is_replaced(toy: Pipeline, tmp_path: Path, events: list[str]) -> None:
    (tmp_path / "file").write_bytes(b"whole")
    key = f"blobs/{artifact.sha256(b'whole')}"
    toy.store.create(key, b"damag")
    assert artifact.put(toy.store, tmp_path / "file") == {"sha256": key[6:], "size": 5}
    assert toy.store.read(key) == b"whole"
    assert events == ["damage.replaced"]


def test_a_void_outlives_its_manifest(toy: Pipeline) -> None:
    """A manifest that was voided and then lost leaves its number taken: the next one is not void at birth."""
    toy.do_all()
    first = toy.find("a")
    artifact.void(toy.store, first, "for the test")
    path = toy.store.local(first.key)
    assert path
    path.unlink()
    assert [outputs["state"] for outputs in toy.do_all()] == ["made", "done", "done"]
    assert toy.find("a").key.endswith("manifest-1")
    assert [outputs["state"] for outputs in toy.do_all()] == ["done"] * 3


@pytest.mark.parametrize("folder", ["raw", "config"])
def test_what_was_submitted_is_verified_too(toy: Pipeline, folder: str) -> None:
    key = f"{folder}/{artifact.sha256(b'whole')}" + (".json" if folder == "config" else "")
    toy.store.create(key, b"whole")
    assert artifact.verify(toy.store) == []
    damaged(toy, key, "cut")
    assert artifact.verify(toy.store) == [f"{key} is damaged: submit it again"]


# --- effects, gates, fallbacks ---


@pytest.fixture
def effect(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a step to the toy that is done when b is."""
    assert toy
    monkeypatch.setitem(contract.STEPS, "toy-e", work.Toy("toy-e", reads=("toy-a",), item=("family",), effect_of="toy-b"))


@pytest.mark.usefixtures("effect")
def test_an_effect_has_no_manifest_and_is_done_when_its_step_is(toy: Pipeline) -> None:
    toy.do("a")
    for _ in range(2):
        assert step.run_step("toy-e", item("b"), toy.addresses())["state"] == "made"
    assert toy.store.list("toy/e/") == []
    toy.do("b")
    assert step.run_step("toy-e", item("b"), toy.addresses()) == {"state": "done"}
    assert work.calls() == ["toy-a", "toy-e", "toy-e", "toy-b"]


@pytest.mark.parametrize(("value", "state"), [(1, "made"), (2, "gated")])
def test_a_gate_is_open_for_one_output_alone(toy: Pipeline, monkeypatch: pytest.MonkeyPatch, value: int, state: str) -> None:
    gated = work.Toy("toy-c", reads=("toy-a", "toy-b"), gate=("toy-a", "verdict", "yes"))
    monkeypatch.setitem(contract.STEPS, "toy-c", gated)
    assert toy.addresses().state("toy-c", {}) == "run"
    assert [outputs["state"] for outputs in toy.do_all(f"toy.value={value}")] == ["made", "made", state]
    assert toy.addresses(f"toy.value={value}").state("toy-c", {}) == {"made": "done"}.get(state, state)


def test_a_fallback_counts_where_the_config_accepts_it(toy: Pipeline) -> None:
    toy.do_all("toy.act=b:degraded")
    assert toy.find("b").document["degraded"] == ["CPU for GPU"]
    strict = toy.addresses("common.accept_degraded=false")
    assert strict.state("toy-b", item("b")) == "run"

    with pytest.raises(NotNow) as raised:
        toy.do("b", "toy.act=b:degraded", "common.accept_degraded=false")
    assert str(raised.value) == (
        "toy-b/xgboost: only a fallback was possible (CPU for GPU), and common.accept_degraded is false. "
        "Run again where it is not needed, or accept it."
    )
    assert toy.find("b").key.endswith("manifest-1"), "what was made is kept for those who accept it"

    assert toy.do("b", "common.accept_degraded=false")["state"] == "made"
    assert toy.find("b").document["degraded"] == []
    assert toy.do("c", "common.accept_degraded=false")["state"] == "done"


# --- the program ---

ENDS: dict[str, tuple[str, int, str]] = {
    "DataError": ("raise-DataError", 65, "said so"),
    "MissingInput": ("raise-MissingInput", 66, "said so"),
    "SurefootError": ("raise-SurefootError", 70, "said so"),
    "NotNow": ("raise-NotNow", 75, "said so"),
    "OutOfMemory": ("raise-OutOfMemory", 76, "said so"),
    "ConfigError": ("raise-ConfigError", 78, "said so"),
    "UsageError": ("raise-UsageError", 2, "said so"),
    "MemoryError": ("memory", 76, "out of main memory"),
    "ENOSPC": ("os-28", 75, "no room left on the disk (/some/file): free some and run again"),
    "EDQUOT": ("os-122", 75, "no room left on the disk (/some/file): free some and run again"),
    "EIO": ("os-5", 75, "/some/file: Input/output error. Look at the disk or its network, then run again."),
    "SIGTERM": ("signal-SIGTERM", 143, "stopped by signal 15; run the same command again to go on"),
    "SIGINT": ("signal-SIGINT", 130, "stopped by signal 2; run the same command again to go on"),
}


@pytest.mark.parametrize(("act", "code", "message"), ENDS.values(), ids=ENDS)
def test_a_program_ends_with_the_code_and_one_line_that_say_why(toy: Pipeline, act: str, code: int, message: str) -> None:
    ended = toy.program("a", "--set", f"toy.act=a:{act}")
    assert (ended.code, ended.out) == (code, "")
    assert [line["event"] for line in ended.events] == ["step.started", "step.failed"]
    (last,) = ended.named("step.failed")
    assert (last["exit"], last["message"], last["step"]) == (code, message, "toy-a")
    assert [key for key in toy.store.list("") if not key.startswith("scratch/")] == ["store.json"]
    assert list(Path(toy.store.address, "tmp").glob("*")) == []


@pytest.mark.parametrize(
    ("act", "error"), [("bug", "ZeroDivisionError: a bug"), ("os-13", "PermissionError: [Errno 13]"), ("file-No Name", "AssertionError")]
)
def test_a_bug_looks_like_a_bug(toy: Pipeline, act: str, error: str) -> None:
    ended = toy.program("a", "--set", f"toy.act=a:{act}")
    assert (ended.code, ended.out) == (70, "")
    assert "Traceback (most recent call last):" in ended.err
    assert error in ended.err
    assert ended.named("step.failed") == []


def test_what_libraries_print_never_reaches_stdout(toy: Pipeline) -> None:
    ended = toy.program("a", "--set", "toy.act=a:print")
    assert ended.answer["state"] == "made"
    for voice in ("python", "the system", "C"):
        assert f"{voice} says so" in ended.err


def test_a_wrong_command_is_refused_with_its_usage(toy: Pipeline) -> None:
    ended = programs.python("-m", "tests.toy.a", "--confg", "x")
    assert (ended.code, ended.out) == (2, "")
    assert "usage: python -m tests.toy.a" in ended.err
    assert toy.program("a", "--help").code == 0


def test_a_log_level_that_is_none_is_a_refused_config(toy: Pipeline) -> None:
    ended = toy.program("a", SUREFOOT__COMMON__LOG_LEVEL="LOUD")
    assert ended.code == 78
    (last,) = ended.events
    assert last["message"].startswith("environment SUREFOOT__COMMON__LOG_LEVEL: common.log_level: Input should be 'DEBUG'")
    quiet = toy.program("a", SUREFOOT__COMMON__LOG_LEVEL="ERROR")
    assert (quiet.code, quiet.err) == (0, "")


ITEMS = {
    "not JSON": ("b", "xgboost", """--item 'xgboost': give a JSON object such as {"family": "xgboost"}."""),
    "a list": ("b", "[1]", """--item '[1]': give a JSON object such as {"family": "xgboost"}."""),
    "empty": ("b", "{}", """--item lacks family: toy-b works on one item, such as {"family": "xgboost"}."""),
    "another family": ("b", '{"family": "forest"}', """--item '{"family": "forest"}': this config has only toy-b/xgboost."""),
    "for a step without": ("a", '{"family": "xgboost"}', """--item '{"family": "xgboost"}': toy-a has no items."""),
}


@pytest.mark.parametrize(("letter", "given", "message"), ITEMS.values(), ids=ITEMS)
def test_an_item_that_is_none_is_refused(toy: Pipeline, letter: str, given: str, message: str) -> None:
    ended = programs.python("-m", f"tests.toy.{letter}", "--config", toy.config, "--store", toy.store.address, "--item", given)
    assert ended.code == 2
    assert [line["message"] for line in ended.events] == [message]


def test_more_than_the_item_may_be_given(toy: Pipeline) -> None:
    """Argo's workers are told their number too."""
    toy.do("a")
    given = '{"family": "xgboost", "worker": 0}'
    ended = programs.python("-m", "tests.toy.b", "--config", toy.config, "--store", toy.store.address, "--item", given)
    assert ended.code == 0
    assert toy.do("b")["state"] == "done"


@pytest.mark.parametrize("error", [DataError("said so"), Interrupted(15), MemoryError()], ids=lambda error: type(error).__name__)
def test_the_last_words_are_where_kubernetes_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr(log, "LAST_WORDS", tmp_path / "words")

    def work() -> None:
        raise error

    assert step.guarded(work) == step.guarded(work) != 0
    assert not (tmp_path / "words").exists(), "no file is made where Kubernetes looks for none"
    (tmp_path / "words").touch()
    assert step.guarded(work)
    assert (tmp_path / "words").read_text() == str(step._known(error))


def test_a_bugs_last_words_name_it_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(log, "LAST_WORDS", tmp_path / "words")
    (tmp_path / "words").touch()

    def work() -> None:
        raise ValueError("no\n number")

    assert step.guarded(work) == step.BUG
    assert (tmp_path / "words").read_text() == "ValueError: no number (a bug: its traceback is in the log)"
    assert "Traceback" in capsys.readouterr().err


# --- SIGTERM: nothing is lost ---

SLOW = ("--set", "toy.act=a:slow", "--set", "toy.rounds=40")


def start(toy: Pipeline, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a slow a, and wait until it fits."""
    process = subprocess.Popen(
        toy.command("a", *SLOW, *arguments), env=programs.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr
    for line in process.stderr:
        if b"step.started" in line:
            break
    time.sleep(0.3)
    return process


@pytest.mark.parametrize(("signals", "code"), [(["SIGTERM"], 143), (["SIGINT"], 130), (["SIGINT", "SIGTERM"], 130), (["SIGTERM"] * 2, 143)])
def test_a_stopped_step_saves_its_last_border_and_goes_on_from_there(toy: Pipeline, tmp_path: Path, signals: list[str], code: int) -> None:
    """Let the interval be 5 minutes, so that only the signal saves. Ctrl-C reaches a walk and its step, and the walk passes it on."""
    process = start(toy)
    for name in signals:
        process.send_signal(signal.Signals[name])
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, b"")
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["checkpoint.saved", "step.failed"]
    assert toy.store.list("toy/") == []

    assert toy.do("a", "toy.rounds=40")["state"] == "made"

    assert 0 < toy.find("a", "toy.rounds=40").document["measured"]["rounds_here"] < 40
    undisturbed = Pipeline(toy.config, open_store(str(tmp_path / "undisturbed")))
    undisturbed.do("a", "toy.rounds=40")
    assert digests(undisturbed.store) == digests(toy.store)
    assert toy.store.list("scratch/") == []


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> checkpoint._Stop:
    """Give what catches signals, as in a new process."""
    made = checkpoint._Stop()
    monkeypatch.setattr(checkpoint, "_stop", made)
    return made


def test_a_second_signal_does_not_wait(stop: checkpoint._Stop, tmp_path: Path) -> None:
    said = []

    def fit() -> None:
        with checkpoint.Checkpoint(open_store(str(tmp_path)), "x", 60):
            stop(signal.SIGINT, None)
            stop(signal.SIGTERM, None)  # the same stop, passed on by the walk
            said.append("still here")
            stop.at -= 2
            stop(signal.SIGINT, None)
            said.append("and still")

    with pytest.raises(Interrupted):
        fit()
    assert said == ["still here"]


def test_a_signal_after_the_last_border_saves_what_was_reached(stop: checkpoint._Stop, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))

    def fit() -> None:
        with checkpoint.Checkpoint(store, "x", 60) as saved:
            saved.border(lambda: b"the last")
            stop(signal.SIGTERM, None)

    with pytest.raises(Interrupted) as raised:
        fit()
    assert raised.value.code == 143
    assert checkpoint.Checkpoint(store, "x", 60).load() == b"the last"


def test_a_step_dies_with_the_walk_that_started_it(toy: Pipeline, tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys; os.environ['SUREFOOT_CHILD'] = str(os.getpid());"
        "p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()"
    )
    command = [sys.executable, "-c", script, *toy.command("a", *SLOW, "--set", "common.checkpoint_interval_minutes=0")]
    with (tmp_path / "err").open("wb") as err:
        parent = subprocess.Popen(command, env=programs.environment(), stdout=subprocess.PIPE, stderr=err)
        assert parent.stdout
        child = int(parent.stdout.readline())
        while b"checkpoint.saved" not in (tmp_path / "err").read_bytes():
            assert parent.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.02)
        parent.kill()
        parent.communicate()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and b"step.failed" not in (tmp_path / "err").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "stopped by signal 15" in (tmp_path / "err").read_text()


def test_a_step_whose_walk_is_gone_before_it_began_does_not_begin(toy: Pipeline) -> None:
    ended = toy.program("a", SUREFOOT_CHILD=str(os.getppid()))
    assert (ended.code, ended.out, ended.err) == (143, "", "")
    assert toy.store.list("toy/") == []


# --- checkpoints ---


def test_a_state_that_its_server_cannot_read_does_not_count(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = checkpoint.Checkpoint(toy.store, "fit", 60)
    for state in (b"one", b"two"):
        saved.save(state)
    real = toy.store.read

    def read(key: str) -> bytes:
        if key == "scratch/fit-1":
            raise Unreadable("the answer broke off")
        return real(key)

    monkeypatch.setattr(toy.store, "read", read)
    assert checkpoint.Checkpoint(toy.store, "fit", 60).load() == b"one"


def test_the_newest_whole_state_is_loaded(toy: Pipeline) -> None:
    saved = checkpoint.Checkpoint(toy.store, "fit", 60)
    assert saved.load() is None
    for state in (b"one", b"two", b"three"):
        saved.save(state)
    assert checkpoint.Checkpoint(toy.store, "fit", 60).load() == b"three"
    assert len(toy.store.list("scratch/fit")) == 2

    again = checkpoint.Checkpoint(toy.store, "fit", 60)
    assert again.load() == b"three"
    again.save(b"four")
    assert checkpoint.Checkpoint(toy.store, "fit", 60).load() == b"four"
    again.drop()
    assert checkpoint.Checkpoint(toy.store, "fit", 60).load() is None


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "lost"])
def test_a_torn_checkpoint_costs_one_border(toy: Pipeline, how: str) -> None:
    saved = checkpoint.Checkpoint(toy.store, "fit", 60)
    for state in (b"state one", b"state two"):
        saved.save(state)
    if how == "flipped":
        toy.store.replace("scratch/fit-1", toy.store.read("scratch/fit-1").replace(b"state", b"stare"))
    else:
        damaged(toy, "scratch/fit-1", how)

    after = checkpoint.Checkpoint(toy.store, "fit", 60)
    assert after.load() == b"state one"
    after.save(b"state two")
    assert toy.store.read("scratch/fit-0").endswith(b"state one"), "the whole one is kept"
    assert checkpoint.Checkpoint(toy.store, "fit", 60).load() == b"state two"
    for key in ("scratch/fit-0", "scratch/fit-1"):
        toy.store.replace(key, b"\xff\xfe no state")
    assert checkpoint.Checkpoint(toy.store, "fit", 60).load() is None


def test_a_border_saves_when_it_is_time(toy: Pipeline) -> None:
    seldom, always = checkpoint.Checkpoint(toy.store, "seldom", 60), checkpoint.Checkpoint(toy.store, "always", 0)
    for saved in (seldom, always):
        saved.border(lambda: b"state")
    assert toy.store.list("scratch/") == ["scratch/always-0"]


# --- raw files and pins ---


@pytest.fixture
def table(toy: Pipeline) -> Path:
    """Give the config a table."""
    toy.config.write_text("prepare: {source: file, path: table.csv, label: y, split: order}\n")
    path = toy.config.parent / "table.csv"
    path.write_text("x,y\n1,0\n")
    return path


def test_a_table_counts_by_its_bytes_alone(toy: Pipeline, table: Path, tmp_path: Path) -> None:
    toy.do_all()
    os.utime(table, (1, 1))
    assert [outputs["state"] for outputs in toy.do_all()] == ["done"] * 3
    table.rename(tmp_path / "moved.csv")
    assert [outputs["state"] for outputs in toy.do_all(f"prepare.path={tmp_path / 'moved.csv'}")] == ["done"] * 3
    table.write_text("x,y\n1,1\n")
    assert [outputs["state"] for outputs in toy.do_all()] == ["made", "done", "done"]


def test_a_table_is_hashed_once_for_each_size_and_time(toy: Pipeline, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = raw.digest(toy.store, str(table))
    assert digest == contract.file_digest(table)
    monkeypatch.setattr(contract, "file_digest", None)
    assert raw.digest(toy.store, str(table)) == digest


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("no.csv", "{p}: the table is not there. Set prepare.path in the config."),
        ("table.csv/below", "{p}: the table cannot be read (Not a directory). Set prepare.path to a file."),
        ("x" * 300, "{p}: the table cannot be read (File name too long). Set prepare.path to a file."),
    ],
)
@pytest.mark.usefixtures("table")
def test_a_table_that_cannot_be_read_is_a_missing_input(toy: Pipeline, place: str, line: str) -> None:
    with pytest.raises(MissingInput) as raised:
        toy.addresses(f"prepare.path={toy.config.parent}/{place}")
    assert str(raised.value) == line.format(p=toy.config.parent / place)


def run_of(addresses: address.Addresses, folder: Path) -> step.Run:
    folder.mkdir()
    return step.Run("toy-a", {}, addresses, folder, {}, "")


def test_a_table_that_changed_since_the_plan_is_not_read(toy: Pipeline, table: Path, tmp_path: Path) -> None:
    run = run_of(toy.addresses(), tmp_path / "run")
    assert run.source("table") == table
    table.write_text("x,y\n1,1\n")
    with pytest.raises(MissingInput, match=r"table\.csv: its bytes changed since this run was planned\. Run the same command again\.$"):
        run.source("table")


@pytest.mark.usefixtures("table")
def test_a_table_in_the_store_is_read_by_its_digest(toy: Pipeline, tmp_path: Path) -> None:
    key = f"raw/{artifact.sha256(b'x,y')}"
    run = run_of(toy.addresses(f"prepare.path={key}"), tmp_path / "run")
    with pytest.raises(MissingInput, match=r"raw/[0-9a-f]{64}: the table is not there\. Upload it again with `surefoot submit`\.$"):
        run.source("table")
    toy.store.create(key, b"x,y")
    assert run.source("table").read_bytes() == b"x,y"
    damaged(toy, key, "cut")
    with pytest.raises(MissingInput, match=r"raw/[0-9a-f]{64}: its bytes are damaged\. Run the same command again, or submit again: "):
        run.source("table")


# --- a config in the store ---


def test_a_resolved_config_is_read_from_the_store(toy: Pipeline) -> None:
    document = toy.addresses().config.dump()
    key = f"config/{artifact.sha256(document)}.json"
    with pytest.raises(MissingInput, match=rf"^{key}: this config is not in .*\. Submit it again\.$"):
        step.resolve(key, toy.store, [])
    toy.store.create(key, document)
    assert step.resolve(key, toy.store, []) == toy.addresses().config
    with pytest.raises(UsageError, match="--set changes a YAML config; one in the store is final"):
        step.resolve(key, toy.store, ["toy.value=2"])
    damaged(toy, key, "flipped")
    with pytest.raises(MissingInput, match=rf"^{key}: its bytes in .* are damaged\. Submit it again\.$"):
        step.resolve(key, toy.store, [])


def test_a_config_in_the_store_gives_the_same_address_as_its_file(toy: Pipeline) -> None:
    document = toy.addresses().config.dump()
    key = f"config/{artifact.sha256(document)}.json"
    toy.store.create(key, document)
    toy.do("a")
    assert programs.python("-m", "tests.toy.a", "--config", key, "--store", toy.store.address).answer["state"] == "done"


def test_a_config_of_another_version_is_refused(toy: Pipeline) -> None:
    document = toy.addresses().config.dump().replace(b'"rounds":5', b'"rounds":0')
    key = f"config/{artifact.sha256(document)}.json"
    toy.store.create(key, document)
    with pytest.raises(ConfigError, match=rf"^{key}: toy\.rounds: "):
        step.resolve(key, toy.store, [])


# --- the champion ---


@pytest.fixture
def trainer(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add to the toy the step whose plan key tells whose the live package is."""
    assert toy
    monkeypatch.setitem(contract.STEPS, "train", work.Toy("train", item=("family",)))


def promoted(store: Store, generation: int, version: str, **more: Any) -> None:
    assert registry.add(store, {"generation": generation, "version": version, "train": "", "over": None, "files": {}, **more})


@pytest.mark.usefixtures("trainer")
def test_the_champion_is_pinned_and_changes_who_reads_it_alone(toy: Pipeline) -> None:
    toy.do_all()
    promoted(toy.store, 1, "one")
    assert registry.champion(toy.addresses()) == {"version": "one", "generation": 1}
    assert [outputs["state"] for outputs in toy.do_all()] == ["done", "done", "made"]


@pytest.mark.usefixtures("trainer")
def test_the_champion_of_a_run_that_is_live_itself_is_what_it_replaced(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address.Addresses, "plan_key", lambda *_: "key")
    promoted(toy.store, 1, "one", train="key", over=None)
    assert toy.addresses().config.pinned == config.Pinned("", {}, None)
    promoted(toy.store, 2, "two", train="key", over={"version": "one", "generation": 1})
    pinned = toy.addresses().config.pinned
    assert pinned
    assert pinned.champion == {"version": "one", "generation": 1}


def test_rolling_back_is_one_more_generation_and_bars_the_one_that_was_live(toy: Pipeline) -> None:
    with pytest.raises(MissingInput, match="nothing was ever promoted, so there is nothing to roll back"):
        registry.roll_back(toy.store)
    for generation, version in enumerate(("one", "two", "three"), start=1):
        promoted(toy.store, generation, version)
    with pytest.raises(MissingInput, match="version four is not in the history of production: one, two, three"):
        registry.roll_back(toy.store, "four")

    assert registry.roll_back(toy.store)["version"] == "two"
    assert registry.live(toy.store)["generation"] == 4  # type: ignore[index]
    assert registry.roll_back(toy.store)["version"] == "one"
    assert registry.barred(toy.store) == {"two", "three"}
    with pytest.raises(MissingInput, match="another version that was not rolled back is not in the history"):
        registry.roll_back(toy.store)


def test_production_never_goes_back_to_what_is_not_whole(toy: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "model.ubj").write_bytes(b"model")
    sha256 = artifact.put(toy.store, tmp_path / "model.ubj")["sha256"]
    promoted(toy.store, 1, "one", files={"model.ubj": sha256})
    promoted(toy.store, 2, "two", files={"model.ubj": sha256})
    assert registry.verify(toy.store) == []
    damaged(toy, f"blobs/{sha256}", "cut")

    assert registry.verify(toy.store) == ["live version two: model.ubj is lost or damaged"]
    with pytest.raises(MissingInput, match=r"of version one, model\.ubj is lost or damaged\. Go back to another one: --to VERSION\.$"):
        registry.roll_back(toy.store)
    assert len(registry.history(toy.store)) == 2


def test_a_damaged_generation_is_found(toy: Pipeline) -> None:
    promoted(toy.store, 1, "one")
    damaged(toy, toy.store.list(registry.FOLDER)[0], "cut")
    (line,) = registry.verify(toy.store)
    assert "00000001.json is damaged" in line


def test_who_rolls_back_while_production_moves_is_told(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    for generation, version in enumerate(("one", "two"), start=1):
        promoted(toy.store, generation, version)
    before = registry.history(toy.store)
    promoted(toy.store, 3, "three")
    monkeypatch.setattr(registry, "history", lambda _: before)
    with pytest.raises(MissingInput, match="production moved on from generation 2 just now"):
        registry.roll_back(toy.store)


def test_a_generation_is_written_once_and_its_writer_knows_it(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    promoted(toy.store, 1, "one")
    assert registry.add(toy.store, {"generation": 1, "version": "two"}) is None
    real = toy.store.create

    def lost(key: str, data: bytes | Path) -> bool:
        real(key, data)
        return False

    monkeypatch.setattr(toy.store, "create", lost)
    assert registry.add(toy.store, {"generation": 2, "version": "two"})


# --- every error has a code of its own ---


def test_every_kind_of_error_has_its_exit_code() -> None:
    codes = {kind.__name__: kind.code for kind in SurefootError.__subclasses__()}
    assert codes == {"UsageError": 2, "DataError": 65, "MissingInput": 66, "NotNow": 75, "OutOfMemory": 76, "ConfigError": 78}
    assert SurefootError.code == step.BUG == 70
    assert 64 not in codes.values(), "Argo's own"
    assert {OutOfMemory.code, NotNow.code} <= {75, 76}


def test_the_letters_are_the_toy() -> None:
    assert tuple(f"toy-{letter}" for letter in LETTERS) == tuple(work.TOYS)


@pytest.mark.skipif(not step._has_avx2(), reason="this processor has no AVX2: its library chooses by itself")
def test_sums_are_made_in_one_order_whatever_the_processor(tmp_path: Path) -> None:
    program = (
        "import os\nfrom stages.common import step\n"
        "def work(asked):\n"
        "    import numpy, scipy.linalg\n"
        "    from threadpoolctl import threadpool_info\n"
        "    return {'blas': sorted({one['architecture'] for one in threadpool_info() if one['internal_api'] == 'openblas'})}\n"
        "os.environ.pop('OPENBLAS_CORETYPE', None)\n"
        "step.program('toy', step.arguments('toy', 'toy'), work)\n"
    )
    ended = programs.python("-c", program, "--config", tmp_path / "none", "--store", tmp_path)
    assert ended.answer == {"blas": ["Haswell"]}, ended.err
