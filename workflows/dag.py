"""The pipeline, stated once: what follows what. ``local`` walks it here, ``argo`` renders it for the cluster.

What a step reads is the contract's (stages/common/contract.py); here stand order, fan-out, outputs and deadlines.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One step in the pipeline."""

    step: str
    depends: tuple[str, ...] = ()
    ended: bool = False  # runs also when what it depends on failed: it looks for itself
    fan_out: str = ""  # plan's output that lists its items: families, or the workers of each
    fits: bool = False  # fits models: takes long, and GPUs where its family is given some
    alone: bool = False  # of two runs that are at the same work, one waits until the other has done it
    outputs: tuple[str, ...] = ()  # small outputs that the next steps or people see
    files: tuple[str, ...] = ()  # outputs that are files, such as the report
    deadline_seconds: int = 3600


PLAN = Task("plan", outputs=("config", "todo", "locks", "memos", "families", "workers"))  # copies tables, too

TASKS = (
    Task("prepare", depends=("plan",), alone=True, outputs=("rows",)),
    Task("search-create", depends=("prepare",), fan_out="families", deadline_seconds=600),
    Task("search-work", depends=("search-create",), fan_out="workers", fits=True, deadline_seconds=86400),
    Task(
        "search-collect",
        depends=("search-work",),
        ended=True,
        fan_out="families",
        alone=True,
        outputs=("best",),
        deadline_seconds=600,
    ),
    Task(
        "train",
        depends=("search-collect",),
        fan_out="families",
        fits=True,
        alone=True,
        outputs=("rounds", "valid_auc", "valid_average_precision"),
        deadline_seconds=86400,
    ),
    Task("evaluate", depends=("train",), ended=True, alone=True, outputs=("winner", "auc", "average_precision", "suspicious")),
    Task("validate", depends=("evaluate",), alone=True, outputs=("verdict", "failed")),
    Task("deploy", depends=("validate",), outputs=("version", "generation", "promoted"), deadline_seconds=600),
)

# The exit handler: draws the report and closes the run's record, whatever happened.
CLOSE = Task(
    "evaluate-report",
    outputs=("headline", "verdict", "version", "auc", "average_precision"),
    files=("report.html",),
    deadline_seconds=600,
)

# Exit codes that another attempt can heal: 134, 135 and 139 are a library's crash (SIGABRT, SIGBUS, SIGSEGV), 142 one that hung (SIGALRM),
# -1 is a lost pod.
RETRIED = (75, 76, 134, 135, 137, 139, 142, 143, -1)
RETRIES = 3  # here in a row without progress, in Argo altogether, but for pods that are taken away
BACKOFF_SECONDS = 5
GRACE_SECONDS = 30  # from SIGTERM to SIGKILL
