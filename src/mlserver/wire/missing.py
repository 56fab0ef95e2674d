"""Values that a format cannot represent, listed by position in a tensor's parameters. Pure.

- A missing text (None) of a BYTES tensor, in the binary encoding and in protobuf: the element is
  empty, and the parameter `missing` is the JSON text of the positions (`"[0,2]"`). Clients send
  missing texts in the same form.
- Infinities in JSON, where `null` alone means NaN: the parameters `infinity` and
  `negative_infinity` are lists of the positions.

Positions are indices of the elements in row-major order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import inf
from typing import Any

from ..errors import InvalidInput
from ..tensor import FORMATS, TensorError, flat_elements, split_bytes_block
from ..types import Parameters, RequestInput, ResponseOutput, TensorData

MISSING = "missing"
INFINITIES = {"infinity": inf, "negative_infinity": -inf}


def without_missing(tensor: Any) -> Any:
    """Return the tensor with missing texts as empty elements and a parameter of positions."""
    if str(tensor.datatype) != "BYTES" or tensor.data.raw is not None:
        return tensor
    try:
        elements = flat_elements(tensor.data.root, tensor.shape)
    except TensorError:
        return tensor  # the format raises the error
    positions = [index for index, element in enumerate(elements) if element is None]
    if not positions:
        return tensor
    values = {} if tensor.parameters is None else tensor.parameters.to_dict()
    parameters = Parameters.from_values(
        {**values, MISSING: json.dumps(positions, separators=(",", ":"))}
    )
    data = TensorData([b"" if element is None else element for element in elements])
    return type(tensor).build({**tensor.__dict__, "parameters": parameters, "data": data})


def restore_missing(tensor: RequestInput | ResponseOutput) -> None:
    """Set elements to None at the positions of the parameter `missing`, and remove the parameter.

    Raises:
        InvalidInput: the parameter is not a list of positions of empty elements.
    """
    extra = None if tensor.parameters is None else tensor.parameters.model_extra
    if not extra or MISSING not in extra or str(tensor.datatype) != "BYTES":
        return
    text = extra.pop(MISSING)
    raw = tensor.data.raw
    if raw is not None:
        elements: list[Any] = split_bytes_block(raw)
    else:
        elements = list(flat_elements(tensor.data.root, tensor.shape))
    positions = _parse_positions(text)
    if positions is None or any(i >= len(elements) or elements[i] for i in positions):
        expected = "a JSON list of positions of empty elements"
        raise InvalidInput(
            f"parameter '{MISSING}' of tensor '{tensor.name}'", expected, repr(text)[:60]
        )
    for index in positions:
        elements[index] = None
    tensor.data = TensorData(elements)


def _parse_positions(text: Any) -> list[int] | None:
    try:
        positions = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return None
    if not isinstance(positions, list):
        return None
    return positions if all(type(item) is int and item >= 0 for item in positions) else None


def infinities(datatype: str, data: TensorData, shape: Sequence[int]) -> dict[str, list[int]]:
    """Return the parameters that list the positions of infinities; empty if there are none."""
    if datatype not in ("FP16", "FP32", "FP64", "BF16"):
        return {}
    code: Any = FORMATS.get(datatype)
    raw = data.raw
    if raw is not None and code is not None and code != "e":
        elements = memoryview(raw).cast("B").cast(code).tolist()
    else:
        elements = data.to_array(datatype, shape).reshape(-1).tolist()
    parameters = {}
    for name, value in INFINITIES.items():
        positions = [index for index, item in enumerate(elements) if item == value]
        if positions:
            parameters[name] = positions
    return parameters


def restore_infinities(output: ResponseOutput) -> None:
    """Set infinities at the positions in an output's parameters, and remove these."""
    extra = None if output.parameters is None else output.parameters.model_extra
    if not extra or INFINITIES.keys().isdisjoint(extra):
        return
    datatype, shape = str(output.datatype), output.shape
    array = output.data.to_array(datatype, shape).copy()
    flat = array.reshape(-1)
    for name, value in INFINITIES.items():
        positions = extra.pop(name, None) or []
        if not all(type(item) is int and 0 <= item < flat.size for item in positions):
            raise InvalidInput(
                f"parameter '{name}' of output '{output.name}'",
                "a list of positions",
                repr(positions),
            )
        flat[positions] = value
    output.data = TensorData.from_array(array)
