"""Tensor: data in up to three representations, each made on first use and kept."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from .bytes_elements import (
    check_bytes_block,
    check_bytes_elements,
    flat_elements,
    join_bytes_block,
    split_bytes_block,
)
from .conversion import (
    PACK_ELEMENT,
    array_to_raw,
    cast,
    elements_to_array,
    elements_to_raw,
    raw_to_array,
    without_nan,
)
from .datatypes import FORMATS, TensorError, brief, element_count, item_size, reshape_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MISSING: Any = object()


class Tensor:
    """The data of one tensor.

    `Tensor(root)` keeps a Python object unchanged; `Tensor.from_array` and `Tensor.from_raw` start
    from an array and from bytes.

    Attributes:
        raw: The bytes of the binary encoding if they exist, else None (`to_raw` makes them).
    """

    # Class attributes instead of assignments in `__init__`: most tensors have one representation.
    _root: Any = _MISSING
    _array: NDArray[Any] | None = None
    raw: memoryview | bytes | None = None
    _datatype: str = ""
    _shape: Sequence[int] = ()

    def __init__(self, root: Any = _MISSING) -> None:
        if isinstance(root, Tensor):
            self.__dict__.update(root.__dict__)
        else:
            self._root = root

    @classmethod
    def from_array(cls, array: NDArray[Any]) -> Self:
        """Return a tensor of an array, which is not copied: do not write to it afterwards."""
        tensor = cls()
        tensor._array = array
        return tensor

    @classmethod
    def from_raw(cls, raw: Any, datatype: str, shape: Sequence[int]) -> Self:
        """Return a tensor of bytes: little-endian, row-major, BYTES elements with 4-byte lengths.

        Raises:
            TensorError: the bytes do not fit datatype and shape.
        """
        view = memoryview(raw).cast("B")
        count = element_count(shape)
        if datatype == "BYTES":
            check_bytes_block(view, count)
        elif view.nbytes != count * item_size(datatype):
            expected = f"{count * item_size(datatype)} bytes for {datatype} {list(shape)}"
            raise TensorError(expected, f"{view.nbytes} bytes")
        elif datatype == "BOOL":
            invalid = bytes(view).translate(None, b"\0\1")
            if invalid:
                raise TensorError("a byte of 0 or 1 for each BOOL", str(invalid[0]))
        return cls.from_trusted_raw(view, datatype, shape)

    @classmethod
    def from_trusted_raw(cls, raw: memoryview | bytes, datatype: str, shape: Sequence[int]) -> Self:
        """Return a tensor of bytes that this server has written, without `from_raw`'s checks."""
        tensor = cls.__new__(cls)
        tensor.raw, tensor._datatype, tensor._shape = raw, datatype, shape
        return tensor

    # -- representations --

    @property
    def representations(self) -> tuple[str, ...]:
        """The representations that exist now: any of "root", "array", "raw"."""
        candidates = (
            ("root", self._root is not _MISSING),
            ("array", self._array is not None),
            ("raw", self.raw is not None),
        )
        return tuple(name for name, exists in candidates if exists)

    @property
    def block_shape(self) -> Sequence[int] | None:
        """The shape of the array or of the bytes (the protocol's shape may add a dimension).

        None if there is neither.
        """
        if self._array is not None:
            return self._array.shape
        return self._shape if self.raw is not None else None

    @property
    def root(self) -> Any:
        """The elements as Python objects.

        They are those passed in, else a flat list in row-major order with None for NaN.
        """
        if self._root is _MISSING:
            code: Any = FORMATS.get(self._datatype)
            if self.raw is not None and code is not None and code != "e":
                self._root = without_nan(memoryview(self.raw).cast(code).tolist(), self._datatype)
            elif self.raw is not None and self._datatype == "BYTES":
                self._root = split_bytes_block(self.raw)
            else:
                array = self._get_array()
                datatype = "FP64" if array.dtype.kind == "f" else ""
                self._root = without_nan(array.ravel().tolist(), datatype)
        return self._root

    @property
    def array(self) -> NDArray[Any] | None:
        """The array if it exists, or if the bytes determine its dtype; else None."""
        if self._array is not None:
            return self._array
        return self._get_array() if self.raw is not None and self._datatype != "BYTES" else None

    def to_array(self, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
        """Return an array of `datatype`'s dtype in `shape`; for BYTES an object array.

        Raises:
            TensorError: the elements do not fit.
        """
        if self._array is None and self.raw is None:
            self._array = elements_to_array(self._root, datatype, shape)
        array = self._get_array()
        return array if array.shape == tuple(shape) else reshape_array(array, shape)

    def to_raw(self, datatype: str, shape: Sequence[int]) -> memoryview | bytes:
        """Return the bytes of the binary encoding.

        Raises:
            TensorError: the elements do not fit.
        """
        if self.raw is None or self._datatype != datatype:
            if self._array is not None:
                self._array = cast(self._array, datatype)  # keep all representations equal
                self.raw = array_to_raw(self._array, datatype, shape)
            elif datatype == "BYTES":
                self.raw = join_bytes_block(flat_elements(self.root, shape))
            else:
                self.raw = elements_to_raw(self.root, datatype, shape)
            self._datatype, self._shape = datatype, shape
        return self.raw

    def normalize(self, datatype: str, shape: Sequence[int]) -> None:
        """Check the data against datatype and shape, and convert numbers to bytes.

        Numbers are held as bytes from here on, and a list of elements is released, so that a model
        cannot distinguish the protocols. BYTES keep their elements.

        Raises:
            TensorError: the data does not fit.
        """
        if self.raw is not None:
            self._check_raw(datatype, shape)
            return
        root = self._root
        if type(root) is list and len(root) == 1 and shape == [1] and datatype in PACK_ELEMENT:
            # The most common tensor. Errors are raised below, with their reason.
            try:
                self.raw = PACK_ELEMENT[datatype](root[0])
            except (struct.error, OverflowError):
                pass
            else:
                self._datatype, self._shape = datatype, shape
                del self._root
                return
        if datatype == "BYTES":
            check_bytes_elements(self._root if self._array is None else self._array, shape)
            return
        self.to_raw(datatype, shape)
        self.__dict__.pop("_root", None)

    def _check_raw(self, datatype: str, shape: Sequence[int]) -> None:
        """Check existing bytes against another datatype or shape.

        They differ if a model returns a request's data in an output.
        """
        if datatype != self._datatype:
            if "BYTES" in (datatype, self._datatype):
                raise TensorError(f"{datatype} data", f"{self._datatype} data")
            self.to_raw(datatype, shape)
        elif shape is not self._shape and element_count(shape) != element_count(self._shape):
            raise TensorError(
                f"{element_count(shape)} elements for shape {list(shape)}",
                str(element_count(self._shape)),
            )

    def _get_array(self) -> NDArray[Any]:
        if self._array is None:
            if self.raw is None:
                raise TensorError("data", "none")
            self._array = raw_to_array(self.raw, self._datatype, self._shape)
        return self._array

    # -- sequence and array protocols, on the elements --

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

        array = self.array
        return np.array(self.root if array is None else array, dtype=dtype)

    def __eq__(self, other: object) -> bool:
        equal = self.root == (other.root if isinstance(other, Tensor) else other)
        return equal if isinstance(equal, bool) else bool(getattr(equal, "all", lambda: equal)())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({brief(self.root)})"
