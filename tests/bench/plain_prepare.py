"""The same work as prepare on IEEE-CIS, as a plain pandas script: no checks, no store, no bound on memory.

python tests/bench/plain_prepare.py FOLDER OUT
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

DAY = 86_400
STARTS = ["D1", "D2", "D4", "D10", "D11", "D15"]
KEYS = {"client": ["card1", "addr1", "D1"], "card": ["card1"], "email": ["P_emaildomain", "addr1"]}
NAMED = ["card1", "addr1", "P_emaildomain"]
MOST = 256  # values of a category


def main(folder: Path, out: Path) -> None:
    """Read, join, make features, write three splits."""
    table, part = whole(folder)
    for number, name in enumerate(("train", "valid", "test")):
        table[part == number].to_parquet(out / f"{name}.parquet", compression="zstd")
    sys.stdout.write(f"{table.shape}\n")


def whole(folder: Path) -> tuple[pd.DataFrame, Any]:
    """Read, join and make features; give the table with its label and time, and each row's split."""
    table = pd.read_csv(folder / "train_transaction.csv")
    other = pd.read_csv(folder / "train_identity.csv")
    table = table.merge(other, on="TransactionID", how="left", indicator="joined")
    table["joined"] = (table["joined"] == "both").astype("float32")
    part = np.searchsorted(np.quantile(table["TransactionDT"], [0.7, 0.8]), table["TransactionDT"])
    made = pd.DataFrame(rows(table, part == 0) | together(table, part == 0)).astype("float32")
    beside = table[["isFraud", "TransactionDT"]]
    table = typed(table.drop(columns=["TransactionID", "isFraud", "TransactionDT"]), part == 0)
    return pd.concat([table, made, beside], axis=1), part


def rows(table: pd.DataFrame, train: Any) -> dict[str, Any]:
    """Give what is made of a row alone, or of how often its values stand in train."""
    time = table["TransactionDT"]
    made: dict[Any, Any] = {"hour": time // 3600 % 24, "weekday": time // DAY % 7}
    made["cents"] = (table["TransactionAmt"] * 1000).round() % 1000
    made |= {f"{name}_start": time // DAY - table[name] for name in STARTS}
    for name, values in table.items():
        if name in NAMED or (values.dtype == "str" and values[train].nunique() > MOST):
            made[f"{name}_frequency"] = values.map(values[train].value_counts()).fillna(0)
    return made


def together(table: pd.DataFrame, train: Any) -> dict[str, Any]:
    """Give what is missing together, and what each entity did before."""
    made: dict[Any, Any] = {}
    patterns: dict[bytes, list[str]] = {}
    for name, values in table.items():
        gaps = values.isna().to_numpy()
        if gaps[train].any():
            patterns.setdefault(np.packbits(gaps[train]).tobytes(), []).append(str(name))
    for names in patterns.values():
        if len(names) > 1:
            made[f"{names[0]}_missing"] = table[names[0]].isna()
    for key, columns in KEYS.items():
        made |= {f"{key}_{of}": values for of, values in past(table, columns).items()}
    return made


def typed(table: pd.DataFrame, train: Any) -> pd.DataFrame:
    """Give numbers as float32 and text as categories."""
    for name in map(str, table.columns):
        if table[name].dtype == "str":
            kept = table.loc[train, name].value_counts().index[:MOST]
            table[name] = pd.Categorical.from_codes(kept.get_indexer(table[name]), kept)
        else:
            table[name] = table[name].astype("float32")
    return table


def past(table: pd.DataFrame, columns: list[str]) -> dict[str, Any]:
    """Give what each entity did before, and which of its labels were known 30 days later."""
    time, label = table["TransactionDT"], table["isFraud"]
    key = pd.DataFrame({name: time // DAY - table[name] if name in STARTS else table[name] for name in columns})
    entity = key.groupby(columns, sort=False).ngroup()
    entity = entity.where(key.notna().all(axis=1), -1)
    rows = pd.DataFrame({"entity": entity, "time": time, "amount": table["TransactionAmt"], "label": label})
    groups = rows.groupby("entity", sort=False)
    count = groups.cumcount()
    total = groups["amount"].cumsum() - rows["amount"]
    squares = (rows["amount"] ** 2).groupby(entity, sort=False).cumsum() - rows["amount"] ** 2
    mean = total / count.where(count > 0)
    spread = ((squares / count.where(count > 0) - mean**2).clip(lower=0) ** 0.5).where(count > 1)
    known = rows.assign(known=groups.cumcount() + 1, positives=groups["label"].cumsum(), time=time + 30 * DAY)
    when = rows[["entity", "time"]]
    then = pd.merge_asof(when, known[["entity", "time", "known", "positives"]], on="time", by="entity")
    found = {"count": count, "since": groups["time"].diff() / DAY, "mean": mean, "spread": spread, "ratio": rows["amount"] / mean}
    found |= {"known": then["known"].fillna(0), "rate": then["positives"] / then["known"]}
    return {name: values.where(entity >= 0) for name, values in found.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
