"""Equality of predictions, bit for bit: whole results, and one row of a joint result. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def is_same_result(left: Any, right: Any) -> bool:
    """Whether two results are equal in type, dtype, shape and every bit."""
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray):
        return is_same_array(left, right)
    if isinstance(left, dict):
        if left.keys() != right.keys():
            return False
        return all(is_same_result(left[key], right[key]) for key in left)
    if isinstance(left, pd.DataFrame | pd.Series):
        return bool(left.equals(right))
    return bool(left == right)


def is_same_array(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Whether two arrays are equal in dtype, shape and every bit; texts of any width by value."""
    if left.dtype.kind == "O":
        return left.shape == right.shape and bool(left.tolist() == right.tolist())
    if left.dtype.kind in "US":
        # The width of a text dtype is that of the longest element, which joining may change.
        return left.dtype.kind == right.dtype.kind and left.tolist() == right.tolist()
    is_same_layout = left.dtype == right.dtype and left.shape == right.shape
    return is_same_layout and left.tobytes() == right.tobytes()


def has_row(joint: Any, single: Any, index: int, count: int) -> bool:
    """Whether row `index` of a joint result of `count` rows equals the result of one row."""
    if type(joint) is not type(single):
        return False
    if isinstance(joint, dict):
        if joint.keys() != single.keys():
            return False
        return all(has_row(joint[key], single[key], index, count) for key in joint)
    if isinstance(joint, np.ndarray):
        has_rows = joint.ndim and single.ndim and (len(joint), len(single)) == (count, 1)
        return bool(has_rows) and is_same_array(joint[index : index + 1], single)
    if isinstance(joint, pd.Series):
        return has_row(joint.to_numpy(), single.to_numpy(), index, count)
    if isinstance(joint, pd.DataFrame):
        if not joint.columns.is_unique or not joint.columns.equals(single.columns):
            return False
        return all(has_row(joint[name], single[name], index, count) for name in joint.columns)
    return False
