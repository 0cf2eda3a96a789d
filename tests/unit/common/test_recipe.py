"""What of a step's source and libraries can change its result, and what cannot."""

import importlib.metadata
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stages.common import contract, recipe
from stages.common.contract import STEPS
from tests import programs

SOURCE = '''
"""What the module is for."""

from stages.common import log
from stages.common.errors import DataError


def halve(value: int) -> float:
    """Halve a value."""
    # The comment.
    if value < 0:
        raise DataError(f"{value} is negative. Give a positive one.") from None
    log.info("halved", value=value)
    return value / 2
'''

SAME = {
    "a comment": ("# The comment.", "# Another comment."),
    "no comment": ("    # The comment.\n", ""),
    "a docstring": ('"""Halve a value."""', '"""Give one half of a value."""'),
    "no docstring": ('    """Halve a value."""\n', ""),
    "the module's docstring": ("What the module is for", "What else it is for"),
    "a log line": ('log.info("halved", value=value)', 'log.warning("was halved", half=value / 2)'),
    "no log line": ('    log.info("halved", value=value)\n', ""),
    "an error's message": ("is negative. Give a positive one.", "must not be negative."),
    "an error's message without a value": ('f"{value} is negative. Give a positive one."', '"negative"'),
    "blank lines and quotes": ("return value / 2", "\n\n    return (value  /  2)"),
}
OTHER = {
    "a number": ("value / 2", "value / 3"),
    "an operator": ("value / 2", "value // 2"),
    "a condition": ("value < 0", "value <= 0"),
    "the kind of an error": ("raise DataError(", "raise ValueError("),
    "a name": ("halve(value", "half(value"),
    "an annotation": ("-> float", "-> int"),
    "a default": ("value: int", "value: int = 1"),
    "a decorator": ("def halve", "@staticmethod\ndef halve"),
    "a line more": ("return value", "value += 0\n    return value"),
    "a string": ("return value / 2", 'return value / 2 if "a" else 0'),
}


def digest_of(folder: Path, text: str) -> str:
    path = folder / f"{contract.digest(text)}.py"
    path.write_text(text)
    return recipe.source_digest(path)


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME)
def test_what_cannot_change_a_result_does_not_change_the_digest(tmp_path: Path, old: str, new: str) -> None:
    assert old in SOURCE
    assert digest_of(tmp_path, SOURCE.replace(old, new)) == digest_of(tmp_path, SOURCE)


@pytest.mark.parametrize(("old", "new"), OTHER.values(), ids=OTHER)
def test_what_can_change_a_result_changes_the_digest(tmp_path: Path, old: str, new: str) -> None:
    assert old in SOURCE
    assert digest_of(tmp_path, SOURCE.replace(old, new)) != digest_of(tmp_path, SOURCE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = None", "x = ..."),
        ("x = ()", "x = []"),
        ("f(a, b)", "f(b, a)"),
        ("f(a, *b)", "f(*b, a)"),
        ("f'{a!r}'", "f'{a!s}'"),
        ("f'{a:.1f}'", "f'{a:.2f}'"),
        ("def f(a, /): pass", "def f(a): pass"),
        ("def f(*, a): pass", "def f(a): pass"),
        ("async def f(): pass", "def f(): pass"),
        ("x = {**a, 'b': 1}", "x = {'b': 1, **a}"),
        ("x = 'ä'", "x = 'ae'"),
        ("log = 1", "log = 2"),
        ("x = log.info('a')", "x = log.info('b')"),
    ],
)
def test_things_that_look_alike_have_digests_of_their_own(tmp_path: Path, one: str, other: str) -> None:
    assert digest_of(tmp_path, one) != digest_of(tmp_path, other)


MINORS = range(13, 20)
OTHERS = sorted(
    {
        *(program for minor in MINORS for program in Path.home().glob(f".pyenv/versions/*/bin/python3.{minor}")),
        *(Path(found) for minor in MINORS if (found := shutil.which(f"python3.{minor}")) and "shims" not in found),
    }
)


