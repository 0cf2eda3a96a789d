"""A table as the trees know it: one matrix of numbers, in which a category is its number."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def coded(X: pd.DataFrame) -> NDArray[np.float32]:  # noqa: N803 - the field's name for it
    """Give rows x columns; what is missing is NaN. A number that float32 cannot hold is infinite, and goes where all large ones go."""
    is_category = categories(X)
    matrix = np.empty(X.shape, dtype=np.float32)
    with np.errstate(over="ignore"):
        matrix[:, np.logical_not(is_category)] = X.loc[:, np.logical_not(is_category)].to_numpy("float32")
    for place, name in enumerate(X.columns):
        if is_category[place]:
            codes = X[name].cat.codes
            matrix[:, place] = np.where(codes < 0, np.nan, codes)
    return matrix


def categories(X: pd.DataFrame) -> list[bool]:  # noqa: N803
    """Tell of each column whether it holds categories."""
    return [isinstance(dtype, pd.CategoricalDtype) for dtype in X.dtypes]


def has_unseen(train: pd.DataFrame, valid: pd.DataFrame) -> bool:
    """Tell whether valid has a category that comes after all that train has: XGBoost bins it as the last one of those."""
    columns = [column for column, is_category in zip(train.columns, categories(train), strict=True) if is_category]
    return any(valid[column].cat.codes.max() > train[column].cat.codes.max() for column in columns)
