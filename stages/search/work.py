"""Work through the open slots of a family's study, beside other workers. An effect: what is finished is in study and store."""

import dataclasses
import itertools
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stages.common import artifact, checkpoint, contract, log, memory, step
from stages.common.checkpoint import Checkpoint
from stages.common.errors import OutOfMemory, SurefootError
from stages.common.step import Run
from stages.search.config import Config

if TYPE_CHECKING:
    import optuna

    from stages.families.need import Fits
    from stages.features.features import Table
    from stages.search.slots import Claim, Hold, Slots

BAD = 3  # slots in a row that could not be fitted: no bad luck any more
TOLD = 5.0  # seconds between two times that a fit's borders are told to the study: nobody judges by a trial that runs
PAUSE, PAUSES = 1.0, 5  # seconds between two looks for a slot, while other workers are at all that are left; looks until one at all trials


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
    fits: "Fits"
    first: "optuna.trial.FrozenTrial"  # what slot 0 is to try
    bad: list[int] = field(default_factory=list)  # slots that could not be fitted, since one could


def work(config: Config, run: Run) -> dict[str, Any]:
    """Finish one slot after the other until the budget is met or the time is spent."""
    from stages.features import features
    from stages.search import study as studies

    asked, options = studies.asked(config, run), studies.options(config, run)
    prepared = run.input("prepare")
    fits = _fits(config, run, asked)
    contract_of = features.Features.from_json(prepared.read_json("features.json"))
    train, valid = (features.read(prepared.path(f"{split}.parquet"), contract_of) for split in ("train", "valid"))
    with studies.at_hand():
        search = _Search(config, run, studies.load(config, run), asked, options, train, valid, fits, studies.first(config, run))
        search.slots.grow(config.n_trials)
        waits = False
        while not studies.is_over(config, done := studies.finished(search.slots.reconcile())):
            checkpoint.end_if_told()
            run.progress(len(done), config.n_trials)
            if claim := search.slots.claim(config.n_trials):
                if not run.config["common"].accept_degraded:
                    claim = dataclasses.replace(claim, rung=0)  # an earlier worker, whose fallback was accepted, may have gone down
                waits = False
                _attempt(search, claim)
                continue
            if not waits:
                log.info("search.waits", so="other workers are at the slots that are left")
            waits = True
            _wait(search.slots, config.n_trials)
    run.progress(len(done), config.n_trials)
    return {"finished": len(done)}


def _fits(config: Config, run: Run, space: dict[str, list[Any]]) -> "Fits":
    """Say what memory the trials take, before the table is read.

    Raises:
        ConfigError: there is not enough of it for any of them.
        NotNow: others hold it.

    """
    from stages import families
    from stages.families import need

    name = run.item["family"]
    gpu = config.gpu_enabled and families.can_use_gpu(name)
    fits = need.Fits(name, need.Sizes.of(run.input("prepare")), balanced=config.balanced, gpu=gpu)
    smallest, rungs = need.least(space), _rungs(config, run)
    rung, why = need.first_rung(fits, smallest, 0, rungs)
    if rung is None:
        raise need.refused(fits, smallest, rungs, why)
    return fits


def _wait(slots: "Slots", budget: int) -> None:
    """Wait for a slot that another worker lets go of; now and then somebody has to look for those who died."""
    for _ in range(PAUSES):
        time.sleep(PAUSE)
        checkpoint.end_if_told()
        if not slots.are_held(budget):
            return


def _attempt(search: _Search, claim: "Claim") -> None:
    """Work at one slot; if another worker takes it over, that one goes on with it."""
    from optuna.exceptions import UpdateFinishedTrialError

    from stages.search import study as studies
    from stages.search.slots import Lost

    slots = search.slots
    slots.study.sampler = studies.sampler(search.config, claim)
    # Before it drew other parameters, a slot may have been finished, and its worker killed before it could tell.
    record, known = (claim.draw and studies.known(search.config, search.run, slots, claim.slot)) or (None, None)
    try:
        with slots.kept(claim, search.config.border_minutes * 60, search.run.folder) as hold:
            if begun := slots.begin(claim, search.space.keys(), known, None if claim.slot else search.first):
                if record:
                    studies.tell(slots, claim, begun[0], record)
                else:
                    _try(search, claim, begun[0], _Reports(slots, claim, *begun, hold))
    except (Lost, UpdateFinishedTrialError):
        log.warning("slot.lost", slot=claim.slot, attempt=claim.attempt, so="another worker goes on with it")


