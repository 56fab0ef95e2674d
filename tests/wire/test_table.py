"""Every row of the wire table in every format, read and written, by server and by client."""

from __future__ import annotations

import json as library
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    ResponseOutput,
)
from mlserver.wire import binary, json, json_client
from mlserver.wire.pb import dataplane_pb2 as pb
from mlserver.wire.proto import messages, model_infer

from .cases import CASES, Case

JSON = [name for name, case in CASES.items() if case.in_json]
TYPED = [name for name, case in CASES.items() if case.in_typed_contents]


def plain(parameters: Parameters | None) -> dict[str, Any]:
    """Parameters as a dictionary of type and value; None and empty are equal."""
    return (
        {key: (type(value), value) for key, value in parameters.to_dict().items()}
        if parameters is not None
        else {}
    )


def elements(tensor: RequestInput | ResponseOutput) -> tuple[list[Any], list[int]]:
    """Elements and shape; BYTES as bytes, which JSON has as text."""
    tensor.data.normalize(str(tensor.datatype), tensor.shape)
    array = tensor.data.to_array(str(tensor.datatype), tensor.shape)
    values = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
    return values, list(array.shape)


def assert_same_tensors(actual: Any, expected: Any) -> None:
    assert len(actual) == len(expected)
    for tensor, other in zip(actual, expected, strict=True):
        assert (tensor.name, tensor.datatype, tensor.shape) == (
            other.name,
            other.datatype,
            other.shape,
        )
        assert plain(tensor.parameters) == plain(other.parameters)
        np.testing.assert_equal(elements(tensor), elements(other))


def assert_same_request(actual: InferenceRequest, case: Case) -> None:
    expected = case.request()
    assert actual.id == expected.id
    found_parameters = plain(actual.parameters)
    found_parameters.pop("binary_data_output", None)
    assert found_parameters == plain(expected.parameters)
    assert_same_tensors(actual.inputs, expected.inputs)
    assert [(output.name, plain(output.parameters)) for output in actual.outputs or []] == [
        (output.name, plain(output.parameters)) for output in expected.outputs or []
    ]


def assert_same_response(actual: InferenceResponse, case: Case) -> None:
    expected = case.response()
    assert (actual.model_name, actual.model_version, actual.id) == (
        "m",
        expected.model_version,
        expected.id,
    )
    assert plain(actual.parameters) == plain(expected.parameters)
    assert_same_tensors(actual.outputs, expected.outputs)


def same_numbers(first: Any, other: Any) -> bool:
    """Whether two documents are equal with types: -0.0 and 0.0, 1 and 1.0, true and 1 differ."""
    return library.dumps(first, sort_keys=True) == library.dumps(other, sort_keys=True)


# -- JSON --


@pytest.mark.parametrize("name", JSON)
def test_json(name: str) -> None:
    case = CASES[name]
    assert_same_request(json.read_request(library.dumps(case.json_document(True)).encode()), case)
    assert_same_response(
        json_client.read_response(library.dumps(case.json_document(False)).encode()), case
    )
    assert same_numbers(
        library.loads(json_client.write_json(case.request())), case.json_document(True)
    )
    assert same_numbers(
        library.loads(json.write_response(case.response())), case.json_document(False)
    )


# -- the binary extension --


@pytest.mark.parametrize("name", CASES)
def test_binary(name: str) -> None:
    case = CASES[name]
    body, length = case.binary_body(True)
    assert_same_request(binary.read_request(body, length), case)
    body, length = case.binary_body(False)
    assert_same_response(json_client.read_response(body, length), case)

    written, head = json_client.write_binary(case.request())
    assert same_numbers(library.loads(written[:head]), case.binary_head(True))
    assert written[head:] == case.blob()
    if case.tensors:
        parts, head_length = binary.write_response(case.response(), binary.BinaryOutputs(True, {}))
        body = b"".join(parts)
        assert same_numbers(library.loads(body[:head_length]), case.binary_head(False))
        assert body[head_length:] == case.blob()


# -- protobuf --


def shown(message: pb.ModelInferRequest | pb.ModelInferResponse) -> str:
    """A message as text, in which NaN equals NaN, without empty contents."""
    tensors = message.inputs if isinstance(message, pb.ModelInferRequest) else message.outputs
    for tensor in tensors:
        if not tensor.contents.ListFields():
            tensor.ClearField("contents")
    return str(message)


@pytest.mark.parametrize(
    "name, raw", [(name, raw) for name in CASES for raw in (False, True) if raw or name in TYPED]
)
def test_protobuf(name: str, raw: bool) -> None:
    case = CASES[name]
    request, response = case.proto_request(raw), case.proto_response(raw)
    assert_same_request(
        messages.read_request(pb.ModelInferRequest.FromString(request.SerializeToString())), case
    )
    assert_same_response(
        messages.read_response(pb.ModelInferResponse.FromString(response.SerializeToString())), case
    )
    assert shown(messages.write_request(case.request(), "m", case.version, raw=raw)) == shown(
        request
    )
    assert shown(messages.write_response(case.response(), raw=raw)) == shown(response)


@pytest.mark.parametrize(
    "name, raw", [(name, raw) for name in CASES for raw in (False, True) if raw or name in TYPED]
)
def test_protobuf_in_bytes(name: str, raw: bool) -> None:
    case = CASES[name]
    data = case.proto_request(raw).SerializeToString()
    for _ in range(2):  # the second time the layout is known
        received = model_infer.read_request(data)
        assert_same_request(received.request, case)
        assert (received.model_name, received.model_version) == ("m", case.version or "")
        assert received.raw == (raw and bool(case.tensors))
        written = model_infer.write_response(case.response(), raw)
        assert shown(pb.ModelInferResponse.FromString(written)) == shown(case.proto_response(raw))


# -- cut anywhere --


def refuses(read: Callable[[], Any]) -> bool:
    from google.protobuf.message import DecodeError

    from mlserver.errors import MLServerError

    try:
        read()
    except MLServerError as error:
        assert error.status_code == 400  # noqa: PT017 - either end is right
        return True
    except DecodeError:
        return True
    return False


@pytest.mark.parametrize("name", JSON)
def test_json_cut_anywhere_is_refused(name: str) -> None:
    body = library.dumps(CASES[name].json_document(True)).encode()
    step = max(1, len(body) // 300)
    for size in range(0, len(body), step):
        assert refuses(lambda size=size: json.read_request(body[:size]))  # type: ignore[misc]


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].blob()])
def test_binary_cut_anywhere_is_refused(name: str) -> None:
    body, length = CASES[name].binary_body(True)
    step = max(1, len(body) // 300)
    for size in range(0, len(body), step):
        head = min(length, size) or None
        assert refuses(lambda size=size, head=head: binary.read_request(body[:size], head))  # type: ignore[misc]


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].blob()])
def test_truncated_protobuf_has_no_other_tensors(name: str) -> None:
    """A message truncated between two fields is valid, but tensors without data are refused."""
    case = CASES[name]
    body = case.proto_request(raw=True).SerializeToString()
    step = max(1, len(body) // 300)
    for size in range(0, len(body), step):
        kept = proto_inputs(body[:size])
        assert kept is None or len(kept) < len(case.tensors)


def proto_inputs(body: bytes) -> list[RequestInput] | None:
    inputs: list[RequestInput] = []

    def read() -> None:
        inputs.extend(messages.read_request(pb.ModelInferRequest.FromString(body)).inputs)

    return None if refuses(read) else inputs
