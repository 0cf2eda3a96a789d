# ruff: noqa: E501 - tables of lines as people read them
"""More hostile configs, in this process: of the search, judging, stores, databases, the environment and items.

What is expected stood here before the first of them was tried.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.common import config, contract, log, step
from stages.common.address import Addresses
from stages.common.store import open_store
from stages.plan import plan as plans
from tests import small

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Do some work as a program's edge does; give its exit code and the line that it says."""
    words = tmp_path / "last-words"
    monkeypatch.setattr(log, "LAST_WORDS", words)

    def run(work: Callable[[], Any]) -> tuple[int, str]:
        words.write_text("")
        log.setup()
        code = step.guarded(work)
        assert "Traceback" not in (said := capsys.readouterr().err), said
        return code, words.read_text(encoding="utf-8")

    return run


def check(found: tuple[int, str], code: int, words: tuple[str, ...]) -> None:
    """One line that a terminal can show, with the right words."""
    assert found[0] == code, found
    assert found[1].isprintable(), found
    assert len(found[1]) < 1000
    for word in words:
        assert word in found[1]


# --- what plan refuses: text, --set, environment, exit code, pieces of the line ---

Hostile = tuple[str, tuple[str, ...], dict[str, str], int, tuple[str, ...]]
HOSTILE: dict[str, Hostile] = {
    "a word for a list": ("search: {families: xgboost}\n", (), {}, 78, ("search.families: ", "found 'xgboost'")),
    "a family in capitals": ("search: {families: [XGBoost]}\n", (), {}, 78, ("search.families.0: ", "'xgboost'", "found 'XGBoost'")),
    "a family that is a path": ("search: {families: [../../x]}\n", (), {}, 78, ("search.families.0: ", "found '../../x'")),
    "trials as 1e3": ("search: {n_trials: 1e3}\n", (), {}, 78, ("search.n_trials: Input should be a valid integer, found 1000.0",)),
    "more trials than atoms": (f"search: {{n_trials: 1{'0' * 90}}}\n", (), {}, 78, ("search.n_trials: Input should be less than or equal to 100000",)),
    "endless time by a word": ("search: {timeout_minutes: .inf}\n", (), {}, 78, ("search.timeout_minutes: Input should be a valid number, found '.inf'",)),
    "a digit group": ("search: {rounds: 1_000}\n", (), {}, 78, ("search.rounds: Input should be a valid integer, found '1_000'",)),
    "digits of another script": ("search: {rounds: ٤٠٠}\n", (), {}, 78, ("search.rounds: Input should be a valid integer, found '٤٠٠'",)),
    "a number for bounds": ("search: {space: {xgboost: {max_depth: 3}}}\n", (), {}, 78, ("search.space.xgboost.max_depth: ", "found 3")),
    "bounds the wrong way round": ("search: {space: {xgboost: {max_depth: [8, 3]}}}\n", (), {}, 78, ("search: space of xgboost: max_depth is [8, 3], not [low, high]",)),
    "a log of zero": ("search: {space: {xgboost: {max_depth: [0, 3, log]}}}\n", (), {}, 78, ("max_depth is [0, 3, 'log'], not [low, high]",)),
    "nan as a bound": ("search: {space: {xgboost: {subsample: [.nan, 1]}}}\n", (), {}, 78, ("subsample is ['.nan', 1], not [low, high]",)),
    "bounds below zero": ("search: {space: {xgboost: {learning_rate: [-0.3, 0.3]}}}\n", (), {}, 78, ("learning_rate is [-0.3, 0.3], not [low, high]",)),
    "bounds without end": ("search: {space: {xgboost: {max_depth: [1, 1e300]}}}\n", (), {}, 78, ("max_depth is [1, 1e+300], not [low, high]",)),
    "a space of another family": ("search: {space: {lightgbm: {num_leaves: [3, 8]}}}\n", (), {}, 78, ("search: space is given for 'lightgbm', which is not among families: xgboost",)),
    "a monotone column by two": ("search: {monotone: {amount: 2}}\n", (), {}, 78, ("search.monotone.amount: Input should be -1 or 1, found 2",)),
    "a monotone column by true": ("search: {monotone: {amount: true}}\n", (), {}, 78, ("search.monotone.amount: Input should be -1 or 1, found True",)),
    "a list of monotone columns": ("search: {monotone: [amount]}\n", (), {}, 78, ("search.monotone: ", "found ['amount']")),
    "a parameter of two lines": ('search: {space: {xgboost: {"a\\nb": 3}}}\n', (), {}, 78, ("search.space.xgboost.a\\nb: ", "found 3")),
    "bounds of a parameter of two lines": ('search: {space: {xgboost: {"a\\nb": [3]}}}\n', (), {}, 78, ("space of xgboost: a\\nb is [3], not [low, high]",)),
    "hexadecimal rounds": ("train: {rounds: 0x10}\n", (), {}, 78, ("train.rounds: Input should be a valid integer, found '0x10'",)),
    "a seed as large as a float": ("train: {seed: 1e308}\n", (), {}, 78, ("train.seed: Input should be a valid integer, found 1e+308",)),
    "patience of none": ("train: {early_stopping_rounds: 0}\n", (), {}, 78, ("train.early_stopping_rounds: Input should be greater than or equal to 1, found 0",)),
    "a cost of nothing": ("evaluate: {costs: {missed: 0, false_alarm: 1}}\n", (), {}, 78, ("evaluate.costs.missed: give a number above 0, or the word amount",)),
    "half of the costs": ("evaluate: {costs: {missed: 5}}\n", (), {}, 78, ("evaluate.costs.false_alarm: Field required",)),
    "costs beyond all sums": ("evaluate: {costs: {missed: 1e308, false_alarm: 1e308}}\n", (), {}, 78, ("evaluate.costs.missed: ", "found 1e+308")),
    "a currency beside the costs": ("evaluate: {costs: {missed: 1, false_alarm: 1, currency: EUR}}\n", (), {}, 78, ("evaluate.costs.currency: ", "found 'EUR'")),
    "outside scores that are not there": ("evaluate: {outside_scores: scores.csv}\n", (), {}, 66, ("scores.csv: ", "is not there. Set evaluate.outside_scores in the config.")),
    "megabytes in words": ("validate: {memory_mb: 500MB}\n", (), {}, 78, ("validate.memory_mb: Input should be a valid number, found '500MB'",)),
    "a need that is none": ("validate: {auc_floor_need: maybe}\n", (), {}, 78, ("validate.auc_floor_need: Input should be 'required' or 'advisory', found 'maybe'",)),
    "an AUC above one": ("validate: {auc_floor: 1.0000001}\n", (), {}, 78, ("validate.auc_floor: Input should be less than or equal to 1, found 1.0000001",)),
    "deploy by a word": ("deploy: yes please\n", (), {}, 78, ("{f}: deploy: expected keys and values, found str",)),
    "a letter of another script": ("train: {s\u0435\u0435d: 1}\n", (), {}, 78, ("{f}: unknown key train.s\u0435\u0435d; did you mean train.seed?",)),
    "letters from right to left": ("train: {\u202eseed: 1}\n", (), {}, 78, ("{f}: unknown key train.\\u202eseed; did you mean train.seed?",)),
    "a section from right to left": ("\u202etrain: {seed: 1}\n", (), {}, 78, ("{f}: unknown section '\\u202etrain'; did you mean train?",)),
    "a merge key": ("train: {<<: {seed: 1}}\n", (), {}, 78, ("{f}: unknown key train.<<; ",)),
    "a key of 200 KB": (f"train:\n  ? {'x' * 200_000}\n  : 1\n", (), {}, 78, ("{f}: unknown key train.xxxx", "; known: train.seed")),
    "100 KB by --set": ("", ("train.seed=" + "x" * 100_000,), {}, 78, ("--set train.seed=xxx", ": train.seed: Input should be a valid integer, found 'xxx")),
    "an alias by --set": ("", ("search.families=[&a xgboost, *a]",), {}, 78, ("--set search.families=[&a xgboost, *a]: line 1, column 2: anchors and aliases are not allowed",)),
    "lines in the environment": ("", (), {"SUREFOOT__TRAIN__SEED": "1\n2"}, 78, ("environment SUREFOOT__TRAIN__SEED: train.seed: Input should be a valid integer, found '1 2'",)),
    "nothing in the environment": ("", (), {"SUREFOOT__TRAIN__SEED": ""}, 78, ("environment SUREFOOT__TRAIN__SEED: train.seed: Input should be a valid integer, found None",)),
    "bytes in the environment": ("", (), {"SUREFOOT__COMMON__STORE": "\udcff\udcfe"}, 78, ("environment SUREFOOT__COMMON__STORE: ",)),
    "a level in small letters": ("", (), {"SUREFOOT__COMMON__LOG_LEVEL": "debug"}, 78, ("environment SUREFOOT__COMMON__LOG_LEVEL: common.log_level: ", "found 'debug'")),
    "an umlaut in the environment": ("", (), {"SUREFOOT__TRÄIN__SEED": "1"}, 78, ("environment SUREFOOT__TRÄIN__SEED: unknown section 'träin'; did you mean train?",)),
    # Where the studies are.
    "a database of another kind": ("", (), {"SUREFOOT_STUDY": "mysql://u:secret@h/d"}, 78, ("SUREFOOT_STUDY: neither postgresql://",)),
    "a study in memory": ("", (), {"SUREFOOT_STUDY": "sqlite:///"}, 78, ("SUREFOOT_STUDY: ", "file")),
    "a study in no folder": ("", (), {"SUREFOOT_STUDY": "sqlite:////no/such/folder/study.db"}, 78, ("SUREFOOT_STUDY: ", "/no/such/folder")),
    "a port that is no number": ("", (), {"SUREFOOT_STUDY": "postgresql://u:secret@localhost:port/d"}, 78, ("SUREFOOT_STUDY: ", "port")),
    "an address that is not closed": ("", (), {"SUREFOOT_STUDY": "postgresql://u:secret@[::1/d"}, 78, ("SUREFOOT_STUDY: ",)),
    "an option that no server has": ("", (), {"SUREFOOT_STUDY": "postgresql://u:secret@localhost/d?colour=red"}, 78, ("SUREFOOT_STUDY: ", "colour")),
    "a password behind the question mark": ("", (), {"SUREFOOT_STUDY": "postgresql://127.0.0.1:9/d?user=u&password=secret"}, 75, ("the study database at 127.0.0.1:9/d does not answer: ",)),
    "a password of no letters": ("", (), {"SUREFOOT_STUDY": "postgresql://u:secret%zz@localhost/d"}, 78, ("SUREFOOT_STUDY: ", "percent-encoded")),
    # Where all is kept.
    "a store in another cloud": ("common: {store: 'gs://bucket/x'}\n", (), {}, 78, ("'gs://bucket/x' is no store. Give a folder or s3://bucket/prefix.",)),
    "a store of no name": ("common: {store: ''}\n", (), {}, 78, ("'' is no store. Give a folder or s3://bucket/prefix.",)),
    "a bucket in capitals": ("common: {store: 's3://My_Bucket/x'}\n", (), {}, 78, ("s3://My_Bucket/x: ", "Give s3://bucket/prefix.")),
    "a way out of the bucket": ("common: {store: 's3://bucket/../other'}\n", (), {}, 78, ("s3://bucket/../other",)),
    "a store of a long name": (f"common: {{store: {'x' * 500}}}\n", (), {}, 78, ("File name too long", "another store")),
}  # fmt: skip


