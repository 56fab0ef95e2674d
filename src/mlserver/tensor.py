"""Tensor: one block of data with up to three faces, each made late and once.

The faces are the elements as Python objects (`root`), the bytes of the binary encoding (`raw`) and a NumPy array
(`array`). A tensor keeps the face that arrived and makes another when somebody asks. This module also owns the
protocol's datatypes and the one conversion between faces, with its checks; it knows no protocol message.

NumPy is imported on first use, so that importing the types costs nothing.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Datatype -> code of one element, for `struct` and `memoryview` alike. BF16 has none: its raw bytes widen to float32.
# BYTES has no fixed width.
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

_MISSING: Any = object()


class TensorError(ValueError):
    """Data does not fit its datatype or shape. `expected` and `received` are words for the caller."""

    def __init__(self, expected: str, received: str) -> None:
        super().__init__(f"expected {expected}, received {received}")
        self.expected = expected
        self.received = received


def element_count(shape: Sequence[int]) -> int:
    """Elements of a tensor of this shape (1 for the scalar shape []).

    Raises:
        TensorError: rank over 32, a negative dimension, or a product over 2**48 (of the others, if a dimension is zero).
    """
    if len(shape) > MAX_RANK:
        raise TensorError(f"a shape of at most {MAX_RANK} dimensions", f"{len(shape)} dimensions")
    count = math.prod(shape)
    size = count or math.prod(filter(None, shape))
    if size < 0 or size > MAX_ELEMENTS or any(dim < 0 for dim in shape):
        raise TensorError("a shape of non-negative dimensions that can be held in memory", brief(list(shape)))
    return count


class Tensor:
    """One block of data.

    `Tensor(root)` keeps any Python object as it is. `Tensor.from_array` and `Tensor.from_raw` start from another face.
    """

    # Class attributes rather than assignments in `__init__`: tensors are made by the million, most with one face.
    _root: Any = _MISSING
    _array: NDArray[Any] | None = None
    _raw: memoryview | bytes | None = None
    _datatype: str = ""
    _shape: Sequence[int] = ()

    def __init__(self, root: Any = _MISSING) -> None:
        if isinstance(root, Tensor):
            self.__dict__.update(root.__dict__)
        else:
            self._root = root

    @classmethod
    def from_array(cls, array: NDArray[Any]) -> Self:
        """A tensor whose first face is `array` (kept without a copy; do not write to it afterwards)."""
        tensor = cls()
        tensor._array = array
        return tensor

    @classmethod
    def from_raw(cls, raw: Any, datatype: str, shape: Sequence[int]) -> Self:
        """A tensor whose first face is `raw`: little-endian, row-major; BYTES elements carry a 4-byte length each.

        Raises:
            TensorError: the number of bytes is not what datatype and shape need.
        """
        view = memoryview(raw).cast("B")
        count = element_count(shape)
        if datatype == "BYTES":
            _check_bytes_block(view, count)
        elif view.nbytes != count * item_size(datatype):
            raise TensorError(
                f"{count * item_size(datatype)} bytes for {datatype} {list(shape)}", f"{view.nbytes} bytes"
            )
        elif datatype == "BOOL" and (others := bytes(view).translate(None, b"\0\1")):
            raise TensorError("a byte of 0 or 1 for each BOOL", str(others[0]))
        return cls.trusted(view, datatype, shape)

    @classmethod
    def trusted(cls, raw: memoryview | bytes, datatype: str, shape: Sequence[int]) -> Self:
        """`from_raw` without its checks, for bytes that this server made itself."""
        tensor = cls.__new__(cls)
        tensor._raw, tensor._datatype, tensor._shape = raw, datatype, shape
        return tensor

    # -- faces --

    @property
    def faces(self) -> tuple[str, ...]:
        """Which faces exist now: any of "root", "array", "raw"."""
        present = (
            ("root", self._root is not _MISSING),
            ("array", self._array is not None),
            ("raw", self._raw is not None),
        )
        return tuple(name for name, there in present if there)

    @property
    def block_shape(self) -> Sequence[int] | None:
        """The shape in which the array or raw face was made (the protocol's shape may add a dimension), else None."""
        if self._array is not None:
            return self._array.shape
        return self._shape if self._raw is not None else None

    @property
    def root(self) -> Any:
        """The elements as Python objects: what was given, else a flat list in row-major order (NaN becomes None)."""
        if self._root is _MISSING:
            code: Any = FORMATS.get(self._datatype)
            if self._raw is not None and code is not None and code != "e":
                self._root = _without_nan(memoryview(self._raw).cast(code).tolist(), self._datatype)
            elif self._raw is not None and self._datatype == "BYTES":
                self._root = split_bytes_block(self._raw)
            else:
                array = self._own_array()
                self._root = _without_nan(array.ravel().tolist(), "FP64" if array.dtype.kind == "f" else "")
        return self._root

    @property
    def array(self) -> NDArray[Any] | None:
        """The array face if it exists or can be made without guessing a datatype, else None."""
        if self._array is not None:
            return self._array
        return self._own_array() if self._raw is not None and self._datatype != "BYTES" else None

    @property
    def raw(self) -> memoryview | bytes | None:
        """The raw face if it exists, else None (`to_raw` makes it)."""
        return self._raw

    def to_array(self, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
        """The elements as an array of `datatype`'s dtype in `shape`; BYTES gives an object array of the elements.

        Raises:
            TensorError: the elements do not fit.
        """
        if self._array is None and self._raw is None:
            self._array = _array_of(self._root, datatype, shape)
        array = self._own_array()
        return array if array.shape == tuple(shape) else _reshaped(array, shape)

    def to_raw(self, datatype: str, shape: Sequence[int]) -> memoryview | bytes:
        """The bytes of the binary encoding.

        Raises:
            TensorError: the elements do not fit.
        """
        if self._raw is None or self._datatype != datatype:
            if self._array is not None:
                self._array = _cast(self._array, datatype)  # all faces tell the same
                self._raw = _raw_of_array(self._array, datatype, shape)
            elif datatype == "BYTES":
                self._raw = join_bytes_block(flat_elements(self.root, shape))
            else:
                self._raw = _pack(self.root, datatype, shape)
            self._datatype, self._shape = datatype, shape
        return self._raw

    def settle(self, datatype: str, shape: Sequence[int]) -> None:
        """Check the data against datatype and shape, and bring numbers into their raw face.

        Numbers are held as bytes from here on and the list that came is let go, so that every protocol's request looks
        the same to the model. BYTES keep their elements.

        Raises:
            TensorError: the data does not fit.
        """
        if self._raw is not None:
            self._check_raw(datatype, shape)
            return
        root = self._root
        if type(root) is list and len(root) == 1 and shape == [1] and datatype in _PACK_ONE:
            # By far the most common tensor; what does not fit is looked at below.
            try:
                self._raw = _PACK_ONE[datatype](root[0])
            except (struct.error, OverflowError):
                pass
            else:
                self._datatype, self._shape = datatype, shape
                del self._root
                return
        if datatype == "BYTES":
            _check_elements(self._root if self._array is None else self._array, shape)
            return
        self.to_raw(datatype, shape)
        self.__dict__.pop("_root", None)

    def _check_raw(self, datatype: str, shape: Sequence[int]) -> None:
        """Bytes that came from elsewhere (a model may answer with a request's data) must fit what is said of them now."""
        if datatype != self._datatype:
            if "BYTES" in (datatype, self._datatype):
                raise TensorError(f"{datatype} data", f"{self._datatype} data")
            self.to_raw(datatype, shape)
        elif shape is not self._shape and element_count(shape) != element_count(self._shape):
            raise TensorError(
                f"{element_count(shape)} elements for shape {list(shape)}", str(element_count(self._shape))
            )

    def _own_array(self) -> NDArray[Any]:
        if self._array is None:
            if self._raw is None:
                raise TensorError("data", "none")
            self._array = _array_from_raw(self._raw, self._datatype, self._shape)
        return self._array

    # -- what users of `data` do: iterate, index, compare, convert --

    def __iter__(self) -> Iterator[Any]:
        return iter(self.root)

    def __getitem__(self, index: Any) -> Any:
        return self.root[index]

    def __len__(self) -> int:
        return len(self.root)

    def __bool__(self) -> bool:
        return len(self.root) > 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        import numpy as np

        face = self.array
        return np.array(self.root if face is None else face, dtype=dtype)

    def __eq__(self, other: object) -> bool:
        mine, theirs = self.root, other.root if isinstance(other, Tensor) else other
        same = mine == theirs
        return same if isinstance(same, bool) else bool(getattr(same, "all", lambda: same)())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({brief(self.root)})"


# -- elements to bytes --

_PACK_ONE = {name: struct.Struct(f"<{code}").pack for name, code in FORMATS.items() if code != "?"}


def _pack(root: Any, datatype: str, shape: Sequence[int]) -> memoryview | bytes:
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
    return _raw_of_array(_array_of(root, datatype, shape), datatype, shape)


def _raw_of_array(array: NDArray[Any], datatype: str, shape: Sequence[int]) -> memoryview | bytes:
    import numpy as np

    if datatype == "BYTES":
        return join_bytes_block(flat_elements(array, shape))
    if array.size != element_count(shape):
        raise TensorError(f"{element_count(shape)} elements for shape {list(shape)}", str(array.size))
    if datatype == "BF16":
        return (array.astype("<f4").reshape(-1).view("<u4") >> 16).astype("<u2").tobytes()
    block = np.ascontiguousarray(_cast(array, datatype))
    return block.reshape(-1).data.cast("B") if block.size else b""


def _cast(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    """The array in the datatype's dtype. Numbers are converted as NumPy does; text and objects must be numbers."""
    if datatype == "BYTES" or array.dtype == (dtype := _dtype(datatype)):
        return array
    if array.dtype.kind in "OSU":
        return _numbers(array.tolist(), datatype)
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype)


# -- elements to arrays --


def _array_of(root: Any, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """Elements -> array of the datatype's dtype, in `shape`. Nested lists are read row by row."""
    import numpy as np

    count = element_count(shape)
    if isinstance(root, np.ndarray) and datatype != "BYTES":
        return _reshaped(_cast(root, datatype), shape)
    if datatype == "BYTES":
        array = np.empty(count, dtype=object)
        array[:] = flat_elements(root, shape)
        return array.reshape(shape)
    if not isinstance(root, (list, tuple, range)):
        root = [root]
    if len(root) != count and not _is_nested(root):
        raise TensorError(f"{count} elements for shape {list(shape)}", f"{len(root)}")
    return _reshaped(_numbers(root, datatype), shape)


def _reshaped(array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    if array.size != element_count(shape):
        raise TensorError(f"{element_count(shape)} elements for shape {list(shape)}", str(array.size))
    return array.reshape(tuple(shape))


def _numbers(root: Any, datatype: str) -> NDArray[Any]:
    """List (nested or not) of JSON values -> array; refuses what the datatype cannot hold."""
    import numpy as np

    dtype = np.dtype(_dtype(datatype))
    try:
        if dtype.kind != "f":
            return _integers(np.array(root), root, dtype, datatype)
        with np.errstate(over="ignore"):
            array = np.array(root, dtype=dtype)
        if dtype.itemsize < 8 and np.isinf(array).any() and not np.isinf(np.array(root, dtype="f8")).any():
            raise TensorError(f"numbers in the range of {datatype}", brief(root))
        return array
    except TensorError:
        raise
    except OverflowError:
        raise TensorError(f"numbers in the range of {datatype}", brief(root)) from None
    except (ValueError, TypeError) as problem:
        expected = f"{datatype} numbers" if "homogeneous" not in str(problem) else "nested lists of equal length"
        raise TensorError(expected, brief(root)) from None


def _integers(found: NDArray[Any], root: Any, dtype: np.dtype[Any], datatype: str) -> NDArray[Any]:
    """Narrow an array of inferred dtype to an integer or boolean dtype; fractions are cut, as NumPy does."""
    import numpy as np

    if found.size == 0:
        return found.astype(dtype)
    if dtype.kind == "b":
        if found.dtype.kind == "b" or (found.dtype.kind in "iu" and bool(np.isin(found, (0, 1)).all())):
            return found.astype(dtype)
        raise TensorError("booleans", brief(root))
    if found.dtype.kind in "OU":
        return np.array(root, dtype=dtype)
    limits = np.iinfo(dtype)
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise TensorError(f"{datatype} numbers", brief(root))
    if found.dtype.kind == "f" and float(np.abs(found).max()) >= 2**53:
        found = np.array(root, dtype=object)  # NumPy has rounded large integers to floats: take them as they came
    low, high = found.min(), found.max()
    # 2**63 and 2**64 are exact as floats, the largest integers below them are not: compare with < there.
    too_high = float(high) >= float(limits.max) + 1 if found.dtype.kind == "f" else int(high) > limits.max
    if too_high or int(low) < limits.min:
        raise TensorError(f"numbers in the range of {datatype}", brief(root))
    return found.astype(dtype)


def _dtype(datatype: str) -> str:
    if datatype == "BF16":
        return "<f4"
    try:
        return DTYPES[datatype]
    except KeyError:
        raise TensorError(f"a datatype of {', '.join(DATATYPES)}", repr(datatype)) from None


def item_size(datatype: str) -> int:
    """Bytes per element. Raises `TensorError` for BYTES and for what is no datatype."""
    try:
        return ITEM_SIZES[datatype]
    except KeyError:
        raise TensorError(f"a datatype of {', '.join(ITEM_SIZES)}", repr(datatype)) from None


def _array_from_raw(raw: memoryview | bytes, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    import numpy as np

    if datatype == "BYTES":
        array = np.empty(element_count(shape), dtype=object)
        array[:] = split_bytes_block(raw)
        return array.reshape(tuple(shape))
    if datatype == "BF16":
        wide = np.frombuffer(raw, dtype="<u2").astype("<u4") << 16
        return wide.view("<f4").reshape(tuple(shape))
    return np.frombuffer(raw, dtype=DTYPES[datatype]).reshape(tuple(shape))


def _without_nan(elements: list[Any], datatype: str) -> list[Any]:
    if datatype in ("FP32", "FP64") and any(item != item for item in elements):
        return [None if item != item else item for item in elements]
    return elements


# -- BYTES --


def _is_nested(root: Any) -> bool:
    return len(root) > 0 and isinstance(root[0], (list, tuple))


def flat_elements(root: Any, shape: Sequence[int]) -> list[Any]:
    """Elements of a BYTES tensor in row-major order; nesting down to the shape's rank is opened, no deeper.

    Raises:
        TensorError: the count or the nesting does not agree with the shape.
    """
    count = element_count(shape)
    if isinstance(root, (str, bytes)):
        root = [root]
    elements = list(root.ravel() if hasattr(root, "ravel") else root)
    if len(elements) == count and (len(shape) <= 1 or not _is_nested(elements) or count == 0):
        return elements
    level = elements
    for _ in shape[1:]:
        if not all(isinstance(item, (list, tuple)) for item in level):
            raise TensorError(f"{count} elements for shape {list(shape)}", f"{len(elements)}")
        if len({len(part) for part in level}) > 1:
            raise TensorError("nested lists of equal length", brief(root))
        level = [item for part in level for item in part]
    if len(level) != count:
        raise TensorError(f"{count} elements for shape {list(shape)}", f"{len(level)}")
    return level


def _check_elements(root: Any, shape: Sequence[int]) -> None:
    if not isinstance(root, (list, tuple, str, bytes)) and not hasattr(root, "ravel"):
        raise TensorError("a list of BYTES elements", brief(root))
    if hasattr(root, "ravel"):
        _reshaped(root, shape)
    else:
        flat_elements(root, shape)


def join_bytes_block(elements: Sequence[Any]) -> bytes:
    """Elements (bytes, or text as UTF-8) -> the binary encoding of a BYTES tensor."""
    parts: list[bytes] = []
    for element in elements:
        data = element if isinstance(element, (bytes, bytearray, memoryview)) else str(element).encode("utf-8")
        parts.append(struct.pack("<I", len(data)))
        parts.append(bytes(data))
    return b"".join(parts)


def split_bytes_block(block: memoryview | bytes) -> list[bytes]:
    """The binary encoding of a BYTES tensor -> its elements. The block must have passed `Tensor.from_raw`."""
    elements, at, end = [], 0, len(block)
    while at < end:
        size = int.from_bytes(block[at : at + 4], "little")
        elements.append(bytes(block[at + 4 : at + 4 + size]))
        at += 4 + size
    return elements


def _check_bytes_block(block: memoryview, count: int) -> None:
    """Walk the lengths without copying: exactly `count` elements that end where the block ends."""
    at = found = 0
    while at < block.nbytes:
        if at + 4 > block.nbytes:
            raise TensorError("a 4-byte length before each BYTES element", f"{block.nbytes - at} trailing bytes")
        size = int.from_bytes(block[at : at + 4], "little")
        at += 4 + size
        found += 1
        if at > block.nbytes:
            raise TensorError(
                "BYTES elements inside the data", f"a length of {size} that ends {at - block.nbytes} bytes past it"
            )
    if found != count:
        raise TensorError(f"{count} BYTES elements", str(found))


def brief(value: Any, limit: int = 80, depth: int = 4) -> str:
    """`repr` of a value for a message, cut to `limit` characters without printing the whole of a large or deep one."""
    if isinstance(value, (list, tuple)):
        if not depth:
            return "[...]"
        parts = ", ".join(brief(item, 20, depth - 1) for item in value[:8])
        text = f"[{parts}]" if len(value) <= 8 else f"[{parts}, ...] ({len(value)} elements)"
    elif isinstance(value, dict):
        parts = ", ".join(f"{brief(key, 20)}: {brief(value[key], 20, depth - 1)}" for key in list(value)[:8] if depth)
        text = f"{{{parts}}}" if len(value) <= 8 and depth else f"{{{parts}...}} ({len(value)} keys)"
    elif isinstance(value, (str, bytes)) and len(value) > limit:
        text = repr(value[:limit]) + "..."
    else:
        text = repr(value)
    return text if len(text) <= 2 * limit else text[: 2 * limit] + "..."
