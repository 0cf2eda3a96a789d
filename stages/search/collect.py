"""Make the search's artifact from study and store: the slots below the budget, and the best of them."""

from typing import Any

from stages.common import contract, log, step
from stages.common.errors import MissingInput, NotNow
from stages.common.step import Run
from stages.search.config import Config


def collect(config: Config, run: Run) -> dict[str, Any]:
    """Write down all finished slots and the best one.

    Raises:
        MissingInput: the budget is not met and nobody works at it, no trial can be the best one, or the database tells something
            else than the trials' records.
        NotNow: the budget is not met yet.

    """
    from optuna.trial import TrialState

    from stages import families
    from stages.search import study as studies

    with studies.at_hand():
        slots = studies.load(config, run)
        # Who is at work first: whoever is so no more has finished, and is seen then.
        is_going_on = bool(slots.held(config.n_trials))
        trials = studies.finished(slots.reconcile())
    studies.check_records(run, slots.study, trials)
    if not studies.is_over(config, trials):
        so_far = f"{len(trials)} of {config.n_trials} trials are finished"
        if is_going_on:
            raise NotNow(f"{so_far}, and others are at work. Collect again when they are done.")
        raise MissingInput(f"{so_far}, and nobody is at work. Run search-work, then collect.")
    told: list[dict[str, Any]] = [
        {
            "slot": slot,
            "params": trial.params,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "reports": trial.intermediate_values,
        }
        for slot, trial in sorted(trials.items())
        if slot < config.n_trials
    ]
    complete = [slot for slot in told if slot["state"] == TrialState.COMPLETE.name.lower()]
    if not complete:
        raise MissingInput(
            f"the {len(told)} trials were all pruned, beside others beyond the budget. Raise search.n_trials to what it was."
        )
    accepts = run.config["common"].accept_degraded
    if not (may := [slot for slot in complete if accepts or trials[slot["slot"]].user_attrs["rung"] == 0]):
        raise MissingInput("all trials needed a fallback, and common.accept_degraded is false. Accept it, or raise search.n_trials.")
    best = max(may, key=lambda slot: slot["value"])  # of equals, the first
    result = {"family": run.item["family"], "metric": config.metric, **{name: best[name] for name in ("slot", "params", "value")}}
    rung = trials[best["slot"]].user_attrs["rung"]
    result |= {"options": studies.options(config, run), "rung": rung}
    run.measured["seconds_saved"] = studies.seconds_saved(trial for slot, trial in trials.items() if slot < config.n_trials)
    run.degraded += families.fallback(rung)
    (run.out / "trials.json").write_bytes(contract.dump(told))
    (run.out / "best.json").write_bytes(contract.dump(result))
    log.info("search.collected", finished=len(told), pruned=len(told) - len(complete), best=best["value"])
    return {"best": best["value"], "finished": len(told)}


if __name__ == "__main__":
    step.main("search-collect")
