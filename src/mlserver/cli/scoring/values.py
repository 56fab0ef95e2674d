"""Range checks of single table values against a tensor datatype; errors are `ValueError`."""

from __future__ import annotations

import math
from typing import Any

_MAX_VALUES = {"FP16": 65504.0, "FP32": 3.4028234663852886e38}
_MAX_SHOWN_LENGTH = 40


def check_float(datatype: str, value: float) -> float:
    """Return a number that the floating-point datatype can hold; infinities and NaN are allowed."""
    max_value = _MAX_VALUES.get(datatype, math.inf)
    if math.isfinite(value) and abs(value) > max_value:
        raise ValueError(f"expected a number in the range of {datatype}, received {value!r}")
    return value


def check_integer(datatype: str, value: int) -> int:
    """Return an integer that the integer datatype can hold."""
    bits = int(datatype.removeprefix("U").removeprefix("INT"))
    low, high = (0, 2**bits) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    if not low <= value < high:
        raise ValueError(f"expected a number in the range of {datatype}, received {value}")
    return value


def wrong_type_error(expected: str, value: Any) -> ValueError:
    """Return the error for a value of the wrong type; None = the value is missing."""
    if value is None:
        return ValueError(f"expected {expected}, received no value")
    return ValueError(f"expected {expected}, received {str(value)[:_MAX_SHOWN_LENGTH]!r}")
