"""``docker run surefoot/search create``: the image's three steps under one entry."""

import sys

from stages.common import log, step
from stages.common.contract import STEPS
from stages.common.errors import UsageError

step_name = f"search-{(sys.argv[1:] or ['?'])[0]}"


def check() -> None:
    """Refuse what is no step of the search."""
    if step_name not in STEPS:
        raise UsageError("python -m stages.search create|work|collect --config … --store …: say which step.")


log.setup()
if code := step.guarded(check):
    sys.exit(code)
step.main(step_name, sys.argv[2:])
