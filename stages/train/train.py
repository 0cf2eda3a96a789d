"""Fit one family with the best settings that the search found, then refit it for production."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages import families
from stages.common import artifact, contract, log, memory
from stages.common.errors import NotNow, OutOfMemory
from stages.common.step import Run
from stages.families import device, metrics, need
from stages.features import features
from stages.features.features import Table
from stages.train.config import Config


def train(config: Config, run: Run) -> dict[str, Any]:
    """Make ``judged`` (fitted on train; every score is its) and ``shipped`` (refit at its rounds on all rows)."""
    best = run.input("search-collect", **run.item).read_json("best.json")
    family = families.load(best["family"])
    accepts = run.config["common"].accept_degraded
    needs_gpu = (
        config.gpu_enabled and best["family"] in families.ON_GPU and not (best["family"] == "catboost" and best["options"].get("monotone"))
    )
    if not accepts and needs_gpu and device.meant() and not families.can_use_gpu(best["family"]):
        raise NotNow("no GPU works here, and common.accept_degraded is false. Run again where one does, or accept a CPU.")
    rungs = families.rungs(best["family"], gpu=config.gpu_enabled, accept_degraded=accepts)
    rung = _with_room(config, run, best, _rung(run, best["rung"]) if accepts else best["rung"], rungs)

    def go_down() -> None:
        if rung + 1 < rungs:
            run.store.replace(_place(run), artifact.seal(_place(run), {"rung": rung + 1}))

    try:
        with memory.watched(go_down, run.folder):
            judged, shipped, valid_rows = _fit(config, run, best, rung)
    except OutOfMemory:
        go_down()
        raise
    suffix = Path(family.FILE).suffix
    family.save(judged.model, run.out / f"judged{suffix}")
    family.save(shipped.model, run.out / f"shipped{suffix}")
    scores = metrics.scores(valid_rows.y, family.predict(judged.model, valid_rows.X))
    model = {"family": best["family"], "params": best["params"], "metric": best["metric"], "rounds": judged.rounds, "valid": scores}
    (run.out / "model.json").write_bytes(contract.dump(model))
    run.device = judged.device
    if on_gpu := [fitted.gpu_memory for fitted in (judged, shipped) if fitted.gpu_memory is not None]:
        run.measured["gpu_memory_mb"] = round(max(on_gpu) / 1e6, 1)
    run.degraded += families.fallback(rung)
    if needs_gpu and judged.device == "cpu" and device.meant() and "CPU for GPU" not in run.degraded:
        run.degraded.append("CPU for GPU")
    log.info(
        "train.fitted", family=best["family"], rounds=judged.rounds, **{f"valid_{name}": round(value, 6) for name, value in scores.items()}
    )
    return {"rounds": judged.rounds, **{f"valid_{name}": scores[name] for name in metrics.METRICS}}


def _fit(config: Config, run: Run, best: dict[str, Any], rung: int) -> tuple[families.Fitted, families.Fitted, Table]:
    """Fit both models; give them and valid's rows."""
    tables = _tables(run)
    train_rows, valid_rows, *_ = tables
    common = {
        "early_stopping_rounds": config.early_stopping_rounds,
        "seed": config.seed,
        "metric": best["metric"],
        "threads": run.threads,
        "gpu": config.gpu_enabled,
        **families.LADDER[rung],
        **best["options"],
    }

    def fitted(name: str, rows: Table, valid: Table | None, rounds: int) -> families.Fitted:
        # With other bins it is another fit.
        with run.checkpoint(f"train/{run.address}/{name}" + (f"-{rung}" if rung else "")) as saved:
            return families.fit(
                best["family"],
                best["params"],
                rows,
                valid,
                rounds=rounds,
                checkpoint=saved,
                report=lambda done, _score: run.progress(done, rounds),
                **common,
            )

    judged = fitted("judged", train_rows, valid_rows, config.rounds)
    everything = together(*tables)
    del tables, train_rows  # and what the library made of them: it need not lie in memory beside the second fit
    return judged, fitted("shipped", everything, None, judged.rounds), valid_rows


def _with_room(config: Config, run: Run, best: dict[str, Any], rung: int, rungs: int) -> int:
    """Give the first rung of the memory ladder, from one on, at which there is room for both fits.

    Raises:
        ConfigError: there is none.
        NotNow: others hold the memory.

    """
    sizes, name = need.Sizes.of(run.input("prepare")), best["family"]
    gpu = config.gpu_enabled and families.can_use_gpu(name)
    fits = need.Fits(name, sizes, balanced=best["options"].get("balanced", False), shipped=True, gpu=gpu)
    found, why = need.first_rung(fits, best["params"], rung, rungs)
    if found is None:
        raise need.refused(fits, best["params"], rungs, why)
    if found > rung:
        log.warning("train.no_room", why=why, next=families.LADDER[found])
    run.measured["estimated_memory_mb"] = round(fits.need(best["params"], found) / 1e6, 1)
    if fits.is_on_gpu(found):
        run.measured["estimated_gpu_memory_mb"] = round(fits.need_of_gpu(best["params"], found) / 1e6, 1)
    return found


def _place(run: Run) -> str:
    return f"scratch/train/{run.address}/rung"


def _rung(run: Run, least: int) -> int:
    """Give the rung of the memory ladder that the last attempt left, or that the search came to."""
    left = artifact.unsealed(run.store, _place(run))
    return max(least, left["rung"]) if left else least


def _tables(run: Run) -> list[Table]:
    prepared = run.input("prepare")
    fitted = features.Features.from_json(prepared.read_json("features.json"))
    return [features.read(prepared.path(f"{split}.parquet"), fitted) for split in ("train", "valid", "calibration", "test")]


def together(*tables: Table) -> Table:
    """Put tables of the same columns under each other."""
    matrix = pd.concat([table.X for table in tables], ignore_index=True)
    return Table(matrix, *(_stacked([getattr(table, name) for table in tables]) for name in ("y", "row", "time", "entity")))


def _stacked(parts: list[Any]) -> Any:
    return None if parts[0] is None else np.concatenate(parts)