def test_another_python_computes_the_same_recipes() -> None:
    tried = []
    for program in OTHERS:
        done = subprocess.run([program, "-m", "stages.common.recipe"], cwd=recipe.ROOT, capture_output=True, check=False)
        if done.returncode == 0:
            tried.append(program)
            assert json.loads(done.stdout) == recipe.recipes(), program
    if not tried:
        pytest.skip("no Python beside 3.12 is installed: that digests do not depend on it was not tested")


def test_a_checkout_keeps_the_recipes_of_its_code(checkout: Path) -> None:
    """They are read again while the code is the same; what cannot be read, or kept, is computed."""
    code = "import json; from stages.common import recipe; recipe.recipes = SWAPPED or recipe.recipes; "
    code += "print(json.dumps(recipe.recipe('train', {'family': 'xgboost'})))"

    def told(swapped: str = "None") -> Any:
        ended = programs.python("-c", code.replace("SWAPPED", swapped), root=checkout)
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    never = "(lambda: 1 / 0)"
    made = told()
    assert made == recipe.recipe("train", {"family": "xgboost"})
    assert told(never) == made

    (kept,) = (checkout / "stages" / "__pycache__").glob("recipes-*")
    kept.write_bytes(kept.read_bytes()[:100])
    assert told() == made
    path = checkout / "stages" / "train" / "train.py"
    path.write_text(path.read_text() + "\nMORE = 1\n")
    assert told()["source"] != made["source"]
    for number in range(recipe.KEPT + 2):
        path.write_text(path.read_text() + f"\nMORE = {number}\n")
        told("(lambda: {'train/xgboost': {'source': '', 'libraries': {}}})")
    assert len([*kept.parent.glob("recipes-*")]) == recipe.KEPT

    shutil.rmtree(kept.parent)
    kept.parent.write_text("no folder")
    assert told()["python"] == made["python"]


# --- closure and libraries ---


def test_a_closure_is_what_is_imported_at_the_top_or_later() -> None:
    found = recipe.closure("stages.search.work", "xgboost")
    assert {"stages", "stages.search", "stages.search.work", "stages.search.study", "stages.families.xgboost"} <= set(found)
    assert "stages.train.train" not in found
    assert "stages.plan.config" not in found, "loaded by its name: what another stage is told changes nothing here"
    assert all(path.is_file() for path in found.values())


def test_no_stage_imports_another() -> None:
    """Each may import the three shared rooms and itself."""
    for stage in {step.stage for step in STEPS.values()} | {"plan"}:
        for path in (recipe.ROOT / "stages" / stage).glob("*.py"):
            name = ".".join(path.relative_to(recipe.ROOT).with_suffix("").parts)
            rooms = {other.split(".")[1] for other in recipe.closure(name) if "." in other}
            assert rooms <= {stage, "common", "features", "families"}, path


WITH = {
    "prepare": {"pandas", "pyarrow", "numpy"},
    "search-create/xgboost": {"optuna"},
    "search-work/xgboost": {"optuna", "xgboost", "pandas", "scikit-learn"},
    "search-collect/xgboost": {"optuna", "xgboost", "pandas", "scikit-learn"},
    "train/xgboost": {"xgboost", "pandas", "scikit-learn", "numpy"},
    "evaluate": {"xgboost", "pandas", "scikit-learn"},
    "validate": {"xgboost", "pandas"},
    "deploy": set[str](),
}
WITHOUT = {
    "prepare": {"xgboost", "optuna", "scikit-learn", "psycopg2-binary"},
    "train/xgboost": {"optuna", "psycopg2-binary"},
    "evaluate": {"optuna"},
    "validate": {"optuna"},
    "deploy": {"pandas", "numpy", "xgboost", "optuna", "pyarrow"},
}
BOOSTERS = {"xgboost", "lightgbm", "catboost"}
PLUMBING = {"minio", "pydantic", "pydantic-core", "pyyaml", "tqdm", "urllib3", "certifi", "hera", "pytest", "xgboost-cpu"}


