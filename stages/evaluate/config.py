from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages.common.section import Section, result
from stages.common.section import path as file

LARGEST = 1e15  # cost of one row: sums of it are numbers still


class Costs(BaseModel):
    """What a wrong answer costs, in the currency of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    missed: float | Literal["amount"]  # per missed positive; amount: the row's own, as prepare.amount names it
    false_alarm: float = Field(ge=0, le=LARGEST)  # per alarm for nothing

    @field_validator("missed", mode="before")
    @classmethod
    def _is_a_cost(cls, given: Any) -> Any:
        if given == "amount" or (isinstance(given, int | float) and not isinstance(given, bool) and 0 < given <= LARGEST):
            return given
        raise ValueError("give a number above 0, or the word amount for the row's own (prepare.amount); at most 1e15")


class Config(Section):
    """Options of evaluate: how candidates are judged."""

    RAW: ClassVar = {"outside": "outside_scores"}  # the raw file, and the option that names it
    MAY_LACK: ClassVar[set[str]] = set()

    seed: int = result(0, "base of random choices, such as shuffled columns", ge=0, le=2**32 - 1)
    suspicious_drop: float = result(0.05, "a column without which valid AUC falls by more than this, from above .9, is named", gt=0, lt=1)
    slices: list[str] = result([], "features by whose values the test score is told, besides new and known entities and months")
    alerts_per_day: float | None = result(
        None, "most alarms a day that somebody can look at: the threshold keeps to it (needs prepare.time); null: as many as pay", gt=0
    )
    costs: Costs | None = result(
        None,
        "what a wrong answer costs, such as {missed: 100, false_alarm: 2}, or missed: amount for the row's own; "
        "the threshold saves most; null, and no alerts_per_day: 1 % false alarms",
    )
    outside_scores: str | None = file(
        None,
        "CSV of another model's scores, to compare with; columns row (of the table's data rows, from 0) and score, "
        "for every row of valid and test; never shipped",
    )
    min_gain: float = result(0.005, "difference of the search's metric that counts against the champion; less is noise", ge=0, lt=1)

    def unmet(self, sections: Mapping[str, Any]) -> Mapping[str, str]:
        """Ask for the columns that a threshold goes by."""
        found = {}
        if self.alerts_per_day is not None and sections["prepare"].time is None:
            found["alerts_per_day"] = "needs an event time to know a day by: set prepare.time"
        if self.costs and self.costs.missed == "amount" and sections["prepare"].amount is None:
            found["costs"] = "names the amount as the cost of what is missed: set prepare.amount, or give a number"
        return found

    def raw(self) -> dict[str, str]:
        """Give the raw files that evaluate reads, by name."""
        return {"outside": self.outside_scores} if self.outside_scores else {}
