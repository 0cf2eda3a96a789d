"""The recipe of a step: its source, Python, and the versions of its libraries.

Standard library alone, so that an image is made with it before anything is installed.

    python -m stages.common.recipe                          recipes of all steps, for an image's recipes.json
    python -m stages.common.recipe --requirements train     the locked libraries of one image, with hashes
    python -m stages.common.recipe --files train            the files of one image
"""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.common import contract

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "images" / "requirements.lock"
BAKED = ROOT / "recipes.json"  # only in an image, which does not hold the other stages' code, nor pyproject.toml

# They say what happens; they cannot change what is computed. What memory allows can: that is told by ``degraded``, as where it ran out.
SILENT = {"stages.common.errors", "stages.common.log", "stages.common.memory", "stages.common.telemetry", "stages.families.need"}
# Shared by all families: not a family.
FAMILY_ROOM = "stages.families."
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "xgboost": "xgboost-cpu",
    "psycopg2": "psycopg2-binary",
    "pynvml": "nvidia-ml-py",
}
# Two builds of the same code.
SAME = {"xgboost-cpu": "xgboost"}
KEPT = 8  # states of a checkout's code whose recipes it keeps


def recipe(step: str, item: contract.Item) -> dict[str, Any]:
    """Give source digest, Python's minor version and library versions of a step, as installed or else as locked."""
    made = _known(tuple(contract.STEPS))[contract.label(step, item)]
    versions = {name: installed(name) or version for name, version in made["libraries"].items()}
    return {"source": made["source"], "python": f"{sys.version_info[0]}.{sys.version_info[1]}", "libraries": versions}


def unlike_lock(step: str, item: contract.Item) -> list[str]:
    """Name the step's libraries that are installed in another version than the locked one."""
    locked = _known(tuple(contract.STEPS))[contract.label(step, item)]["libraries"]
    return [f"{name} {have} (locked: {locked[name]})" for name in sorted(locked) if (have := installed(name)) not in (None, locked[name])]


@functools.cache
def installed(library: str) -> str | None:
    """Version of an installed library, None where it is not installed."""
    for name in (library, *(other for other, same in SAME.items() if same == library)):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


@functools.cache
def families() -> list[str]:
    """Names of the model families, one file each."""
    return sorted(p.stem for p in (ROOT / "stages" / "families").glob("*.py") if "FILE = " in p.read_text(encoding="utf-8"))


def recipes() -> dict[str, Any]:
    """Recipes of all steps with all items, as an image carries them."""
    made = {}
    for step in contract.STEPS.values():
        for family in families() if step.item else [""]:
            item = {"family": family}
            made[contract.label(step.name, item)] = _recipe(step.name, item)
    return made


