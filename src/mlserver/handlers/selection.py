"""The outputs that a caller asked for: which of a model's answer they are, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import MLServerError
from ..types import InferenceResponse, MetadataTensor, RequestOutput, ResponseOutput


def select(response: InferenceResponse, wanted: Sequence[RequestOutput], described: Sequence[MetadataTensor]) -> None:
    """Keep the outputs that were asked for, in that order.

    A model's metadata may name its outputs otherwise than its answers do (MLflow's signatures say `quality` or `output-0`
    where the answer is an array, `output-1`). Clients that ask by the metadata get the output in the same place, under the
    name that they know.

    Args:
        described: The outputs of the model's metadata.

    Raises:
        MLServerError: An output is asked for that the model did not give.
    """
    by_name = {output.name: output for output in response.outputs}
    unknown = [output.name for output in wanted if output.name not in by_name]
    if unknown:
        by_name |= _by_place(response.outputs, described)
        unknown = [name for name in unknown if name not in by_name]
    if unknown:
        there = ", ".join(f"'{output.name}'" for output in response.outputs) or "none"
        raise MLServerError(f"Invalid outputs: the model has no output '{unknown[0]}'; its outputs are {there}")
    response.outputs = [by_name[output.name] for output in wanted]


def _by_place(outputs: Sequence[ResponseOutput], described: Sequence[MetadataTensor]) -> dict[str, ResponseOutput]:
    """The outputs under the metadata's names, where those are other names of as many tensors."""
    names = {output.name for output in outputs}
    if len(outputs) != len(described) or any(tensor.name in names for tensor in described):
        return {}
    pairs = zip(outputs, described, strict=True)
    return {tensor.name: ResponseOutput.build({**output.__dict__, "name": tensor.name}) for output, tensor in pairs}
