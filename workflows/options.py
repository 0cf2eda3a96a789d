"""Write configs/base.yaml from the options that the stages state: every option with its default and its comment.

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


if __name__ == "__main__":
    sys.stdout.write(base())
