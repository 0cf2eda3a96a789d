"""How a search stands, told to whoever watches it: asked of the database, which is all that its workers share."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from stages.common.address import Addresses
from stages.common.contract import Item
from stages.common.errors import NotNow
from stages.common.step import Run
from stages.search import study as studies

LAST = 10  # trials whose gain is told
MINUTE = 60.0  # seconds


@dataclass(frozen=True)
class Standing:
    """One family's search, now."""

    family: str
    budget: int
    finished: int
    pruned: int
    failed: int  # attempts that failed, or whose worker died
    workers: int  # that hold a slot
    is_over: bool
    metric: str
    best: float | None
    gain: float | None  # of the last trials over those before
    seconds_left: float | None  # as the trials so far took, with as many workers as now
    seconds_saved: dict[str, float]  # by pruning, by resume: an estimate

    def __str__(self) -> str:
        told = [f"{self.finished} of {self.budget} trials", f"{self.pruned} pruned", f"{self.failed} failed attempts"]
        told.append("done" if self.is_over else f"{self.workers} worker{'s' * (self.workers != 1)}")
        if self.best is not None:
            told.append(f"best {self.metric} {self.best:.4f}")
        if self.gain is not None:
            told.append(f"+{self.gain:.4f} in the last {LAST}")
        if self.seconds_left is not None:
            told.append(f"{self.seconds_left / MINUTE:.0f} minutes left")
        told += [f"{seconds / MINUTE:.0f} minutes saved by {how}" for how, seconds in self.seconds_saved.items() if seconds >= MINUTE / 2]
        return ", ".join(told)


def stand(addresses: Addresses) -> list[Standing]:
    """Tell how the search of each family stands; a family whose search is not begun is left out.

    Raises:
        NotNow: the database does not answer.

    """
    if addresses.find("prepare", {}) is None:
        return []
    found = (_one(addresses, item) for item in addresses.config.items("search-work"))
    return [one for one in found if one]


def _one(addresses: Addresses, item: Item) -> Standing | None:
    config = addresses.config["search"]
    with tempfile.TemporaryDirectory(prefix="surefoot-") as folder, studies.at_hand():
        run = Run("search-work", item, addresses, Path(folder), addresses.found("search-work", item), "")
        try:
            slots = studies.load(config, run)
        except NotNow:
            return None  # no such study yet
        trials = slots.study.get_trials(deepcopy=False)
        workers = slots.held(config.n_trials)
    mine = {slot: trial for slot, trial in studies.finished(trials).items() if slot < config.n_trials}
    is_over = studies.is_over(config, mine)
    in_order = sorted(mine.values(), key=lambda trial: trial.number)
    best, before = (_best(some) for some in (in_order, in_order[:-LAST]))
    seconds = sum(float(trial.user_attrs["seconds"]) for trial in in_order)
    per_trial = seconds / len(in_order) if in_order else None
    return Standing(
        family=item["family"],
        budget=config.n_trials,
        finished=len(mine),
        pruned=sum(trial.state == TrialState.PRUNED for trial in in_order),
        failed=sum(trial.state == TrialState.FAIL for trial in trials),
        workers=workers,
        is_over=is_over,
        metric=config.metric,
        best=best,
        gain=None if best is None or before is None else best - before,
        seconds_left=None if is_over or not workers or per_trial is None else per_trial * (config.n_trials - len(mine)) / workers,
        seconds_saved=studies.seconds_saved(in_order),
    )


def _best(trials: list[FrozenTrial]) -> float | None:
    return max((trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None), default=None)
