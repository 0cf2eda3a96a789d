"""The study behind a search: an Optuna study whose trials are attempts at the slots of the budget.

A slot is finished when a trial of it is complete or pruned. Suggestions are seeded by hash(base seed, slot).
"""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from stages import families
from stages.common import artifact, contract, database, recipe
from stages.common.errors import ConfigError, NotNow
from stages.common.step import Run
from stages.families import space
from stages.features.features import Features
from stages.search.config import Config
from stages.search.slots import FINISHED, Claim, Lost, Slots, immediate

optuna.logging.disable_default_handler()
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

BUDGET = {"n_trials", "timeout_minutes"}  # asking for more goes on with the same study


def name(config: Config, run: Run) -> str:
    """Name the study by everything that makes its trials comparable: data, metric, space, fit recipe; not by its budget."""
    settings = {name: value for name, value in config.results(run.item).items() if name not in BUDGET}
    made = {"data": run.input("prepare").manifest.content, "recipe": recipe.recipe("search-work", run.item), "settings": settings}
    return f"{run.item['family']}-{contract.digest(made)[:16]}"


@contextlib.contextmanager
def at_hand() -> Iterator[None]:
    """Translate what a database that went away answers, at any time.

    Raises:
        NotNow: trying again can help.

    """
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        cause = error.__cause__ or error
        said = str(getattr(cause, "orig", cause)).strip().splitlines()[0]
        raise NotNow(f"the study database does not answer as it should: {said}. Run again: what is gone is made again.") from error


def storage(run: Run, *, create: bool = False) -> optuna.storages.RDBStorage:
    """Open the database; only ``search-create`` makes its tables, since several at once would collide."""
    url = database.url(run.store)
    database.check(url)
    if url.startswith("sqlite"):
        arguments: dict[str, Any] = {"connect_args": {"timeout": 60, "isolation_level": None}}
    else:
        arguments = {"pool_size": 2, "max_overflow": 1, "pool_pre_ping": True, "connect_args": database.PATIENCE}
    engine = url.replace("postgresql://", "postgresql+psycopg2://", 1)  # SQLAlchemy 2.1 takes the bare word for psycopg 3
    made = optuna.storages.RDBStorage(engine, engine_kwargs=arguments, skip_table_creation=not create)
    if url.startswith("sqlite"):
        if create:
            with made.engine.connect() as connection:
                connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))
        immediate(made.engine)
    return made


def sampler(config: Config, slot: int) -> optuna.samplers.BaseSampler:
    """Give what draws one slot's parameters: seeded by the slot, whoever works on it."""
    return optuna.samplers.TPESampler(seed=int.from_bytes(hashlib.sha256(f"{config.seed}/{slot}".encode()).digest()[:4]))


def load(config: Config, run: Run) -> Slots:
    """Open the study of a run, and its slots.

    Raises:
        NotNow: the study is not there yet.

    """
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=30) if config.pruning_enabled else optuna.pruners.NopPruner()
    opened = storage(run)
    try:
        return Slots(optuna.load_study(study_name=name(config, run), storage=opened, pruner=pruner), opened)
    except KeyError as error:
        raise NotNow(f"study {name(config, run)} is not there yet: run search-create first.") from error


def finished(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Give each finished slot's trial: of several, the first."""
    trials: dict[int, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False, states=FINISHED):
        trials.setdefault(trial.user_attrs["slot"], trial)
    return trials


def asked(config: Config, run: Run) -> dict[str, list[Any]]:
    """Give the family's search space with the config's changes."""
    name = run.item["family"]
    return space.merged(name, families.load(name).SPACE, config.space.get(name, {}))


def options(config: Config, run: Run) -> dict[str, Any]:
    """Give what the search's trials and the final fits have in common.

    Raises:
        ConfigError: a monotone column is no number column of the table.

    """
    if config.monotone:
        columns = Features.from_json(run.input("prepare").read_json("features.json")).columns
        numbers = [column.name for column in columns if column.dtype != "category"]
        if unknown := sorted(config.monotone.keys() - {*numbers}):
            raise ConfigError(f"search.monotone names {unknown[0]!r}, which is no number among the features: {', '.join(numbers[:40])}.")
    return {"balanced": config.balanced, "monotone": config.monotone}


class _Shapes:
    """Gives, for what a trial would be asked, the distribution that it would be drawn from."""

    def suggest_int(self, _name: str, low: int, high: int, *, log: bool = False) -> Any:
        return optuna.distributions.IntDistribution(low, high, log=log)

    def suggest_float(self, _name: str, low: float, high: float, *, log: bool = False) -> Any:
        return optuna.distributions.FloatDistribution(low, high, log=log)

    def suggest_categorical(self, _name: str, choices: Any) -> Any:
        return optuna.distributions.CategoricalDistribution(choices)


def records(study: optuna.Study) -> str:
    """Name the folder of a study's records in the store."""
    return f"search/trials/{study.study_name}/"


def restore(config: Config, run: Run, slots: Slots) -> int:
    """Finish slots whose trials the database has lost, from their records in the store; give how many.

    Each is claimed first: the worker of a slot puts its record there before it tells the study.
    """
    folder = records(slots.study)
    there, lost = finished(slots.study), dict[int, list[str]]()
    for key in run.store.list(folder):
        lost.setdefault(int(key.removeprefix(folder).partition("-")[0]), []).append(key)
    slots_lost, count = sorted(lost.keys() - there.keys()), 0
    shapes = space.suggest(_Shapes(), asked(config, run)) if slots_lost else {}
    for slot in slots_lost:
        record = next(filter(None, (artifact.unsealed(run.store, key) for key in lost[slot])), None)
        if record and (claim := slots.claim(slot + 1, first=slot)):
            with contextlib.suppress(Lost, optuna.exceptions.UpdateFinishedTrialError):
                count += _restored(slots, claim, record, shapes)
    return count


def _restored(slots: Slots, claim: Claim, record: dict[str, Any], shapes: dict[str, Any]) -> bool:
    known = optuna.trial.create_trial(
        state=TrialState.RUNNING, params=record["params"], distributions=shapes, intermediate_values=dict(record["reports"])
    )
    if (begun := slots.begin(claim, shapes.keys(), known)) is None:
        return False
    begun[0].set_user_attr("seconds", record["seconds"])
    slots.tell(claim, begun[0], TrialState.PRUNED if record["state"] == "pruned" else TrialState.COMPLETE, record["value"])
    return True


def is_out_of_time(config: Config, trials: dict[int, FrozenTrial]) -> bool:
    """Tell whether the finished trials took the time that the search may take."""
    return sum(float(trial.user_attrs["seconds"]) for trial in trials.values()) >= config.timeout_minutes * 60


def is_over(config: Config, trials: dict[int, FrozenTrial]) -> bool:
    """Tell whether the budget is met, or the time spent."""
    return (bool(trials) and is_out_of_time(config, trials)) or all(slot in trials for slot in range(config.n_trials))
