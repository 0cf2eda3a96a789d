"""Write configs/base.yaml from the options that the stages state: every option with its default and its comment; and a JSON schema of them.

As `make render` does:

    python -m workflows.options > configs/base.yaml
"""

import json
import sys
from typing import Any

from stages.common import config
from stages.common.section import changes_result

HEAD = """\
# Every option with its default. A dataset's file, the environment (SUREFOOT__TRAIN__SEED=1) and --set train.seed=1
# win over this. Options marked with * can change a result: changing one makes its step, and what reads it, run again.
# Written by `make render` from stages/*/config.py.
# Not here, of what earlier trainers had: cache_preprocessed (what was prepared is always kept, by its content),
# metrics_emission_interval_seconds (progress is told at each border; metrics are not emitted yet).
"""


def base() -> str:
    """Give the text of configs/base.yaml."""
    parts = [HEAD]
    for name, section in config.section_types().items():
        fields = section.model_fields
        parts.append(f"\n{name}:" + ("" if fields else " {}") + "\n")
        for key, field in fields.items():
            mark = "*" if changes_result(field) else " "
            parts.append(f"  # {mark} {field.description}\n  {key}: {_yaml(field.default)}\n")
    return "".join(parts)


def _yaml(value: Any) -> str:
    # JSON is YAML, and says a string where there is one.
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def schema() -> dict[str, Any]:
    """Give the JSON schema (draft 2020-12) of a dataset's file, for editors: what stands in several files together is not looked at."""
    found: dict[str, Any] = {}
    parts: dict[str, Any] = {"profile": {"enum": ["development", "production"], "description": "options for trying out, or for real"}}
    for name, section in config.section_types().items():
        made = section.model_json_schema()
        found |= made.pop("$defs", {})
        parts[name] = made
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Surefoot: a dataset's config",
        "type": "object",
        "additionalProperties": False,
        "properties": parts,
        "$defs": found,
    }


if __name__ == "__main__":
    sys.stdout.write(base())
