"""Payloads that are lists of one kind of element, and the elements of a BYTES tensor."""

from __future__ import annotations

from typing import Any, TypeVar

from ..tensor import Tensor, TensorError, flat_elements
from ..types import Datatype, Parameters, RequestInput, ResponseOutput, TensorData

ListElement = TypeVar("ListElement")


def is_list_of(
    payload: Any, instance_type: type[ListElement] | tuple[type[ListElement], ...]
) -> bool:
    """Whether the payload is a list whose every element is an instance; true for the empty list."""
    return isinstance(payload, list) and all(
        isinstance(element, instance_type) for element in payload
    )


def as_list(payload: Any) -> list[Any]:
    """The payload as a list; text or bytes alone are one element, not a list of characters."""
    root = payload.root if isinstance(payload, Tensor) else payload
    return [root] if isinstance(root, (str, bytes)) else list(root)


def is_bytes(tensor: RequestInput | ResponseOutput) -> bool:
    """Whether the tensor's datatype is BYTES."""
    return tensor.datatype in ("BYTES", Datatype.BYTES)


def elements(tensor: RequestInput | ResponseOutput) -> list[Any]:
    """The elements of a BYTES tensor in row-major order, nested or flat; data that denies its shape is taken as is."""
    root = tensor.data.root
    try:
        return flat_elements(root, tensor.shape)
    except TensorError:
        return as_list(root)


def bytes_output(name: str, data: list[Any], content_type: str) -> ResponseOutput:
    """A BYTES tensor of shape [N, 1]."""
    return ResponseOutput(
        name=name,
        datatype="BYTES",
        shape=[len(data), 1],
        data=TensorData(data),
        parameters=Parameters(content_type=content_type),
    )
