"""Make the database's tables, a family's study and the slots of its budget. An effect: running it again changes nothing."""

from typing import Any

from stages.common import log, registry, step
from stages.common.step import Run
from stages.search.config import Config


def create(config: Config, run: Run) -> dict[str, Any]:
    """Create what is not there, and put right what a dead worker left."""
    import optuna

    from stages.search import study as studies
    from stages.search.slots import Slots

    name = studies.name(config, run)
    studies.options(config, run)  # refused before a trial is begun
    if config.space:
        studies.asked(config, run)  # that too
    registry.begin(run.addresses, run.item)
    with studies.at_hand():
        storage = studies.storage(run, create=True)
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
        slots = Slots(study, storage)
        slots.create()
        slots.grow(config.n_trials)
        slots.reconcile()
        restored = studies.restore(config, run, slots)
        finished = studies.finished(study.get_trials(deepcopy=False))
        log.info("study.ready", study=name, restored=restored, finished=len(finished), budget=config.n_trials)
    return {"study": name}


if __name__ == "__main__":
    step.main("search-create")
