"""Work through the open slots of a family's study, beside other workers. An effect: what is finished is in study and store."""

import itertools
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.common import artifact, checkpoint, contract, log, step
from stages.common.step import Run
from stages.search.config import Config

if TYPE_CHECKING:
    import optuna

    from stages.features.features import Table
    from stages.search.slots import Claim, Slots

PAUSE = 1.0  # seconds between two looks for a slot, while other workers are at all that are left


@dataclass(frozen=True)
class _Search:
    """What all attempts of a worker have in common."""

    config: Config
    run: Run
    slots: "Slots"
    space: dict[str, list[Any]]
    options: dict[str, Any]  # of all its fits
    train: "Table"
    valid: "Table"


def work(config: Config, run: Run) -> dict[str, Any]:
    """Finish one slot after the other until the budget is met or the time is spent."""
    from stages.features import features
    from stages.search import study as studies

    asked, options = studies.asked(config, run), studies.options(config, run)
    prepared = run.input("prepare")
    contract_of = features.Features.from_json(prepared.read_json("features.json"))
    train, valid = (features.read(prepared.path(f"{split}.parquet"), contract_of) for split in ("train", "valid"))
    with studies.at_hand():
        search = _Search(config, run, studies.load(config, run), asked, options, train, valid)
        search.slots.grow(config.n_trials)
        waits = False
        while not studies.is_over(config, done := studies.finished(search.slots.study)):
            checkpoint.end_if_told()
            run.progress(len(done), config.n_trials)
            search.slots.reconcile()
            if claim := search.slots.claim(config.n_trials):
                waits = False
                _attempt(search, claim)
                continue
            if not waits:
                log.info("search.waits", so="other workers are at the slots that are left")
            waits = True
            time.sleep(PAUSE)
    run.progress(len(done), config.n_trials)
    return {"finished": len(done)}


def _attempt(search: _Search, claim: "Claim") -> None:
    """Work at one slot; if another worker takes it over, that one goes on with it."""
    from optuna.exceptions import UpdateFinishedTrialError

    from stages.families import space
    from stages.search import study as studies
    from stages.search.slots import Lost

    search.slots.study.sampler = studies.sampler(search.config, claim.slot)
    try:
        with search.slots.kept(claim) as lost:
            if begun := search.slots.begin(claim, search.space.keys()):
                trial, reported = begun
                _finish(search, claim, trial, space.suggest(trial, search.space), _Reports(trial, reported, lost))
    except (Lost, UpdateFinishedTrialError):
        log.warning("slot.lost", slot=claim.slot, attempt=claim.attempt, so="another worker goes on with it")


class _Reports:
    """What a trial's fit reports at its borders: to the study, which may prune it."""

    def __init__(self, trial: "optuna.Trial", earlier: dict[int, float], lost: threading.Event) -> None:
        self.values = dict(earlier)
        self._judged = max(earlier, default=0)  # an earlier attempt went on from the borders before
        self._trial = trial
        self._lost = lost

    def __call__(self, rounds: int, value: float | None) -> None:
        """Report a border.

        Raises:
            TrialPruned: the trial is worse than the others there.
            Lost: another worker took the slot over.

        """
        from optuna import TrialPruned

        from stages.search.slots import Lost

        assert value is not None, "trials are scored on valid"
        if self._lost.is_set():
            raise Lost
        if rounds not in self.values:
            self.values[rounds] = value
            self._trial.report(value, rounds)
        if rounds >= self._judged and self._trial.should_prune():
            raise TrialPruned


def _finish(search: _Search, claim: "Claim", trial: "optuna.Trial", params: dict[str, Any], reports: _Reports) -> None:
    """Fit with a trial's parameters, keep the record in the store, and only then tell the study."""
    from optuna.trial import TrialState

    from stages.search import study as studies

    run = search.run
    key, record = _recorded(run, f"{studies.records(search.slots.study)}{claim.slot}-{contract.digest(params)[:12]}")
    if record is None:
        record = _fit(search, claim.slot, params, key, reports)
    for rounds, value in record["reports"]:
        if rounds not in reports.values:
            trial.report(value, rounds)
    trial.set_user_attr("seconds", record["seconds"])
    state = TrialState.PRUNED if record["state"] == "pruned" else TrialState.COMPLETE
    search.slots.tell(claim, trial, state, record["value"])
    run.checkpoint(key).drop()
    log.info("trial.done", **{name: record[name] for name in ("slot", "state", "value", "rounds", "seconds")})


def _fit(search: _Search, slot: int, params: dict[str, Any], key: str, reports: _Reports) -> dict[str, Any]:
    """Fit, and put the record into the store; give the one that is there."""
    from optuna import TrialPruned

    from stages import families

    config, run = search.config, search.run
    name = run.item["family"]
    family = families.load(name)
    started = time.monotonic()
    record = {"slot": slot, "params": params, "metric": config.metric}
    with run.checkpoint(key) as saved:
        try:
            fitted = families.fit(
                name,
                params,
                search.train,
                search.valid,
                rounds=config.rounds,
                early_stopping_rounds=config.early_stopping_rounds,
                seed=config.seed,
                metric=config.metric,
                threads=run.threads,
                gpu=config.gpu_enabled,
                **search.options,
                checkpoint=saved,
                report=reports,
            )
        except TrialPruned:
            record |= {"state": "pruned", "value": max(reports.values.values()), "rounds": max(reports.values)}
        else:
            path = run.folder / f"{slot}-{family.FILE}"
            family.save(fitted.model, path)
            record |= {"state": "complete", "value": fitted.score, "rounds": fitted.rounds, "device": fitted.device}
            record["model"] = artifact.put(run.store, path)
    record |= {"reports": sorted(reports.values.items()), "seconds": round(time.monotonic() - started, 3)}
    run.store.create(key, artifact.seal(record))
    return artifact.unsealed(run.store, key) or record


def _recorded(run: Run, name: str) -> tuple[str, dict[str, Any] | None]:
    """Find the record of a trial that was finished but not told, as its worker was killed in between; else where to put one."""
    for number in itertools.count():
        key = f"{name}-{number}.json"
        if run.store.head(key) is None:
            return key, None
        if record := artifact.unsealed(run.store, key):
            return key, record
        log.warning("trial.damaged", record=key, so="this trial is fitted again")
    raise AssertionError


if __name__ == "__main__":
    step.main("search-work")
