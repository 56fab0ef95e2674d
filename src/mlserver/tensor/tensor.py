"""Tensor: one block of data with up to three faces, each made late and once."""

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
            check_bytes_block(view, count)
        elif view.nbytes != count * item_size(datatype):
            raise TensorError(
                f"{count * item_size(datatype)} bytes for {datatype} {list(shape)}",
                f"{view.nbytes} bytes",
            )
        elif datatype == "BOOL" and (others := bytes(view).translate(None, b"\0\1")):
            raise TensorError("a byte of 0 or 1 for each BOOL", str(others[0]))
        return cls.from_trusted_raw(view, datatype, shape)

    @classmethod
    def from_trusted_raw(cls, raw: memoryview | bytes, datatype: str, shape: Sequence[int]) -> Self:
        """`from_raw` without its checks, for bytes that this server made itself."""
        tensor = cls.__new__(cls)
        tensor._raw, tensor._datatype, tensor._shape = raw, datatype, shape
        return tensor

    # -- faces --

    @property
    def representations(self) -> tuple[str, ...]:
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
                self._root = without_nan(memoryview(self._raw).cast(code).tolist(), self._datatype)
            elif self._raw is not None and self._datatype == "BYTES":
                self._root = split_bytes_block(self._raw)
            else:
                array = self._own_array()
                self._root = without_nan(
                    array.ravel().tolist(), "FP64" if array.dtype.kind == "f" else ""
                )
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
            self._array = elements_to_array(self._root, datatype, shape)
        array = self._own_array()
        return array if array.shape == tuple(shape) else reshape_array(array, shape)

    def to_raw(self, datatype: str, shape: Sequence[int]) -> memoryview | bytes:
        """The bytes of the binary encoding.

        Raises:
            TensorError: the elements do not fit.
        """
        if self._raw is None or self._datatype != datatype:
            if self._array is not None:
                self._array = cast(self._array, datatype)  # all faces tell the same
                self._raw = array_to_raw(self._array, datatype, shape)
            elif datatype == "BYTES":
                self._raw = join_bytes_block(flat_elements(self.root, shape))
            else:
                self._raw = elements_to_raw(self.root, datatype, shape)
            self._datatype, self._shape = datatype, shape
        return self._raw

    def normalize(self, datatype: str, shape: Sequence[int]) -> None:
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
        if type(root) is list and len(root) == 1 and shape == [1] and datatype in PACK_ELEMENT:
            # By far the most common tensor; what does not fit is looked at below.
            try:
                self._raw = PACK_ELEMENT[datatype](root[0])
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
        """Bytes that came from elsewhere (a model may answer with a request's data) must fit what is said of them now."""
        if datatype != self._datatype:
            if "BYTES" in (datatype, self._datatype):
                raise TensorError(f"{datatype} data", f"{self._datatype} data")
            self.to_raw(datatype, shape)
        elif shape is not self._shape and element_count(shape) != element_count(self._shape):
            raise TensorError(
                f"{element_count(shape)} elements for shape {list(shape)}",
                str(element_count(self._shape)),
            )

    def _own_array(self) -> NDArray[Any]:
        if self._array is None:
            if self._raw is None:
                raise TensorError("data", "none")
            self._array = raw_to_array(self._raw, self._datatype, self._shape)
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
