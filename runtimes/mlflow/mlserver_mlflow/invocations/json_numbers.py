"""Arrays of numbers as the JSON text that MLflow writes, byte for byte, without a Python object per number where possible."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL = 64
# Between these magnitudes Python and orjson print a double with the same digits and without an exponent.
LOWEST, HIGHEST = 1e-4, 1e16


def numbers(array: NDArray[Any]) -> str:
    """Numbers or booleans of any shape; NaN and infinities as the literals that MLflow writes."""
    if array.size <= SMALL or not _prints_alike(array):
        return json.dumps(array.tolist())
    import numpy as np
    import orjson

    wide = array.astype("f8") if array.dtype.kind == "f" else array
    text = orjson.dumps(np.ascontiguousarray(wide), option=orjson.OPT_SERIALIZE_NUMPY)
    return text.replace(b",", b", ").decode("ascii")


def _prints_alike(array: NDArray[Any]) -> bool:
    if array.dtype.kind in "biu":
        return True
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        return False
    import numpy as np

    magnitudes = np.abs(array.astype("f8"))
    # Every comparison with NaN is false, so NaN fails here too.
    return bool(np.all((magnitudes == 0) | ((magnitudes >= LOWEST) & (magnitudes < HIGHEST))))
