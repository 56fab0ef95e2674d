"""The binary tensor extension over HTTP.

Every datatype, mixed with JSON, raw bodies, and rejected bodies.
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from support.repository import tensor, write_model, write_server_settings
from support.server import Server

HEADER = "Inference-Header-Content-Length"
OCTETS = "application/octet-stream"
INFER = "/v2/models/echo/infer"
# Datatype -> elements in JSON and in binary form.
TENSORS: dict[str, tuple[list[Any], bytes]] = {
    "BOOL": ([False, True], b"\x00\x01"),
    "UINT8": ([0, 255], b"\x00\xff"),
    "UINT16": ([0, 2**16 - 1], struct.pack("<2H", 0, 2**16 - 1)),
    "UINT32": ([0, 2**32 - 1], struct.pack("<2I", 0, 2**32 - 1)),
    "UINT64": ([2**53 + 1, 2**64 - 1], struct.pack("<2Q", 2**53 + 1, 2**64 - 1)),
    "INT8": ([-128, 127], b"\x80\x7f"),
    "INT16": ([-(2**15), 1], struct.pack("<2h", -(2**15), 1)),
    "INT32": ([-(2**31), 1], struct.pack("<2i", -(2**31), 1)),
    "INT64": ([-(2**63), 2**53 + 1], struct.pack("<2q", -(2**63), 2**53 + 1)),
    "FP16": ([0.5, None], struct.pack("<2e", 0.5, float("nan"))),
    "FP32": ([0.10000000149011612, None], struct.pack("<2f", 0.1, float("nan"))),
    "FP64": ([0.1, -0.0], struct.pack("<2d", 0.1, -0.0)),
    "BF16": ([1.0, -2.5], b"\x80\x3f\x20\xc0"),
    "BYTES": (["", "snow \u2603"], b"\0\0\0\0\x08\0\0\0snow \xe2\x98\x83"),
}


@pytest.fixture(scope="module", params=[0, 1], ids=["in-process", "one-worker"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("binary")
    write_server_settings(folder, max_body_bytes=3_000_000)
    write_model(folder / "echo")
    write_model(
        folder / "one", "Echo", inputs=[{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    )
    with Server(folder, workers=request.param) as running:
        yield running


def message(document: Any, *blobs: bytes) -> tuple[bytes, dict[str, str]]:
    """Body and headers."""
    head = json.dumps(document).encode()
    return b"".join((head, *blobs)), {"content-type": OCTETS, HEADER: str(len(head))}


def binary_input(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": datatype,
        "shape": shape,
        "parameters": {"binary_data_size": size},
    }


def post(server: Server, body: bytes, headers: dict[str, str], path: str = INFER) -> httpx.Response:
    return server.client.post(path, content=body, headers=headers)


def parts(response: httpx.Response) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The JSON header of a response and the bytes of its binary outputs."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == OCTETS
    at = int(response.headers[HEADER])
    document, blobs = json.loads(response.content[:at]), {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            blobs[output["name"]] = response.content[at : at + size]
            at += size
    assert at == len(response.content)
    return document, blobs


ALL = {"inputs": [binary_input(name, name, [2], len(raw)) for name, (_, raw) in TENSORS.items()]}
BLOBS = [raw for _, raw in TENSORS.values()]


def test_every_datatype_in_and_out(server: Server) -> None:
    document, blobs = parts(
        post(server, *message({**ALL, "parameters": {"binary_data_output": True}}, *BLOBS))
    )

    assert blobs == {name: raw for name, (_, raw) in TENSORS.items()}
    assert [output["shape"] for output in document["outputs"]] == [[2]] * len(TENSORS)
    assert document["parameters"] == {}


def test_every_datatype_in_as_binary_and_out_as_json(server: Server) -> None:
    response = post(server, *message(ALL, *BLOBS))

    assert response.headers["content-type"] == "application/json"
    assert HEADER not in response.headers
    actual = {output["name"]: output["data"] for output in response.json()["outputs"]}
    assert actual == {name: elements for name, (elements, _) in TENSORS.items()}


def test_every_datatype_in_as_json_and_out_as_binary(server: Server) -> None:
    inputs = [
        tensor(name, elements, name) for name, (elements, _) in TENSORS.items() if name != "BF16"
    ]
    _, blobs = parts(server.infer("echo", inputs, parameters={"binary_data_output": True}))

    assert blobs == {name: raw for name, (_, raw) in TENSORS.items() if name != "BF16"}


def test_json_and_binary_in_one_request(server: Server) -> None:
    inputs = [tensor("a", [1], "INT8"), binary_input("b", "INT8", [2], 2), tensor("c", [4], "INT8")]
    expected = [
        {"name": "c", "parameters": {"binary_data": True}},
        {"name": "a"},
        {"name": "b", "parameters": {"binary_data": False}},
    ]
    document, blobs = parts(
        post(server, *message({"inputs": inputs, "outputs": expected}, b"\x02\x03"))
    )

    assert blobs == {"c": b"\x04"}
    assert [(output["name"], output.get("data")) for output in document["outputs"]] == [
        ("c", None),
        ("a", [1]),
        ("b", [2, 3]),
    ]


def test_the_header_is_enough(server: Server) -> None:
    """The published clients send no content type."""
    body, headers = message({"inputs": [binary_input("x", "INT8", [1], 1)]}, b"\x07")
    del headers["content-type"]

    assert post(server, body, headers).json()["outputs"][0]["data"] == [7]


def test_bytes_that_are_not_text(server: Server) -> None:
    raw = b"\x02\0\0\0\xff\xfe"
    request = {"inputs": [binary_input("x", "BYTES", [1], len(raw))]}
    refused = post(server, *message(request, raw))
    _, blobs = parts(
        post(server, *message({**request, "parameters": {"binary_data_output": True}}, raw))
    )

    assert blobs == {"x": raw}
    assert refused.status_code == 406
    assert refused.json()["error"].startswith(
        "Output 'x' holds bytes that are not UTF-8 text: request it"
    )


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_large_tensor(server: Server, dtype: str) -> None:
    array = np.random.default_rng(0).normal(size=(2, 1000, 100)).astype(dtype)
    datatype = {"f4": "FP32", "f8": "FP64"}[dtype]
    request = {
        "inputs": [binary_input("x", datatype, list(array.shape), array.nbytes)],
        "parameters": {"binary_data_output": True},
    }
    response = post(server, *message(request, array.tobytes()))

    assert parts(response)[1] == {"x": array.tobytes()}
    assert "content-encoding" not in response.headers  # noise is not compressible


def test_no_elements(server: Server) -> None:
    request = {
        "inputs": [binary_input("x", "FP32", [0, 3], 0)],
        "parameters": {"binary_data_output": True},
    }
    document, blobs = parts(post(server, *message(request)))

    assert (document["outputs"][0]["shape"], blobs) == ([0, 3], {"x": b""})


# -- raw bodies without JSON --


def test_raw_bodies(server: Server) -> None:
    raw = struct.pack("<6f", *range(6))
    response = post(server, raw, {"content-type": OCTETS, HEADER: "0"}, "/v2/models/one/infer")
    document, blobs = parts(response)

    assert document["outputs"][0]["shape"] == [2, 3]
    assert blobs == {"x": raw}


@pytest.mark.parametrize(
    "model, body, text",
    [
        ("echo", bytes(12), "exactly 1 input"),
        ("one", bytes(13), "expected a multiple of 12 bytes for FP32 [-1, 3], received 13 bytes"),
        ("nope", bytes(12), "Model nope not found"),
    ],
)
def test_rejected_raw_bodies(server: Server, model: str, body: bytes, text: str) -> None:
    response = post(
        server, body, {"content-type": OCTETS, HEADER: "0"}, f"/v2/models/{model}/infer"
    )

    assert response.status_code in (400, 404)
    assert text in response.json()["error"]


# -- compression covers the whole body --


@pytest.mark.parametrize(
    "encoding, compress", [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_both_ways(server: Server, encoding: str, compress: Any) -> None:
    array = np.zeros((100, 100), "f4")
    request = {
        "inputs": [binary_input("x", "FP32", [100, 100], array.nbytes)],
        "parameters": {"binary_data_output": True},
    }
    body, headers = message(request, array.tobytes())
    response = post(
        server,
        compress(body),
        headers | {"content-encoding": encoding, "accept-encoding": encoding},
    )

    assert response.headers["content-encoding"] == encoding
    assert int(response.headers["content-length"]) < array.nbytes / 10
    assert parts(response)[1] == {"x": array.tobytes()}


def test_a_compression_bomb(server: Server) -> None:
    body, headers = message(
        {"inputs": [binary_input("x", "UINT8", [50_000_000], 50_000_000)]}, bytes(50_000_000)
    )
    response = post(server, gzip.compress(body, 1), headers | {"content-encoding": "gzip"})

    assert response.status_code == 413
    assert "max_body_bytes" in response.json()["error"]


# -- rejected bodies --

ONE = {"inputs": [binary_input("x", "FP32", [2], 8)]}


@pytest.mark.parametrize("value", ["-1", "many", "", "1e3", "99999", "9" * 30, "1.0"])
def test_header_values(server: Server, value: str) -> None:
    response = post(server, message(ONE, bytes(8))[0], {"content-type": OCTETS, HEADER: value})

    assert response.status_code == 400
    assert HEADER in response.json()["error"]


@pytest.mark.parametrize(
    "inputs, blob, text",
    [
        ([binary_input("x", "FP32", [2], 8)], bytes(7), "7 bytes"),
        ([binary_input("x", "FP32", [2], 8)], bytes(9), "9 bytes"),
        ([binary_input("x", "FP32", [2], 4)], bytes(4), "8 bytes for FP32"),
        ([binary_input("x", "FP32", [2], -8)], bytes(8), "binary_data_size"),
        ([binary_input("x", "FP32", [10**18, 10**18], 8)], bytes(8), "'x'"),
        ([binary_input("x", "BOOL", [1], 1)], b"\x02", "0 or 1"),
        ([binary_input("x", "BYTES", [1], 8)], b"\xff\xff\xff\x7fabcd", "'x'"),
        ([binary_input("x", "BYTES", [2], 5)], b"\x01\0\0\0a", "2 BYTES elements"),
        (
            [{**tensor("x", [1.0]), "parameters": {"binary_data_size": 4}}],
            bytes(4),
            "either data or",
        ),
        ([binary_input("x", "INT8", [1], 1), binary_input("x", "INT8", [1], 1)], bytes(2), "once"),
        (
            [binary_input("x", "INT8", [1], 2**62), binary_input("y", "INT8", [1], 2**62)],
            bytes(2),
            "'x'",
        ),
    ],
)
def test_wrong_blobs(server: Server, inputs: list[dict[str, Any]], blob: bytes, text: str) -> None:
    response = post(server, *message({"inputs": inputs}, blob))

    assert response.status_code == 400, response.text
    assert text in response.json()["error"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"parameters": {"binary_data_output": 1}},
        {"outputs": [{"name": "x", "parameters": {"binary_data": "yes"}}]},
    ],
)
def test_flags_that_are_not_booleans(server: Server, parameters: dict[str, Any]) -> None:
    response = server.infer("echo", [tensor("x", [1.0])], **parameters)

    assert response.status_code == 400
    assert "true or false" in response.json()["error"]


def test_a_request_cut_anywhere(server: Server) -> None:
    body, headers = message({**ALL}, *BLOBS)
    for end in range(0, len(body), 97):
        assert post(server, body[:end], headers).status_code == 400


def test_errors_are_always_json(server: Server) -> None:
    response = post(
        server,
        *message({**ONE, "parameters": {"binary_data_output": True}}, bytes(8)),
        "/v2/models/no/infer",
    )

    assert (response.status_code, response.headers["content-type"]) == (404, "application/json")
