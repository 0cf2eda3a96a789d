"""The search over a table of 500 rows: a study in SQLite, records in a folder."""

import contextlib
import json
import math
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from stages import families
from stages.common import artifact, checkpoint, contract
from stages.common.checkpoint import Checkpoint
from stages.common.errors import ConfigError, Interrupted, MissingInput, NotNow, OutOfMemory
from stages.common.store import Store, open_store
from stages.families import need
from stages.features import features
from stages.search import patience, progress, work
from stages.search import study as studies
from stages.search.slots import Slots
from tests import programs, small
from tests.toy.pipeline import digests

ITEM = {"family": "xgboost"}


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare once for all tests."""
    folder = tmp_path_factory.mktemp("prepared")
    planned = small.addresses(small.lay_out(folder), open_store(str(folder / "store")))
    for name in ("prepare", "search-create"):
        small.do(name, planned)
    return folder


@pytest.fixture
def folder(prepared_once: Path, tmp_path: Path) -> Path:
    """Give a folder of its own in which the search can begin."""
    shutil.copytree(prepared_once, tmp_path / "small")
    return tmp_path / "small"


@pytest.fixture
def store(folder: Path) -> Store:
    """Open its store."""
    return open_store(str(folder / "store"))


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Give the parameters of each fit that is started."""
    made: list[dict[str, Any]] = []
    real = families.fit

    def fit(name: str, params: dict[str, Any], *arguments: Any, **options: Any) -> families.Fitted:
        made.append(params)
        return real(name, params, *arguments, **options)

    monkeypatch.setattr(families, "fit", fit)
    return made


def do(folder: Path, store: Store, name: str, *sets: str) -> dict[str, Any]:
    return small.do(name, small.addresses(folder / "small.yaml", store, *sets))


def trials(store: Store) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{store.address}/study.db"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).trials


def records(store: Store) -> list[str]:
    return store.list("search/trials/")


def test_a_budget_is_met_exactly_and_collected(folder: Path, store: Store, fits: list[dict[str, Any]]) -> None:
    assert do(folder, store, "search-work")["finished"] == 2
    assert [trial.user_attrs["slot"] for trial in trials(store)] == [0, 1]
    assert all(trial.user_attrs["seconds"] > 0 for trial in trials(store))
    assert len(fits) == len(records(store)) == 2
    assert store.list("scratch/search/") == []

    best = do(folder, store, "search-collect")["best"]
    assert best == max(trial.value for trial in trials(store) if trial.value is not None)


def test_more_trials_go_on_with_the_same_study(folder: Path, store: Store, fits: list[dict[str, Any]]) -> None:
    do(folder, store, "search-work")
    assert do(folder, store, "search-work", "search.n_trials=3")["finished"] == 3
    assert len(fits) == 3


def test_collect_waits_for_those_who_are_at_work(folder: Path, store: Store) -> None:
    """Another attempt helps while somebody is at a slot; where the workers have failed it helps nobody."""
    do(folder, store, "search-work")
    with pytest.raises(MissingInput, match="2 of 3 trials are finished, and nobody is at work"):
        do(folder, store, "search-collect", "search.n_trials=3")
    storage = patience.Storage(f"sqlite:///{store.address}/study.db")
    slots = Slots(optuna.load_study(study_name=None, storage=storage), storage)
    slots.grow(3)
    assert slots.claim(3)
    with pytest.raises(NotNow, match="2 of 3 trials are finished, and others are at work"):
        do(folder, store, "search-collect", "search.n_trials=3")


