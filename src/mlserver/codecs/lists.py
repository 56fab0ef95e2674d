"""Lists of elements of one type, and the elements of BYTES tensors."""

from __future__ import annotations

from typing import Any, TypeVar

from ..tensor import Tensor, TensorError, flat_elements
from ..types import Datatype, Parameters, RequestInput, ResponseOutput, TensorData

ListElement = TypeVar("ListElement")


def is_list_of(
    payload: Any, instance_type: type[ListElement] | tuple[type[ListElement], ...]
) -> bool:
    """Return whether the payload is a list of instances; true for the empty list."""
    return isinstance(payload, list) and all(
        isinstance(element, instance_type) for element in payload
    )


def as_list(payload: Any) -> list[Any]:
    """Return the payload as a list; a single text or bytes object is one element."""
    root = payload.root if isinstance(payload, Tensor) else payload
    return [root] if isinstance(root, (str, bytes)) else list(root)


def is_bytes(tensor: RequestInput | ResponseOutput) -> bool:
    """Return whether the tensor's datatype is BYTES."""
    return tensor.datatype in ("BYTES", Datatype.BYTES)


def elements(tensor: RequestInput | ResponseOutput) -> list[Any]:
    """Return the elements of a BYTES tensor in row-major order.

    Data that does not fit its shape is returned unchanged, as a list.
    """
    root = tensor.data.root
    try:
        return flat_elements(root, tensor.shape)
    except TensorError:
        return as_list(root)


def bytes_output(name: str, data: list[Any], content_type: str) -> ResponseOutput:
    """Return a BYTES tensor of shape [N, 1]."""
    return ResponseOutput(
        name=name,
        datatype="BYTES",
        shape=[len(data), 1],
        data=TensorData(data),
        parameters=Parameters(content_type=content_type),
    )
