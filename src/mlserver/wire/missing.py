"""What a format has no form for is named by position in a tensor's parameters. Pure.

- A missing text (null) of a BYTES tensor, in the binary encoding and in protobuf: its element is empty, and the parameter
  `missing` is the JSON text of the positions, as `"[0,2]"`. Callers send it in the same way.
- Infinities in JSON, of which `null` alone would mean NaN: the parameters `infinity` and `negative_infinity` list the
  positions.

Positions count the elements in row-major order, from 0.
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
    """The tensor with empty elements in the place of missing texts, which its parameters then name."""
    if str(tensor.datatype) != "BYTES" or tensor.data.raw is not None:
        return tensor
    try:
        elements = flat_elements(tensor.data.root, tensor.shape)
    except TensorError:
        return tensor  # the format says what is wrong
    positions = [at for at, element in enumerate(elements) if element is None]
    if not positions:
        return tensor
    values = {} if tensor.parameters is None else tensor.parameters.to_dict()
    parameters = Parameters.from_values(
        {**values, MISSING: json.dumps(positions, separators=(",", ":"))}
    )
    data = TensorData([b"" if element is None else element for element in elements])
    return type(tensor).build({**tensor.__dict__, "parameters": parameters, "data": data})


def restore_missing(tensor: RequestInput | ResponseOutput) -> None:
    """Put null where the parameter `missing` of a BYTES tensor says so, and take the parameter away.

    Raises:
        InvalidInput: the parameter is no list of positions of empty elements.
    """
    extra = None if tensor.parameters is None else tensor.parameters.model_extra
    if not extra or MISSING not in extra or str(tensor.datatype) != "BYTES":
        return
    text = extra.pop(MISSING)
    raw = tensor.data.raw
    elements: list[Any] = (
        split_bytes_block(raw)
        if raw is not None
        else list(flat_elements(tensor.data.root, tensor.shape))
    )
    positions = _positions(text)
    if positions is None or any(at >= len(elements) or elements[at] for at in positions):
        expected = "a JSON list of positions of empty elements"
        raise InvalidInput(
            f"parameter '{MISSING}' of tensor '{tensor.name}'", expected, repr(text)[:60]
        )
    for at in positions:
        elements[at] = None
    tensor.data = TensorData(elements)


def _positions(text: Any) -> list[int] | None:
    try:
        positions = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(positions, list) and all(type(at) is int and at >= 0 for at in positions)
    return positions if is_list else None


def infinities(datatype: str, data: TensorData, shape: Sequence[int]) -> dict[str, list[int]]:
    """The positions of infinities, by the parameter that names them; empty if there are none."""
    if datatype not in ("FP16", "FP32", "FP64", "BF16"):
        return {}
    code: Any = FORMATS.get(datatype)
    raw = data.raw
    if raw is not None and code is not None and code != "e":
        elements = memoryview(raw).cast("B").cast(code).tolist()
    else:
        elements = data.to_array(datatype, shape).reshape(-1).tolist()
    found = {
        name: [at for at, item in enumerate(elements) if item == value]
        for name, value in INFINITIES.items()
    }
    return {name: positions for name, positions in found.items() if positions}


def restore_infinities(output: ResponseOutput) -> None:
    """Put infinities where the parameters of an output that came as JSON say so, and take these away."""
    extra = None if output.parameters is None else output.parameters.model_extra
    if not extra or INFINITIES.keys().isdisjoint(extra):
        return
    datatype, shape = str(output.datatype), output.shape
    array = output.data.to_array(datatype, shape).copy()
    flat = array.reshape(-1)
    for name, value in INFINITIES.items():
        positions = extra.pop(name, None) or []
        if not all(type(at) is int and 0 <= at < flat.size for at in positions):
            raise InvalidInput(
                f"parameter '{name}' of output '{output.name}'",
                "a list of positions",
                repr(positions),
            )
        flat[positions] = value
    output.data = TensorData.from_array(array)
