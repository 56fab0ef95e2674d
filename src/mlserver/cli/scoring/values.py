"""Single values of a table against the datatype they are to have; what does not fit is a `ValueError` for the user."""

from __future__ import annotations

import math
from typing import Any

_LARGEST = {"FP16": 65504.0, "FP32": 3.4028234663852886e38}


def number_for(datatype: str, value: float) -> float:
    """A number that a floating-point datatype holds; infinities and NaN are numbers."""
    largest = _LARGEST.get(datatype, math.inf)
    if math.isfinite(value) and abs(value) > largest:
        raise ValueError(f"expected a number in the range of {datatype}, received {value!r}")
    return value


def integer_for(datatype: str, value: int) -> int:
    """An integer that an integer datatype holds."""
    bits = int(datatype.removeprefix("U").removeprefix("INT"))
    low, high = (0, 2**bits) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    if not low <= value < high:
        raise ValueError(f"expected a number in the range of {datatype}, received {value}")
    return value


def refuse(expected: str, value: Any) -> ValueError:
    """The error for a value that is of another kind."""
    return ValueError(
        f"expected {expected}, received {str(value)[:40]!r}"
        if value is not None
        else f"expected {expected}"
    )