def _try(search: _Search, claim: "Claim", trial: "optuna.Trial", reports: "_Reports") -> None:
    """Fit and tell. Where the fit fails, the slot is let go, and tried again: with less memory, or after some times with other parameters.

    Raises:
        Exception: what the fit died of, where several slots in a row could not be fitted.

    """
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    from stages import families
    from stages.families import space
    from stages.search.slots import Lost

    rungs, has_room = _rungs(search.config, search.run), False
    try:
        with search.slots.together():
            params = space.suggest(trial, search.space)
        if (rung := _with_room(search, claim, params)) > claim.rung:
            search.slots.go_down(claim, trial, rung)
            return
        has_room = True
        with memory.watched(lambda: _end(search, claim, trial), search.run.folder):
            _finish(search, claim, trial, params, reports)
    except (Lost, OptunaError, SQLAlchemyError, OSError):  # the surroundings', not the fit's
        raise
    except Exception as error:
        if isinstance(error, SurefootError) and not isinstance(error, OutOfMemory):
            raise
        told = {"slot": claim.slot, "attempt": claim.attempt, "error": f"{type(error).__name__}: {error}"}
        # Where there is room at no rung none is gone down: the slot's next parameters, which may need less, would begin there.
        if isinstance(error, OutOfMemory) and has_room and claim.rung + 1 < rungs:
            log.warning("trial.out_of_memory", **told, next=families.LADDER[claim.rung + 1])
            search.slots.go_down(claim, trial, claim.rung + 1)
            return
        log.warning("trial.failed", **told, traceback=traceback.format_exc())
        reports.tell()
        if not search.slots.fail(claim, trial):
            return
        log.error("slot.failed", **told, so="other parameters are drawn for it")
        search.bad.append(claim.slot)
        if len(search.bad) == BAD:
            log.error("search.failed", slots=search.bad, so="no luck is as bad: the last error follows")
            raise
    else:
        search.bad.clear()


def _rungs(config: Config, run: Run) -> int:
    from stages import families

    return families.rungs(run.item["family"], gpu=config.gpu_enabled, accept_degraded=run.config["common"].accept_degraded)


def _with_room(search: _Search, claim: "Claim", params: dict[str, Any]) -> int:
    """Give the first rung, from the slot's own on, at which there is room for a trial.

    Raises:
        OutOfMemory: at none is there room for it.

    """
    from stages import families
    from stages.families import need

    rung, why = need.first_rung(search.fits, params, claim.rung, _rungs(search.config, search.run))
    if rung is None:
        raise OutOfMemory(why)
    if rung > claim.rung:
        log.warning("trial.no_room", slot=claim.slot, why=why, next=families.LADDER[rung])
        return rung
    measured, estimate = search.run.measured, round(search.fits.need(params, rung) / 1e6, 1)
    measured["estimated_memory_mb"] = max(estimate, measured.get("estimated_memory_mb", 0.0))  # of all its trials
    return rung


def _end(search: _Search, claim: "Claim", trial: "optuna.Trial") -> None:
    """Leave word that this trial, and whatever is fitted on this table, needs less memory: the process ends, and is not started often."""
    if claim.rung + 1 < _rungs(search.config, search.run):
        search.slots.go_down(claim, trial, claim.rung + 1)
        search.slots.all_go_down(claim.rung + 1)
    else:
        search.slots.fail(claim, trial)


