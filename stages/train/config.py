from stages.common.section import Section, result


class Config(Section):
    """Options of train: the final fits."""

    seed: int = result(0, "base of the final fits' random choices", ge=0, le=2**32 - 1)
    rounds: int = result(2000, "most boosting rounds of the judged model; early stopping cuts at the best one", ge=1, le=100_000)
    early_stopping_rounds: int = result(100, "rounds without a better valid score after which the fit stops", ge=1)
    gpu_enabled: bool = result(True, "train on a GPU where there is one and the library can use it")
