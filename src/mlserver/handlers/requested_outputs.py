"""The outputs that a caller asked for: which of a model's answer they are, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import MLServerError
from ..tensor import flat_elements, item_size
from ..types import InferenceResponse, MetadataTensor, RequestOutput, ResponseOutput, TensorData

# Bytes of an element -> a code of `memoryview` for elements of that size.
_UNITS = {1: "B", 2: "H", 4: "I", 8: "Q"}


def select(
    response: InferenceResponse,
    wanted: Sequence[RequestOutput],
    described: Sequence[MetadataTensor],
) -> None:
    """Keep the outputs that were asked for, in that order.

    A model's metadata may name its outputs otherwise than its answers do (MLflow's signatures say `quality` or `output-0`
    where the answer is an array, `output-1`). Clients that ask by the metadata get the output in the same place, under the
    name that they know.

    Of one answer [rows, n] to n described columns each is found by its name as well.

    Args:
        described: The outputs of the model's metadata.

    Raises:
        MLServerError: An output is asked for that the model did not give.
    """
    by_name = {output.name: output for output in response.outputs}
    unknown = [output.name for output in wanted if output.name not in by_name]
    if unknown:
        by_name |= _by_place(response.outputs, described) | _by_column(response.outputs, described)
        unknown = [name for name in unknown if name not in by_name]
    if unknown:
        there = ", ".join(f"'{output.name}'" for output in response.outputs) or "none"
        raise MLServerError(
            f"Invalid outputs: the model has no output '{unknown[0]}'; its outputs are {there}"
        )
    response.outputs = [by_name[output.name] for output in wanted]


def _by_place(
    outputs: Sequence[ResponseOutput], described: Sequence[MetadataTensor]
) -> dict[str, ResponseOutput]:
    """The outputs under the metadata's names, where those are other names of as many tensors."""
    names = {output.name for output in outputs}
    if names == {"output-1"} == {tensor.name for tensor in described}:
        # MLServer 1.x's metadata called the only output of a signature without names output-0.
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
    """The columns of one output [rows, n] under the names of n described outputs of one element per row."""
    names = [tensor.name for tensor in described]
    if (
        len(outputs) != 1
        or len(names) < 2
        or any(tensor.shape not in ([-1], [-1, 1]) for tensor in described)
    ):
        return {}
    (output,) = outputs
    if len(output.shape) != 2 or output.shape[1] != len(names) or output.name in names:
        return {}
    return {name: _column(output, at, name) for at, name in enumerate(names)}


def _column(output: ResponseOutput, at: int, name: str) -> ResponseOutput:
    datatype, (rows, width) = str(output.datatype), output.shape
    if datatype == "BYTES":
        elements = flat_elements(output.data.root, output.shape)
        data = TensorData(elements[at::width])
    else:
        unit: Any = _UNITS[item_size(datatype)]
        raw = memoryview(output.data.to_raw(datatype, output.shape)).cast("B").cast(unit)
        data = TensorData.trusted(raw[at::width].tobytes(), datatype, [rows, 1])
    return ResponseOutput.build({**output.__dict__, "name": name, "shape": [rows, 1], "data": data})
