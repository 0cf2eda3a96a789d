from typing import Literal

from stages.common.section import Section, result

Need = Literal["required", "advisory"]


class Config(Section):
    """Options of validate: the limits of the production checks, and which of them a model must pass."""

    auc_floor: float = result(0.85, "least AUC on the test split", ge=0, le=1)
    auc_floor_need: Need = result("required", "required: rejected unless passed; advisory: only reported")
    latency_p99_ms: float = result(100.0, "99 of 100 single-row predictions are faster than this, in ms", gt=0)
    latency_p99_need: Need = result("required", "required or advisory")
    memory_mb: float = result(500.0, "most resident memory of a process that serves the model, in MB (10^6 bytes)", gt=0)
    memory_need: Need = result("required", "required or advisory")
    champion_need: Need = result("required", "required or advisory: not worse than the champion on rows that neither has seen")
    champion_unknown: Literal["accept", "reject"] = result(
        "accept", "where the two cannot be compared (no later rows, other columns): accept, or reject where champion_need is required"
    )
