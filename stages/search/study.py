"""The study behind a search: an Optuna study whose trials are attempts at the slots of the budget.

A slot is finished when a trial of it is complete or pruned. Suggestions are seeded by hash(base seed, slot).
"""

import contextlib
import functools
import hashlib
import sqlite3
import statistics
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from stages import families
from stages.common import artifact, contract, database, log, recipe, yaml
from stages.common.errors import ConfigError, MissingInput, NotNow
from stages.common.step import Run
from stages.families import space
from stages.search import patience
from stages.search.config import Config
from stages.search.slots import FINISHED, Claim, Lost, Slots, immediate

optuna.logging.disable_default_handler()
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

LOOK, SHARE = 5.0, 0.005  # seconds between two looks at all trials; of a fit's time that they may take
SELDOM = 300.0  # seconds between two looks, at most: one may have waited minutes for a server that was away
WAY_OUT = (
    "Move its file away (study.db in the store, or what SUREFOOT_STUDY names; in Postgres, drop the database and make an empty one), "
    "and run again: finished trials are taken from their records."
)


def name(config: Config, run: Run) -> str:
    """Name the study by everything that makes its trials comparable: data, metric, space, fit recipe; not by its budget."""
    settings = {name: value for name, value in config.results(run.item).items() if name not in config.BUDGET}
    made = {"data": run.input("prepare").manifest.content, "recipe": recipe.recipe("search-work", run.item), "settings": settings}
    made |= {"first": run.pinned.first[run.item["family"]]} if run.item["family"] in run.pinned.first else {}
    return f"{run.item['family']}-{contract.digest(made)[:16]}"


@contextlib.contextmanager
def at_hand() -> Iterator[None]:
    """Translate what a database that went away answers, at any time.

    Raises:
        MissingInput: its file is damaged; no other try can help.
        NotNow: trying again can help.

    """
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, UnicodeDecodeError) as error:
        cause = error.__cause__ or error
        original = getattr(cause, "orig", cause)
        said = str(original).strip().splitlines()[0]
        if type(original) is sqlite3.DatabaseError or isinstance(original, UnicodeDecodeError):  # of SQLite's words about its own bytes
            raise MissingInput(f"the study database is damaged ({yaml.shown(said)}). {WAY_OUT}") from error
        raise NotNow(f"the study database does not answer as it should: {said}. Run again: what is gone is made again.") from error


def storage(run: Run, *, create: bool = False) -> patience.Storage:
    """Open the database; only ``search-create`` makes its tables, since several at once would collide."""
    url = database.url(run.store)
    database.check(url)
    if url.startswith("sqlite"):
        arguments: dict[str, Any] = {"connect_args": {"timeout": 60, "isolation_level": None}}
        engine = url.replace("{", "{{").replace("}", "}}")  # Optuna takes it for a format
    else:
        arguments = {"pool_size": 2, "max_overflow": 1, "pool_pre_ping": True, "creator": functools.partial(database.session, url)}
        engine = "postgresql+psycopg2://"  # SQLAlchemy 2.1 takes the bare word for psycopg 3
    made = patience.Storage(engine, engine_kwargs=arguments, skip_table_creation=not create)
    if url.startswith("sqlite"):
        if create:
            with made.engine.connect() as connection:
                connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))
        immediate(made.engine)
    return made


def sampler(config: Config, claim: Claim) -> optuna.samplers.BaseSampler:
    """Give what draws one slot's parameters: seeded by the slot, whoever works on it, and by how often it had to draw others."""
    named = f"{config.seed}/{claim.slot}" + (f"/{claim.draw}" if claim.draw else "")
    return optuna.samplers.TPESampler(seed=int.from_bytes(hashlib.sha256(named.encode()).digest()[:4]))


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


class Others:
    """A study as its pruner asks for it: the complete trials, read again once the last look is some seconds old.

    Each look asks the database of all trials that run, a fit has dozens of borders, and a search may have many workers: the longer a
    look takes, the fewer there are.
    """

    def __init__(self, study: optuna.Study, seen: Iterable[FrozenTrial] = ()) -> None:
        """Begin with the trials that were ``seen`` a moment ago."""
        self.direction = study.direction
        self._study = study
        self._trials = [trial for trial in seen if trial.state == TrialState.COMPLETE]
        self._until = time.monotonic() + LOOK if self._trials else 0.0

    def get_trials(self, **_: Any) -> list[FrozenTrial]:
        """Give them, as ``optuna.Study`` does."""
        if time.monotonic() >= self._until:
            began = time.monotonic()
            self._trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            self._until = (ended := time.monotonic()) + min(max(LOOK, (ended - began) / SHARE), SELDOM)
        return self._trials

    def prune(self, reports: dict[int, float]) -> bool:
        """Tell whether the study's pruner ends a trial that reported so much."""
        trial = optuna.trial.create_trial(state=TrialState.RUNNING, intermediate_values=reports)
        return self._study.pruner.prune(self, trial)  # type: ignore[arg-type]


