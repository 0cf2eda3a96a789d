"""A study database whose server goes away, and comes back: nobody who searches ends for that."""

import contextlib
import copy
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, override

import optuna
import sqlalchemy
from optuna.distributions import check_distribution_compatibility, distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial
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

    _drawn: list[tuple[Any, ...]] | None = None  # parameters that are to be written together

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write what one trial draws meanwhile in one transaction, all or nothing; each parameter takes one of its own elsewhere."""
        drawn: list[tuple[Any, ...]] = []
        self._drawn = drawn
        try:
            yield
        finally:
            self._drawn = None

        def write() -> None:
            # What cannot be written twice was written, by a try whose answer was lost.
            with _create_scoped_session(self.scoped_session, ignore_integrity_error=True) as session:
                found: Any = models.TrialModel.find_or_raise_by_id(drawn[0][0], session)
                self.check_trial_is_updatable(found.trial_id, found.state)
                for number, name, value, distribution, before in drawn:
                    if before is None:  # not seen here yet: Optuna looks what other trials have
                        self._set_trial_param_without_commit(session, number, name, value, distribution)
                        continue
                    check_distribution_compatibility(before, distribution)
                    said = distribution_to_json(distribution)
                    session.add(models.TrialParamModel(trial_id=number, param_name=name, param_value=value, distribution_json=said))

        if drawn:
            patiently(self.engine, write)

    @override
    def _set_trial_param(self, *arguments: Any) -> None:
        if self._drawn is not None:
            self._drawn.append(arguments)
        else:
            patiently(self.engine, lambda: super(Storage, self)._set_trial_param(*arguments))

    @override
    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Any) -> Any:
        """Write a trial as Optuna does, but all its attributes by one statement, and all its reports: others wait for the study's row."""
        if template_trial is None:
            return super()._get_prepared_new_trial(study_id, None, session)
        bare = copy.copy(template_trial)
        bare.user_attrs, bare.intermediate_values = {}, {}
        trial = super()._get_prepared_new_trial(study_id, bare, session)
        add_reports(session, trial.trial_id, template_trial.intermediate_values)
        session.add_all(attribute(trial.trial_id, *one) for one in template_trial.user_attrs.items())
        return trial


def add_reports(session: Any, trial: Any, values: Mapping[int, float]) -> None:
    """Write what a trial reported, by step."""
    row = models.TrialIntermediateValueModel
    for step in sorted(values):
        stored, kind = row.intermediate_value_to_stored_repr(values[step])
        session.add(row(trial_id=trial, step=step, intermediate_value=stored, intermediate_value_type=kind))


def attribute(trial: Any, name: str, value: Any) -> models.TrialUserAttributeModel:
    """Give the row of one thing that is to be known of a trial."""
    return models.TrialUserAttributeModel(trial_id=trial, key=name, value_json=json.dumps(value))


def add_attributes(session: Any, trial: Any, values: Mapping[str, Any]) -> None:
    """Write what is to be known of a trial, by name, over what is there."""
    row = models.TrialUserAttributeModel
    there = {one.key: one for one in session.query(row).filter(row.trial_id == trial)} if values else {}
    for name, value in values.items():
        if name in there:
            there[name].value_json = json.dumps(value)
        else:
            session.add(attribute(trial, name, value))


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
