"""Judge the candidates on valid, the winner alone on test, and name columns that give the label away."""

import functools
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages import families
from stages.common import contract, log
from stages.common.artifact import Artifact
from stages.common.errors import ConfigError
from stages.common.step import Run
from stages.evaluate import calibration, certainty, champion, explain, meter, outside, threshold
from stages.evaluate.calibration import Scored
from stages.evaluate.config import Config
from stages.families import logistic, metrics
from stages.features import features as feature
from stages.features.features import Features, Table

HIGH_AUC = 0.9  # below it, no column carries too much
SHUFFLED_COLUMNS = 40  # those with most gain: what the model hardly uses carries nothing
SHUFFLED_ROWS = 20_000  # of valid, at most, for the short list of suspicious columns
REFIT_ROWS = 50_000  # of train, at most: enough to see a column missing
REFITS = 3  # by other seeds, whose mean counts: one fit's luck must not name a column
SPLITS = ("train", "valid", "calibration", "test")


@dataclass(frozen=True)
class Candidate:
    """One family's judged model, and what it was fitted with."""

    family: ModuleType
    model: Any
    settings: dict[str, Any]  # model.json

    def probability(self, table: Table) -> NDArray[np.floating]:
        """Give each row's probability of the positive label."""
        found: NDArray[np.floating] = self.family.predict(self.model, table.X)
        return found


def evaluate(config: Config, run: Run) -> dict[str, Any]:
    """Score all candidates and the baseline on valid, choose there, and score the winner on test.

    Calibration and threshold are of rows that nothing else uses. The champion is beaten, or not, on rows that neither has seen.
    """
    features, tables = _tables(run.input("prepare"))
    train, valid, test = tables["train"], tables["valid"], tables["test"]
    if unknown := [name for name in config.slices if name not in features.names]:
        raise ConfigError(f"evaluate.slices names {unknown[0]!r}, which is no feature. Features: {', '.join(features.names[:40])}.")
    names = sorted(item["family"] for item in run.items("train"))
    run.degraded += [f"no model of {item['family']}" for item in run.config.items("train") if item["family"] not in names]
    candidates = {name: _candidate(name, run.input("train", family=name)) for name in names}
    scores = {name: metrics.scores(valid.y, candidate.probability(valid)) for name, candidate in candidates.items()}
    plain = logistic.regress(train, seed=config.seed)
    baseline = logistic.predict(plain, test.X)
    metric = candidates[names[0]].settings["metric"]  # as searched and trained by
    winner = max(names, key=lambda name: _sign(metric) * scores[name][metric])
    best = candidates[winner]
    scored = {split: Scored(tables[split], best.probability(tables[split])) for split in SPLITS[1:]}
    probability = scored["test"].probability
    test_scores = metrics.scores(test.y, probability)
    split = run.input("prepare").read_json("data.json")["split"]
    suspicious = suspicious_columns(best, features, train, valid, config, run)
    evaluation = {
        "metric": metric,
        "winner": winner,
        "valid": scores,
        "baseline": {"logistic": metrics.scores(valid.y, logistic.predict(plain, valid.X))},
        "test": test_scores,
        "baseline_test": {"logistic": metrics.scores(test.y, baseline)},
        "curves": {winner: metrics.curves(test.y, probability), "logistic": metrics.curves(test.y, baseline)},
        "intervals": certainty.intervals(test.y, probability, test.entity, config.seed),
        "slices": certainty.slices(train, test, probability, config.slices),
        "suspicious": suspicious,
        "leaks": meter.measure(meter.Fits(config.seed, run.threads), train, valid, test, split),
        "calibration": calibration.calibrate(scored["calibration"], scored["test"]),
        "threshold": threshold.decide(config, features, scored, train, split),
        "champion": champion.compare(config, run, features, scored["test"], metric),
        "outside": outside.judge(config, run, scored, metric),
        **explain.explain(best.family, best.model, best.settings["rounds"], scored["test"], config.seed),
    }
    (run.out / "evaluation.json").write_bytes(contract.dump(evaluation))
    log.info("evaluate.scored", winner=winner, **{f"test_{name}": round(value, 6) for name, value in test_scores.items()})
    named = [found["column"] for found in suspicious]
    return {"winner": winner, **test_scores, "suspicious": named, "champion": evaluation["champion"]["answer"]}


