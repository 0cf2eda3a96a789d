# ruff: noqa: INP001 - a script, not a package
"""Lay out what one stage's image holds: ``python images/assemble.py train /image`` (standard library alone).

In /image/requirements.txt, the stage's part of the lock, with hashes; in /image/app its files, every config.py,
recipes.json, the lock, and the entry point ``stage``.
"""

import compileall
import json
import py_compile
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stages.common import recipe  # noqa: E402 - found through the line above


def assemble(stage: str, target: Path) -> None:
    """Lay out one image under ``target``."""
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
    (target / "requirements.txt").write_text(recipe.requirements(stage), encoding="utf-8")


if __name__ == "__main__":
    assemble(sys.argv[1], Path(sys.argv[2]))