def finished(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Give each finished slot's trial: of several, the first."""
    found: dict[int, FrozenTrial] = {}
    for trial in trials:
        if trial.state in FINISHED:
            found.setdefault(trial.user_attrs["slot"], trial)
    return found


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
        from stages.features.features import Features  # here, since tables cost half a second, and most searches do without

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
    folder, there, count = records(slots.study), finished(slots.study.get_trials(deepcopy=False)), 0
    recorded = {int(key.removeprefix(folder).partition("-")[0]) for key in run.store.list(folder)}
    for slot in sorted(recorded - there.keys()):
        record = known(config, run, slots, slot)
        if record and (claim := slots.claim(slot + 1, first=slot)):
            with contextlib.suppress(Lost, optuna.exceptions.UpdateFinishedTrialError):
                count += _restored(slots, claim, *record)
    return count


def known(config: Config, run: Run, slots: Slots, slot: int) -> tuple[dict[str, Any], FrozenTrial] | None:
    """Find a slot's record in the store, whatever its parameters, and the trial that it tells of."""
    keys = run.store.list(f"{records(slots.study)}{slot}-")
    found = [record for key in keys if (record := artifact.unsealed(run.store, key))]
    if not found:
        return None
    record = max(found, key=lambda one: one["draw"])  # one of an earlier draw came from a worker that had lost the slot
    trial = optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=record["params"],
        distributions=space.suggest(_Shapes(), asked(config, run)),
        intermediate_values=dict(record["reports"]),
    )
    return record, trial


def first(config: Config, run: Run) -> FrozenTrial:
    """Give the trial that slot 0 is to be: the live model's settings, where those are tried first, and the space still holds them.

    Else it is the family's FIRST, as near as the space comes to it: with few trials, a search is no worse than that on the valid split.
    """
    bounds = asked(config, run)
    wanted, own = space.suggest(_Shapes(), bounds), space.nearest(families.load(run.item["family"]).FIRST, bounds)
    if params := run.pinned.first.get(run.item["family"]):
        try:
            return _planned(params, wanted)
        except ValueError as error:
            log.warning("first.not_tried", params=params, why=str(error), so="the space is another one now")
    return _planned(own, wanted)


def _planned(params: dict[str, Any], wanted: dict[str, Any]) -> FrozenTrial:
    return optuna.trial.create_trial(state=TrialState.RUNNING, params=params, distributions=wanted, user_attrs={"draw": 0, "rung": 0})


def check_records(run: Run, study: optuna.Study, trials: dict[int, FrozenTrial]) -> None:
    """Compare what the database tells of finished trials with their records, which are sealed: it has no seal of its own.

    Raises:
        MissingInput: they differ.

    """
    told: dict[int, list[Any]] = {}
    for key in run.store.list(records(study)):
        if record := artifact.unsealed(run.store, key):
            value = record["value"] if record["state"] == "complete" else None  # of a pruned trial, Optuna keeps its last report
            told.setdefault(record["slot"], []).append((record["state"], value, record["params"]))
    for slot, trial in trials.items():
        value = trial.value if trial.state == TrialState.COMPLETE else None
        if slot in told and (trial.state.name.lower(), value, trial.params) not in told[slot]:
            raise MissingInput(f"the study database is damaged (slot {slot} is not as its record tells). {WAY_OUT}")


def _restored(slots: Slots, claim: Claim, record: dict[str, Any], trial: FrozenTrial) -> bool:
    if (begun := slots.begin(claim, trial.params.keys(), trial)) is None:
        return False
    tell(slots, claim, begun[0], record)
    return True


def seconds_saved(trials: Iterable[FrozenTrial]) -> dict[str, float]:
    """Estimate what finished trials did not cost, at the pace of the complete ones.

    By ``pruning``: had the pruned ones gone on as long as half of those did. By ``resume``: what was there when their last attempt began.
    """
    found = [(trial, trial.last_step or 0, trial.user_attrs["began"]) for trial in trials]
    complete = [(trial.user_attrs["seconds"], rounds, began) for trial, rounds, began in found if trial.state == TrialState.COMPLETE]
    fitted = sum(rounds - began for _, rounds, began in complete)
    pace = sum(seconds for seconds, _, _ in complete) / fitted if fitted else 0.0
    usual = statistics.median(rounds for _, rounds, _ in complete) if complete else 0
    spared = {
        "pruning": sum(max(usual - rounds, 0) for trial, rounds, _ in found if trial.state == TrialState.PRUNED),
        "resume": sum(began for _, _, began in found),
    }
    return {how: round(rounds * pace, 3) for how, rounds in spared.items()}


def tell(slots: Slots, claim: Claim, trial: optuna.Trial, record: dict[str, Any]) -> None:
    """Finish a slot by its record, which is in the store.

    Raises:
        Lost: another worker took the slot over.

    """
    on_gpu = ("device", "gpu_memory_mb") if "gpu_memory_mb" in record else ()
    attributes = {name: record[name] for name in ("seconds", "began", "rung", *on_gpu)}
    state = TrialState.PRUNED if record["state"] == "pruned" else TrialState.COMPLETE
    slots.tell(claim, trial, state, record["value"], dict(record["reports"]), **attributes)


def is_out_of_time(config: Config, trials: dict[int, FrozenTrial]) -> bool:
    """Tell whether the finished trials took the time that the search may take."""
    return sum(float(trial.user_attrs["seconds"]) for trial in trials.values()) >= config.timeout_minutes * 60


def is_without_gain(config: Config, trials: dict[int, FrozenTrial]) -> bool:
    """Tell whether the last so many trials, in the order in which they were begun, brought nothing better."""
    in_order = sorted(trials.values(), key=lambda trial: trial.number)
    values = [-np.inf if trial.state == TrialState.PRUNED or trial.value is None else trial.value for trial in in_order]
    return config.patience_trials is not None and bool(values) and len(values) - 1 - int(np.argmax(values)) >= config.patience_trials


def is_over(config: Config, trials: dict[int, FrozenTrial]) -> bool:
    """Tell whether the budget is met, the time spent, or nothing gained any more."""
    mine = {slot: trial for slot, trial in trials.items() if slot < config.n_trials}
    return len(mine) == config.n_trials or (bool(mine) and (is_out_of_time(config, mine) or is_without_gain(config, mine)))
