"""The elements of one tensor in protobuf: typed contents <-> `TensorData`. Messages around them are in `wire.proto`.

Numbers never pass through Python one by one where protobuf allows it: they are read as arrays, and fixed-width numbers
are written as the packed bytes that protobuf itself would make of them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...tensor import (
    DTYPES,
    FORMATS,
    TensorError,
    bytes_of,
    element_count,
    flat_elements,
    split_bytes_block,
)
from ...types import TensorData
from ..pb import dataplane_pb2 as pb

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Datatype -> the field of InferTensorContents that carries it. FP16 and BF16 have none: they travel raw.
FIELDS: dict[str, str] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# Datatypes whose packed form on the wire is our raw form -> the tag before it (field number, length-delimited).
PACKED_TAGS: dict[str, bytes] = {"BOOL": b"\x0a", "FP32": b"\x32", "FP64": b"\x3a"}
# The field -> the dtype of its elements, whatever narrower datatype they stand for.
FIELD_DTYPES: dict[str, str] = {
    "bool_contents": "?",
    "uint_contents": "<u4",
    "uint64_contents": "<u8",
    "int_contents": "<i4",
    "int64_contents": "<i8",
    "fp32_contents": "<f4",
    "fp64_contents": "<f8",
}
# Up to here `struct` is faster than making an array.
_FEW = 32


def read_contents(
    contents: pb.InferTensorContents, datatype: str, shape: Sequence[int]
) -> TensorData:
    """Typed contents -> data.

    Raises:
        TensorError: another field than the datatype's is used, or count or range do not fit.
    """
    field = FIELDS.get(datatype)
    if field is None:
        raise TensorError(f"{datatype} in raw_input_contents", "typed contents")
    for used, _ in contents.ListFields():
        if used.name != field:
            raise TensorError(f"{datatype} in contents.{field}", f"contents.{used.name}")
    elements: Sequence[Any] = getattr(contents, field)
    count = element_count(shape)
    if len(elements) != count:
        raise TensorError(f"{count} elements for shape {list(shape)}", str(len(elements)))
    if datatype == "BYTES":
        return TensorData(list(elements))
    if count > _FEW:
        return TensorData.from_array(_array(elements, datatype))
    try:
        return TensorData.trusted(
            struct.pack(f"<{count}{FORMATS[datatype]}", *elements), datatype, shape
        )
    except (struct.error, OverflowError):
        raise TensorError(f"numbers in the range of {datatype}", str(list(elements))) from None


def _array(elements: Sequence[Any], datatype: str) -> NDArray[Any]:
    """The elements of the datatype's field as an array of the datatype's dtype.

    Raises:
        TensorError: a number is out of the datatype's range.
    """
    import numpy as np

    # From protobuf 7.34 on the container hands NumPy its memory. Before, NumPy sees Python numbers, and without
    # a dtype it would choose one: FP64 for FP32, and FP64 for UINT64 of both small and large numbers, which rounds.
    array = np.array(elements, dtype=FIELD_DTYPES[FIELDS[datatype]])
    dtype = np.dtype(DTYPES[datatype])
    if array.dtype == dtype:
        return array
    low, high = int(array.min()), int(array.max())
    limits = np.iinfo(dtype)
    if low < limits.min or high > limits.max:
        raise TensorError(f"numbers in the range of {datatype}", f"numbers from {low} to {high}")
    return array.astype(dtype)


def write_contents(
    contents: pb.InferTensorContents, data: TensorData, datatype: str, shape: Sequence[int]
) -> None:
    """Data -> typed contents, for a datatype that has a field.

    Raises:
        TensorError: the data does not fit.
    """
    serialized = b"".join(serialized_contents(data, datatype, shape))
    if serialized:
        contents.MergeFromString(serialized)


def serialized_contents(
    data: TensorData, datatype: str, shape: Sequence[int]
) -> tuple[bytes, bytes | memoryview]:
    """Data -> typed contents in bytes, in two parts: what stands before the elements, and the elements.

    Raises:
        TensorError: the data does not fit.
    """
    if datatype == "BYTES":
        return b"", pb.InferTensorContents(
            bytes_contents=bytes_elements(data, shape)
        ).SerializeToString()
    raw = data.to_raw(datatype, shape)
    tag = PACKED_TAGS.get(datatype)
    if tag is None:
        numbers = struct.unpack(f"<{element_count(shape)}{FORMATS[datatype]}", raw)
        return b"", pb.InferTensorContents(**{FIELDS[datatype]: numbers}).SerializeToString()
    size = memoryview(raw).nbytes
    return (tag + varint(size), raw) if size else (b"", b"")


def bytes_elements(data: TensorData, shape: Sequence[int]) -> list[bytes]:
    """The elements of a BYTES tensor; text becomes UTF-8."""
    if data.raw is not None:
        return split_bytes_block(data.raw)
    return [bytes_of(element) for element in flat_elements(data.root, shape)]


def varint(number: int) -> bytes:
    """Protobuf's variable-length integer: seven bits a byte, lowest first."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)
