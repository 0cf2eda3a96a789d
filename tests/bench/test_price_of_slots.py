"""What a slot costs beside a trial of plain Optuna, with the same sampler and database: seconds of claim, ask and tell."""

import os
import secrets
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from stages.families import space, xgboost
from stages.search import patience
from stages.search import study as studies
from stages.search.slots import Slots
from tests import slots as drill

MANY = 30  # trials that are timed, of each kind, in turns


class Timed(optuna.samplers.TPESampler):
    """Optuna's own sampler, and how long it took."""

    seconds = 0.0

    def sample_relative(self, *arguments: Any) -> dict[str, Any]:
        """Suggest nothing, as it does."""
        return self._timed(super().sample_relative, *arguments)  # type: ignore[no-any-return]

    def sample_independent(self, *arguments: Any) -> Any:
        """Suggest one parameter."""
        return self._timed(super().sample_independent, *arguments)

    def _timed(self, what: Any, *arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return what(*arguments)
        finally:
            Timed.seconds += time.perf_counter() - started


def _filled(url: str, trials: int) -> tuple[str, patience.Storage]:
    """Make a study with so many finished trials."""
    name, storage = secrets.token_hex(6), drill.storage(url, create=True)
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    shapes = space.suggest(studies._Shapes(), xgboost.SPACE)
    there = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found: list[FrozenTrial] = []
    for slot in range(trials):
        params = space.suggest(there.ask(), xgboost.SPACE)
        attributes = {"slot": slot, "attempt": 1, "draw": 0, "rung": 0, "seconds": 1.0}
        reports = dict.fromkeys(range(10, 110, 10), 0.5)
        found.append(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE, value=params["subsample"], params=params, distributions=shapes,
                user_attrs=attributes, intermediate_values=reports,
            )
        )  # fmt: skip
    study.add_trials(found)
    return name, storage


def _ours(slots: Slots, budget: int) -> None:
    assert len(studies.finished(slots.reconcile())) < budget
    claim = slots.claim(budget)
    assert claim
    slots.study.sampler = Timed(seed=claim.slot)
    with slots.kept(claim):
        begun = slots.begin(claim, xgboost.SPACE.keys())
        assert begun
        with slots.together():
            params = space.suggest(begun[0], xgboost.SPACE)
        slots.tell(claim, begun[0], TrialState.COMPLETE, params["subsample"], seconds=1.0)


def _plain(study: optuna.Study, number: int) -> None:
    study.sampler = Timed(seed=number)
    trial = study.ask()
    study.tell(trial, space.suggest(trial, xgboost.SPACE)["subsample"])


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of a database: once SQLite, once Postgres."""
    return f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


@pytest.mark.bench
@pytest.mark.parametrize("trials", [100, 1_000, 10_000])
def test_price_of_slots(trials: int, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One slot, then one plain trial, and again, each in a study of its own."""
    if trials > int(os.environ.get("SUREFOOT_BENCH_SLOTS", "1000")):
        pytest.skip("SUREFOOT_BENCH_SLOTS=10000 makes it as large")
    name, storage = _filled(url, trials)
    slots = Slots(optuna.load_study(study_name=name, storage=storage), storage)
    slots.create()
    slots.grow(trials + MANY)
    slots.reconcile()
    other, beside = _filled(url, trials)
    study = optuna.load_study(study_name=other, storage=beside)
    spent: dict[str, list[tuple[float, float]]] = {"slot": [], "plain": []}
    for number in range(MANY):
        for kind, each in spent.items():
            Timed.seconds, started = 0.0, time.perf_counter()
            _ours(slots, trials + MANY) if kind == "slot" else _plain(study, number)
            each.append((time.perf_counter() - started, Timed.seconds))
    whole = {kind: 1000 * statistics.median(one for one, _ in each) for kind, each in spent.items()}
    outside = {kind: 1000 * statistics.median(one - sampler for one, sampler in each) for kind, each in spent.items()}
    with capsys.disabled():
        sys.stdout.write(f"\n{url.partition(':')[0]}, {trials:,} trials: {whole['slot'] / whole['plain']:.2f} x a plain trial's seconds; ")
        sys.stdout.write(f"{whole['slot']:.1f} and {whole['plain']:.1f} ms, ")
        sys.stdout.write(f"outside the sampler {outside['slot']:.1f} and {outside['plain']:.1f} ms\n")
    assert len(spent["slot"]) == len(spent["plain"]) == MANY
