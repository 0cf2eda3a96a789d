"""Leave out number columns that say again what another one says: the label plays no part in it."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.features.features import Found

ROWS = 20_000  # of train, at most


def ranks(values: pd.DataFrame, found: list[Found]) -> dict[str, NDArray[np.float32]]:
    """Give the standardised ranks of those columns that stand beside others: numbers that are missing together, or never."""
    made = {}
    for one in found:
        if one.column and one.column.dtype != "category":
            ranked = values[one.column.name].rank()
            centred = (ranked - ranked.mean()).fillna(0).to_numpy("float32")
            size = float(np.sqrt((centred.astype(np.float64) ** 2).sum()))
            made[one.raw] = centred / np.float32(size or 1)
    return made


def repeated(found: list[Found], ranked: dict[str, NDArray[np.float32]], limit: float) -> dict[str, str]:
    """Name columns to leave out, with the reason; of two alike, the one with fewer values goes.

    Deotte's way with the V columns of IEEE-CIS: by groups that are missing together, and correlation within them.
    """
    groups: dict[str, list[str]] = {}
    for one in found:
        if one.raw in ranked:
            groups.setdefault(one.gaps, []).append(one.raw)
    gone: dict[str, str] = {}
    for raws in groups.values():
        kept: list[str] = []
        for raw in sorted(raws, key=lambda raw: -len(np.unique(ranked[raw]))):
            alike = [(abs(float((ranked[raw] * ranked[other]).sum(dtype=np.float64))), other) for other in kept]
            correlation, other = max(alike, default=(0.0, ""))
            if correlation > limit:
                gone[raw] = f"follows {other} with a rank correlation of {correlation:.3f}, and is missing where that is"
            else:
                kept.append(raw)
    return gone
