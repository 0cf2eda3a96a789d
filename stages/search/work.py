"""Work through the open slots of a family's study. An effect: what is finished is in study and store."""

import json
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
    from stages.features import features
    from stages.search import study as studies

    prepared = run.input("prepare")
    contract_of = features.Features.from_json(prepared.read_json("features.json"))
    train = features.read(prepared.path("train.parquet"), contract_of)
    valid = features.read(prepared.path("valid.parquet"), contract_of)
    study = studies.load(config, run)
    studies.reconcile(study)
    while (slot := studies.open_slot(config, done := studies.finished(study))) is not None:
        run.progress(len(done), config.n_trials)
        study.sampler = studies.sampler(config, slot)
        _finish(slot, study, config, run, train, valid)
    run.progress(len(done), config.n_trials)
    return {"finished": len(done)}


def _finish(slot: int, study: "optuna.Study", config: Config, run: Run, train: "Table", valid: "Table") -> None:
    """Ask for a slot's parameters, fit, keep the record in the store, and only then tell the study."""
    from optuna.trial import TrialState

    from stages import families
    from stages.families import space

    started = time.monotonic()
    family = families.load(run.item["family"])
    trial = study.ask()
    trial.set_user_attr("slot", slot)
    params = space.suggest(trial, space.merged(run.item["family"], family.SPACE, config.space.get(run.item["family"], {})))
    key = f"search/trials/{study.study_name}/{slot}-{contract.digest(params)[:12]}.json"
    record = _recorded(run, key)
    if record is None:
        record = _fit(slot, trial, params, key, config, run, train, valid)
    else:
        for rounds, value in record["reports"]:
            trial.report(value, rounds)
    state = TrialState.PRUNED if record["state"] == "pruned" else TrialState.COMPLETE
    study.tell(trial, None if record["state"] == "pruned" else record["value"], state=state)
    run.checkpoint(_scratch(key)).drop()
    seconds = round(time.monotonic() - started, 1)
    log.info("trial.done", slot=slot, state=record["state"], value=record["value"], rounds=record["rounds"], seconds=seconds)


def _fit(
    slot: int, trial: "optuna.Trial", params: dict[str, Any], key: str, config: Config, run: Run, train: "Table", valid: "Table"
) -> dict[str, Any]:
    from optuna import TrialPruned

    from stages import families

    family = families.load(run.item["family"])
    reports: dict[int, float] = {}

    def report(rounds: int, value: float) -> None:
        reports[rounds] = value
        trial.report(value, rounds)
        if trial.should_prune():
            raise TrialPruned

    record = {"slot": slot, "params": params, "metric": config.metric}
    with run.checkpoint(_scratch(key)) as checkpoint:
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
    record["reports"] = sorted(reports.items())
    run.store.create(key, contract.dump(record))
    return record


def _recorded(run: Run, key: str) -> dict[str, Any] | None:
    """Give the record of a trial that was finished but not told: its worker was killed in between."""
    try:
        record: dict[str, Any] = json.loads(run.store.read(key))
    except KeyError:
        return None
    return record


def _scratch(key: str) -> str:
    return key.removesuffix(".json")


if __name__ == "__main__":
    step.main("search-work")
