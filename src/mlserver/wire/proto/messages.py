"""Inference requests and responses in protobuf: messages of `wire.pb` <-> `mlserver.types`. Pure.

Checks cover what is specific to protobuf: typed or raw contents, their number and their sizes. The
data plane checks the rest. Metadata and repository messages: `wire.proto.metadata`.

Parameters: bool, 64-bit integers, floats and text have fields of their own. Other values (lists,
objects, larger integers) are written as JSON text; None is omitted. `headers` is not a parameter:
over gRPC, headers are metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ...errors import InvalidInput, MLServerError
from ...tensor import DATATYPES, TensorError
from ...types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    RequestOutput,
    ResponseOutput,
    TensorData,
)
from ..missing import restore_missing, without_missing
from ..pb import dataplane_pb2 as pb
from .contents import FIELDS, read_contents, write_contents

InferTensor = pb.ModelInferRequest.InferInputTensor | pb.ModelInferResponse.InferOutputTensor
AnyTensor = TypeVar("AnyTensor", RequestInput, ResponseOutput)


def uses_raw(message: pb.ModelInferRequest) -> bool:
    """Return whether a request has raw contents; its response gets raw contents too."""
    return len(message.raw_input_contents) > 0


# -- requests --


def read_request(
    message: pb.ModelInferRequest, raws: Sequence[bytes | memoryview] | None = None
) -> InferenceRequest:
    """Return the request of a message.

    Args:
        raws: The raw contents if the caller has removed them from the message.

    Raises:
        InvalidInput: the request is invalid; the text names the input.
    """
    # Slices, because iterating over protobuf's containers is slower.
    blocks = message.raw_input_contents[:] if raws is None else raws
    inputs = _read_tensors(message.inputs[:], blocks, RequestInput)
    outputs = read_requested_outputs(message)
    values: dict[str, Any] = {
        "id": message.id or None,
        "parameters": read_parameters(message.parameters),
        "inputs": inputs,
        "outputs": outputs,
    }
    return InferenceRequest.build(values)


def read_requested_outputs(message: pb.ModelInferRequest) -> list[RequestOutput] | None:
    """Return the requested outputs; None if the message names none.

    Raises:
        InvalidInput: a parameter of an output is invalid.
    """
    outputs = [
        RequestOutput(name=output.name, parameters=read_parameters(output.parameters))
        for output in message.outputs[:]
    ]
    return outputs or None


def write_request(
    request: InferenceRequest, model_name: str, model_version: str | None = None, raw: bool = False
) -> pb.ModelInferRequest:
    """Return a client's message for one model.

    Args:
        raw: Write raw contents. They are written too if an input has no typed form.
    """
    message = pb.ModelInferRequest(
        model_name=model_name, model_version=model_version or "", id=request.id or ""
    )
    write_parameters(message.parameters, request.parameters)
    for output in request.outputs or ():
        write_parameters(message.outputs.add(name=output.name).parameters, output.parameters)
    raws: list[bytes | memoryview] = []
    is_raw = raw or needs_raw(request.inputs)
    _write_tensors(request.inputs, message.inputs.add, raws.append if is_raw else None)
    message.raw_input_contents.extend(map(bytes, raws))
    return message


# -- responses --


def write_response(
    response: InferenceResponse,
    raw: bool = False,
    add_raw: Callable[[bytes | memoryview], None] | None = None,
) -> pb.ModelInferResponse:
    """Return the message of a response.

    Args:
        raw: Write raw contents. They are written too if an output has no typed form.
        add_raw: Called with the raw contents of each output, which are then not added to the
            message.

    Raises:
        MLServerError: (500) an output does not fit its own datatype and shape.
    """
    message = pb.ModelInferResponse(
        model_name=response.model_name,
        model_version=response.model_version or "",
        id=response.id or "",
    )
    if response.parameters is not None:
        write_parameters(message.parameters, response.parameters)
    raws: list[bytes | memoryview] = []
    add_block = raws.append if add_raw is None else add_raw
    is_raw = raw or needs_raw(response.outputs)
    try:
        _write_tensors(response.outputs, message.outputs.add, add_block if is_raw else None)
    except InvalidInput as error:
        raise MLServerError(f"The model's answer is not valid: {error.message}", 500) from None
    message.raw_output_contents.extend(map(bytes, raws))
    return message


def read_response(message: pb.ModelInferResponse) -> InferenceResponse:
    """Return the response of a message that a client received.

    Raises:
        InvalidInput: the message is not a valid response.
    """
    values: dict[str, Any] = {
        "model_name": message.model_name,
        "model_version": message.model_version or None,
        "id": message.id or None,
        "parameters": read_parameters(message.parameters),
        "outputs": _read_tensors(
            message.outputs[:], message.raw_output_contents[:], ResponseOutput
        ),
    }
    return InferenceResponse.build(values)


# -- tensors --


def _read_tensors(
    tensors: Sequence[InferTensor], raws: Sequence[bytes | memoryview], kind: type[AnyTensor]
) -> list[AnyTensor]:
    if not raws:
        return [_read_tensor(tensor, None, kind) for tensor in tensors]
    if len(raws) != len(tensors):
        raise InvalidInput(
            "raw contents",
            f"one entry for each of the {len(tensors)} tensors",
            f"{len(raws)} entries",
        )
    return [_read_tensor(tensor, raw, kind) for tensor, raw in zip(tensors, raws, strict=True)]


def _read_tensor(
    tensor: InferTensor, raw: bytes | memoryview | None, kind: type[AnyTensor]
) -> AnyTensor:
    name, datatype, shape = tensor.name, tensor.datatype, tensor.shape[:]
    if datatype not in DATATYPES:
        raise InvalidInput(
            f"datatype of tensor '{name}'", f"one of {', '.join(DATATYPES)}", repr(datatype[:40])
        )
    try:
        if raw is None:
            data = read_contents(tensor.contents, datatype, shape)
        elif tensor.HasField("contents") and tensor.contents.ListFields():
            raise TensorError("either raw or typed contents", "both")
        else:
            data = TensorData.from_raw(raw, datatype, shape)
    except TensorError as error:
        raise InvalidInput(f"data of tensor '{name}'", error.expected, error.received) from None
    parameters = read_parameters(tensor.parameters)
    result = kind.build(
        {"name": name, "shape": shape, "datatype": datatype, "parameters": parameters, "data": data}
    )
    if parameters is not None:
        restore_missing(result)
    return result


def needs_raw(tensors: Sequence[AnyTensor]) -> bool:
    """Return whether a tensor has a datatype without typed contents."""
    return any(tensor.datatype not in FIELDS for tensor in tensors)


def _write_tensors(
    tensors: Sequence[AnyTensor],
    add: Callable[..., InferTensor],
    add_raw: Callable[[bytes | memoryview], None] | None,
) -> None:
    for tensor in map(without_missing, tensors):
        datatype = str(tensor.datatype)
        target = add(name=tensor.name, datatype=datatype, shape=tensor.shape)
        if tensor.parameters is not None:
            write_parameters(target.parameters, tensor.parameters)
        try:
            if add_raw is None:
                write_contents(target.contents, tensor.data, datatype, tensor.shape)
            else:
                add_raw(tensor.data.to_raw(datatype, tensor.shape))
        except TensorError as error:
            raise InvalidInput(
                f"data of tensor '{tensor.name}'", error.expected, error.received
            ) from None


# -- parameters --


def read_parameters(parameters: Mapping[str, pb.InferParameter]) -> Parameters | None:
    """Return the parameters of a map; None if it is empty.

    Raises:
        InvalidInput: `content_type` is not text.
    """
    if not parameters:
        return None
    values = {key: _read_value(value) for key, value in parameters.items() if key != "headers"}
    content_type = values.get("content_type")
    if content_type is not None and not isinstance(content_type, str):
        raise InvalidInput("parameter 'content_type'", "text", repr(content_type))
    return Parameters.from_values(values)


def _read_value(parameter: pb.InferParameter) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def write_parameters(target: Any, parameters: Parameters | None) -> None:
    """Write parameters into a message's map (`message.parameters`)."""
    if parameters is None:
        return
    if parameters.content_type is not None:
        target["content_type"].string_param = parameters.content_type
    for key, value in (parameters.model_extra or {}).items():
        if value is not None:
            _write_value(target[key], value)


def _write_value(parameter: pb.InferParameter, value: Any) -> None:
    match value:
        case str():
            parameter.string_param = value
        case bool():
            parameter.bool_param = value
        case int() if -(2**63) <= value < 2**63:
            parameter.int64_param = value
        case int() if 0 <= value < 2**64:
            parameter.uint64_param = value
        case float():
            parameter.double_param = value
        case bytes():
            parameter.string_param = value.decode("utf-8", "replace")
        case _ if hasattr(value, "item") and getattr(value, "size", 0) == 1:
            _write_value(parameter, value.item())
        case _:
            parameter.string_param = json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
