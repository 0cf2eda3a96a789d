# ruff: noqa: E501 - a table
"""Precise invalidation: what a change makes run again, over a checkout, a table and a lock of its own."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stages.common.store import open_store
from tests import programs
from tests.small import finished, finished_once

__all__ = ["finished", "finished_once"]

STEPS = ("prepare", "search-create", "search-work", "search-collect", "train", "evaluate", "validate", "deploy")
COUNTER = """
import os, sys
if "-m" in sys.orig_argv:
    with open(os.environ["PROCESSES"], "a") as file:
        file.write(sys.orig_argv[sys.orig_argv.index("-m") + 1] + "\\n")
"""


@dataclass
class Work:
    """A checkout beside a finished run of it."""

    root: Path
    folder: Path
    before: dict[Path, str] = field(default_factory=dict)

    def edit(self, file: str, old: str, new: str) -> None:
        """Change one place of a file."""
        path = self.root / file if (self.root / file).exists() else self.folder / file
        text = path.read_text()
        assert old in text, f"{file}: {old}"
        self.before.setdefault(path, text)
        path.write_text(text.replace(old, new, 1))

    def relock(self, library: str, version: str, *, install: bool = True) -> None:
        """Lock another version, and install it as far as Python can tell."""
        locked = re.search(rf"(?m)^{library}==\S+", (self.root / "images/requirements.lock").read_text())
        assert locked
        self.edit("images/requirements.lock", locked[0], f"{library}=={version}")
        if install:
            info = self.root / f"{library.replace('-', '_')}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: {version}\n")

    def forget_production(self) -> None:
        """Let nothing be live: what is, is the champion of whoever does not know that he made it himself."""
        shutil.rmtree(self.folder / "store" / "registry")

    def surefoot(self, *arguments: str) -> programs.Ended:
        """Run the command as this checkout has it, and count the processes that it starts."""
        command, *rest = arguments
        given = [command, str(self.folder / "small.yaml"), "--store", str(self.folder / "store"), *rest]
        more = {"PROCESSES": str(self.folder / "processes"), "PYTHONPATH": f"{self.root}{os.pathsep}{self.folder / 'counter'}"}
        return programs.surefoot(*given, root=self.root, more=more)

    def plan(self, *sets: str) -> dict[str, str]:
        """Say what would run: ``run`` for sure, ``depends`` on what it reads."""
        ended = self.surefoot("plan", "--json", *(word for one in sets for word in ("--set", one)))
        assert ended.code == 0, ended.err
        return {row["step"]: row["state"] for row in json.loads(ended.out)["steps"] if row["state"] != "done"}

    def run(self, *sets: str) -> tuple[set[str], set[str]]:
        """Run; give the steps that were made, and those for which a process was started."""
        (self.folder / "processes").write_text("")
        ended = self.surefoot("run", "--json", *(word for one in sets for word in ("--set", one)))
        assert ended.code == 0, ended.err
        made = {row["step"].split("/")[0] for row in json.loads(ended.out)["steps"] if row["outcome"] == "made"}
        started = {name.removeprefix("stages.").replace(".", "-") for name in (self.folder / "processes").read_text().split()}
        return made, started - {"validate-validate"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what a run needs of the project."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("stages", "workflows", "configs"):
        shutil.copytree(programs.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "images").mkdir()
    for name in ("pyproject.toml", "images/requirements.lock"):
        shutil.copy(programs.ROOT / name, root / name)
    return root


@pytest.fixture
def work(checkout: Path, finished: Path) -> Iterator[Work]:
    """Give a checkout, and a run of it that is done; what is edited in the checkout is restored."""
    (finished / "counter").mkdir()
    (finished / "counter" / "sitecustomize.py").write_text(COUNTER)
    work = Work(checkout, finished)
    yield work
    for path, text in work.before.items():
        path.write_text(text)
    for info in checkout.glob("*.dist-info"):
        shutil.rmtree(info)


def requote(work: Work) -> None:
    """Write each customer in quotes: other bytes, the same table."""
    path = work.folder / "table.csv"
    path.write_text(re.sub(r"(?m)(?<=,)(c\d{7})(?=,)", r'"\1"', path.read_text()))


def after(step: str) -> dict[str, str]:
    """Give the plan in which a step runs and what follows depends on it."""
    first = STEPS.index(step)
    return {name: "run" if name == step else "depends" for name in STEPS[first:]}


SEARCH = {"search-create": "run", "search-work": "run", "search-collect": "run", "train": "depends", "evaluate": "depends", "validate": "depends", "deploy": "depends"}  # fmt: skip
CHANGES: dict[str, tuple[Callable[[Work], None], tuple[str, ...], dict[str, str]]] = {
    "nothing": (lambda _: None, (), {}),
    # Code.
    "a comment in evaluate": (lambda w: w.edit("stages/evaluate/evaluate.py", "\n\n\n", "\n\n# A comment.\n"), (), {}),
    "a log line in train": (lambda w: w.edit("stages/train/train.py", '"train.fitted"', '"train.was_fitted"'), (), {}),
    "an error's message in prepare": (lambda w: w.edit("stages/prepare/check.py", "There is nothing to learn", "Nothing can be learnt"), (), {}),
    "a line of code in evaluate": (lambda w: w.edit("stages/evaluate/explain.py", "TOP = 20", "TOP = 3"), (), after("evaluate")),
    "a line of code in prepare": (lambda w: w.edit("stages/prepare/split.py", '"train", "valid"', '"train" , "valid"'), (), {}),
    "a line of code in the report": (lambda w: w.edit("stages/evaluate/report.py", "\n\n\n", "\n\nMORE = 1\n\n\n"), (), {}),
    "a line of code in the command": (lambda w: w.edit("workflows/cli.py", "\n\n\n", "\n\nMORE = 1\n\n\n"), (), {}),
    "a line of code in the features": (lambda w: w.edit("stages/features/features.py", "MOSTLY_DISTINCT = 0.9", "MOSTLY_DISTINCT = 0.91"), (), after("prepare")),
    # Config.
    "a train: value": (lambda _: None, ("train.rounds=21",), after("train")),
    "a search: value": (lambda _: None, ("search.n_trials=3",), SEARCH),
    "a validate: value": (lambda _: None, ("validate.auc_floor=0.1",), after("validate")),
    "memory, threads, log level, interval": (
        lambda _: None,
        ("plan.memory_limit_gb=9", "common.threads=1", "common.log_level=ERROR", "common.checkpoint_interval_minutes=1"),
        {},
    ),
    "a comment in the config": (lambda w: w.edit("small.yaml", "search:", "# More to come.\nsearch:"), (), {}),
    "a default written out": (lambda _: None, ("train.seed=0", "prepare.seed=0"), {}),
    # The table.
    "the table touched": (lambda w: os.utime(w.folder / "table.csv", (1, 1)), (), {}),
    "the table quoted otherwise": (requote, (), after("prepare")),
    "a value of the table": (lambda w: w.edit("table.csv", ",ios,", ",mac,"), (), after("prepare")),
    # Libraries.
    "xgboost": (lambda w: w.relock("xgboost-cpu", "3.4.99"), (), SEARCH),
    "pandas": (lambda w: w.relock("pandas", "3.1.99"), (), after("prepare")),
    "optuna": (lambda w: w.relock("optuna", "5.0.99"), (), SEARCH),
    "minio": (lambda w: w.relock("minio", "7.2.99"), (), {}),
    "pytest": (lambda w: w.relock("pytest", "99"), (), {}),
    "xgboost, locked but not installed": (lambda w: w.relock("xgboost-cpu", "3.4.99", install=False), (), {}),
}  # fmt: skip


@pytest.mark.parametrize(("change", "sets", "expected"), CHANGES.values(), ids=CHANGES)
def test_a_plan_names_what_a_change_makes_run(
    work: Work, change: Callable[[Work], None], sets: tuple[str, ...], expected: dict[str, str]
) -> None:
    change(work)
    assert work.plan(*sets) == expected


def test_a_table_that_was_touched_starts_no_process(work: Work) -> None:
    os.utime(work.folder / "table.csv", (1, 1))
    assert work.run("common.threads=1", "plan.memory_limit_gb=9") == (set(), set())


@pytest.mark.slow
def test_a_line_of_code_in_evaluate_runs_evaluate_and_what_its_result_changes(work: Work) -> None:
    work.edit("stages/evaluate/explain.py", "TOP = 20", "TOP = 3")
    expected = {"evaluate", "validate", "deploy"}
    assert work.run() == (expected, expected)
    assert work.run() == (set(), set())


def test_a_line_of_code_that_changes_no_result_runs_its_step_alone(work: Work) -> None:
    work.edit("stages/evaluate/explain.py", "TOP = 20", "TOP = 20\nMORE = 1")
    assert work.run() == ({"evaluate"}, {"evaluate"})


def test_a_table_that_is_written_otherwise_runs_prepare_alone(work: Work) -> None:
    requote(work)
    work.forget_production()
    before = open_store(str(work.folder / "store")).list("blobs/")
    assert work.run() == ({"prepare"}, {"prepare"})
    assert open_store(str(work.folder / "store")).list("blobs/") == before


@pytest.mark.slow
def test_a_package_that_is_live_is_the_champion_of_a_run_over_other_bytes(work: Work) -> None:
    """Plan cannot know that the same table is only written otherwise; the same package is promoted once all the same."""
    requote(work)
    assert work.run() == ({"prepare", "evaluate", "deploy"},) * 2
    assert len(open_store(str(work.folder / "store")).list("registry/")) == 1


@pytest.mark.slow
def test_a_value_of_the_table_runs_everything(work: Work) -> None:
    work.edit("table.csv", ",ios,", ",mac,")
    assert work.run() == (set(STEPS), set(STEPS))
    assert work.run() == (set(), set())


@pytest.mark.slow
def test_a_train_value_runs_train_and_what_its_result_changes(work: Work) -> None:
    expected = {"train", "evaluate", "validate", "deploy"}
    assert work.run("train.rounds=5") == (expected, expected)
    assert work.run("train.rounds=5") == (set(), set())


@pytest.mark.slow
def test_a_version_of_xgboost_runs_what_uses_it(work: Work) -> None:
    work.relock("xgboost-cpu", "3.4.99")
    made, started = work.run()
    assert made == started
    assert {"search-create", "search-work", "search-collect"} <= made
    assert "prepare" not in made
