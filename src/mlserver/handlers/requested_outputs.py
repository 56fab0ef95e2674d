"""Selection of the requested outputs from a model's response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import MLServerError
from ..tensor import flat_elements, item_size
from ..types import InferenceResponse, MetadataTensor, RequestOutput, ResponseOutput, TensorData

# Bytes per element -> `memoryview` format code.
_FORMAT_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def select_outputs(
    response: InferenceResponse,
    requested: Sequence[RequestOutput],
    described: Sequence[MetadataTensor],
) -> None:
    """Keep the requested outputs, in the requested order.

    Outputs may be requested by the names of the metadata as well, where these differ from the
    response's: signatures name `quality` or `output-0` where the response has an array
    `output-1`. The output at the same position is returned under the requested name. If the
    metadata has n outputs and the response one of shape [rows, n], a requested name selects a
    column.

    Args:
        requested: Outputs of the request.
        described: Outputs of the model's metadata.

    Raises:
        MLServerError: the model did not return a requested output.
    """
    by_name = {output.name: output for output in response.outputs}
    unknown = [output.name for output in requested if output.name not in by_name]
    if unknown:
        by_name |= _by_position(response.outputs, described)
        by_name |= _by_column(response.outputs, described)
        unknown = [name for name in unknown if name not in by_name]
    if unknown:
        returned = ", ".join(f"'{output.name}'" for output in response.outputs) or "none"
        raise MLServerError(
            f"Invalid outputs: the model has no output '{unknown[0]}'; its outputs are {returned}"
        )
    response.outputs = [by_name[output.name] for output in requested]


def _by_position(
    outputs: Sequence[ResponseOutput], described: Sequence[MetadataTensor]
) -> dict[str, ResponseOutput]:
    """Return the outputs under the names of the metadata, if it has as many other names."""
    names = {output.name for output in outputs}
    if names == {"output-1"} == {tensor.name for tensor in described}:
        # MLServer 1.x's metadata names the output of a signature without names `output-0`.
        return {"output-0": ResponseOutput.build({**outputs[0].__dict__, "name": "output-0"})}
    if len(outputs) != len(described) or any(tensor.name in names for tensor in described):
        return {}
    pairs = zip(outputs, described, strict=True)
    return {
        tensor.name: ResponseOutput.build({**output.__dict__, "name": tensor.name})
        for output, tensor in pairs
    }


def _by_column(
    outputs: Sequence[ResponseOutput], described: Sequence[MetadataTensor]
) -> dict[str, ResponseOutput]:
    """Return the columns of one output [rows, n] under the names of n described outputs."""
    names = [tensor.name for tensor in described]
    are_columns = all(tensor.shape in ([-1], [-1, 1]) for tensor in described)
    if len(outputs) != 1 or len(names) < 2 or not are_columns:
        return {}
    (output,) = outputs
    if len(output.shape) != 2 or output.shape[1] != len(names) or output.name in names:
        return {}
    return {name: _column(output, index, name) for index, name in enumerate(names)}


def _column(output: ResponseOutput, index: int, name: str) -> ResponseOutput:
    datatype, (rows, width) = str(output.datatype), output.shape
    if datatype == "BYTES":
        elements = flat_elements(output.data.root, output.shape)
        data = TensorData(elements[index::width])
    else:
        format_code: Any = _FORMAT_CODES[item_size(datatype)]
        raw = memoryview(output.data.to_raw(datatype, output.shape)).cast("B").cast(format_code)
        data = TensorData.from_trusted_raw(raw[index::width].tobytes(), datatype, [rows, 1])
    return ResponseOutput.build({**output.__dict__, "name": name, "shape": [rows, 1], "data": data})