def test_each_steps_libraries_are_those_it_uses_and_what_they_need() -> None:
    made = recipe.recipes()
    families = recipe.families()
    assert {label for label in made if not label.endswith(tuple(families))} | {label for label in made if "xgboost" in label} == set(WITH)
    for label, document in made.items():
        libraries = set(document["libraries"])
        assert libraries >= WITH.get(label, set()), label
        assert not libraries & (WITHOUT.get(label, set()) | PLUMBING), label
        if family := label.partition("/")[2]:
            assert libraries & BOOSTERS == {family} & BOOSTERS, label


def test_both_builds_of_xgboost_count_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"xgboost": "3.4.1"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = []
    for name in ("xgboost", "xgboost-cpu"):
        versions = {name: "3.4.1"}
        recipe.installed.cache_clear()
        found.append(recipe.installed("xgboost"))
    recipe.installed.cache_clear()
    assert found == ["3.4.1", "3.4.1"]


def test_what_is_not_installed_counts_as_locked_and_what_is_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image has no other stage's libraries, and yet computes every plan key."""
    locked = recipe.locked()["pandas"][0]
    monkeypatch.setattr(recipe, "installed", lambda _: None)
    assert recipe.recipe("prepare", {})["libraries"]["pandas"] == locked
    assert recipe.unlike_lock("prepare", {}) == []

    monkeypatch.setattr(recipe, "installed", lambda name: "9.9" if name == "pandas" else None)
    assert recipe.recipe("prepare", {})["libraries"]["pandas"] == "9.9"
    assert recipe.unlike_lock("prepare", {}) == [f"pandas 9.9 (locked: {locked})"]