def plan(path: Path, sets: tuple[str, ...]) -> None:
    """Do what ``surefoot plan`` does."""
    resolved = config.load(path, sets)
    plans.write(plans.plan(resolved, open_store(resolved["common"].store)))


@pytest.mark.parametrize(("text", "sets", "environment", "code", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_config_is_refused_before_anything_starts(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    sets: tuple[str, ...],
    environment: dict[str, str],
    code: int,
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "u",
        "AWS_SECRET_ACCESS_KEY": "p",
        **environment,
    }.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    found = run(lambda: plan(path, sets))
    check(found, code, tuple(word.format(f=path) for word in words))
    assert "secret" not in found[1]
    left = {path.name for path in tmp_path.iterdir()} - {"my.yaml", "last-words"}
    assert left <= {"store"}
    assert not left or [key for key in open_store("store").list("") if not key.startswith("scratch/raw/")] == ["store.json"]


def test_a_config_of_a_name_that_is_no_text_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("b\udcff.yaml")
    path.write_text("", encoding="utf-8")
    check(run(lambda: plan(path, ())), 78, ("b\\udcff.yaml: ", "Rename it"))


# --- items ---

ITEMS: dict[str, tuple[str, str]] = {
    "endless": ("[" * 100_000, "give a JSON object such as"),
    "a list in it": ('{"family": ["xgboost"]}', "this config has only train/xgboost."),
    "a way out": ('{"family": "../../etc"}', "this config has only train/xgboost."),
    "twice": ('{"family": "xgboost", "family": "lightgbm"}', "this config has only train/xgboost."),
    "no number": ('{"family": NaN}', "this config has only train/xgboost."),
    "half a character": ('{"family": "\\ud800"}', "this config has only train/xgboost."),
    "a number": ("1e999", "give a JSON object such as"),
    "too many digits": ("9" * 5000, "give a JSON object such as"),
}


@pytest.mark.parametrize(("given", "words"), ITEMS.values(), ids=ITEMS)
def test_a_hostile_item_is_a_wrong_command(run: Run, given: str, words: str) -> None:
    resolved = config.load(config.CONFIGS / "base.yaml", (), {})
    check(run(lambda: step._item("train", given, resolved)), 2, ("--item ", words))


# --- what is refused once the table is known: nothing was fitted, and the study is as it was ---

AFTER: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "the label": ("search-create", "search.monotone={is_fraud: 1}", ("search.monotone names 'is_fraud', which is no number among the features: ",)),
    "a letter of another script": ("search-create", "search.monotone={\u0430mount: 1}", ("search.monotone names '\u0430mount', which is no number among the features: ", "amount")),
    "a share above one": ("search-create", "search.space={xgboost: {subsample: [0.5, 1.5]}}", ("search.space.xgboost.subsample: [0.5, 1.5]", "at most 1")),
    "a parameter of the user's own": ("search-create", "search.space={xgboost: {objective: [a, b]}}", ("search.space.xgboost.objective: not a parameter of the space; known: max_depth",)),
    "bounds of half trees": ("search-create", "search.space={xgboost: {max_depth: [3, 8.5]}}", ("search.space.xgboost.max_depth: [3, 8.5] are no integers",)),
    "words for bounds": ("search-create", "search.space={xgboost: {max_depth: [low, high, log]}}", ("search.space.xgboost.max_depth: ['low', 'high', 'log'] is of another kind",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder in which the small table is prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    small.do("prepare", small.addresses(small.lay_out(folder), open_store(str(folder / "store"))))
    return folder


@pytest.mark.parametrize(("name", "given", "words"), AFTER.values(), ids=AFTER)
def test_what_does_not_fit_the_table_is_refused_before_a_study_is_made(
    run: Run, prepared: Path, name: str, given: str, words: tuple[str, ...]
) -> None:
    store = open_store(str(prepared / "store"))

    def work() -> None:
        resolved = config.load(prepared / "small.yaml", [given], {})
        step.run_step(name, {"family": "xgboost"}, Addresses(step.pin(resolved, store), store))

    check(run(work), 78, words)
    assert contract.STEPS[name].effect_of
    assert not [key for key in store.list("") if "study.db" in key]
