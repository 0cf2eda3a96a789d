"""Fit one family with the best settings that the search found, then refit it for production."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages import families
from stages.common import contract, log
from stages.common.step import Run
from stages.families import device, metrics
from stages.features import features
from stages.features.features import Table
from stages.train.config import Config


def train(config: Config, run: Run) -> dict[str, Any]:
    """Make ``judged`` (fitted on train; every score is its) and ``shipped`` (refit at its rounds on all rows)."""
    best = run.input("search-collect", **run.item).read_json("best.json")
    family = families.load(best["family"])
    train_rows, valid_rows, *later = _tables(run)
    common = {
        "early_stopping_rounds": config.early_stopping_rounds,
        "seed": config.seed,
        "metric": best["metric"],
        "threads": run.threads,
        "gpu": config.gpu_enabled,
        **best["options"],
    }
    with run.checkpoint(f"train/{run.address}/judged") as saved:
        judged = families.fit(
            best["family"],
            best["params"],
            train_rows,
            valid_rows,
            rounds=config.rounds,
            checkpoint=saved,
            report=_progress(run, config.rounds),
            **common,
        )
    suffix = Path(family.FILE).suffix
    family.save(judged.model, run.out / f"judged{suffix}")
    rows = together(train_rows, valid_rows, *later)
    with run.checkpoint(f"train/{run.address}/shipped") as saved:
        shipped = families.fit(
            best["family"],
            best["params"],
            rows,
            None,
            rounds=judged.rounds,
            checkpoint=saved,
            report=_progress(run, judged.rounds),
            **common,
        )
    family.save(shipped.model, run.out / f"shipped{suffix}")
    scores = metrics.scores(valid_rows.y, family.predict(judged.model, valid_rows.X))
    model = {"family": best["family"], "params": best["params"], "metric": best["metric"], "rounds": judged.rounds, "valid": scores}
    (run.out / "model.json").write_bytes(contract.dump(model))
    run.device = judged.device
    if config.gpu_enabled and judged.device == "cpu" and best["family"] in families.ON_GPU and device.gpus():
        run.degraded.append("CPU for GPU")
    log.info(
        "train.fitted", family=best["family"], rounds=judged.rounds, **{f"valid_{name}": round(value, 6) for name, value in scores.items()}
    )
    return {"rounds": judged.rounds, **{f"valid_{name}": scores[name] for name in metrics.METRICS}}


def _tables(run: Run) -> list[Table]:
    prepared = run.input("prepare")
    fitted = features.Features.from_json(prepared.read_json("features.json"))
    return [features.read(prepared.path(f"{split}.parquet"), fitted) for split in ("train", "valid", "calibration", "test")]


def _progress(run: Run, rounds: int) -> Any:
    return lambda done, _score: run.progress(done, rounds)


def together(*tables: Table) -> Table:
    """Put tables of the same columns under each other."""
    matrix = pd.concat([table.X for table in tables], ignore_index=True)
    return Table(matrix, *(_stacked([getattr(table, name) for table in tables]) for name in ("y", "row", "time", "entity")))


def _stacked(parts: list[Any]) -> Any:
    return None if parts[0] is None else np.concatenate(parts)
