"""The study behind a search: an Optuna study whose trials each hold one slot of the budget.

A slot is finished when a trial of it is complete or pruned. Suggestions are seeded by hash(base seed, slot).
"""

import hashlib
import warnings
from datetime import timedelta
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from stages.common import contract, database, recipe
from stages.common.errors import NotNow
from stages.common.step import Run
from stages.search.config import Config

optuna.logging.disable_default_handler()
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
BUDGET = {"n_trials", "timeout_minutes"}  # asking for more goes on with the same study


def name(config: Config, run: Run) -> str:
    """Name the study by everything that makes its trials comparable: data, metric, space, fit recipe; not by its budget."""
    settings = config.model_dump(mode="json", include=set(Config.result_fields()) - BUDGET)
    made = {"data": run.input("prepare").manifest.content, "recipe": recipe.recipe("search-work", run.item), "settings": settings}
    return f"{run.item['family']}-{contract.digest(made)[:16]}"


def storage(run: Run, *, create: bool = False) -> optuna.storages.RDBStorage:
    """Open the database; only ``search-create`` makes its tables, since several at once would collide.

    Raises:
        NotNow: the database does not answer.

    """
    url = database.url(run.store)
    database.check(url)
    if url.startswith("sqlite"):
        arguments: dict[str, Any] = {"connect_args": {"timeout": 60}}
    else:
        arguments = {"pool_size": 2, "max_overflow": 1, "pool_pre_ping": True, "connect_args": {"connect_timeout": 5}}
    try:
        engine = url.replace("postgresql://", "postgresql+psycopg2://", 1)  # SQLAlchemy 2.1 takes the bare word for psycopg 3
        made = optuna.storages.RDBStorage(engine, engine_kwargs=arguments, skip_table_creation=not create)
        if create and url.startswith("sqlite"):
            with made.engine.connect() as connection:
                connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))
    except sqlalchemy.exc.OperationalError as error:
        raise NotNow(f"the study database does not answer: {str(error.orig).splitlines()[0]}") from error
    return made


def sampler(config: Config, slot: int) -> optuna.samplers.BaseSampler:
    """Give what draws one slot's parameters: seeded by the slot, whoever works on it."""
    return optuna.samplers.TPESampler(seed=int.from_bytes(hashlib.sha256(f"{config.seed}/{slot}".encode()).digest()[:4]))


def load(config: Config, run: Run) -> optuna.Study:
    """Open the study of a run.

    Raises:
        NotNow: the study is not there yet.

    """
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=30) if config.pruning_enabled else optuna.pruners.NopPruner()
    try:
        return optuna.load_study(study_name=name(config, run), storage=storage(run), pruner=pruner)
    except KeyError as error:
        raise NotNow(f"study {name(config, run)} is not there yet: run search-create first.") from error


def finished(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Give each finished slot's trial: of several, the first."""
    trials: dict[int, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False, states=FINISHED):
        trials.setdefault(trial.user_attrs["slot"], trial)
    return trials


def is_out_of_time(config: Config, trials: dict[int, FrozenTrial]) -> bool:
    """Tell whether the finished trials took the time that the search may take."""
    spent = sum((trial.duration or timedelta() for trial in trials.values()), timedelta())
    return spent >= timedelta(minutes=config.timeout_minutes)


def open_slot(config: Config, trials: dict[int, FrozenTrial]) -> int | None:
    """Give the lowest slot of the budget that is not finished; None when the search is over."""
    if trials and is_out_of_time(config, trials):
        return None
    return next((slot for slot in range(config.n_trials) if slot not in trials), None)


def reconcile(study: optuna.Study) -> None:
    """Fail trials that a dead worker left running (one worker at a time: see ``search.workers``)."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
