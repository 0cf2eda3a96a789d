# ruff: noqa: INP001 - a script, not a package
"""Lay out what one stage's image holds: ``python images/assemble.py train /image [cpu|gpu]`` (standard library alone).

In /image/requirements.txt, the stage's part of the lock, with hashes; in /image/app its files, every config.py,
recipes.json, the lock, and the entry point ``stage``. Prints the digest of all that.
"""

import compileall
import hashlib
import json
import py_compile
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stages.common import recipe  # noqa: E402 - found through the line above


def requirements(stage: str, flavour: str) -> str:
    """Give the stage's part of the lock; for GPUs, with XGBoost's other build of the same version, whose hashes stand in gpu.lock."""
    locked = recipe.requirements(stage)
    if flavour == "cpu":
        return locked
    other = (ROOT / "images" / "gpu.lock").read_text(encoding="utf-8")
    return re.sub(r"^xgboost-cpu==(.|\n)*?(?=^\w|\Z)", other, locked, flags=re.MULTILINE)


def assemble(stage: str, target: Path, flavour: str = "cpu") -> str:
    """Lay out one image under ``target``; give the digest of its files and libraries."""
    app = target / "app"
    for path in [*recipe.image_files(stage), recipe.LOCK]:
        copy = app / path.relative_to(recipe.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (app / "recipes.json").write_text(json.dumps(recipe.recipes(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    # By the content of a source and not by its time, so that equal code makes equal layers.
    compileall.compile_dir(app, quiet=1, stripdir=str(target), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    entry = app / "stage"
    entry.write_text(f'#!/bin/sh\nexec python -m stages.{stage} "$@"\n', encoding="utf-8")
    entry.chmod(0o755)
    (target / "requirements.txt").write_text(requirements(stage, flavour), encoding="utf-8")
    files = sorted(path for path in target.rglob("*") if path.is_file() and path.suffix != ".pyc")
    told = [[str(path.relative_to(target)), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


if __name__ == "__main__":
    print(assemble(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))  # noqa: T201 - for the image's label
