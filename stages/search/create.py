"""Make the database's tables and a family's study. An effect: running it again changes nothing."""

from typing import Any

from stages.common import log, step
from stages.common.step import Run
from stages.search.config import Config


def create(config: Config, run: Run) -> dict[str, Any]:
    """Create the study, unless it is there."""
    import optuna

    from stages.search import study as studies

    name = studies.name(config, run)
    with studies.at_hand():
        storage = studies.storage(run, create=True)
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
        log.info("study.ready", study=name, finished=len(studies.finished(study)), budget=config.n_trials)
    return {"study": name}


if __name__ == "__main__":
    step.main("search-create")
