"""Large JSON requests: numbers go from the text straight into arrays, without a Python object for each. Pure.

Only what is certain is read here: any doubt (another type than plain numbers, ragged rows, a number out of range, a key
that comes twice) gives None, and `wire.json` reads the body from the start and says what is wrong. So both ways give the
same requests and the same errors.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from ..tensor import DTYPES
from ..types import TensorData

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Bytes of a body from which this is faster than making lists.
MIN_BYTES = 64 * 1024
# Rows shorter than this cost more to look at one by one than a list of them.
_WIDE = 8
_NUMBERS = frozenset(DTYPES) - {"BOOL"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class FallBack(Exception):
    """What is not certain is left to `wire.json`."""


def read_document(body: bytes | memoryview) -> dict[str, Any] | None:
    """The parsed body, in which the data of large tensors of numbers is `TensorData`; None = it is not read here."""
    try:
        import simdjson
    except ImportError:
        return None
    try:
        return _document(simdjson, bytes(body))
    except (FallBack, ValueError, TypeError, KeyError, RuntimeError, RecursionError):
        return None


def _document(simdjson: Any, body: bytes) -> dict[str, Any]:
    if body.startswith(_BYTE_ORDER_MARK):
        raise FallBack
    parsed = simdjson.Parser().parse(body)
    document = _fields(simdjson, parsed, "inputs")
    found, brackets = [], 1
    for item in document["inputs"]:
        tensor = _fields(simdjson, item, "data")
        lists = _fill(simdjson, tensor)
        found.append(tensor)
        brackets += lists
    document["inputs"] = found
    # Every list that was looked at is counted: no other bracket means that no row hides another list.
    if _count(body, b"[") != brackets:
        raise FallBack
    return document


def _count(body: bytes, character: bytes) -> int:
    """`body.count(character)`, four times as fast where there are millions of them to look at."""
    import numpy as np

    return int(np.count_nonzero(np.frombuffer(body, dtype=np.uint8) == character[0]))


def _fields(simdjson: Any, item: Any, kept: str) -> dict[str, Any]:
    """An object's fields as Python values, but for `kept`, which stays as the parser has it."""
    if not isinstance(item, simdjson.Object):
        raise FallBack
    names = list(item.keys())
    if kept not in names or len(set(names)) != len(names):
        raise FallBack
    if not isinstance(item[kept], simdjson.Array):
        raise FallBack
    return {name: item[name] if name == kept else _plain(simdjson, item[name]) for name in names}


def _plain(simdjson: Any, value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def _fill(simdjson: Any, tensor: dict[str, Any]) -> int:
    """Replace the data of a tensor. Returns how many lists the tensor has, its shape included."""
    data, shape, datatype = tensor["data"], tensor["shape"], tensor["datatype"]
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise FallBack
    nested = len(data) > 0 and isinstance(data[0], simdjson.Array)
    if datatype not in _NUMBERS or (len(data) < _WIDE and not nested):
        tensor["data"] = data.as_list()
        return 2
    rows = _rows(simdjson, data) if nested else 0
    array = _array(data, datatype)
    if array.size != prod(shape):
        raise FallBack
    tensor["data"] = TensorData.from_trusted_raw(array.data.cast("B"), datatype, shape)
    return 2 + rows


def _rows(simdjson: Any, data: Any) -> int:
    """How many rows nested data has, all of one length."""
    width = len(data[0])
    if width < _WIDE:
        raise FallBack
    for row in data:
        if not isinstance(row, simdjson.Array) or len(row) != width:
            raise FallBack
    return len(data)


def _array(data: Any, datatype: str) -> NDArray[Any]:
    """The numbers of a list, in the datatype's dtype."""
    import numpy as np

    dtype = np.dtype(DTYPES[datatype])
    code = "d" if dtype.kind == "f" else ("u" if datatype == "UINT64" else "i")
    wide = np.frombuffer(data.as_buffer(of_type=code), {"d": "<f8", "u": "<u8", "i": "<i8"}[code])
    if wide.dtype == dtype:
        return wide
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            narrow = wide.astype(dtype)
        if np.isinf(narrow).any():
            raise FallBack
        return narrow
    limits = np.iinfo(dtype)
    if int(wide.min()) < limits.min or int(wide.max()) > limits.max:
        raise FallBack
    return wide.astype(dtype)
