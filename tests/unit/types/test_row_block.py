"""Requests backed by a `RowBlock` equal the validated tensors in every reader and stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlserver.batching.batch import batch_key, join, rows_of, split
from mlserver.cache.response_cache import request_key
from mlserver.errors import InvalidPayload
from mlserver.handlers.validation import check_request
from mlserver.parallel.rpc import protocol
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    ResponseOutput,
    TensorData,
)
from mlserver.types.row_block import RowBlockRequest
from mlserver.wire import json
from mlserver.wire.proto import messages, model_infer

NUMBERS = {
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "FP32": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "UINT8": st.integers(0, 255),
}


@st.composite
def rows(draw: st.DrawFn) -> list[bytes]:
    """Bodies of one row each with the same columns."""
    datatype = draw(st.sampled_from(sorted(NUMBERS)))
    names = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6, unique=True))
    shape = draw(st.sampled_from([[1], [1, 1]]))
    return [
        orjson.dumps(
            {
                "inputs": [
                    {
                        "name": name,
                        "shape": shape,
                        "datatype": datatype,
                        "data": [draw(NUMBERS[datatype])],
                    }
                    for name in names
                ]
            }
        )
        for _ in range(draw(st.integers(1, 4)))
    ]


def validated(body: bytes, **rest: Any) -> InferenceRequest:
    request = InferenceRequest.model_validate(orjson.loads(body) | rest)
    for tensor in request.inputs:
        tensor.data.normalize(str(tensor.datatype), tensor.shape)
    return request


def shown(request: InferenceRequest) -> list[tuple[str, str, list[int], bytes]]:
    return [
        (
            tensor.name,
            str(tensor.datatype),
            tensor.shape,
            bytes(tensor.data.to_raw(str(tensor.datatype), tensor.shape)),
        )
        for tensor in request.inputs
    ]


RESTS = st.fixed_dictionaries(
    {},
    optional={
        "parameters": st.fixed_dictionaries(
            {"content_type": st.sampled_from(["pd", "np"]), "k": st.integers(0, 2)}
        ),
        "outputs": st.lists(
            st.sampled_from([{"name": "y"}, {"name": "z", "parameters": {"p": 1}}]), min_size=1
        ),
    },
)


@given(rows(), RESTS)
def test_row_block_from_json_equals_validated_tensors(
    bodies: list[bytes], rest: dict[str, Any]
) -> None:
    for body in [orjson.dumps(orjson.loads(body) | rest) for body in bodies]:
        request = json.read_request(body)
        assert request.rows is not None
        assert rows_of(request) == 1
        assert shown(request) == shown(validated(body))
        assert request.rows is None
        assert request == validated(body)
        assert json.read_request(body).model_dump() == validated(body).model_dump()


@given(rows(), st.booleans())
def test_row_block_from_grpc_equals_validated_tensors(bodies: list[bytes], raw: bool) -> None:
    for body in bodies:
        sent = messages.write_request(validated(body), "m", raw=raw).SerializeToString()
        request = model_infer.read_request(sent).request
    assert request.rows is not None
    assert rows_of(request) == 1
    assert batch_key(request) == batch_key(json.read_request(body))
    assert shown(request) == shown(validated(body))
    assert request == validated(body)


@given(rows(), RESTS, RESTS)
def test_row_block_with_parameters_and_outputs(
    bodies: list[bytes], rest: dict[str, Any], other: dict[str, Any]
) -> None:
    """They are part of the batch key, the cache key and the frame."""

    def received(more: dict[str, Any]) -> list[InferenceRequest]:
        sent = [
            messages.write_request(validated(body, **more), "m", raw=True)
            for body in [bodies[0], *bodies]
        ]
        return [model_infer.read_request(message.SerializeToString()).request for message in sent]

    requests = received(rest)[1:]
    expected = [validated(body, **rest) for body in bodies]
    joined = join(requests)
    arrived = framed(joined)
    assert isinstance(arrived, RowBlockRequest)
    assert arrived == join(expected)
    assert batch_key(requests[0]) == batch_key(expected[0])
    assert (batch_key(requests[0]) == batch_key(received(other)[0])) == (rest == other)
    assert (request_key(received(rest)[1]) == request_key(received(other)[1])) == (rest == other)


def framed(request: InferenceRequest) -> InferenceRequest:
    """The request after a round trip through a frame."""
    buffers: list[bytes] = []
    parts = protocol.encode(
        protocol.Frame(
            protocol.MessageType.INFER, 1, protocol.pack_request(request, buffers), buffers
        )
    )
    reader = protocol.FrameReader()
    data = b"".join(parts)
    reader.get_buffer()[: len(data)] = data
    (frame,) = reader.filled(len(data))
    return protocol.unpack_request(frame.head, frame.buffers)


@given(rows())
def test_joined_and_framed_row_blocks_equal_tensors(bodies: list[bytes]) -> None:
    requests = [json.read_request(body) for body in bodies]
    assert all(batch_key(request) == batch_key(requests[0]) for request in requests)
    assert batch_key(validated(bodies[0])) == batch_key(requests[0])
    arrived = framed(join(requests))
    assert isinstance(arrived, RowBlockRequest)
    assert shown(arrived) == shown(join([validated(body) for body in bodies]))


@pytest.mark.parametrize(
    "tensor",
    [
        {"shape": [1], "datatype": "FP32", "data": ["1"]},
        {"shape": [1], "datatype": "FP32", "data": [None]},
        {"shape": [1], "datatype": "FP32", "data": [1e39]},
        {"shape": [1], "datatype": "INT32", "data": [1.5]},
        {"shape": [1], "datatype": "INT8", "data": [300]},
        {"shape": [1], "datatype": "FP32", "data": "1"},
        {"shape": [1], "datatype": "FP32", "data": [[1]]},
        {"shape": [2], "datatype": "FP32", "data": [1, 2]},
        {"shape": [1], "datatype": "BOOL", "data": [True]},
        {"shape": [1], "datatype": "FP16", "data": [1]},
        {"shape": [], "datatype": "FP32", "data": [1]},
        {"shape": [1], "datatype": "FP32", "data": [1], "parameters": {"content_type": "np"}},
        {"shape": [1], "datatype": "FP32"},
    ],
)
def test_other_tensors_are_read_by_the_validator(tensor: dict[str, object]) -> None:
    body = orjson.dumps({"inputs": [{"name": "x", **tensor}]})
    try:
        request = json.read_request(body)
    except InvalidPayload:
        return
    assert request.rows is None


@pytest.mark.parametrize(
    "rest",
    [
        {"parameters": 1},
        {"parameters": []},
        {"parameters": {"content_type": 1}},
        {"parameters": {"headers": {"a": "b"}}},
        {"outputs": 1},
        {"outputs": "y"},
        {"outputs": {"name": "y"}},
        {"outputs": [1]},
        {"outputs": [{}]},
        {"outputs": [{"name": 1}]},
        {"outputs": [{"name": "y", "data": [1]}]},
        {"outputs": [{"name": "y", "parameters": 1}]},
        {"more": 1},
    ],
)
def test_other_fields_are_read_by_the_validator(rest: dict[str, object]) -> None:
    column = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
    assert json.read_row({"inputs": [column], **rest}) is None


def test_names_are_checked() -> None:
    column = {"shape": [1], "datatype": "FP32", "data": [1]}
    request = json.read_request(
        orjson.dumps({"inputs": [{"name": "x", **column}, {"name": "x", **column}]})
    )
    with pytest.raises(Exception, match="input 'x'"):
        check_request(request)


def test_row_blocks_join_with_tensors() -> None:
    body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'
    two = b'{"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [2, 3]}]}'
    requests = [json.read_request(body), json.read_request(two), json.read_request(body)]
    for request in requests:
        check_request(request)
    assert batch_key(requests[0]) == batch_key(requests[1])
    assert join(requests).inputs[0].data.root == [1.0, 2.0, 3.0, 1.0]


@st.composite
def answers(draw: st.DrawFn) -> tuple[InferenceResponse, list[int]]:
    """A response to several requests, and the rows of each."""
    counts = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    total = sum(counts)
    outputs = []
    for at in range(draw(st.integers(1, 3))):
        dtype = np.dtype(draw(st.sampled_from(["f8", "f4", "f2", "i8", "i4", "u1", "?"])))
        inner = draw(st.sampled_from([[], [1], [3], [2, 20]]))
        array = draw(arrays(dtype, (total, *inner)))
        data = TensorData.from_array(array)
        shape = [total, *inner] if inner else [total, 1]  # a vector is shown as a column
        datatype = {
            "f8": "FP64",
            "f4": "FP32",
            "f2": "FP16",
            "i8": "INT64",
            "i4": "INT32",
            "u1": "UINT8",
            "b1": "BOOL",
        }
        outputs.append(
            ResponseOutput(
                name=f'out "{at}"',
                shape=shape,
                datatype=datatype[dtype.str[1:]],
                parameters=Parameters(content_type="np"),
                data=data,
            )
        )
    parameters = draw(st.sampled_from([None, Parameters(content_type="np", own=[1, {"a": None}])]))
    return InferenceResponse(model_name="m", parameters=parameters, outputs=outputs), counts


@given(answers())
def test_slices_and_their_tensors_have_the_same_json(
    case: tuple[InferenceResponse, list[int]],
) -> None:
    whole, counts = case
    shares = split(whole, counts)
    at = 0
    for number, (share, count) in enumerate(zip(shares, counts, strict=True)):
        share.put(id=f"id {number}", model_version="3")
        assert share.output_slice is not None
        shown = json.write_response(share)
        assert share.output_slice is not None
        assert "outputs" in share.model_dump()
        assert share.output_slice is None
        assert json.write_response(share) == shown
        for own, output in zip(share.outputs, whole.outputs, strict=True):
            assert own.shape == [count, *output.shape[1:]]
            elements = output.data.to_array(str(output.datatype), output.shape)[at : at + count]
            assert own.data.to_array(str(own.datatype), own.shape).tobytes() == elements.tobytes()
        at += count


def test_new_outputs_replace_a_slice() -> None:
    output = ResponseOutput(name="y", shape=[2], datatype="INT64", data=TensorData([1, 2]))
    share, _ = split(InferenceResponse(model_name="m", outputs=[output]), [1, 1])
    share.outputs = []
    assert share.output_slice is None
    assert orjson.loads(json.write_response(share))["outputs"] == []
