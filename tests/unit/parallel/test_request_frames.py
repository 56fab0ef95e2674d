"""Requests, responses and errors as frames, there and back."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver.errors import InvalidInput, MLServerError, ModelFailed, Overloaded
from mlserver.parallel.rpc.protocol import (
    INLINE_LIMIT,
    Frame,
    MessageType,
    encode,
    pack_error,
    pack_request,
    pack_response,
    unpack_error,
    unpack_request,
    unpack_response,
)
from mlserver.tensor import DTYPES
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    RequestOutput,
    ResponseOutput,
    TensorData,
)
from support.frames import read, written

# -- requests --


def send_request(request: InferenceRequest) -> InferenceRequest:
    buffers: list[Any] = []
    (frame,) = read(written(Frame(MessageType.INFER, 1, pack_request(request, buffers), buffers)))
    return unpack_request(frame.head, frame.buffers)


def send_response(response: InferenceResponse) -> InferenceResponse:
    buffers: list[Any] = []
    (frame,) = read(written(Frame(MessageType.REPLY, 1, pack_response(response, buffers), buffers)))
    return unpack_response(frame.head, frame.buffers)


def normalized(
    name: str, datatype: str, shape: list[int], data: Any, **fields: Any
) -> RequestInput:
    tensor = RequestInput(
        name=name, datatype=datatype, shape=shape, data=TensorData(data), **fields
    )
    tensor.data.normalize(datatype, shape)
    return tensor


REQUESTS = {
    "nothing": InferenceRequest(inputs=[]),
    "everything": InferenceRequest(
        id="7",
        parameters=Parameters(
            content_type="pd", headers={"a": "b"}, k=[1, {"n": None}], big=2**64 - 1
        ),
        inputs=[
            normalized(
                "x", "FP32", [2, 1], [0.5, -0.0], parameters={"content_type": "np", "scale": 2.5}
            ),
            normalized("s", "BYTES", [3], ["é", "\0", ""]),
            normalized("b", "BYTES", [2], [b"\xff\x00", b""]),
            normalized("nested", "BYTES", [2, 1], [["a"], [None]]),
        ],
        outputs=[
            RequestOutput(name="y"),
            RequestOutput(name="z", parameters=Parameters(content_type="str")),
        ],
    ),
    "no outputs": InferenceRequest(inputs=[], outputs=[], parameters={}),
    "empty and scalar": InferenceRequest(
        inputs=[
            normalized("e", "INT8", [0, 3], []),
            normalized("s", "FP64", [], [1.5]),
            normalized("n", "BYTES", [0], []),
        ]
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests(name: str) -> None:
    sent = REQUESTS[name]
    received = send_request(sent)

    assert [tensor.data.representations for tensor in received.inputs] == [
        ("raw",) if str(tensor.datatype) != "BYTES" else ("root",) for tensor in sent.inputs
    ]
    assert received == sent
    assert received.model_dump() == sent.model_dump()


def test_raw_bytes_elements_stay_raw() -> None:
    data = TensorData.from_raw(b"\x02\0\0\0\xff\xfe", "BYTES", [1])
    request = InferenceRequest(
        inputs=[RequestInput(name="x", datatype="BYTES", shape=[1], data=data)]
    )
    received = send_request(request).inputs[0].data

    assert received.representations == ("raw",)
    assert received.root == [b"\xff\xfe"]


@pytest.mark.parametrize("count", [INLINE_LIMIT - 1, INLINE_LIMIT, 3 * 2**18])
def test_small_data_in_the_head_and_large_beside_it(count: int) -> None:
    sent = InferenceRequest(
        inputs=[normalized("x", "UINT8", [count], [7] * count), normalized("y", "UINT8", [1], [8])]
    )
    buffers: list[Any] = []
    pack_request(sent, buffers)

    assert len(buffers) == (count >= INLINE_LIMIT)
    assert [bytes(tensor.data.raw or b"") for tensor in send_request(sent).inputs] == [
        b"\7" * count,
        b"\10",
    ]


@given(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 3), max_size=3), st.data())
def test_any_numbers(datatype: str, shape: list[int], data: st.DataObject) -> None:
    dtype = np.dtype(DTYPES[datatype])
    count = int(np.prod(shape))
    raw = data.draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    if datatype == "BOOL":
        raw = bytes(byte & 1 for byte in raw)
    tensor = RequestInput(
        name="x", datatype=datatype, shape=shape, data=TensorData.from_raw(raw, datatype, shape)
    )
    received = send_request(InferenceRequest(inputs=[tensor])).inputs[0]

    assert bytes(received.data.to_raw(datatype, shape)) == raw
    assert received.data.to_array(datatype, shape).shape == tuple(shape)


# -- responses --


def test_responses_keep_the_rank_that_the_model_gave() -> None:
    array = np.arange(3.0)
    output = ResponseOutput(
        name="y", datatype="FP64", shape=[3, 1], data=TensorData.from_array(array)
    )
    received = send_response(
        InferenceResponse(model_name="m", model_version="1", id="i", outputs=[output])
    )

    assert (received.model_name, received.model_version, received.id) == ("m", "1", "i")
    assert received.outputs[0].shape == [3, 1]
    assert received.outputs[0].data.block_shape == [3]
    assert received.outputs[0].data.to_array("FP64", [3, 1]).tolist() == [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize(
    "datatype, data",
    [
        ("FP32", [None, 1.0]),
        ("BYTES", ["é", b"\xff"]),
        ("BF16", [1.0, 2.0]),
        ("INT64", [2**53 + 1, -(2**63)]),
        ("BYTES", np.array(["a", b"\xff"], dtype=object)),
        ("BYTES", np.array(["a", "bc"])),
        ("BYTES", np.array([b"a", b"bc"])),
    ],
)
def test_responses_of_every_kind(datatype: str, data: Any) -> None:
    tensor_data = TensorData.from_array(data) if isinstance(data, np.ndarray) else TensorData(data)
    output = ResponseOutput(name="y", datatype=datatype, shape=[2], data=tensor_data)
    received = send_response(InferenceResponse(model_name="m", outputs=[output]))

    assert received.outputs[0].data == (data.tolist() if isinstance(data, np.ndarray) else data)


def test_a_response_that_does_not_match_its_shape_is_a_model_error() -> None:
    output = ResponseOutput(name="y", datatype="FP32", shape=[2], data=TensorData([1.0]))
    with pytest.raises(MLServerError, match="Tensor 'y': expected 2 elements") as error:
        pack_response(InferenceResponse(model_name="m", outputs=[output]), [])
    assert error.value.status_code == 500


@pytest.mark.parametrize(
    "value, plain",
    [
        (np.float32(0.5), 0.5),
        (np.array([1, 2]), [1, 2]),
        (TensorData([1]), [1]),
        (Parameters(content_type="np"), {"content_type": "np"}),
        (MessageType.PING, 8),
        (msgspec, str(msgspec)),
    ],
)
def test_parameters_become_plain(value: Any, plain: Any) -> None:
    response = InferenceResponse(model_name="m", outputs=[], parameters=Parameters(k=value))
    received = send_response(response)

    assert received.parameters is not None
    assert received.parameters.model_extra == {"k": plain}


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    return value


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, deep()])
def test_unserializable_values_are_refused(value: Any) -> None:
    with pytest.raises(MLServerError, match="cannot be serialized") as error:
        encode(Frame(MessageType.INFER, 1, value))
    assert error.value.status_code == 400


# -- errors --


def test_errors_keep_what_a_caller_may_see() -> None:
    error = unpack_error(pack_error(MLServerError("no", 418, code="ABORTED", details={"k": 1})))
    assert (error.message, error.status_code, error.code, error.details) == (
        "no",
        418,
        "ABORTED",
        {"k": 1},
    )

    assert error.retry_after is None
    assert unpack_error(pack_error(Overloaded("full", retry_after=2.5))).retry_after == 2.5

    kinds = [InvalidInput("x", "a", "b"), ModelFailed("m")]
    assert [(unpack_error(pack_error(kind)).status_code, kind.code) for kind in kinds] == [
        (400, "INVALID_ARGUMENT"),
        (500, "INTERNAL"),
    ]


@pytest.mark.parametrize(
    "error, text", [(ValueError("x"), "ValueError: x"), (KeyError(), "KeyError")]
)
def test_other_exceptions_are_internal(error: Exception, text: str) -> None:
    received = unpack_error(pack_error(error))

    assert (received.message, received.status_code, received.code) == (text, 500, "INTERNAL")


def test_unexpected_errors_have_no_paths() -> None:
    error = unpack_error(pack_error(FileNotFoundError(2, "No such file", "/srv/models/m/x.csv")))
    assert error.message == "FileNotFoundError: [Errno 2] No such file: 'x.csv'"
