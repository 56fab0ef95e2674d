"""JSON text of numeric arrays, byte for byte as MLflow writes it.

orjson writes large arrays without a Python object per number.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SMALL_SIZE = 64  # elements; below this `json` is fast enough
# Magnitudes between which Python and orjson write a double with equal digits, without an exponent.
MIN_MAGNITUDE, MAX_MAGNITUDE = 1e-4, 1e16


def format_numbers(array: NDArray[Any]) -> str:
    """Return an array of numbers or booleans as JSON; NaN and infinities as Python's literals."""
    if array.size <= MAX_SMALL_SIZE or not _has_equal_text(array):
        return json.dumps(array.tolist())
    import numpy as np
    import orjson

    doubles = array.astype("f8") if array.dtype.kind == "f" else array
    text = orjson.dumps(np.ascontiguousarray(doubles), option=orjson.OPT_SERIALIZE_NUMPY)
    return text.replace(b",", b", ").decode("ascii")


def _has_equal_text(array: NDArray[Any]) -> bool:
    """Whether orjson and `json` write all elements as the same text."""
    if array.dtype.kind in "biu":
        return True
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        return False
    import numpy as np

    magnitudes = np.abs(array.astype("f8"))
    # NaN compares false, so an array with NaN is written by `json`.
    is_plain = (magnitudes >= MIN_MAGNITUDE) & (magnitudes < MAX_MAGNITUDE)
    return bool(np.all((magnitudes == 0) | is_plain))