class _Reports:
    """What a trial's fit reports at its borders: to the study, which may prune it.

    Each ``report`` of Optuna's is a transaction of three queries; these are told together, a few seconds late. What a kill takes with it
    is in the fit's checkpoint, or is reported anew. Of a slot that failed each is told at once: who came how far counts there.
    """

    def __init__(self, slots: "Slots", claim: "Claim", trial: "optuna.Trial", earlier: dict[int, float], hold: "Hold") -> None:
        from stages.search import study as studies

        self.values = dict(earlier)
        self._told = dict(earlier)
        self._told_at = time.monotonic()
        self._judged = max(earlier, default=0)  # an earlier attempt went on from the borders before
        self._came_further = False
        self._slots = slots
        self._claim = claim
        self._trial = trial
        self._hold = hold
        self._others = studies.Others(slots.study, slots.seen)

    def __call__(self, rounds: int, value: float | None) -> None:
        """Report a border.

        Raises:
            TrialPruned: the trial is worse than the others there.
            Lost: another worker took the slot over.

        """
        from optuna import TrialPruned

        from stages.search.slots import Lost

        assert value is not None, "trials are scored on valid"
        if self._hold.lost.is_set():
            raise Lost
        self._hold.renewals = 0
        if rounds not in self.values:
            self.values[rounds] = value
            if self._claim.failures or time.monotonic() - self._told_at >= TOLD:
                self.tell()
            if self._claim.failures and not self._came_further:
                self._slots.came_further(self._claim)
                self._came_further = True
        if rounds >= self._judged and self._others.prune(self.values):
            raise TrialPruned

    def tell(self) -> None:
        """Tell the study what it does not know yet."""
        self._slots.report(self._trial, {rounds: value for rounds, value in self.values.items() if rounds not in self._told})
        self._told = dict(self.values)
        self._told_at = time.monotonic()


def _finish(search: _Search, claim: "Claim", trial: "optuna.Trial", params: dict[str, Any], reports: _Reports) -> None:
    """Fit with a trial's parameters, keep the record in the store, and only then tell the study."""
    from stages.search import study as studies

    run = search.run
    key, record = _recorded(run, f"{studies.records(search.slots.study)}{claim.slot}-{contract.digest(params)[:12]}")
    saved = run.checkpoint(f"{key}-{claim.rung}" if claim.rung else key)  # with other bins it is another fit
    if record is None:
        record = _fit(search, claim, params, key, saved, reports)
    studies.tell(search.slots, claim, trial, record)
    saved.drop()
    if claim.draw or claim.rung:  # other fits of the slot, that were given up
        for left in run.store.list(f"scratch/{studies.records(search.slots.study)}{claim.slot}-"):
            run.store.drop(left)
    log.info("trial.done", **{name: record[name] for name in ("slot", "state", "value", "rounds", "seconds")})


def _fit(search: _Search, claim: "Claim", params: dict[str, Any], key: str, checkpoint: Checkpoint, reports: _Reports) -> dict[str, Any]:
    """Fit, and put the record into the store; give the one that is there."""
    from optuna import TrialPruned

    from stages import families

    config, run = search.config, search.run
    name = run.item["family"]
    family = families.load(name)
    started = time.monotonic()
    record = {"slot": claim.slot, "params": params, "metric": config.metric, "draw": claim.draw, "rung": claim.rung}
    with checkpoint as saved:
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
                **{"gpu": config.gpu_enabled, **families.LADDER[claim.rung], **search.options},
                checkpoint=saved,
                report=reports,
            )
        except TrialPruned:
            record |= {"state": "pruned", "value": max(reports.values.values()), "rounds": max(reports.values)}
        else:
            path = run.folder / f"{claim.slot}-{family.FILE}"
            family.save(fitted.model, path)
            record |= {"state": "complete", "value": fitted.score, "rounds": fitted.rounds, "device": fitted.device}
            record |= {"gpu_memory_mb": round(fitted.gpu_memory / 1e6, 1)} if fitted.gpu_memory is not None else {}
            record["model"] = artifact.put(run.store, path)
            path.unlink()  # this process goes on with other trials
    record |= {"reports": sorted(reports.values.items()), "seconds": round(time.monotonic() - started, 3), "began": checkpoint.began}
    run.store.create(key, artifact.seal(key, record))
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
