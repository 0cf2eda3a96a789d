"""Work through the open slots of a family's study. An effect: what is finished is in study and store."""

import itertools
import time
from typing import TYPE_CHECKING, Any

from stages.common import artifact, contract, log, step
from stages.common.step import Run
from stages.search.config import Config

if TYPE_CHECKING:
    import optuna

    from stages.features.features import Table


def work(config: Config, run: Run) -> dict[str, Any]:
    """Finish one slot after the other until the budget is met or the time is spent."""
    from stages import families
    from stages.families import space
    from stages.features import features
    from stages.search import study as studies

    name = run.item["family"]
    family = families.load(name)
    asked = space.merged(name, family.SPACE, config.space.get(name, {}))
    prepared = run.input("prepare")
    contract_of = features.Features.from_json(prepared.read_json("features.json"))
    train = features.read(prepared.path("train.parquet"), contract_of)
    valid = features.read(prepared.path("valid.parquet"), contract_of)
    with studies.at_hand(), studies.alone(run, study := studies.load(config, run)):
        studies.reconcile(study)
        while (slot := studies.open_slot(config, done := studies.finished(study))) is not None:
            run.progress(len(done), config.n_trials)
            study.sampler = studies.sampler(config, slot)
            trial = study.ask()
            trial.set_user_attr("slot", slot)
            _finish(slot, study, trial, space.suggest(trial, asked), config, run, train, valid)
    run.progress(len(done), config.n_trials)
    return {"finished": len(done)}


def _finish(
    slot: int,
    study: "optuna.Study",
    trial: "optuna.Trial",
    params: dict[str, Any],
    config: Config,
    run: Run,
    train: "Table",
    valid: "Table",
) -> None:
    """Fit with a trial's parameters, keep the record in the store, and only then tell the study."""
    from optuna.trial import TrialState

    key, record = _recorded(run, f"search/trials/{study.study_name}/{slot}-{contract.digest(params)[:12]}")
    if record is None:
        record = _fit(slot, trial, params, key, config, run, train, valid)
    else:
        for rounds, value in record["reports"]:
            trial.report(value, rounds)
    trial.set_user_attr("seconds", record["seconds"])
    if record["state"] == "pruned":
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, record["value"])
    run.checkpoint(key).drop()
    log.info("trial.done", **{name: record[name] for name in ("slot", "state", "value", "rounds", "seconds")})


def _fit(
    slot: int, trial: "optuna.Trial", params: dict[str, Any], key: str, config: Config, run: Run, train: "Table", valid: "Table"
) -> dict[str, Any]:
    from optuna import TrialPruned

    from stages import families

    family = families.load(run.item["family"])
    reports: dict[int, float] = {}
    started = time.monotonic()

    def report(rounds: int, value: float) -> None:
        reports[rounds] = value
        trial.report(value, rounds)
        if trial.should_prune():
            raise TrialPruned

    record = {"slot": slot, "params": params, "metric": config.metric}
    with run.checkpoint(key) as checkpoint:
        try:
            fitted = family.fit(
                params,
                train,
                valid,
                rounds=config.rounds,
                early_stopping_rounds=config.early_stopping_rounds,
                seed=config.seed,
                metric=config.metric,
                threads=run.threads,
                gpu=config.gpu_enabled,
                checkpoint=checkpoint,
                report=report,
            )
        except TrialPruned:
            record |= {"state": "pruned", "value": max(reports.values()), "rounds": max(reports)}
        else:
            path = run.folder / f"{slot}-{family.FILE}"
            family.save(fitted.model, path)
            record |= {"state": "complete", "value": fitted.score, "rounds": fitted.rounds, "model": artifact.put(run.store, path)}
    record |= {"reports": sorted(reports.items()), "seconds": round(time.monotonic() - started, 3)}
    run.store.create(key, artifact.seal(record))
    return record


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
