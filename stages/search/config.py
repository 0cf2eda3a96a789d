from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, model_validator

from stages.common.section import Section, other, result

LARGEST = 1e9  # bound of a search space


def _no_boolean(given: Any) -> Any:
    """Refuse true, which counts as 1 in Python."""
    if isinstance(given, bool):
        raise ValueError("Input should be -1 or 1")  # noqa: TRY004 - what pydantic makes its own error of
    return given


def _number_of_families(given: Any) -> Any:
    if given == "all" or (isinstance(given, int) and not isinstance(given, bool) and given >= 1):
        return given
    raise ValueError("give a number of families, at least 1, or the word all")


class Config(Section):
    """Options of search: how long to look for good settings, and where."""

    BUDGET: ClassVar = ("n_trials", "timeout_minutes", "patience_trials")  # asking for more goes on with the same study

    families: tuple[Literal["xgboost", "lightgbm", "catboost", "logistic"], ...] = other(
        ("xgboost",), "model families to search, one study each: xgboost, lightgbm, catboost, logistic", min_length=1
    )
    min_families: Annotated[int | Literal["all"], BeforeValidator(_number_of_families)] = other(
        "all", "families that must come to a model, or all; with fewer, a run goes on without those that fail, and says so"
    )
    metric: Literal["average_precision", "auc", "log_loss"] = result("average_precision", "what settings are chosen by, on the valid split")
    n_trials: int = result(200, "finished trials (complete or pruned) of each family", ge=1, le=100_000)
    timeout_minutes: float = result(
        120.0, "minutes of fitting, of all workers together, after which no trial is started; what is finished by then counts", gt=0
    )
    border_minutes: float = other(30.0, "minutes without a border after which a fit hangs: its worker is started again", gt=0)
    patience_trials: int | None = result(None, "finished trials without a better one after which a search ends; null: never", ge=1)
    pruning_enabled: bool = result(True, "stop trials early whose reports are worse than the median of the others")
    seed: int = result(0, "base of all random choices of the search", ge=0, le=2**32 - 1)
    rounds: int = result(400, "most boosting rounds of a trial; early stopping cuts at the best one", ge=1, le=100_000)
    early_stopping_rounds: int = result(40, "rounds without a better valid score after which a fit stops", ge=1)
    space: dict[str, dict[str, list[Any]]] = result({}, "changes of a family's search space: {xgboost: {max_depth: [3, 8]}}")
    balanced: bool = result(False, "give both labels the same weight, in trials and final fits")
    monotone: dict[str, Annotated[Literal[-1, 1], BeforeValidator(_no_boolean)]] = result(
        {}, "features of which more may only mean more risk (1), or less (-1)"
    )
    warm_start: bool = other(False, "try the live model's settings first: what they are is part of what a search is")
    gpu_enabled: bool = result(True, "train on a GPU where there is one and the library can use it")
    workers: int | None = other(None, "search processes of each family at once; null: one, or one per GPU of this machine", ge=1, le=64)

    def results(self, item: Mapping[str, str]) -> dict[str, Any]:
        """Give the values that can change the result of a family: not the space of another one."""
        return super().results(item) | {"space": self.space.get(item["family"], {})}

    @model_validator(mode="after")
    def _space_fits(self) -> "Config":
        for family, changes in self.space.items():
            if family not in self.families:
                raise ValueError(f"space is given for {family!r}, which is not among families: {', '.join(self.families)}")
            for name, bounds in changes.items():
                if not _are_bounds(bounds):
                    raise ValueError(f"space of {family}: {name} is {bounds!r}, not [low, high], [low, high, log] (0 to 1e9) or words")
        return self

    @model_validator(mode="after")
    def _families_fit(self) -> "Config":
        if len({*self.families}) < len(self.families):
            raise ValueError(f"families names one of them twice: {', '.join(self.families)}")
        if self.min_families != "all" and self.min_families > len(self.families):
            raise ValueError(f"min_families is {self.min_families}, but families names only {len(self.families)}")
        if self.monotone and "logistic" in self.families:
            raise ValueError("monotone cannot be kept by logistic: leave one of them out")
        return self


def _are_bounds(bounds: list[Any]) -> bool:
    match bounds:
        case [bool(), *_] | [_, bool(), *_]:
            return False
        case [str(), *more]:
            return all(isinstance(word, str) for word in more)
        case [int() | float() as low, int() | float() as high]:
            return 0 <= low < high <= LARGEST
        case [int() | float() as low, int() | float() as high, "log"]:
            return 0 < low < high <= LARGEST
    return False
