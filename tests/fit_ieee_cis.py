"""Fit the numbers of stages/prepare/ieee_cis.json to counts that others published: ``python tests/fit_ieee_cis.py``.

Reads ../shared/ieee-cis beside the checkout (counts and rates alone; there are no rows). The generator needs only the result.
"""

import csv
import json
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "ieee-cis"
TARGET = ROOT / "stages" / "prepare" / "ieee_cis.json"
ROWS = 590_540
SOURCE = {
    "products": "category_counts.json (rows); ieee-cis.md section 4 (fraud, identity)",
    "cards": "card1..6_count_fraud_rate.csv: [value, rows, fraud rate]; of card1 the first 150, and its counts by rank at knots",
    "addr1": "group_size_counts.json: sizes by rank",
    "categories": "category_counts.json: [name, rows], commonest first; DeviceInfo and id_33 cut, the rest of their rows in 'others'",
    "missing": "missing_percent.csv: % of all rows",
    "v": "blocks from missing_percent.csv, groups from column_groups_v.json, AUC early and late from time_consistency.csv, "
    "AUC within product W from segment.csv, share of the first component from dimensionality.csv; "
    "the shape of the counts is chosen, see V_SHAPES",
}
# Our choice, after what ieee-cis.md says of V (56 % zero, 38 % one): first and last column, spans of the shares of zero and one,
# slope of the tail. Sums of money are hardly ever one, and mostly zero.
V_SHAPES = (
    (1, 11, (0.0, 0.06), (0.86, 0.97), 3.0), (12, 34, (0.42, 0.62), (0.38, 0.58), 3.5), (35, 52, (0.40, 0.60), (0.40, 0.60), 3.5),
    (53, 74, (0.40, 0.60), (0.40, 0.60), 3.5), (75, 94, (0.42, 0.63), (0.37, 0.58), 3.5), (95, 125, (0.49, 0.76), (0.26, 0.48), 1.2),
    (126, 137, (0.75, 0.95), (0.02, 0.1), 1.0), (138, 166, (0.7, 0.88), (0.1, 0.25), 1.4), (167, 216, (0.5, 0.8), (0.2, 0.45), 1.8),
    (217, 278, (0.05, 0.3), (0.68, 0.93), 1.6), (279, 321, (0.46, 0.72), (0.31, 0.54), 1.2), (322, 339, (0.7, 0.92), (0.04, 0.2), 1.2),
)  # fmt: skip
ZEROS_OF_MONEY, ONES_OF_MONEY = (0.75, 0.95), (0.02, 0.1)
ALWAYS_ONE = {1, 14, 41, 65, 88, 107, 305}
MONEY = ((126, 137), (159, 160), (165, 166), (202, 216), (263, 268), (270, 278), (306, 321))


