"""Packed requests say what their tensors say, by every way that reads them."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver.errors import InvalidPayload
from mlserver.execution import frames
from mlserver.handlers.checks import check_request
from mlserver.scheduling.batch import batch_key, join, rows_of
from mlserver.types import InferenceRequest
from mlserver.types.packed import PackedRequest, packed
from mlserver.wire import json

NUMBERS = {
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "FP32": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "UINT8": st.integers(0, 255),
}


@st.composite
def rows(draw: st.DrawFn) -> list[bytes]:
    """Bodies of one row each, of one layout."""
    datatype = draw(st.sampled_from(sorted(NUMBERS)))
    names = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6, unique=True))
    shape = draw(st.sampled_from([[1], [1, 1]]))
    return [
        orjson.dumps(
            {
                "inputs": [
                    {"name": name, "shape": shape, "datatype": datatype, "data": [draw(NUMBERS[datatype])]}
                    for name in names
                ]
            }
        )
        for _ in range(draw(st.integers(1, 4)))
    ]


def validated(body: bytes) -> InferenceRequest:
    request = InferenceRequest.model_validate(orjson.loads(body))
    for tensor in request.inputs:
        tensor.data.settle(str(tensor.datatype), tensor.shape)
    return request


def shown(request: InferenceRequest) -> list[tuple[str, str, list[int], bytes]]:
    return [
        (tensor.name, str(tensor.datatype), tensor.shape, bytes(tensor.data.to_raw(str(tensor.datatype), tensor.shape)))
        for tensor in request.inputs
    ]


@given(rows())
def test_packed_is_the_same_as_validated(bodies: list[bytes]) -> None:
    for body in bodies:
        request = json.read_request(body)
        assert packed(request) is not None
        assert rows_of(request) == 1
        assert shown(request) == shown(validated(body))
        assert packed(request) is None
        assert request == validated(body)
        assert json.read_request(body).model_dump() == validated(body).model_dump()


@given(rows())
def test_joined_and_framed_packed_is_the_same_as_tensors(bodies: list[bytes]) -> None:
    requests = [json.read_request(body) for body in bodies]
    assert all(batch_key(request) == batch_key(requests[0]) for request in requests)
    assert batch_key(validated(bodies[0])) == batch_key(requests[0])
    joined = join(requests)
    buffers: list[bytes] = []
    parts = frames.encode(frames.Frame(frames.Kind.INFER, 1, frames.pack_request(joined, buffers), buffers))
    reader = frames.FrameReader()
    data = b"".join(parts)
    reader.get_buffer()[: len(data)] = data
    (frame,) = reader.filled(len(data))
    arrived = frames.unpack_request(frame.head, frame.buffers)
    assert isinstance(arrived, PackedRequest)
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
def test_what_is_not_plain_is_left_to_the_validator(tensor: dict[str, object]) -> None:
    body = orjson.dumps({"inputs": [{"name": "x", **tensor}]})
    try:
        request = json.read_request(body)
    except InvalidPayload:
        return
    assert packed(request) is None


def test_names_are_checked() -> None:
    column = {"shape": [1], "datatype": "FP32", "data": [1]}
    request = json.read_request(orjson.dumps({"inputs": [{"name": "x", **column}, {"name": "x", **column}]}))
    with pytest.raises(Exception, match="input 'x'"):
        check_request(request)


def test_packed_and_unpacked_join() -> None:
    one = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'
    two = b'{"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [2, 3]}]}'
    requests = [json.read_request(one), json.read_request(two), json.read_request(one)]
    for request in requests:
        check_request(request)
    assert batch_key(requests[0]) == batch_key(requests[1])
    assert join(requests).inputs[0].data.root == [1.0, 2.0, 3.0, 1.0]
