"""The protocol's datatypes and shapes: widths, format codes, limits, and their error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Datatype -> format code of one element, of `struct` and of `memoryview`. BF16 has none: it is
# widened to float32. BYTES has no fixed width.
FORMATS: dict[str, str] = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
# Datatype -> little-endian NumPy dtype.
DTYPES: dict[str, str] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
ITEM_SIZES: dict[str, int] = {
    **dict.fromkeys(("BOOL", "UINT8", "INT8"), 1),
    **dict.fromkeys(("UINT16", "INT16", "FP16", "BF16"), 2),
    **dict.fromkeys(("UINT32", "INT32", "FP32"), 4),
    **dict.fromkeys(("UINT64", "INT64", "FP64"), 8),
}
DATATYPES = (*DTYPES, "BF16", "BYTES")
MAX_RANK = 32
MAX_ELEMENTS = 2**48


class TensorError(ValueError):
    """Data does not fit its datatype or shape.

    `expected` and `received` are texts for the client.
    """

    def __init__(self, expected: str, received: str) -> None:
        super().__init__(f"expected {expected}, received {received}")
        self.expected = expected
        self.received = received


def element_count(shape: Sequence[int]) -> int:
    """Return the number of elements of a shape; 1 for the scalar shape [].

    Raises:
        TensorError: more than 32 dimensions, a negative one, or a product of the non-zero ones over
            2**48.
    """
    if len(shape) > MAX_RANK:
        raise TensorError(f"a shape of at most {MAX_RANK} dimensions", f"{len(shape)} dimensions")
    count = math.prod(shape)
    size = count or math.prod(filter(None, shape))
    if size < 0 or size > MAX_ELEMENTS or any(dim < 0 for dim in shape):
        raise TensorError(
            "a shape of non-negative dimensions that can be held in memory", brief(list(shape))
        )
    return count


def reshape_array(array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Return the array in `shape`.

    Raises:
        TensorError: it has another number of elements.
    """
    if array.size != element_count(shape):
        raise TensorError(
            f"{element_count(shape)} elements for shape {list(shape)}", str(array.size)
        )
    return array.reshape(tuple(shape))


def item_size(datatype: str) -> int:
    """Return the bytes of one element.

    Raises:
        TensorError: the datatype is BYTES or unknown.
    """
    try:
        return ITEM_SIZES[datatype]
    except KeyError:
        raise TensorError(f"a datatype of {', '.join(ITEM_SIZES)}", repr(datatype)) from None


def get_dtype(datatype: str) -> str:
    """Return the NumPy dtype of a datatype with a fixed width; float32 for BF16.

    Raises:
        TensorError: the datatype is BYTES or unknown.
    """
    if datatype == "BF16":
        return "<f4"
    try:
        return DTYPES[datatype]
    except KeyError:
        raise TensorError(f"a datatype of {', '.join(DATATYPES)}", repr(datatype)) from None


def brief(value: Any, limit: int = 80, depth: int = 4) -> str:
    """Return `repr` of a value, shortened to `limit` characters without formatting all of it."""
    if isinstance(value, (list, tuple)):
        if not depth:
            return "[...]"
        parts = ", ".join(brief(item, 20, depth - 1) for item in value[:8])
        text = f"[{parts}]" if len(value) <= 8 else f"[{parts}, ...] ({len(value)} elements)"
    elif isinstance(value, dict):
        parts = ", ".join(
            f"{brief(key, 20)}: {brief(value[key], 20, depth - 1)}"
            for key in list(value)[:8]
            if depth
        )
        text = (
            f"{{{parts}}}" if len(value) <= 8 and depth else f"{{{parts}...}} ({len(value)} keys)"
        )
    elif isinstance(value, (str, bytes)) and len(value) > limit:
        text = repr(value[:limit]) + "..."
    else:
        text = repr(value)
    return text if len(text) <= 2 * limit else text[: 2 * limit] + "..."