def test_collect_sees_what_is_finished_while_it_looks(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last worker closes its slot right after collect saw nobody at work."""
    held = Slots.held

    def looked(slots: Slots, budget: int) -> int:
        seen = held(slots, budget)
        with monkeypatch.context() as patch:
            patch.setattr(Slots, "held", held)
            do(folder, store, "search-work")
        return seen

    monkeypatch.setattr(Slots, "held", looked)
    assert do(folder, store, "search-collect")["finished"] == 2


def test_a_search_whose_time_is_spent_ends_with_what_it_has(folder: Path, store: Store, fits: list[dict[str, Any]]) -> None:
    assert do(folder, store, "search-work", "search.n_trials=50", "search.timeout_minutes=0.0001")["finished"] == 1
    assert do(folder, store, "search-collect", "search.n_trials=50", "search.timeout_minutes=0.0001")["finished"] == 1
    assert len(fits) == 1


def test_a_trial_that_was_finished_but_not_told_is_not_fitted_again(
    folder: Path, store: Store, fits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill it between the record and the study: whatever tells is where a process may end."""
    with monkeypatch.context() as patch:
        patch.setattr(Slots, "tell", _killed)
        with pytest.raises(KeyboardInterrupt):
            do(folder, store, "search-work")
    assert (len(fits), len(records(store))) == (1, 1)

    do(folder, store, "search-work")
    assert (len(fits), len(records(store))) == (2, 2)
    assert [trial.state for trial in trials(store)] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert trials(store)[0].params == trials(store)[1].params


def _killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["cut", "another value"])
def test_a_damaged_record_is_not_believed(
    folder: Path, store: Store, fits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Slots, "tell", _killed)
        with pytest.raises(KeyboardInterrupt):
            do(folder, store, "search-work")
    path = store.local(records(store)[0])
    assert path
    data = path.read_bytes()
    value = json.loads(data)["value"]
    path.write_bytes(data[:-9] if how == "cut" else data.replace(str(value).encode(), str(value + 7).encode()))

    do(folder, store, "search-work")
    assert len(fits) == 3, "slot 0 twice"
    assert trials(store)[1].value == value
    assert [key.rsplit("-", 1)[1] for key in records(store) if "/0-" in key] == ["0.json", "1.json"]


def test_the_models_of_all_finished_trials_are_kept(folder: Path, store: Store) -> None:
    do(folder, store, "search-work")
    for key in records(store):
        record = artifact.unsealed(store, key)
        assert record
        blob = f"blobs/{record['model']['sha256']}"
        assert artifact.sha256(store.read(blob)) == record["model"]["sha256"]


