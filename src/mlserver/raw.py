"""Raw tensor contents: little-endian numbers, BYTES elements with a length prefix each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from .types import RequestInput, ResponseOutput, TensorData

T = TypeVar("T", RequestInput, ResponseOutput)


def pack(elem: RequestInput | ResponseOutput) -> bytes:
    """Return the data of a tensor as raw bytes."""
    return bytes(elem.data.to_raw(str(elem.datatype), elem.shape))


def unpack(elem: RequestInput | ResponseOutput, raw: bytes) -> TensorData:
    """Return the data of raw bytes, with the datatype and shape of a tensor."""
    return TensorData.from_raw(raw, str(elem.datatype), elem.shape)


def inject_raw(elems: Sequence[T], raw_contents: Sequence[bytes]) -> list[T]:
    """Return the tensors with data from raw contents; unchanged if there are none."""
    if not raw_contents:
        return list(elems)
    pairs = zip(elems, raw_contents, strict=True)
    return [
        tensor.model_copy(update={"data": unpack(tensor, content)}) for tensor, content in pairs
    ]


def extract_raw(elems: Sequence[T]) -> tuple[list[T], list[bytes]]:
    """Return the tensors without data, and the raw bytes of each."""
    empty = [tensor.model_copy(update={"data": TensorData([])}) for tensor in elems]
    return empty, [pack(tensor) for tensor in elems]
