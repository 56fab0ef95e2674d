"""Typed contents of one tensor in protobuf: InferTensorContents <-> `TensorData`.

Many numbers are read as an array, and BOOL, FP32 and FP64 are written as the packed bytes of
protobuf's own encoding, so that no Python object is made per number.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...tensor import (
    DTYPES,
    FORMATS,
    TensorError,
    element_count,
    encode_element,
    flat_elements,
    split_bytes_block,
)
from ...types import TensorData
from ..pb import dataplane_pb2 as pb

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Datatype -> its field of InferTensorContents. FP16 and BF16 have none: they are sent as raw
# contents.
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
# Datatypes whose packed protobuf encoding equals the binary encoding -> tag (field number,
# length-delimited).
PACKED_TAGS: dict[str, bytes] = {"BOOL": b"\x0a", "FP32": b"\x32", "FP64": b"\x3a"}
# Field -> dtype of its elements, which may be wider than the datatype.
FIELD_DTYPES: dict[str, str] = {
    "bool_contents": "?",
    "uint_contents": "<u4",
    "uint64_contents": "<u8",
    "int_contents": "<i4",
    "int64_contents": "<i8",
    "fp32_contents": "<f4",
    "fp64_contents": "<f8",
}
_MAX_STRUCT_ELEMENTS = 32  # up to here `struct` is faster than NumPy


def read_contents(
    contents: pb.InferTensorContents, datatype: str, shape: Sequence[int]
) -> TensorData:
    """Return the data of typed contents.

    Raises:
        TensorError: a field of another datatype is used, or count or range do not fit.
    """
    field = FIELDS.get(datatype)
    if field is None:
        raise TensorError(f"{datatype} in raw_input_contents", "typed contents")
    for descriptor, _ in contents.ListFields():
        if descriptor.name != field:
            raise TensorError(f"{datatype} in contents.{field}", f"contents.{descriptor.name}")
    elements: Sequence[Any] = getattr(contents, field)
    count = element_count(shape)
    if len(elements) != count:
        raise TensorError(f"{count} elements for shape {list(shape)}", str(len(elements)))
    if datatype == "BYTES":
        return TensorData(list(elements))
    if count > _MAX_STRUCT_ELEMENTS:
        return TensorData.from_array(_read_array(elements, datatype))
    try:
        raw = struct.pack(f"<{count}{FORMATS[datatype]}", *elements)
    except (struct.error, OverflowError):
        raise TensorError(f"numbers in the range of {datatype}", str(list(elements))) from None
    return TensorData.from_trusted_raw(raw, datatype, shape)


def _read_array(elements: Sequence[Any], datatype: str) -> NDArray[Any]:
    """Return the elements of the datatype's field as an array of the datatype's dtype.

    Raises:
        TensorError: a number is out of the datatype's range.
    """
    import numpy as np

    # protobuf >= 7.34 exposes the container's memory to NumPy. Before, NumPy reads Python numbers
    # and without a dtype infers one: FP64 for FP32, and FP64 for UINT64 of both small and large
    # numbers, which rounds.
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
    """Write data into empty typed contents.

    Raises:
        TensorError: the data does not fit.
    """
    if datatype == "BYTES":
        elements = read_bytes_elements(data, shape)
        if elements:
            contents.bytes_contents.extend(elements)
        return
    raw = data.to_raw(datatype, shape)
    tag = PACKED_TAGS.get(datatype)
    if tag is None:
        numbers = struct.unpack(f"<{element_count(shape)}{FORMATS[datatype]}", raw)
        if numbers:
            getattr(contents, FIELDS[datatype]).extend(numbers)
        return
    size = memoryview(raw).nbytes
    if size:
        contents.MergeFromString(b"".join((tag, encode_varint(size), raw)))


def read_bytes_elements(data: TensorData, shape: Sequence[int]) -> list[bytes]:
    """Return the elements of a BYTES tensor; text as UTF-8."""
    if data.raw is not None:
        return split_bytes_block(data.raw)
    return [encode_element(element) for element in flat_elements(data.root, shape)]


def encode_varint(number: int) -> bytes:
    """Return a non-negative number as a protobuf varint: seven bits a byte, lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
