from stages.common.section import Section, result


class Config(Section):
    """Options of evaluate: how candidates are judged."""

    seed: int = result(0, "base of random choices, such as shuffled columns", ge=0)
    suspicious_drop: float = result(0.05, "a column without which valid AUC falls by more than this, from above .9, is named", gt=0, lt=1)
    slices: list[str] = result([], "features by whose values the test score is told, besides new and known entities and months")
