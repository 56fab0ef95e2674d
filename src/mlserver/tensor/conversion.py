"""From one face of a tensor to another: lists, raw bytes and arrays, with the checks that each way needs.

NumPy is imported on first use, so that importing the types costs nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .bytes_elements import flat_elements, is_nested, join_bytes_block, split_bytes_block
from .datatypes import DTYPES, FORMATS, TensorError, brief, element_count, get_dtype, reshape_array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# -- to bytes --

PACK_ELEMENT = {
    name: struct.Struct(f"<{code}").pack for name, code in FORMATS.items() if code != "?"
}


def elements_to_raw(root: Any, datatype: str, shape: Sequence[int]) -> memoryview | bytes:
    """JSON values -> raw bytes. What `struct` takes as it is (the common case) never meets NumPy."""
    code = FORMATS.get(datatype)
    if code is not None and code != "?" and type(root) is list:
        count = element_count(shape)
        if len(root) == count:
            try:
                return struct.pack(f"<{count}{code}", *root)
            except OverflowError:
                raise TensorError(f"numbers in the range of {datatype}", brief(root)) from None
            except struct.error:
                pass  # nested lists, null, text, fractions for an integer: NumPy says what they mean
    return array_to_raw(elements_to_array(root, datatype, shape), datatype, shape)


def array_to_raw(array: NDArray[Any], datatype: str, shape: Sequence[int]) -> memoryview | bytes:
    import numpy as np

    if datatype == "BYTES":
        return join_bytes_block(flat_elements(array, shape))
    if array.size != element_count(shape):
        raise TensorError(
            f"{element_count(shape)} elements for shape {list(shape)}", str(array.size)
        )
    if datatype == "BF16":
        return (array.astype("<f4").reshape(-1).view("<u4") >> 16).astype("<u2").tobytes()
    block = np.ascontiguousarray(cast(array, datatype))
    return block.reshape(-1).data.cast("B") if block.size else b""


def cast(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    """The array in the datatype's dtype. Numbers are converted as NumPy does; text and objects must be numbers."""
    if datatype == "BYTES" or array.dtype == (dtype := get_dtype(datatype)):
        return array
    if array.dtype.kind in "OSU":
        return _numbers(array.tolist(), datatype)
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype)


# -- to arrays --


def elements_to_array(root: Any, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """Elements -> array of the datatype's dtype, in `shape`. Nested lists are read row by row."""
    import numpy as np

    count = element_count(shape)
    if isinstance(root, np.ndarray) and datatype != "BYTES":
        return reshape_array(cast(root, datatype), shape)
    if datatype == "BYTES":
        array = np.empty(count, dtype=object)
        array[:] = flat_elements(root, shape)
        return array.reshape(shape)
    if not isinstance(root, (list, tuple, range)):
        root = [root]
    if len(root) != count and not is_nested(root):
        raise TensorError(f"{count} elements for shape {list(shape)}", f"{len(root)}")
    return reshape_array(_numbers(root, datatype), shape)


def _numbers(root: Any, datatype: str) -> NDArray[Any]:
    """List (nested or not) of JSON values -> array; refuses what the datatype cannot hold."""
    import numpy as np

    dtype = np.dtype(get_dtype(datatype))
    try:
        if dtype.kind != "f":
            return _integers(np.array(root), root, dtype, datatype)
        with np.errstate(over="ignore"):
            array = np.array(root, dtype=dtype)
        if (
            dtype.itemsize < 8
            and np.isinf(array).any()
            and not np.isinf(np.array(root, dtype="f8")).any()
        ):
            raise TensorError(f"numbers in the range of {datatype}", brief(root))
        return array
    except TensorError:
        raise
    except OverflowError:
        raise TensorError(f"numbers in the range of {datatype}", brief(root)) from None
    except (ValueError, TypeError) as error:
        expected = (
            f"{datatype} numbers"
            if "homogeneous" not in str(error)
            else "nested lists of equal length"
        )
        raise TensorError(expected, brief(root)) from None


def _integers(found: NDArray[Any], root: Any, dtype: np.dtype[Any], datatype: str) -> NDArray[Any]:
    """Narrow an array of inferred dtype to an integer or boolean dtype; fractions are cut, as NumPy does."""
    import numpy as np

    if found.size == 0:
        return found.astype(dtype)
    if dtype.kind == "b":
        if found.dtype.kind == "b" or (
            found.dtype.kind in "iu" and bool(np.isin(found, (0, 1)).all())
        ):
            return found.astype(dtype)
        raise TensorError("booleans", brief(root))
    if found.dtype.kind in "OU":
        return np.array(root, dtype=dtype)
    limits = np.iinfo(dtype)
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise TensorError(f"{datatype} numbers", brief(root))
    if found.dtype.kind == "f" and float(np.abs(found).max()) >= 2**53:
        found = np.array(
            root, dtype=object
        )  # NumPy has rounded large integers to floats: take them as they came
    low, high = found.min(), found.max()
    # 2**63 and 2**64 are exact as floats, the largest integers below them are not: compare with < there.
    too_high = (
        float(high) >= float(limits.max) + 1 if found.dtype.kind == "f" else int(high) > limits.max
    )
    if too_high or int(low) < limits.min:
        raise TensorError(f"numbers in the range of {datatype}", brief(root))
    return found.astype(dtype)


def raw_to_array(raw: memoryview | bytes, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    import numpy as np

    if datatype == "BYTES":
        array = np.empty(element_count(shape), dtype=object)
        array[:] = split_bytes_block(raw)
        return array.reshape(tuple(shape))
    if datatype == "BF16":
        wide = np.frombuffer(raw, dtype="<u2").astype("<u4") << 16
        return wide.view("<f4").reshape(tuple(shape))
    return np.frombuffer(raw, dtype=DTYPES[datatype]).reshape(tuple(shape))


def without_nan(elements: list[Any], datatype: str) -> list[Any]:
    if datatype in ("FP32", "FP64") and any(item != item for item in elements):
        return [None if item != item else item for item in elements]
    return elements
