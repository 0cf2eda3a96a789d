import argparse
from typing import Any

from stages.common import log, step
from stages.common.store import open_store
from stages.plan.plan import plan, write


def work(asked: argparse.Namespace) -> dict[str, Any]:
    """Plan a run and hand on what its steps need."""
    store = open_store(asked.store)
    resolved = step.resolve(asked.config, store, asked.set)
    log.setup(resolved["common"].log_level, step="plan")
    made = plan(resolved, store, asked.run)
    families = resolved.items("train")
    workers = [str(number) for number in range(resolved["search"].workers or 1)]
    if asked.only_if_changed == "true" and made.is_unchanged():
        found = {row.label: row.state for row in made.rows}
        log.info("run.unchanged", why="data, options and code are those of results that are there", **found)
        address = ""  # so that no exit handler runs either
    else:
        address = write(made)
    words = {"todo": made.todo(), "locks": made.locks(), "memos": made.memos()}
    return {"config": address, **words, "families": families, "workers": workers}


parser = step.arguments("plan", "stages.plan")
parser.add_argument("--run", default="", help="the run's name; the workflow's in Argo")
parser.add_argument(
    "--only-if-changed", choices=("true", "false"), default="false", help="where all is done: write no record of a run, and name no config"
)
step.program("plan", parser, work)
