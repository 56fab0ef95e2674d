"""The wire protocol without sockets: vectors, round trips, slices of any size, invalid bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserver.errors import InvalidInput, MLServerError, ModelFailed
from mlserver.parallel.rpc.protocol import (
    INLINE_LIMIT,
    PREFIX,
    Frame,
    FrameError,
    FrameReader,
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


def written(frame: Frame) -> bytes:
    return b"".join(encode(frame))


def feed(reader: FrameReader, data: bytes, slices: Iterator[int]) -> list[Frame]:
    """Hand `data` to a reader as a socket does: at most so many bytes at a time, into the reader's own buffer."""
    frames: list[Frame] = []
    at = 0
    while at < len(data):
        buffer = reader.get_buffer()
        assert len(buffer) > 0
        count = min(next(slices), len(buffer), len(data) - at)
        buffer[:count] = data[at : at + count]
        at += count
        frames.extend(reader.filled(count))
    return frames


def always(size: int) -> Iterator[int]:
    while True:
        yield size


def read(data: bytes) -> list[Frame]:
    return feed(FrameReader(), data, always(2**20))


def to_tuple(frame: Frame) -> tuple[int, int, Any, list[bytes]]:
    return frame.kind, frame.id, frame.head, [bytes(buffer) for buffer in frame.buffers]


# -- the bytes themselves: they may only change together with both ends --

VECTORS = [
    (Frame(MessageType.PING, 7, None), "08 00 0000 01000000 0700000000000000 0000000000000000 c0"),
    (
        Frame(MessageType.REPLY, 1, [1, "a"], [b"xyz", b""]),
        "15 00 0200 04000000 0100000000000000 0300000000000000 0300000000000000 0000000000000000 9201a161 78797a",
    ),
]


@pytest.mark.parametrize("frame, expected", VECTORS)
def test_vectors(frame: Frame, expected: str) -> None:
    assert written(frame) == bytes.fromhex(expected)
    assert [to_tuple(frame) for frame in read(bytes.fromhex(expected))] == [to_tuple(frame)]


# -- slices --

FRAMES = [
    Frame(MessageType.INFER, 1, {"a": [1, None, b"\xff"]}),
    Frame(MessageType.REPLY, 2, None, [b"x" * 40, b"", b"y"]),
    Frame(MessageType.END, 2**64 - 1, "é"),
    Frame(MessageType.INFER, 3, None, [bytes(range(256)) * 3]),
    Frame(MessageType.PING, 4, None),
]


@pytest.mark.parametrize("buffer_size", [24, 64, 100, 1000, 2**18])
def test_slices_of_every_size(buffer_size: int) -> None:
    """Frames smaller and larger than the receive buffer, cut anywhere."""
    data = b"".join(map(written, FRAMES))
    for size in range(1, 200):
        frames = feed(FrameReader(buffer_size), data, always(size))
        assert [to_tuple(frame) for frame in frames] == [to_tuple(frame) for frame in FRAMES]


@given(
    st.lists(
        st.tuples(st.binary(max_size=60), st.lists(st.binary(max_size=200), max_size=3)), max_size=6
    ),
    st.lists(st.integers(1, 300), min_size=1),
    st.integers(24, 400),
)
def test_any_frames_in_any_slices(contents: Any, sizes: list[int], buffer_size: int) -> None:
    frames = [
        Frame(MessageType.INFER, number, head, buffers)
        for number, (head, buffers) in enumerate(contents)
    ]

    def slices() -> Iterator[int]:
        while True:
            yield from sizes

    received = feed(FrameReader(buffer_size), b"".join(map(written, frames)), slices())
    assert [to_tuple(frame) for frame in received] == [to_tuple(frame) for frame in frames]


def test_a_frame_keeps_its_bytes_when_more_arrive() -> None:
    reader = FrameReader(256)
    (first,) = feed(reader, written(Frame(MessageType.INFER, 1, None, [b"a" * 50])), always(999))
    feed(reader, written(Frame(MessageType.INFER, 2, None, [b"b" * 50])), always(999))

    assert bytes(first.buffers[0]) == b"a" * 50


def test_large_buffers_are_passed_on_as_they_are() -> None:
    large = np.zeros(1_000_000, "f4")
    parts = encode(Frame(MessageType.INFER, 1, None, [large.data]))

    large[0] = 7
    (frame,) = read(b"".join(parts))
    assert len(frame.buffers[0]) == large.nbytes
    assert bytes(frame.buffers[0][:4]) == struct.pack("<f", 7)


# -- bytes that are no frame --


@pytest.mark.parametrize(
    "data",
    [
        bytes(24),
        PREFIX.pack(MessageType.INFER, 0, 0, 2**32 - 1, 1, 0),
        PREFIX.pack(MessageType.INFER, 0, 0, 1, 1, 2**63) + b"\xc0",
        PREFIX.pack(MessageType.INFER, 0, 0, 1, 1, 0) + b"\xc1",
        PREFIX.pack(MessageType.INFER, 0, 0, 2, 1, 0) + b"\xa1\xff",
        PREFIX.pack(MessageType.INFER, 0, 0, 2, 1, 0) + b"\xc0\xc0",
        PREFIX.pack(MessageType.INFER, 0, 0, 0, 1, 0),
        PREFIX.pack(MessageType.INFER, 0, 0, 1, 1, 4) + b"\xc0abcd",
        PREFIX.pack(MessageType.INFER, 0, 1, 1, 1, 4) + struct.pack("<Q", 3) + b"\xc0abcd",
        PREFIX.pack(MessageType.INFER, 0, 1, 1, 1, 4) + struct.pack("<Q", 2**64 - 1) + b"\xc0abcd",
        PREFIX.pack(MessageType.INFER, 0, 0, 2000, 1, 0) + b"\x91" * 2000,
    ],
)
def test_no_frames(data: bytes) -> None:
    with pytest.raises(FrameError):
        read(data)


@given(
    st.binary(max_size=100),
    st.sampled_from([written(frame) for frame in FRAMES]),
    st.integers(0, 100),
)
@settings(max_examples=300)
def test_mutated_bytes_are_frames_or_refused(noise: bytes, frame: bytes, at: int) -> None:
    data = frame[:at] + noise + frame[at + len(noise) :]
    head = int.from_bytes(data[4:8], "little") + int.from_bytes(data[16:24], "little")
    if head < 2**20:  # else the reader waits for the rest of what it was promised
        try:
            frames = read(data)
        except FrameError:
            return
        assert all(isinstance(item, Frame) for item in frames)


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
    made = TensorData.from_array(data) if isinstance(data, np.ndarray) else TensorData(data)
    output = ResponseOutput(name="y", datatype=datatype, shape=[2], data=made)
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
