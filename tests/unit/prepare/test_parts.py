"""In parts as in one piece: how much is in memory at a time changes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stages.prepare import ieee_cis, raw, read
from stages.prepare.config import GENERATED

Prepare = Callable[..., Any]
ROLES = {"label": "is_fraud", "time": "time", "id": "transaction", "entity": "customer", "keys": {"device": ["device"]}}


def small(monkeypatch: pytest.MonkeyPatch, block: int, columns: int) -> None:
    """Let few bytes be parsed, and few columns be in memory at a time."""
    monkeypatch.setattr(read, "BLOCK", block)
    for module in (raw, read):
        monkeypatch.setattr(module, "MOST", columns)


@pytest.mark.parametrize("as_parquet", [False, True], ids=["csv", "parquet"])
def test_a_table_in_many_parts_gives_the_same_bytes(
    prepare: Prepare, payments: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, as_parquet: bool
) -> None:
    path = tmp_path / "table"
    payments.to_parquet(path, row_group_size=700) if as_parquet else payments.to_csv(path, index=False)
    whole = prepare(path, **ROLES)
    small(monkeypatch, 4_000, 2)

    assert prepare(path, **ROLES).files == whole.files


@pytest.mark.slow
def test_half_a_million_rows_in_many_parts_give_the_same_bytes(prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ieee_cis.write(500_000, 0, tmp_path)
    options = {**GENERATED["ieee-cis"], "join_path": str(tmp_path / "train_identity.csv")}
    small(monkeypatch, 1 << 30, 10_000)
    monkeypatch.setattr(raw, "GROUP", 1 << 40)
    whole = prepare(tmp_path / "train_transaction.csv", **options)
    small(monkeypatch, 1 << 20, 7)

    assert prepare(tmp_path / "train_transaction.csv", **options).files == whole.files