def test_two_runs_at_once_do_the_work_once(folder: Path, store: Store) -> None:
    """Two processes over one study: each slot is fitted by one of them, and neither fails."""
    words = ["--config", folder / "small.yaml", "--store", store.address, "--item", json.dumps(ITEM), "--set", "search.n_trials=6"]
    command = [sys.executable, "-m", "stages.search.work", *map(str, words)]
    both = [subprocess.Popen(command, env=programs.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    said = [one.communicate(timeout=120) for one in both]

    assert [one.returncode for one in both] == [0, 0], said
    done = [json.loads(line) for _, err in said for line in err.splitlines()]
    assert sorted(line["slot"] for line in done if line["event"] == "trial.done") == list(range(6))
    assert len(trials(store)) == 6
    assert {trial.state for trial in trials(store)} <= {TrialState.COMPLETE, TrialState.PRUNED}


HANGS = """
import time
from stages import families
from stages.common import step
from stages.search import slots

slots.Slots.__init__.__defaults__ = (0.3,)
families.fit = lambda *_, **__: time.sleep(600)
step.main("search-work", {words})
"""


def test_a_worker_that_hangs_is_ended_and_its_slot_goes_on(folder: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    words = ["--config", str(folder / "small.yaml"), "--store", store.address, "--item", json.dumps(ITEM)]
    program = HANGS.format(words=[*words, "--set", "search.border_minutes=0.02"])
    ended = programs.python("-c", program, more={"TMPDIR": str(tmp_path / "tmp")})

    assert ended.code == NotNow.code, ended.err
    assert [line["slot"] for line in ended.named("slot.hangs")] == [0]
    assert [*(tmp_path / "tmp").glob("surefoot-*")] == [], "it may hold a copy of the table"
    assert do(folder, store, "search-work")["finished"] == 2
    assert [(trial.user_attrs["slot"], trial.state) for trial in trials(store)][:2] == [(0, TrialState.FAIL), (0, TrialState.COMPLETE)]


def test_a_database_that_goes_away_in_the_middle_is_told_as_such(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch, fits: list[dict[str, Any]]
) -> None:
    """Lose its tables while the first trial is fitted; the trial itself is not lost."""
    real = artifact.put

    def put(*arguments: Any) -> dict[str, Any]:
        with sqlite3.connect(f"{store.address}/study.db") as database:
            database.execute("DROP TABLE trial_values")
            database.execute("DROP TABLE trial_user_attributes")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "put", put)
        with pytest.raises(NotNow, match=r"the study database does not answer as it should: no such table: trial_\w+\. Run again"):
            do(folder, store, "search-work")
    assert (len(fits), len(records(store))) == (1, 1)
    for path in Path(store.address).glob("study.db*"):
        path.unlink()
    with pytest.raises(NotNow, match="no such table"):
        do(folder, store, "search-work")
    do(folder, store, "search-create")
    assert [trial.user_attrs["slot"] for trial in trials(store)] == [0], "from its record"
    do(folder, store, "search-work")
    assert len(fits) == 2


@pytest.mark.parametrize("how", ["noise", "a page", "a name"])
def test_a_damaged_database_is_told_with_the_way_out(folder: Path, store: Store, how: str, fits: list[dict[str, Any]]) -> None:
    """Trying again cannot help; without its file, its trials are taken from their records."""
    do(folder, store, "search-work")
    path = folder / "store" / "study.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = path.read_bytes()
    damaged = {
        "noise": b"noise" * 1000,
        "a page": data[:4096] + b"\1" * 4096 + data[8192:],
        "a name": data.replace(b"trial_v", b"trial\xe4v", 1),
    }
    path.write_bytes(damaged[how])
    for name in ("search-work", "search-create"):
        with pytest.raises(MissingInput, match=r"^the study database is damaged \(.+\)\. Move its file away \(study\.db in the store, or"):
            do(folder, store, name)
    for file in (folder / "store").glob("study.db*"):
        file.unlink()
    for name in ("search-create", "search-work", "search-collect"):
        do(folder, store, name)
    assert len(fits) == len(records(store)) == 2


@pytest.mark.parametrize("change", ["trial_values SET value = value + 0.25", "trial_params SET param_value = param_value * 2"])
def test_a_database_that_differs_from_the_records_is_not_believed(folder: Path, store: Store, change: str) -> None:
    """A flipped bit in it would make another trial the best one, or the best one another."""
    do(folder, store, "search-work")
    with contextlib.closing(sqlite3.connect(folder / "store" / "study.db")) as database, database:
        database.execute(f"UPDATE {change} WHERE trial_id = 2")
    with pytest.raises(MissingInput, match=r"^the study database is damaged \(slot 1 is not as its record tells\)\. Move its file away"):
        do(folder, store, "search-collect")


def test_a_lost_database_is_made_again_from_the_records(folder: Path, store: Store, fits: list[dict[str, Any]]) -> None:
    """Complete trials and pruned ones: nothing is fitted again, and what collect makes is the same bytes."""
    budget = ("search.n_trials=12", "search.rounds=60", "search.early_stopping_rounds=60")
    (folder / "store" / "study.db").unlink()
    for name in ("search-create", "search-work", "search-collect"):
        do(folder, store, name, *budget)
    before, made = trials(store), digests(store)
    assert {trial.state for trial in before} == {TrialState.COMPLETE, TrialState.PRUNED}
    for path in Path(store.address).glob("study.db*"):
        path.unlink()
    shutil.rmtree(folder / "store" / "search" / "collect")

    for name in ("search-create", "search-create", "search-work", "search-collect"):
        do(folder, store, name, *budget)

    assert len(fits) == 12
    told = [
        (trial.user_attrs["slot"], trial.state, trial.value, trial.params, trial.distributions, trial.intermediate_values)
        for trial in before
    ]
    assert sorted(told, key=lambda one: one[0]) == [
        (trial.user_attrs["slot"], trial.state, trial.value, trial.params, trial.distributions, trial.intermediate_values)
        for trial in trials(store)
    ]
    assert digests(store) == made


def test_a_trial_that_is_about_to_be_told_is_left_to_its_worker(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run's search-create finds its record in the store, and no trial of it that is finished."""
    real = Slots.tell

    def tell(*arguments: Any, **attributes: Any) -> None:
        assert len(records(store)) > len([trial for trial in trials(store) if trial.state == TrialState.COMPLETE])
        do(folder, store, "search-create")
        real(*arguments, **attributes)

    monkeypatch.setattr(Slots, "tell", tell)
    assert do(folder, store, "search-work")["finished"] == 2
    assert [(trial.user_attrs["slot"], trial.state) for trial in trials(store)] == [(0, TrialState.COMPLETE), (1, TrialState.COMPLETE)]


def test_a_signal_that_was_swallowed_ends_it_before_the_next_trial(
    folder: Path, store: Store, fits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came amid a fit whose slot was lost at that very border."""
    monkeypatch.setattr(checkpoint._stop, "signal", 15)
    with pytest.raises(Interrupted):
        do(folder, store, "search-work")
    assert fits == []
    assert trials(store) == []


@pytest.mark.parametrize(
    ("space", "line"),
    [
        ("{depth: [1, 2]}", "search.space.xgboost.depth: not a parameter of the space; known: max_depth"),
        ("{max_depth: [3.5, 8]}", "search.space.xgboost.max_depth: [3.5, 8] are no integers"),
        ("{max_depth: [low, high]}", "search.space.xgboost.max_depth: ['low', 'high'] is of another kind than its own [3, 10]"),
    ],
)
def test_a_space_that_the_family_does_not_have_is_refused_before_any_trial(folder: Path, store: Store, space: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        do(folder, store, "search-work", f"search.space={{xgboost: {space}}}")
    assert str(refused.value).startswith(line)
    assert trials(store) == []


def test_what_a_search_finds_does_not_depend_on_who_worked_when(folder: Path, store: Store, tmp_path: Path) -> None:
    """Stop after each trial, or do all at once: the same artifact."""
    shutil.copytree(folder, tmp_path / "other")
    other = open_store(str(tmp_path / "other" / "store"))
    for budget in (1, 2, 3):
        do(tmp_path / "other", other, "search-work", f"search.n_trials={budget}")
    do(folder, store, "search-work", "search.n_trials=3")
    for there, where in ((folder, store), (tmp_path / "other", other)):
        do(there, where, "search-collect", "search.n_trials=3")
    assert digests(store) == digests(other)


# --- fits that fail ---


def failing(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[dict[str, Any], Any]]:
    """Let ``answer(number, params, bins)`` say what each fit raises, None for nothing; give what was asked."""
    asked: list[tuple[dict[str, Any], Any]] = []
    real = families.fit

    def fit(name: str, params: dict[str, Any], *arguments: Any, **options: Any) -> families.Fitted:
        asked.append((params, options["bins"]))
        if error := answer(len(asked), params, options["bins"]):
            raise error
        return real(name, params, *arguments, **options)

    monkeypatch.setattr(families, "fit", fit)
    return asked


def collected(folder: Path, store: Store, *sets: str) -> tuple[list[str], dict[str, Any]]:
    """Collect; give the fallbacks, and the best trial."""
    do(folder, store, "search-collect", *sets)
    manifest = small.addresses(folder / "small.yaml", store, *sets).find("search-collect", ITEM)
    assert manifest
    return manifest.document["degraded"], json.loads(store.read(f"blobs/{manifest.files['best.json']['sha256']}"))


def test_parameters_that_cannot_be_fitted_are_replaced(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bad: list[dict[str, Any]] = []

    def answer(number: int, params: dict[str, Any], _bins: Any) -> Exception | None:
        bad.extend([params] if number == 1 else [])
        return ValueError("no such thing") if params in bad else None

    asked = failing(monkeypatch, answer)
    assert do(folder, store, "search-work")["finished"] == 2
    assert [params in bad for params, _ in asked] == [True, True, True, False, False]
    assert do(folder, store, "search-collect")["finished"] == 2
    assert [trial.state for trial in trials(store)].count(TrialState.FAIL) == 3


def test_a_fit_that_fails_once_is_tried_again(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = failing(monkeypatch, lambda number, _params, _bins: ValueError("by chance") if number == 1 else None)
    assert do(folder, store, "search-work")["finished"] == 2
    assert asked[0] == asked[1]


def test_three_bad_slots_in_a_row_stop_the_search(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = failing(monkeypatch, lambda *_: ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        do(folder, store, "search-work", "search.n_trials=4")
    assert len(asked) == 9
    assert len({contract.digest(params) for params, _ in asked}) == 3
    assert TrialState.RUNNING not in [trial.state for trial in trials(store)]

    monkeypatch.undo()
    assert do(folder, store, "search-work", "search.n_trials=4")["finished"] == 4, "and it goes on when that is mended"


def test_out_of_memory_goes_down_the_ladder(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = failing(monkeypatch, lambda _number, _params, bins: None if bins == 64 else OutOfMemory("xgboost on cpu: bad_alloc"))
    assert do(folder, store, "search-work")["finished"] == 2
    assert [bins for _, bins in asked] == [None, 128, 64] * 2
    assert len({contract.digest(params) for params, _ in asked}) == 2

    degraded, best = collected(folder, store)
    assert (degraded, best["rung"]) == (["64 bins for lack of memory"], 2)


def test_where_no_fallback_is_accepted_other_parameters_are_drawn(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = failing(monkeypatch, lambda number, _params, _bins: OutOfMemory("xgboost on cpu: bad_alloc") if number <= 3 else None)
    assert do(folder, store, "search-work", "common.accept_degraded=false")["finished"] == 2
    assert [bins for _, bins in asked] == [None] * 5
    assert [params == asked[0][0] for params, _ in asked] == [True, True, True, False, False]


STRICT = "common.accept_degraded=false"


def test_a_search_that_accepts_no_fallback_begins_no_slot_where_another_one_left_it(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that might fall back found no memory, went down, and was killed; now there is memory."""
    failing(monkeypatch, lambda _number, _params, bins: KeyboardInterrupt() if bins else OutOfMemory("xgboost on cpu: bad_alloc"))
    with pytest.raises(KeyboardInterrupt):
        do(folder, store, "search-work")
    monkeypatch.undo()
    asked = failing(monkeypatch, lambda *_: None)
    assert do(folder, store, "search-work", STRICT)["finished"] == 2
    assert [bins for _, bins in asked] == [None, None]
    assert collected(folder, store, STRICT)[0] == []


def test_where_no_fallback_is_accepted_the_best_of_the_other_trials_counts(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever was the best; and if there are none, that is said, and what others accept is left as it is."""
    failing(monkeypatch, lambda number, *_: OutOfMemory("xgboost on cpu: bad_alloc") if number == 1 else None)
    assert do(folder, store, "search-work")["finished"] == 2
    assert {trial.user_attrs["slot"]: trial.user_attrs["rung"] for trial in trials(store) if trial.state == TrialState.COMPLETE} == {
        0: 1,
        1: 0,
    }
    degraded, best = collected(folder, store, STRICT)
    assert (degraded, best["slot"], best["rung"]) == ([], 1, 0)

    one = ("search.n_trials=1",)
    made = collected(folder, store, *one)
    assert made[0] == ["128 bins for lack of memory"]
    with pytest.raises(MissingInput, match=r"all trials needed a fallback, and common\.accept_degraded is false"):
        do(folder, store, "search-collect", *one, STRICT)
    assert collected(folder, store, *one) == made
    assert not [key for key in store.list("search/") if "/void-" in key]


def test_trials_that_were_all_pruned_have_no_best_one(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a budget shrinks to slots that were worse than those beyond it."""
    monkeypatch.setattr(studies.Others, "prune", lambda *_: True)
    assert do(folder, store, "search-work")["finished"] == 2
    with pytest.raises(MissingInput, match=r"the 2 trials were all pruned, .* Raise search\.n_trials"):
        do(folder, store, "search-collect")


def test_models_do_not_gather_in_a_workers_scratch_folder(
    folder: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    there: list[list[Path]] = []
    failing(monkeypatch, lambda *_: there.append([*scratch.rglob("*model.ubj")]))
    assert do(folder, store, "search-work", "search.n_trials=3")["finished"] == 3
    assert there == [[], [], []]


def test_any_name_of_a_folder_will_do_for_a_store_or_is_refused(prepared_once: Path, tmp_path: Path) -> None:
    """A study's address is a URL, and a format of Optuna's."""
    for name, odd in (("a{b} c#d", None), ("a?b", "?"), ("a%41b", "%")):
        shutil.copytree(prepared_once, tmp_path / name)
        store = open_store(str(tmp_path / name / "store"))
        if odd is None:
            assert do(tmp_path / name, store, "search-work")["finished"] == 2
            assert do(tmp_path / name, store, "search-collect")["finished"] == 2
            continue
        with pytest.raises(ConfigError, match=rf"a folder with '\{odd}' in its name can hold no study\. Rename it, or set SUREFOOT_STUDY"):
            do(tmp_path / name, store, "search-work")
    assert {path.name for path in tmp_path.iterdir()} == {"a{b} c#d", "a?b", "a%41b"}


def test_a_password_may_hold_braces(folder: Path, store: Store, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_STUDY", postgres.replace("surefoot@", "surefoot:p{x}%7Dw@"))
    do(folder, store, "search-create")
    assert do(folder, store, "search-work")["finished"] == 2


def test_without_room_for_all_bins_a_trial_begins_with_fewer(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if columns had a thousand million values, and the library made as many bins by itself."""
    asked = failing(monkeypatch, lambda *_: None)
    monkeypatch.setitem(need.BINS, "xgboost", 10**9)
    monkeypatch.setattr(need, "_values", lambda _path, names: (10**9,) * len(names))
    assert do(folder, store, "search-work")["finished"] == 2
    assert [bins for _, bins in asked] == [128, 128], "none was begun with all of them"
    assert [trial.user_attrs["rung"] for trial in trials(store) if trial.state == TrialState.COMPLETE] == [1, 1]
    assert collected(folder, store)[0] == ["128 bins for lack of memory"]


def test_a_search_without_room_is_refused_before_it_reads_the_table(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "read", None)
    lacking = r"^xgboost needs about [0-9.]+ GB of memory, [0-9.]+ GB are allowed by .+\. Give the step more memory, "
    with monkeypatch.context() as patch:
        patch.setitem(need.BINS, "xgboost", 10**9)
        patch.setattr(need, "_values", lambda _path, names: (10**9,) * len(names))
        with pytest.raises(ConfigError, match=lacking):
            do(folder, store, "search-work", "common.accept_degraded=false")
    monkeypatch.setattr(need, "AT_ALL", 10**15)
    with pytest.raises(ConfigError, match=lacking):
        do(folder, store, "search-work")


def test_a_trial_too_large_for_any_rung_draws_others(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees of 30 levels are more than any machine holds."""
    asked = failing(monkeypatch, lambda *_: None)
    space = "search.space={xgboost: {max_depth: [3, 36], min_child_weight: [1.0e-18, 2.0e-18]}}"
    do(folder, store, "search-create", space, "search.n_trials=6")
    assert do(folder, store, "search-work", space, "search.n_trials=6")["finished"] == 6
    assert all(params["max_depth"] < 30 for params, _ in asked)
    (study,) = optuna.get_all_study_summaries(storage := f"sqlite:///{store.address}/study.db")[-1:]
    made = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert max(trial.params["max_depth"] for trial in made if trial.state == TrialState.FAIL) >= 30
    assert {trial.user_attrs["rung"] for trial in made} == {0}, "the others have room with all bins"


def test_an_attempt_that_came_further_and_failed_is_no_bad_slot(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails at each border once: each attempt comes further, and no other parameters are drawn."""
    seen: list[int] = []
    real = families.fit

    def fit(*arguments: Any, report: Any, **options: Any) -> families.Fitted:
        def told(rounds: int, value: float | None) -> None:
            report(rounds, value)
            if rounds not in seen and len(seen) < 5:
                seen.append(rounds)
                raise ValueError("by chance")

        return real(*arguments, report=told, **options)

    monkeypatch.setattr(families, "fit", fit)
    sets = ("search.rounds=50", "search.n_trials=1")
    do(folder, store, "search-create", *sets)
    assert do(folder, store, "search-work", *sets)["finished"] == 1
    assert seen == [10, 20, 30, 40, 50]
    with sqlite3.connect(f"{store.address}/study.db") as database:
        asked = "SELECT DISTINCT value_json FROM trial_user_attributes WHERE key = 'draw'"
        assert database.execute(asked).fetchall() == [("0",)]


def test_a_fits_borders_are_told_together(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten of them come before it is time to tell any: one transaction tells them, and none is missing."""
    monkeypatch.setattr(work, "TOLD", math.inf)
    commits: list[bool] = []  # whether it told any
    real = studies.storage

    def storage(run: Any, **options: Any) -> patience.Storage:
        made, told = real(run, **options), [False]

        def statement(*arguments: Any) -> None:
            told[0] |= arguments[2].startswith("INSERT INTO trial_intermediate_values")

        def commit(_: Any) -> None:
            commits.append(told[0])
            told[0] = False

        sqlalchemy.event.listen(made.engine, "before_cursor_execute", statement)
        sqlalchemy.event.listen(made.engine, "commit", commit)
        return made

    sets = ("search.rounds=100", "search.early_stopping_rounds=100", "search.n_trials=1")
    do(folder, store, "search-create", *sets)
    monkeypatch.setattr(studies, "storage", storage)
    do(folder, store, "search-work", *sets)
    with sqlite3.connect(f"{store.address}/study.db") as database:
        asked = "SELECT step FROM trial_intermediate_values ORDER BY step"
        assert [step for (step,) in database.execute(asked)] == [*range(10, 110, 10)]
    assert sum(commits) == 1


def test_a_database_error_amid_a_fit_is_no_failure_of_the_fit(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    error = optuna.exceptions.StorageInternalError("gone")
    asked = failing(monkeypatch, lambda number, *_: error if number == 1 else None)
    with pytest.raises(NotNow):
        do(folder, store, "search-work")
    do(folder, store, "search-work")
    assert asked[0] == asked[1]
    assert len(asked) == 3


def test_a_search_without_gain_ends(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first trial is the best: so many more are tried, and the search is whole."""
    values = iter([0.9, *([0.1] * 20)])
    real = families.fit

    def fit(*arguments: Any, **options: Any) -> families.Fitted:
        fitted = real(*arguments, **options)
        return families.Fitted(fitted.model, fitted.rounds, next(values), fitted.device)

    monkeypatch.setattr(families, "fit", fit)
    sets = ("search.n_trials=20", "search.patience_trials=3")
    assert do(folder, store, "search-work", *sets)["finished"] == 4
    assert do(folder, store, "search-collect", *sets) == {"state": "made", "best": 0.9, "finished": 4}
    assert do(folder, store, "search-work", "search.n_trials=5")["finished"] == 5, "more patience goes on"


# --- what a search did not cost ---


def ended(state: TrialState, rounds: int, seconds: float, began: int = 0) -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(
        state=state, value=0.5, intermediate_values={10: 0.4, rounds: 0.5}, user_attrs={"seconds": seconds, "began": began}
    )


def test_the_seconds_saved_follow_from_the_rounds_not_fitted() -> None:
    """Complete trials fit 100, 200 and 300 rounds, of which 50 were there, in 55 s: .1 s a round."""
    complete = [ended(TrialState.COMPLETE, 100, 10), ended(TrialState.COMPLETE, 200, 20), ended(TrialState.COMPLETE, 300, 25, began=50)]
    pruned = [ended(TrialState.PRUNED, 40, 9), ended(TrialState.PRUNED, 30, 0.1, began=20), ended(TrialState.PRUNED, 250, 1)]

    assert studies.seconds_saved(complete) == {"pruning": 0, "resume": 5}
    assert studies.seconds_saved([*complete, *pruned]) == {"pruning": 16 + 17, "resume": 5 + 2}
    assert studies.seconds_saved(pruned) == {"pruning": 0, "resume": 0}, "there is no pace to tell it by"
    assert studies.seconds_saved([ended(TrialState.COMPLETE, 100, 1, began=100)]) == {"pruning": 0, "resume": 0}
    assert studies.seconds_saved([]) == {"pruning": 0, "resume": 0}


def test_a_fit_that_goes_on_tells_where_it_began(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed as its third border is saved; collect's manifest and the status say what that spared, no blob does."""
    sets = ("search.rounds=60", "search.early_stopping_rounds=60", "common.checkpoint_interval_minutes=0")
    (folder / "store" / "study.db").unlink()
    do(folder, store, "search-create", *sets)
    real, saved = Checkpoint.save, list[bytes]()

    def save(checkpoint: Checkpoint, data: bytes) -> None:
        real(checkpoint, data)
        saved.append(data)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", save)
    with pytest.raises(KeyboardInterrupt):
        do(folder, store, "search-work", *sets)
    for name in ("search-work", "search-collect"):
        do(folder, store, name, *sets)

    began = [(trial.state, trial.user_attrs.get("began")) for trial in trials(store)]
    assert began == [(TrialState.FAIL, None), (TrialState.COMPLETE, 30), (TrialState.COMPLETE, 0)]
    planned = small.addresses(folder / "small.yaml", store, *sets)
    manifest = planned.find("search-collect", ITEM)
    assert manifest
    told = manifest.document["measured"]["seconds_saved"]
    assert (told["pruning"], told["resume"] > 0) == (0, True)
    assert b"seconds" not in b"".join(store.read(f"blobs/{file['sha256']}") for file in manifest.files.values())
    (standing,) = progress.stand(planned)
    assert standing.seconds_saved == told
    assert "saved" not in str(standing), "seconds are not worth a word"
    minutes = replace(standing, seconds_saved={"pruning": 119.0, "resume": 29.0})
    assert str(minutes).endswith(f"best average_precision {standing.best:.4f}, 2 minutes saved by pruning")


def test_the_pruner_sees_what_optunas_own_would_and_asks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=20))
    for best in (0.2, 0.5, 0.7):
        reports = {step: best * step / 50 for step in range(10, 60, 10)}
        study.add_trial(optuna.trial.create_trial(state=TrialState.COMPLETE, value=best, intermediate_values=reports))
    asked: list[dict[str, Any]] = []
    real = study.get_trials
    monkeypatch.setattr(studies, "LOOK", 300.0)  # this machine may be slow

    def counted(**words: Any) -> list[FrozenTrial]:
        asked.append(words)
        return real(**words)

    for values in ([0.1] * 5, [0.1, 0.2, 0.25, 0.45, 0.5], [0.0, 0.1, 0.3, 0.35, 0.4]):
        trial, others, reports = study.ask(), studies.Others(study), {}
        for step, value in zip(range(10, 60, 10), values, strict=True):
            trial.report(value, step)
            reports[step] = value
            own = trial.should_prune()
            monkeypatch.setattr(study, "get_trials", counted)
            assert others.prune(reports) == own
            monkeypatch.setattr(study, "get_trials", real)
        assert own == (values[-1] < 0.5)
    assert len(asked) == 3, "once a trial, within seconds"

    monkeypatch.setattr(studies, "LOOK", 0.0)
    monkeypatch.setattr(studies, "SHARE", float("inf"))
    monkeypatch.setattr(study, "get_trials", counted)
    others = studies.Others(study)
    assert others.get_trials() == others.get_trials()
    assert len(asked) == 5, "and again later"

    monkeypatch.setattr(studies, "SHARE", 1e-12)  # the look waited for a server that was away
    monkeypatch.setattr(studies, "SELDOM", 0.0)
    others = studies.Others(study)
    assert others.get_trials() == others.get_trials()
    assert len(asked) == 7, "then too"