def test_a_library_that_is_not_locked_is_a_bug(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("import json\nimport torch\n")
    with pytest.raises(LookupError, match=r"imported, but not in requirements\.lock: \['torch'\]"):
        recipe.libraries([tmp_path / "new.py"])


# --- a checkout of its own ---


def test_numbers_that_a_module_keeps_beside_it_are_its_source(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("X = 1\n")
    found = []
    for numbers in (None, "[1]", "[2]"):
        if numbers:
            path.with_suffix(".json").write_text(numbers)
        recipe.source_digest.cache_clear()
        found.append(recipe.source_digest(path))
    assert len(set(found)) == 3


CACHED = (recipe.families, recipe._tree, recipe._imports, recipe._module_path, recipe.source_digest, recipe.locked)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy what recipes are made of."""
    root = tmp_path / "checkout"
    for name in ("stages", "configs"):
        shutil.copytree(recipe.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "images").mkdir()
    for name in ("pyproject.toml", "images/requirements.lock"):
        shutil.copy(recipe.ROOT / name, root / name)
    return root


def recipes_of(root: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "ROOT", root)
        patch.setattr(recipe, "LOCK", root / "images" / "requirements.lock")
        for cached in CACHED:
            cached.cache_clear()
        made = recipe.recipes()
    for cached in CACHED:
        cached.cache_clear()
    return made


def changed(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    return {label for label in before if before[label] != now[label]}


def test_a_checkout_elsewhere_has_the_same_recipes(checkout: Path) -> None:
    assert recipes_of(checkout) == recipe.recipes()
    ended = programs.python("-m", "stages.common.recipe", root=checkout)
    assert json.loads(ended.out) == recipe.recipes()


SEARCHES = {f"search-{name}/{family}" for name in ("create", "work", "collect") for family in recipe.families()}


def test_another_family_is_left_out(checkout: Path) -> None:
    before = recipes_of(checkout)
    (checkout / "stages/families/forest.py").write_text('"""Another family."""\n\nimport sklearn\n\nFILE = "forest.json"\n')
    one = recipes_of(checkout)
    forest = checkout / "stages/families/forest.py"
    forest.write_text(forest.read_text() + "TREES = 100\n")
    now = recipes_of(checkout)

    assert set(now) - set(before) == {f"{step}/forest" for step in ("search-create", "search-work", "search-collect", "train")}
    assert {label for label in changed(one, now) if label in before} <= {"evaluate", "validate"}, "which read all families"
    assert {"train/forest", "search-work/forest"} <= changed(one, now)


def test_a_line_of_code_changes_the_steps_that_import_it(checkout: Path) -> None:
    before = recipes_of(checkout)

    def after(file: str, line: str) -> set[str]:
        path = checkout / file
        text = path.read_text()
        path.write_text(text + line)
        try:
            return changed(before, recipes_of(checkout))
        finally:
            path.write_text(text)

    assert after("stages/evaluate/evaluate.py", "\n# a comment\n") == set()
    assert after("stages/evaluate/evaluate.py", "\nMORE = 1\n") == {"evaluate"}
    assert after("stages/evaluate/report.py", "\nMORE = 1\n") == set()
    assert after("stages/plan/plan.py", "\nMORE = 1\n") == set()
    assert after("stages/common/log.py", "\nMORE = 1\n") == set()
    assert after("stages/common/store.py", "\nMORE = 1\n") == set(before)
    assert after("stages/prepare/split.py", "\nMORE = 1\n") == {"prepare"}
    assert after("stages/families/xgboost.py", "\nMORE = 1\n") >= {"train/xgboost", "search-work/xgboost", "search-collect/xgboost"}
    assert after("stages/search/study.py", "\nMORE = 1\n") == SEARCHES


def test_a_locked_version_changes_the_steps_that_use_the_library(checkout: Path) -> None:
    """Let nothing be installed, so that the lock alone speaks."""
    lock = checkout / "images/requirements.lock"
    text = lock.read_text()
    before = recipes_of(checkout)

    def after(library: str) -> set[str]:
        lock.write_text(re.sub(rf"(?m)^{library}==\S+", f"{library}==9.9.9", text))
        return changed(before, recipes_of(checkout))

    boosted = {"search-create/xgboost", "search-work/xgboost", "search-collect/xgboost", "train/xgboost", "evaluate", "validate"}
    assert after("xgboost-cpu") == boosted
    assert after("optuna") == SEARCHES
    assert after("pyarrow") >= {"prepare"} | boosted
    assert after("minio") == after("pydantic") == after("hera") == after("pytest") == set()


# --- an image ---


@pytest.mark.parametrize("stage", sorted({step.stage for step in STEPS.values()} | {"plan"}))
def test_the_libraries_of_an_image_are_locked_by_hash_and_name_no_index(stage: str) -> None:
    lines = recipe.requirements(stage)
    blocks = [block for block in re.split(r"\n(?=[a-z0-9])", lines) if block.strip()]
    names = {block.split("==")[0] for block in blocks}
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+==\S+", block), block
        assert "--hash=sha256:" in block, block
    for word in ("://", "index", "find-links", "trusted-host"):
        assert word not in lines
    assert {"minio", "pydantic", "pyyaml", "tqdm"} <= names
    assert not names & {"pytest", "ruff", "mypy", "hera"}
    for label, made in recipe.recipes().items():
        if label.split("/")[0].split("-")[0] == stage:
            libraries = made["libraries"]
            assert set(libraries) <= names | {"xgboost"}, label


def test_an_image_holds_its_stages_files_and_no_other_stages() -> None:
    for stage in sorted({step.stage for step in STEPS.values()} | {"plan"}):
        files = {str(path.relative_to(recipe.ROOT)) for path in recipe.image_files(stage)}
        assert f"stages/{stage}/__main__.py" in files
        assert "configs/base.yaml" in files
        foreign = {file for file in files if re.match(r"stages/(plan|prepare|search|train|evaluate|validate|deploy)/", file)}
        own = {file for file in foreign if file.startswith(f"stages/{stage}/")}
        assert all(Path(file).name in {"config.py", "__init__.py"} for file in foreign - own)
        assert not any(file.startswith(("workflows", "tests")) for file in files)


def test_the_three_questions_of_an_image_are_answered_by_the_program() -> None:
    listed = programs.python("-m", "stages.common.recipe", "--files", "train").out.splitlines()
    assert listed == [str(path.relative_to(recipe.ROOT)) for path in recipe.image_files("train")]
    assert programs.python("-m", "stages.common.recipe", "--requirements", "train").out == recipe.requirements("train")
