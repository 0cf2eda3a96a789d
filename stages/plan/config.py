from stages.common.section import Section, other


class Config(Section):
    """Options of plan: what must be there before anything starts."""

    disk_space_required_gb: float = other(
        1.0, "free room (10^9 bytes) that a folder store and the scratch folder must have; production asks for 10", ge=0
    )
    memory_limit_gb: float = other(8.0, "memory (10^9 bytes) that a run may take; refused when the table alone would need more", gt=0)
