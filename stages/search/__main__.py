"""``docker run surefoot/search create``: the image's three steps under one entry."""

import sys

from stages.common import step
from stages.common.errors import UsageError


def _named() -> str:
    if not sys.argv[1:] or (name := f"search-{sys.argv[1]}") not in step.STEPS:
        raise UsageError("python -m stages.search create|work|collect --config … --store …: say which step.")
    return name


code = step.guarded(_named)
step.main(_named(), sys.argv[2:]) if code == 0 else sys.exit(code)
