"""The study is one that Optuna's own dashboard shows, as it is: https://github.com/optuna/optuna-dashboard."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import urllib3
from optuna.trial import FrozenTrial

from stages import families
from stages.common.store import open_store
from tests import small

BUDGET = ("search.n_trials=12", "search.rounds=60", "search.early_stopping_rounds=60")


@contextmanager
def dashboard(program: str, address: str, log: Path) -> Iterator[str]:
    """Run the dashboard over a study database; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as written:
        process = subprocess.Popen([program, address, "--host", "127.0.0.1", "--port", str(port)], stdout=written, stderr=written)
    try:
        yield f"http://127.0.0.1:{port}/api"
    finally:
        process.kill()
        process.wait()


def ask(url: str) -> Any:
    """Ask for a document; the server may still be starting."""
    until = time.monotonic() + 60
    while True:
        try:
            answer = urllib3.request("GET", url, timeout=30, retries=False)
            assert answer.status == 200, answer.data
            return json.loads(answer.data)
        except urllib3.exceptions.HTTPError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


@pytest.mark.slow
def test_the_dashboard_shows_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Complete trials, pruned ones, and an attempt that failed: states, settings, reports and attributes arrive."""
    program = shutil.which("optuna-dashboard")
    if program is None:
        pytest.skip("no program optuna-dashboard in PATH: nobody looked at a study with it")
    real, fits = families.fit, list[str]()

    def fit(name: str, *arguments: Any, **options: Any) -> families.Fitted:
        fits.append(name)
        if len(fits) == 3:
            raise ValueError("by chance")
        return real(name, *arguments, **options)

    monkeypatch.setattr(families, "fit", fit)
    store = open_store(str(tmp_path / "store"))
    planned = small.addresses(small.lay_out(tmp_path), store, *BUDGET)
    for name in ("prepare", "search-create", "search-work"):
        small.do(name, planned)
    database = f"sqlite:///{store.address}/study.db"
    (study,) = optuna.study.get_all_study_summaries(database)
    trials = optuna.load_study(study_name=study.study_name, storage=database).trials

    with dashboard(program, database, tmp_path / "log") as address:
        (listed,) = ask(f"{address}/studies")["study_summaries"]
        shown = ask(f"{address}/studies/{listed['study_id']}?after=0")

    assert (listed["study_name"], listed["directions"]) == (study.study_name, ["maximize"])
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED", "FAIL"}
    assert [_read(one) for one in shown["trials"]] == [_told(trial) for trial in trials]


def _read(shown: dict[str, Any]) -> dict[str, Any]:
    return {
        "state": shown["state"].upper(),
        "value": shown.get("values"),
        "params": {one["name"]: one["param_internal_value"] for one in shown["params"]},
        "reports": {one["step"]: one["value"] for one in shown["intermediate_values"]},
        "attributes": {one["key"]: json.loads(one["value"]) for one in shown["user_attrs"]},
    }


def _told(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "state": trial.state.name,
        "value": trial.values,
        "params": {name: trial.distributions[name].to_internal_repr(value) for name, value in trial.params.items()},
        "reports": trial.intermediate_values,
        "attributes": trial.user_attrs,
    }
