"""The binary tensor extension: requests and their errors."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver.errors import MLServerError
from mlserver.types import (
    MetadataModelResponse,
)
from mlserver.wire import binary

# Datatype -> shape, raw bytes, elements.
TENSORS: dict[str, tuple[list[int], bytes, list[Any]]] = {
    "BOOL": ([2], b"\x00\x01", [False, True]),
    "UINT8": ([2], b"\x00\xff", [0, 255]),
    "UINT16": ([1], b"\xff\xff", [65535]),
    "UINT32": ([1], b"\xff\xff\xff\xff", [2**32 - 1]),
    "UINT64": ([1], b"\xff" * 8, [2**64 - 1]),
    "INT8": ([2], b"\x80\x7f", [-128, 127]),
    "INT16": ([1, 1], b"\x00\x80", [-(2**15)]),
    "INT32": ([1], b"\x00\x00\x00\x80", [-(2**31)]),
    "INT64": ([1], struct.pack("<q", -(2**63)), [-(2**63)]),
    "FP16": ([2], struct.pack("<2e", 0.5, -1.0), [0.5, -1.0]),
    "BF16": ([1], b"\x80\x3f", [1.0]),
    "FP32": ([2, 2], struct.pack("<4f", 1, 2, 3, 4), [1.0, 2.0, 3.0, 4.0]),
    "FP64": ([1], struct.pack("<d", 0.1), [0.1]),
    "BYTES": ([2], b"\x02\x00\x00\x00\xff\x00\x00\x00\x00\x00", [b"\xff\x00", b""]),
}


def body_of(head: Any, *blobs: bytes) -> tuple[bytes, int]:
    text = json.dumps(head).encode()
    return b"".join((text, *blobs)), len(text)


def binary_input(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {
        "name": name,
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
    }


def all_tensors() -> tuple[bytes, int]:
    inputs = [
        binary_input(name, name, shape, len(raw)) for name, (shape, raw, _) in TENSORS.items()
    ]
    inputs.insert(1, {"name": "json", "shape": [1], "datatype": "INT8", "data": [7]})
    return body_of({"inputs": inputs}, *(raw for _, raw, _ in TENSORS.values()))


# -- reading --


def test_every_datatype_mixed_with_json() -> None:
    body, length = all_tensors()
    tensors = {tensor.name: tensor for tensor in binary.read_request(body, length).inputs}

    assert tensors.pop("json").data.root == [7]
    for name, tensor in tensors.items():
        shape, raw, elements = TENSORS[name]
        assert tensor.data.raw == raw
        assert tensor.data.to_array(name, shape).ravel().tolist() == elements
        assert tensor.parameters is not None
        assert not tensor.parameters.model_extra


def test_tensors_are_views_of_the_body() -> None:
    values = np.arange(1000, dtype="f4")
    head = {"inputs": [binary_input("x", "FP32", [10, 100], values.nbytes)]}
    body, length = body_of(head, values.tobytes())
    data = binary.read_request(memoryview(body), length).inputs[0].data

    assert isinstance(data.raw, memoryview)
    assert data.raw.obj is body
    assert data.representations == ("raw",)
    np.testing.assert_array_equal(data.to_array("FP32", [10, 100]), values.reshape(10, 100))


def test_without_the_header_all_is_json() -> None:
    body, _ = body_of({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0.5]}]})

    assert binary.read_request(body, None).inputs[0].data.root == [0.5]


def refusal(body: bytes, length: int | None, metadata: MetadataModelResponse | None = None) -> str:
    with pytest.raises(MLServerError) as error:
        binary.read_request(body, length, metadata)
    assert error.value.status_code == 400
    return error.value.message


@pytest.mark.parametrize(
    "head, blob, text",
    [
        (
            {"inputs": [binary_input("x", "FP32", [2], 8)]},
            b"1234567",
            "8 bytes of binary data, received 7",
        ),
        (
            {"inputs": [binary_input("x", "FP32", [2], 8)]},
            b"123456789",
            "8 bytes of binary data after the JSON",
        ),
        ({"inputs": [binary_input("x", "FP32", [2], 4)]}, b"1234", "8 bytes for FP32"),
        ({"inputs": [binary_input("x", "FP32", [2], -8)]}, b"", "binary_data_size"),
        ({"inputs": [binary_input("x", "FP32", [2], True)]}, b"", "binary_data_size"),
        ({"inputs": [binary_input("x", "FP32", [2**40, 2**40], 8)]}, b"12345678", "held in memory"),
        ({"inputs": [binary_input("x", "FP32", [-1], 8)]}, b"12345678", "non-negative"),
        (
            {"inputs": [binary_input("x", "BYTES", [1], 6)]},
            b"\xff\xff\xff\xffab",
            "inside the data",
        ),
        ({"inputs": [binary_input("x", "BYTES", [1], 6)]}, b"\x01\x00\x00\x00ab", "4-byte length"),
        (
            {"inputs": [binary_input("x", "BYTES", [2], 5)]},
            b"\x01\x00\x00\x00a",
            "2 BYTES elements",
        ),
        (
            {"inputs": [{**binary_input("x", "INT8", [1], 1), "data": [1]}]},
            b"1",
            "either data or binary_data_size",
        ),
        ({"inputs": [{"parameters": {"binary_data_size": 0}}]}, b"", "inputs[0].name"),
        ({"inputs": [binary_input("x", "FP99", [1], 1)]}, b"1", "inputs[0].datatype"),
        ({"inputs": 3}, b"", "inputs"),
        ({"inputs": [3]}, b"", "inputs[0]"),
        ([], b"", "expected an object"),
        ({"inputs": []}, b"1", "0 bytes of binary data after the JSON, received 1"),
    ],
)
def test_refused(head: Any, blob: bytes, text: str) -> None:
    body, length = body_of(head, blob)

    assert text in refusal(body, length)


def test_binary_data_without_the_header_is_refused() -> None:
    body, _ = body_of({"inputs": [binary_input("x", "INT8", [1], 1)]})

    assert "1 bytes of binary data, received 0 bytes" in refusal(body, None)


def test_bodies_truncated_anywhere_are_refused() -> None:
    body, length = all_tensors()
    for size in range(len(body)):
        refusal(body[:size], min(length, size) or None)


@given(st.binary(max_size=80), st.integers(0, 80))
def test_random_bodies_are_read_or_refused(body: bytes, length: int) -> None:
    try:
        binary.read_request(body, min(length, len(body)))
    except MLServerError as error:
        status = error.status_code
    else:
        status = 400
    assert status == 400


@given(
    st.integers(0, 20),
    st.lists(st.integers(-1, 5), max_size=3),
    st.sampled_from(sorted(TENSORS)),
    st.binary(max_size=20),
)
def test_sizes_are_always_checked(size: int, shape: list[int], datatype: str, blob: bytes) -> None:
    body, length = body_of({"inputs": [binary_input("x", datatype, shape, size)]}, blob)
    try:
        tensor = binary.read_request(body, length).inputs[0]
    except MLServerError as error:
        assert error.status_code == 400  # noqa: PT017 - either end is right
    else:
        assert size == len(blob)
        assert tensor.data.to_array(datatype, shape).shape == tuple(shape)


# -- the header --


@pytest.mark.parametrize("value, length", [(None, None), ("0", 0), (" 12 ", 12), ("100", 100)])
def test_header(value: str | None, length: int | None) -> None:
    assert binary.read_header(value, 100) == length


@pytest.mark.parametrize(
    "value", ["", "-1", "101", "1.5", "x", "1e2", "٣", "9" * 5000, "0x10", "1_0"]
)
def test_bad_headers(value: str) -> None:
    with pytest.raises(MLServerError, match="Inference-Header-Content-Length") as error:
        binary.read_header(value, 100)
    assert error.value.status_code == 400


# -- the raw form --


def metadata(datatype: str, shape: list[int], count: int = 1) -> MetadataModelResponse:
    inputs = [
        {"name": f"x{number}", "datatype": datatype, "shape": shape} for number in range(count)
    ]
    return MetadataModelResponse.model_validate({"name": "m", "platform": "", "inputs": inputs})


@pytest.mark.parametrize(
    "datatype, described, body, shape",
    [
        ("FP32", [-1, 2], bytes(24), [3, 2]),
        ("FP32", [2, 2], bytes(16), [2, 2]),
        ("FP32", [-1, -1], bytes(16), [1, 4]),
        ("FP32", [-1], b"", [0]),
        ("BYTES", [-1, 1], b"any text", [1, 1]),
        ("BYTES", [1], b"", [1]),
    ],
)
def test_raw_request(datatype: str, described: list[int], body: bytes, shape: list[int]) -> None:
    request = binary.read_request(body, 0, metadata(datatype, described))
    (tensor,) = request.inputs

    assert (tensor.name, str(tensor.datatype), tensor.shape) == ("x0", datatype, shape)
    assert tensor.data.raw == (
        body if datatype != "BYTES" else len(body).to_bytes(4, "little") + body
    )
    assert all_binary(binary.pop_binary_outputs(request))


@pytest.mark.parametrize(
    "described, body, text",
    [
        (metadata("FP32", [1]), b"12345", "4 bytes for FP32"),
        (metadata("FP32", [-1, 3]), bytes(16), "12 bytes for FP32"),
        (metadata("FP32", [2, -1, -1]), bytes(16), "at most one variable dimension"),
        (metadata("BYTES", [2]), b"ab", "2 BYTES elements"),
        (metadata("FP32", [1], 2), bytes(8), "exactly 1 input"),
        (metadata("FP32", [1], 0), bytes(8), "exactly 1 input"),
        (None, bytes(8), "exactly 1 input"),
    ],
)
def test_raw_request_refused(
    described: MetadataModelResponse | None, body: bytes, text: str
) -> None:
    assert text in refusal(body, 0, described)


# -- writing --


def all_binary(outputs: binary.BinaryOutputs | None) -> bool:
    return outputs is not None and "any output" in outputs