def rows_of(name: str) -> list[dict[str, str]]:
    with (SHARED / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cards() -> dict[str, Any]:
    """Give every value of card2 to card6, and card1's first values and its counts by rank."""
    found: dict[str, Any] = {}
    for number in range(2, 7):
        name = f"card{number}"
        rows = [row for row in rows_of(f"{name}_count_fraud_rate.csv") if row["count"]]
        values: list[list[Any]] = [
            [float(row[name]) if number in {2, 3, 5} else row[name], int(row["count"]), round(float(row["mean"]), 4)] for row in rows
        ]
        missing = ROWS - sum(count for _, count, _ in values)
        found[name] = [*values, [None, missing, 0.035]]
    counts = rows_of("card1_count_fraud_rate.csv")
    found["card1"] = [[int(row["card1"]), int(row["count"]), round(float(row["mean"]), 4)] for row in counts[:150]]
    ranks = np.unique(np.r_[np.geomspace(150, len(counts) - 1, 60).astype(int), len(counts) - 1])
    found["card1_by_rank"] = [[int(rank), int(counts[rank]["count"])] for rank in ranks]
    return found


def categories() -> dict[str, Any]:
    counts = json.loads((SHARED / "category_counts.json").read_text(encoding="utf-8"))
    kept = {"DeviceInfo": 150, "id_33": 90}
    found: dict[str, Any] = {}
    for column, values in counts.items():
        if column in {"ProductCD", "card4", "card6"}:
            continue
        pairs = [[name, rows] for name, rows in values.items() if name != "missing"]
        cut = kept.get(column, len(pairs))
        found[column] = {"values": pairs[:cut], "others": [len(pairs) - cut, sum(rows for _, rows in pairs[cut:])]}
    return found


def vesta(missing: dict[str, float]) -> dict[str, Any]:
    """Describe V1 to V339 by what is missing together; a column is [number, block, group, zero, one, slope, early, late]."""
    rng = np.random.default_rng(5)
    groups = json.loads((SHARED / "column_groups_v.json").read_text(encoding="utf-8"))["blocks"]
    group_of = {name: (b, g) for b, block in enumerate(groups) for g, names in enumerate(block["groups"]) for name in names}
    names = [block["block"] for block in groups]
    first = {row["block"]: float(row["variance_first_component"]) for row in rows_of("dimensionality.csv")}
    within_w = {row["column"]: row["dominant_auc"] for row in rows_of("segment.csv")}
    stable = {row["feature"]: row for row in rows_of("time_consistency.csv")}
    by_share: dict[float, list[int]] = {}
    for number in range(1, 340):
        by_share.setdefault(missing[f"V{number}"], []).append(number)
    blocks = []
    for share, numbers in sorted(by_share.items(), key=lambda item: item[1]):
        columns = []
        for number in numbers:
            name = f"V{number}"
            _, _, zeros, ones, slope = next(shape for shape in V_SHAPES if shape[0] <= number <= shape[1])
            if any(low <= number <= high for low, high in MONEY):
                zeros, ones = ZEROS_OF_MONEY, ONES_OF_MONEY
            zero = rng.uniform(*zeros)
            one = min(rng.uniform(*ones), 0.995 - zero)
            if number in ALWAYS_ONE:
                zero, one = 0.0004, 0.9993
            early, late = (float(stable[name][side] or 0.5) for side in ("auc_train", "auc_holdout"))
            if within_w.get(name):  # the pooled AUC is product's doing
                middle = float(within_w[name])
                early, late = middle + (early - late) / 4, middle - (early - late) / 4
            b, g = group_of.get(name, (names.index("V138-V163"), 99))
            columns.append([number, b, g, round(zero, 3), round(one, 3), slope, *(round(separation(auc), 2) for auc in (early, late))])
        blocks.append({"missing": share, "columns": columns})
    return {"blocks": blocks, "first_component": [round(first[name], 2) for name in names], "money": MONEY}


def separation(auc: float) -> float:
    """Give the distance of two normal distributions with this AUC, in standard deviations."""
    return 2**0.5 * NormalDist().inv_cdf(auc)


def main() -> None:
    missing = {row["column"]: round(float(row["missing_pct"]), 4) for row in rows_of("missing_percent.csv")}
    counts = json.loads((SHARED / "category_counts.json").read_text(encoding="utf-8"))["ProductCD"]
    fraud = {"W": 0.021, "C": 0.113, "R": 0.032, "H": 0.046, "S": 0.082}
    identity = {"W": 0.0, "C": 0.90, "R": 0.998, "H": 0.994, "S": 1.0}
    sizes = json.loads((SHARED / "group_size_counts.json").read_text(encoding="utf-8"))["addr1"]
    document = {
        "source": SOURCE,
        "rows": ROWS,
        "products": {name: [counts[name], fraud[name], identity[name]] for name in counts},
        "cards": cards(),
        "addr1": [size for size in sizes if size < 65_706],  # the largest is the missing one
        "categories": categories(),
        "missing": {column: share for column, share in missing.items() if share and not column.startswith("V")},
        "v": vesta(missing),
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in document.items()]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{TARGET}: {TARGET.stat().st_size:,} B")  # noqa: T201


if __name__ == "__main__":
    main()
