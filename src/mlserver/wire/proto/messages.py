"""Inference requests and responses in protobuf: pure functions between the messages of `wire.pb` and the types.

What only protobuf can get wrong is checked here (typed against raw contents, their number, their sizes); names, models
and everything else are the data plane's business. Metadata and repository messages are in `wire.proto_metadata`.

Parameters: bool, integers of 64 bits, floats and text travel as themselves in both directions. Other values (lists,
objects, larger integers) are written as JSON text, and None is left out. `headers` never travel as a parameter: over
gRPC they are metadata.
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
    """Whether a request carries raw contents, and therefore wants a raw answer."""
    return len(message.raw_input_contents) > 0


# -- requests --


def read_request(
    message: pb.ModelInferRequest, raws: Sequence[bytes | memoryview] | None = None
) -> InferenceRequest:
    """A request of the road.

    Args:
        raws: The raw contents, if they are not in the message.

    Raises:
        InvalidInput: the message is no valid request; the text names the input.
    """
    # Slices: iterating over protobuf's containers costs more than all of the rest.
    inputs = _read_tensors(
        message.inputs[:], message.raw_input_contents[:] if raws is None else raws, RequestInput
    )
    outputs = [
        RequestOutput(name=out.name, parameters=read_parameters(out.parameters))
        for out in message.outputs[:]
    ]
    values: dict[str, Any] = {
        "id": message.id or None,
        "parameters": read_parameters(message.parameters),
        "inputs": inputs,
        "outputs": outputs or None,
    }
    return InferenceRequest.build(values)


def write_request(
    request: InferenceRequest, model_name: str, model_version: str | None = None, raw: bool = False
) -> pb.ModelInferRequest:
    """A client's message for one model; raw contents if asked for, or if an input has no typed form."""
    message = pb.ModelInferRequest(
        model_name=model_name, model_version=model_version or "", id=request.id or ""
    )
    write_parameters(message.parameters, request.parameters)
    for output in request.outputs or ():
        write_parameters(message.outputs.add(name=output.name).parameters, output.parameters)
    _write_tensors(
        request.inputs,
        message.inputs.add,
        message.raw_input_contents.append if raw or needs_raw(request.inputs) else None,
    )
    return message


# -- responses --


def write_response(response: InferenceResponse, raw: bool = False) -> pb.ModelInferResponse:
    """The message of a response; raw contents if asked for, or if an output has no typed form.

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
    raw = raw or needs_raw(response.outputs)
    try:
        _write_tensors(
            response.outputs,
            message.outputs.add,
            message.raw_output_contents.append if raw else None,
        )
    except InvalidInput as error:
        raise MLServerError(f"The model's answer is not valid: {error.message}", 500) from None
    return message


def read_response(message: pb.ModelInferResponse) -> InferenceResponse:
    """What a client received.

    Raises:
        InvalidInput: the message is no valid response.
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
    made = kind.build(
        {"name": name, "shape": shape, "datatype": datatype, "parameters": parameters, "data": data}
    )
    if parameters is not None:
        restore_missing(made)
    return made


def needs_raw(tensors: Sequence[AnyTensor]) -> bool:
    return any(tensor.datatype not in FIELDS for tensor in tensors)


def _write_tensors(
    tensors: Sequence[AnyTensor],
    add: Callable[..., InferTensor],
    add_raw: Callable[[bytes], None] | None,
) -> None:
    for tensor in map(without_missing, tensors):
        datatype = str(tensor.datatype)
        made = add(name=tensor.name, datatype=datatype, shape=tensor.shape)
        if tensor.parameters is not None:
            write_parameters(made.parameters, tensor.parameters)
        try:
            if add_raw is None:
                write_contents(made.contents, tensor.data, datatype, tensor.shape)
            else:
                add_raw(bytes(tensor.data.to_raw(datatype, tensor.shape)))
        except TensorError as error:
            raise InvalidInput(
                f"data of tensor '{tensor.name}'", error.expected, error.received
            ) from None


# -- parameters --


def read_parameters(parameters: Mapping[str, pb.InferParameter]) -> Parameters | None:
    """A map of parameters; None if it is empty.

    Raises:
        InvalidInput: `content_type` is not text.
    """
    if not parameters:
        return None
    values = {key: _read_value(value) for key, value in parameters.items() if key != "headers"}
    content_type = values.get("content_type")
    if content_type is not None and not isinstance(content_type, str):
        raise InvalidInput("parameter 'content_type'", "text", repr(content_type))
    return Parameters.of(values)


def _read_value(parameter: pb.InferParameter) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def write_parameters(target: Any, parameters: Parameters | None) -> None:
    """Put parameters into a message's map (`message.parameters`)."""
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
