"""Tensors as the protocol's raw bytes: little-endian numbers, and elements of BYTES each behind its length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from .types import RequestInput, ResponseOutput, TensorData

T = TypeVar("T", RequestInput, ResponseOutput)


def pack(tensor: RequestInput | ResponseOutput) -> bytes:
    """The data of a tensor as raw bytes."""
    return bytes(tensor.data.to_raw(str(tensor.datatype), tensor.shape))


def unpack(raw: bytes, tensor: RequestInput | ResponseOutput) -> TensorData:
    """The data that raw bytes hold, by the datatype and shape of a tensor."""
    return TensorData.from_raw(raw, str(tensor.datatype), tensor.shape)


def inject_raw(tensors: Sequence[T], raw: Sequence[bytes]) -> list[T]:
    """The tensors with their data taken from raw bytes, one for each; unchanged if there are none."""
    if not raw:
        return list(tensors)
    pairs = zip(tensors, raw, strict=True)
    return [tensor.model_copy(update={"data": unpack(content, tensor)}) for tensor, content in pairs]


def extract_raw(tensors: Sequence[T]) -> tuple[list[T], list[bytes]]:
    """The tensors without their data, and the raw bytes of each."""
    empty = [tensor.model_copy(update={"data": TensorData([])}) for tensor in tensors]
    return empty, [pack(tensor) for tensor in tensors]
