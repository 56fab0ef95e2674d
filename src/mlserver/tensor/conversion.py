"""Conversions between a tensor's representations (elements, raw bytes, array), with checks.

NumPy is imported on first use: importing `mlserver.types` does not load it.
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
    """Return elements as raw bytes.

    Flat lists of numbers, the common case, are packed by `struct` without NumPy.

    Raises:
        TensorError: the elements do not fit.
    """
    code = FORMATS.get(datatype)
    if code is not None and code != "?" and type(root) is list:
        count = element_count(shape)
        if len(root) == count:
            try:
                return struct.pack(f"<{count}{code}", *root)
            except OverflowError:
                raise TensorError(f"numbers in the range of {datatype}", brief(root)) from None
            except struct.error:
                pass  # nested lists, None, text, fractions for an integer: NumPy converts or raises
    return array_to_raw(elements_to_array(root, datatype, shape), datatype, shape)


def array_to_raw(array: NDArray[Any], datatype: str, shape: Sequence[int]) -> memoryview | bytes:
    """Return an array as raw bytes.

    Raises:
        TensorError: the array does not fit.
    """
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
    """Return the array in the datatype's dtype.

    Numbers are cast by NumPy's rules; text and objects must be numbers.

    Raises:
        TensorError: an element is out of range or not a number.
    """
    if datatype == "BYTES" or array.dtype == (dtype := get_dtype(datatype)):
        return array
    if array.dtype.kind in "OSU":
        return _read_numbers(array.tolist(), datatype)
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype)


# -- to arrays --


def elements_to_array(root: Any, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """Return elements, flat or nested, as an array of the datatype's dtype in `shape`.

    Raises:
        TensorError: the elements do not fit.
    """
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
    return reshape_array(_read_numbers(root, datatype), shape)


def _read_numbers(root: Any, datatype: str) -> NDArray[Any]:
    """Return a list of JSON values, nested or flat, as an array.

    Raises:
        TensorError: the datatype cannot hold a value.
    """
    import numpy as np

    dtype = np.dtype(get_dtype(datatype))
    try:
        if dtype.kind != "f":
            return _cast_integers(np.array(root), root, dtype, datatype)
        with np.errstate(over="ignore"):
            array = np.array(root, dtype=dtype)
        has_overflow = (
            dtype.itemsize < 8
            and np.isinf(array).any()
            and not np.isinf(np.array(root, dtype="f8")).any()
        )
        if has_overflow:
            raise TensorError(f"numbers in the range of {datatype}", brief(root))
        return array
    except TensorError:
        raise
    except OverflowError:
        raise TensorError(f"numbers in the range of {datatype}", brief(root)) from None
    except (ValueError, TypeError) as error:
        is_ragged = "homogeneous" in str(error)
        expected = "nested lists of equal length" if is_ragged else f"{datatype} numbers"
        raise TensorError(expected, brief(root)) from None


def _cast_integers(
    inferred: NDArray[Any], root: Any, dtype: np.dtype[Any], datatype: str
) -> NDArray[Any]:
    """Return an array of inferred dtype as integers or booleans; fractions are truncated.

    Args:
        inferred: `numpy.array(root)`.
        root: The elements.
    """
    import numpy as np

    if inferred.size == 0:
        return inferred.astype(dtype)
    if dtype.kind == "b":
        return _cast_booleans(inferred, root)
    if inferred.dtype.kind in "OU":
        return np.array(root, dtype=dtype)
    if inferred.dtype.kind == "f" and not np.isfinite(inferred).all():
        raise TensorError(f"{datatype} numbers", brief(root))
    if inferred.dtype.kind == "f" and float(np.abs(inferred).max()) >= 2**53:
        # NumPy has rounded integers from 2**53 on to floats: start again from the exact ones.
        inferred = np.array(root, dtype=object)
    limits = np.iinfo(dtype)
    low, high = inferred.min(), inferred.max()
    if inferred.dtype.kind == "f":
        # 2**63 and 2**64 are exact as floats, the largest integers below them are not: compare with
        # the limit + 1.
        is_too_high = float(high) >= float(limits.max) + 1
    else:
        is_too_high = int(high) > limits.max
    if is_too_high or int(low) < limits.min:
        raise TensorError(f"numbers in the range of {datatype}", brief(root))
    return inferred.astype(dtype)


def _cast_booleans(inferred: NDArray[Any], root: Any) -> NDArray[Any]:
    import numpy as np

    kind = inferred.dtype.kind
    if kind == "b" or (kind in "iu" and bool(np.isin(inferred, (0, 1)).all())):
        return inferred.astype("?")
    raise TensorError("booleans", brief(root))


def raw_to_array(raw: memoryview | bytes, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """Return raw bytes, already checked, as an array: a view for fixed-width datatypes but BF16."""
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
    """Return the elements with None in place of NaN."""
    if datatype in ("FP32", "FP64") and any(item != item for item in elements):
        return [None if item != item else item for item in elements]
    return elements