@functools.cache
def _known(steps: tuple[str, ...]) -> dict[str, Any]:
    """Recipes of all steps: an image brings them; a checkout keeps those of its code, as Python keeps what it compiled."""
    if BAKED.exists() and not (ROOT / "pyproject.toml").exists():
        return dict(json.loads(BAKED.read_bytes()))
    kept = ROOT / "stages" / "__pycache__"
    sources = sorted(path for path in (ROOT / "stages").rglob("*") if path.suffix in (".py", ".json") and path.parent != kept)
    files = [LOCK, ROOT / "pyproject.toml", *sources]
    code = [[str(path.relative_to(ROOT)), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]
    digest = hashlib.sha256(json.dumps([code, steps]).encode()).hexdigest()
    mine = kept / f"recipes-{digest[:32]}.json"
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(mine.read_bytes()))
    made = recipes()
    _tree.cache_clear()  # the sources' trees are a tenth of what a step has in memory
    with contextlib.suppress(OSError):
        kept.mkdir(exist_ok=True)
        part = mine.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(made), encoding="utf-8")
        part.replace(mine)
        for old in sorted(kept.glob("recipes-*.json"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink()
    return made


def _recipe(step: str, item: contract.Item) -> dict[str, Any]:
    family = item.get("family") if contract.STEPS[step].item else None
    # What a step's effects did is what it makes its artifact from: a search's result is of the code that fits its trials.
    entries = [contract.STEPS[step].module, *(other.module for other in contract.STEPS.values() if other.effect_of == step)]
    files = {name: path for entry in entries for name, path in closure(entry, family).items()}
    modules = {name: files[name] for name in sorted(files) if name not in SILENT}
    source = hashlib.sha256(json.dumps([[name, source_digest(path)] for name, path in modules.items()]).encode()).hexdigest()
    return {"source": source, "libraries": libraries(modules.values())}


# --- source ---------------------------------------------------------------------------------------


def closure(module: str, family: str | None = None) -> dict[str, Path]:
    """Find the project's modules that a module imports, directly or not, by reading them; other families are left out."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _module_path(name)
        if name in found or path is None or _is_other_family(name, family):
            continue
        found[name] = path
        waiting += [name.rpartition(".")[0], *_imports(path), *(f"{FAMILY_ROOM}{word}" for word in families() if name == FAMILY_ROOM[:-1])]
    return found


def _is_other_family(name: str, family: str | None) -> bool:
    word = name.removeprefix(FAMILY_ROOM)
    return family is not None and name.startswith(FAMILY_ROOM) and word != family and word in families()


@functools.cache
def _module_path(name: str) -> Path | None:
    if name.split(".", maxsplit=1)[0] != "stages":
        return None
    base = ROOT.joinpath(*name.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=str(path))


@functools.cache
def _imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: `from . import` names no module"
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


@functools.cache
def source_digest(path: Path) -> str:
    """SHA-256 of what a file does: without comments, docstrings, log lines and error messages; the same in every Python.

    Numbers that a module keeps in a JSON file of its own name count as its source.
    """
    beside = path.with_suffix(".json")
    numbers = [hashlib.sha256(beside.read_bytes()).hexdigest()] if beside.exists() else []
    return hashlib.sha256(json.dumps([_canonical(_tree(path)), *numbers]).encode()).hexdigest()


def _canonical(node: Any) -> Any:
    # ast.dump changes with Python's version: empty lists and None are left out here, and new fields with them.
    if isinstance(node, list):
        return [_canonical(one) for one in node if not _is_silent(one)]
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return ["Raise", _canonical(node.exc.func)]
    if isinstance(node, ast.AST):
        fields = [
            [name, value] for name, value in ast.iter_fields(node) if value not in (None, []) and name not in ("kind", "type_comment")
        ]
        return [type(node).__name__, *([name, _canonical(value)] for name, value in fields)]
    return [type(node).__name__, ascii(node)]  # not repr, which knows more letters in each new Python


def _is_silent(node: Any) -> bool:
    if not isinstance(node, ast.Expr):
        return False
    value = node.value
    if isinstance(value, ast.Constant):  # a docstring, or a string that nobody reads
        return isinstance(value.value, str)
    call = value.func if isinstance(value, ast.Call) else None
    return isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) and call.value.id == "log"


# --- libraries ------------------------------------------------------------------------------------


def libraries(files: Iterable[Path]) -> dict[str, str]:
    """Locked versions of what the files import and of what that needs, without the plumbing that every stage has."""
    lock = locked()
    tops = {name.split(".")[0] for path in files for name in _imports(path)}
    direct = {DISTRIBUTIONS.get(top, top) for top in tops - set(sys.stdlib_module_names) - {"stages"}}
    if unknown := direct - set(lock):
        raise LookupError(f"imported, but not in {LOCK.name}: {sorted(unknown)}")
    names = _with_needs(direct) - _with_needs(declared()[0])
    return {SAME.get(name, name): lock[name][0] for name in sorted(names)}


@functools.cache
def locked() -> dict[str, tuple[str, frozenset[str], str]]:
    """Read the lock: per library its version, who needs it, and its lines with hashes."""
    lock = {}
    for block in re.split(r"\n(?=[a-z0-9])", LOCK.read_text(encoding="utf-8")):
        head = re.match(r"([a-z0-9._-]+)==(\S+)( ;.*win32.*)?", block)
        via = re.search(r"# via (.*)", block)
        if head and via and not head[3]:
            lock[head[1]] = (head[2], frozenset(via[1].split(", ")), re.sub(r" *\\?\n +# via.*", "", block))
    return lock


def declared() -> tuple[set[str], dict[str, set[str]]]:
    """Read pyproject.toml: what every stage needs, and what each extra adds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def bare(lines: list[str]) -> set[str]:
        return {re.split(r"[=<>!\[;~ ]", line)[0].lower() for line in lines}

    return bare(project["dependencies"]), {name: bare(lines) for name, lines in project["optional-dependencies"].items()}


def _with_needs(names: set[str]) -> set[str]:
    found = set(names)
    while more := {name for name, (_, via, _) in locked().items() if via & found} - found:
        found |= more
    return found


def requirements(stage: str) -> str:
    """Lines of the lock, with hashes, for one stage's image."""
    base, extras = declared()
    names = _with_needs(base | extras[stage])
    return "\n".join(lines for name, (_, _, lines) in locked().items() if name in names) + "\n"


def image_files(stage: str) -> list[Path]:
    """Files that one stage's image holds: its steps' imports, every config.py and the configs that all runs stand on."""
    entries = [*(ROOT / "stages" / stage).glob("*.py")]
    found: set[Path] = set()
    for path in entries:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found |= {path, *closure(name).values()}
    found |= set(ROOT.glob("stages/*/config.py")) | set(ROOT.glob("stages/*/__init__.py")) | {ROOT / "stages" / "__init__.py"}
    found |= set((ROOT / "stages" / stage).glob("*.json"))
    return sorted(found | {ROOT / "configs" / f"{name}.yaml" for name in ("base", "development", "production")})


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--requirements", stage]:
            sys.stdout.write(requirements(stage))
        case ["--files", stage]:
            sys.stdout.write("".join(f"{path.relative_to(ROOT)}\n" for path in image_files(stage)))
        case _:
            sys.stdout.write(json.dumps(recipes(), indent=1) + "\n")
