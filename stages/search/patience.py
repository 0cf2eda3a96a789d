"""A study database whose server goes away, and comes back: nobody who searches ends for that."""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError

from stages.common import checkpoint, log

PAUSES = (0.5, 1.0, 2.0, 4.0, *(5.0,) * 22)  # seconds between the tries: two minutes
# What is said of a server that went away; the last one where Optuna asks again at once, amid the same transaction.
AWAY = (OperationalError, InterfaceError, PendingRollbackError)


def patiently[T](engine: sqlalchemy.Engine, action: Callable[[], T]) -> T:
    """Call ``action``, a transaction, again while the server does not answer; at last raise what it said.

    It may have been done although it is said to have failed, and is then done twice. A file has no server, and a thread beside the
    search's has its own time to try again.

    Raises:
        Interrupted: the step was told to stop.

    """
    waits = engine.dialect.name != "sqlite" and threading.current_thread() is threading.main_thread()
    for pause in PAUSES if waits else ():
        try:
            with checkpoint.held():
                return action()
        except (StorageInternalError, DBAPIError) as error:
            cause = error.__cause__ if isinstance(error, StorageInternalError) else error
            if not isinstance(cause, AWAY):
                raise
            log.warning("database.away", error=str(getattr(cause, "orig", cause)).strip().partition("\n")[0], pause=pause)
        checkpoint.end_if_told()
        time.sleep(pause)
    with checkpoint.held():
        return action()


class Storage(optuna.storages.RDBStorage):
    """Optuna's storage, each call of which is patient."""


def _patient(name: str) -> Callable[..., Any]:
    real = getattr(optuna.storages.RDBStorage, name)

    @functools.wraps(real)
    def call(self: Storage, *arguments: Any, **options: Any) -> Any:
        return patiently(self.engine, lambda: real(self, *arguments, **options))

    return call


# What a search asks for. None of them calls another one.
for _name in (
    "_create_new_trial",
    "_get_trials",
    "_set_trial_param",
    "get_study_directions",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "get_trial",
    "set_trial_intermediate_value",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
):
    setattr(Storage, _name, _patient(_name))