def _tables(prepared: Artifact) -> tuple[Features, dict[str, Table]]:
    features = Features.from_json(prepared.read_json("features.json"))
    return features, {split: feature.read(prepared.path(f"{split}.parquet"), features) for split in SPLITS}


def _candidate(name: str, trained: Artifact) -> Candidate:
    family = families.load(name)
    judged = next(file for file in trained.manifest.files if file.startswith("judged."))
    return Candidate(family, family.load(trained.path(judged)), trained.read_json("model.json"))


def _sign(metric: str) -> int:
    return -1 if metric == "log_loss" else 1


# --- columns that give the label away --------------------------------------------------------------


def suspicious_columns(best: Candidate, features: Features, train: Table, valid: Table, config: Config, run: Run) -> list[dict[str, Any]]:
    """Name each raw column without which valid AUC falls by more than ``config.suspicious_drop`` from above .9.

    A model fitted without a column is at least as good as one that is given it shuffled, so shuffling makes the short list.
    Names play no part in it.
    """
    parts: dict[str, list[str]] = {}  # per raw column the features made from it: a time is hour and weekday
    for column in features.columns:
        for raw in column.sources:
            parts.setdefault(raw, []).append(column.name)
    listed = _short_list(best, parts, valid, config)
    if not listed:
        return []
    some = np.sort(_some(train.y, REFIT_ROWS, np.random.default_rng(config.seed)))
    learn = meter.taken((train,), some) if len(some) < len(train.y) else train
    refit = functools.cache(lambda names, fit: _auc_without(names, learn, valid, meter.Fits(config.seed + fit, run.threads)))
    found = []
    for done, raw in enumerate(listed):
        run.progress(done, len(listed))
        for count in range(1, REFITS + 1):
            whole, rest = (float(np.mean([refit(names, fit) for fit in range(count)])) for names in ((), tuple(parts[raw])))
            if whole - rest <= config.suspicious_drop:
                break
        else:
            log.warning("evaluate.suspicious", column=raw, auc=round(whole, 4), auc_without=round(rest, 4))
            found.append({"column": raw, "auc": whole, "auc_without": rest})
    return found


def _short_list(best: Candidate, parts: dict[str, list[str]], valid: Table, config: Config) -> list[str]:
    """Columns whose shuffling costs more AUC than a column may carry."""
    rng = np.random.default_rng(config.seed)
    rows = _some(valid.y, SHUFFLED_ROWS, rng)
    shuffled = rng.permutation(rows)  # the same for all columns: their order plays no part
    matrix, label = valid.X.iloc[rows].reset_index(drop=True), valid.y[rows]
    other = valid.X.iloc[shuffled].reset_index(drop=True)
    auc = metrics.score("auc", label, best.family.predict(best.model, matrix))
    if auc <= HIGH_AUC:
        return []
    gains = best.family.importance(best.model)
    gain = {raw: sum(gains.get(name, 0.0) for name in names) for raw, names in parts.items()}
    most = sorted((raw for raw in parts if gain[raw] > 0), key=lambda raw: (-gain[raw], raw))[:SHUFFLED_COLUMNS]
    drops = {}
    for raw, names in ((raw, parts[raw]) for raw in parts if raw in most):
        spoiled = matrix.assign(**{name: other[name] for name in names})
        drops[raw] = auc - metrics.score("auc", label, best.family.predict(best.model, spoiled))
    return [raw for raw, drop in drops.items() if drop > config.suspicious_drop]


def _some(label: NDArray[np.int8], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Choose at most so many rows at random, half of them of the rarer label where there are as many: it tells the most."""
    rows = rng.permutation(len(label))
    if len(rows) <= most:
        return rows
    rarer = label[rows] == (label.mean() <= 0.5)
    rare = rows[rarer][: most // 2]
    return rng.permutation(np.concatenate([rare, rows[~rarer][: most - len(rare)]]))


def _auc_without(names: tuple[str, ...], train: Table, valid: Table, fits: meter.Fits) -> float:
    """Fit anew without some columns; give AUC on valid."""
    if len(names) == train.X.shape[1]:
        return 0.5
    learn, other = (replace(table, X=table.X.drop(columns=[*names])) for table in (train, valid))
    return fits.auc(learn, other, meter.ROUNDS)
