"""The study behind a search: an Optuna study whose trials each hold one slot of the budget.

A slot is finished when a trial of it is complete or pruned. Suggestions are seeded by hash(base seed, slot).
"""

import fcntl
import functools
import hashlib
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from stages.common import contract, database, log, recipe
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


@contextmanager
def at_hand() -> Iterator[None]:
    """Translate what a database that went away answers, at any time, and who lost its trial to another worker.

    Raises:
        NotNow: trying again can help.

    """
    try:
        yield
    except optuna.exceptions.UpdateFinishedTrialError as error:
        raise NotNow("another worker took this study over: run again when it has ended; what is finished is kept.") from error
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        cause = error.__cause__ or error
        said = str(getattr(cause, "orig", cause)).strip().splitlines()[0]
        raise NotNow(f"the study database does not answer as it should: {said}. Run again: what is gone is made again.") from error


@contextmanager
def alone(run: Run, study: optuna.Study) -> Iterator[None]:
    """Wait until no other worker is at a study, and keep others away. A dead worker's lock is free at once."""
    url = database.url(run.store)
    with ExitStack() as held:
        if url.startswith("sqlite"):
            file = held.enter_context(Path(f"{url.removeprefix('sqlite:///')}.{study.study_name}.lock").open("a"))
            take = functools.partial(_locks_file, file)
        else:
            connection = held.enter_context(closing(database.connect(url)))
            take = functools.partial(_locks_row, connection, study.study_name)
        waits = False
        while not take():  # not a call that blocks: no signal would reach us in the database's library
            if not waits:
                log.warning("search.waits", study=study.study_name, so="another worker is at it")
            waits = True
            time.sleep(1)
        yield


def _locks_file(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _locks_row(connection: Any, name: str) -> bool:
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)])
        return bool(cursor.fetchone()[0])


def storage(run: Run, *, create: bool = False) -> optuna.storages.RDBStorage:
    """Open the database; only ``search-create`` makes its tables, since several at once would collide."""
    url = database.url(run.store)
    database.check(url)
    if url.startswith("sqlite"):
        arguments: dict[str, Any] = {"connect_args": {"timeout": 60}}
    else:
        arguments = {"pool_size": 2, "max_overflow": 1, "pool_pre_ping": True, "connect_args": database.PATIENCE}
    engine = url.replace("postgresql://", "postgresql+psycopg2://", 1)  # SQLAlchemy 2.1 takes the bare word for psycopg 3
    made = optuna.storages.RDBStorage(engine, engine_kwargs=arguments, skip_table_creation=not create)
    if create and url.startswith("sqlite"):
        with made.engine.connect() as connection:
            connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))
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
    return sum(float(trial.user_attrs["seconds"]) for trial in trials.values()) >= config.timeout_minutes * 60


def open_slot(config: Config, trials: dict[int, FrozenTrial]) -> int | None:
    """Give the lowest slot of the budget that is not finished; None when the search is over."""
    if trials and is_out_of_time(config, trials):
        return None
    return next((slot for slot in range(config.n_trials) if slot not in trials), None)


def reconcile(study: optuna.Study) -> None:
    """Fail trials that a dead worker left running; only for who is ``alone``."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
