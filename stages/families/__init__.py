"""Model families: one file each, the same functions in all.

A family's file has FILE (its model file's name), ``suggest``, ``fit``, ``predict``, ``save`` and ``load``.
"""

from types import ModuleType


def load(name: str) -> ModuleType:
    """Import one family; the others stay unimported."""
    match name:
        case "xgboost":
            from stages.families import xgboost as family
        case _:
            raise LookupError(f"no family {name!r}")
    return family
