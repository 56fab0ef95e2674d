"""NVIDIA's published HTTP client, blocking and asyncio, against a server with a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from support.repository import write_model
from support.server import Server

client_module = pytest.importorskip("tritonclient.http")
aio_module = pytest.importorskip("tritonclient.http.aio")
utils = pytest.importorskip("tritonclient.utils")

ARRAYS: dict[str, Any] = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], "u1"),
    "UINT16": np.array([[0, 2**16 - 1]], "u2"),
    "UINT32": np.array([[0, 2**32 - 1]], "u4"),
    "UINT64": np.array([[2**53 + 1, 2**64 - 1]], "u8"),
    "INT8": np.array([[-128, 127]], "i1"),
    "INT16": np.array([[-(2**15), 2**15 - 1]], "i2"),
    "INT32": np.array([[-(2**31), 2**31 - 1]], "i4"),
    "INT64": np.array([[-(2**63), 2**63 - 1]], "i8"),
    "FP16": np.array([[0.5, -2.0]], "f2"),
    "FP32": np.array([[0.1, 3.5]], "f4"),
    "FP64": np.array([[0.1, -0.0]], "f8"),
    "BYTES": np.array([[b"text", "snow \u2603".encode()]], object),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tritonclient")
    described = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
    write_model(folder / "echo", inputs=[described], outputs=[described], platform="python")
    write_model(folder / "second" / "1", "Echo", name="second", parameters={"version": "1"})
    write_model(folder / "second" / "2", "Echo", name="second", parameters={"version": "2"})
    with Server(folder) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with client_module.InferenceServerClient(
        server.url.removeprefix("http://"), concurrency=4
    ) as client:
        yield client


def input_of(datatype: str, array: Any, binary: bool = True) -> Any:
    tensor = client_module.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


@pytest.mark.parametrize(
    "binary_out", [True, False, None], ids=["binary-out", "json-out", "no-outputs-named"]
)
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary-in", "json-in"])
@pytest.mark.parametrize("datatype", ARRAYS)
def test_every_datatype(
    client: Any, datatype: str, binary_in: bool, binary_out: bool | None
) -> None:
    array = ARRAYS[datatype]
    outputs = (
        None
        if binary_out is None
        else [client_module.InferRequestedOutput("x", binary_data=binary_out)]
    )
    result = client.infer(
        "echo", [input_of(datatype, array, binary_in)], outputs=outputs, request_id="7"
    )

    actual = result.as_numpy("x")
    if datatype == "BYTES" and binary_out is False:
        actual = np.array([[text.encode() for text in row] for row in actual], object)
    np.testing.assert_array_equal(actual, array)
    assert result.get_response()["id"] == "7"


def test_bytes_that_are_not_text(client: Any) -> None:
    array = np.array([[b"\xff\x00"]], object)

    np.testing.assert_array_equal(
        client.infer("echo", [input_of("BYTES", array)]).as_numpy("x"), array
    )
    outputs = [client_module.InferRequestedOutput("x", binary_data=False)]
    with pytest.raises(utils.InferenceServerException, match="not UTF-8 text"):
        client.infer("echo", [input_of("BYTES", array)], outputs=outputs)


def test_bfloat16(client: Any) -> None:
    array = np.array([[1.0, -2.5]], pytest.importorskip("ml_dtypes").bfloat16)
    result = client.infer("echo", [input_of("BF16", array)])

    np.testing.assert_array_equal(result.as_numpy("x").astype("f4"), array.astype("f4"))


@pytest.mark.parametrize("outgoing", ["gzip", "deflate", None])
@pytest.mark.parametrize("incoming", ["gzip", "deflate", None])
def test_compression(client: Any, outgoing: str | None, incoming: str | None) -> None:
    array = np.zeros((100, 100), "f4")
    result = client.infer(
        "echo",
        [input_of("FP32", array)],
        request_compression_algorithm=outgoing,
        response_compression_algorithm=incoming,
    )

    np.testing.assert_array_equal(result.as_numpy("x"), array)


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert client.is_model_ready("second", "1")
    assert not client.is_model_ready("nope")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("echo")["inputs"][0]["shape"] == [-1, 2]
    assert client.get_model_metadata("second", "2")["name"] == "second"


def test_config_and_statistics(client: Any) -> None:
    before = client.get_inference_statistics("echo")["model_stats"][0]["inference_stats"][
        "success"
    ]["count"]
    client.infer("echo", [input_of("FP32", ARRAYS["FP32"])])
    after = client.get_inference_statistics("echo")["model_stats"][0]["inference_stats"]["success"][
        "count"
    ]

    assert after == before + 1
    assert client.get_model_config("echo")["input"] == [
        {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 2]}
    ]
    assert {model["name"] for model in client.get_inference_statistics()["model_stats"]} == {
        "echo",
        "second",
    }


def test_repository(client: Any) -> None:
    def states() -> set[str]:
        return {
            item["state"]
            for item in client.get_model_repository_index()
            if item["name"] == "second"
        }

    assert states() == {"READY"}
    client.unload_model("second")
    assert states() == {"UNAVAILABLE"}
    client.load_model("second")
    assert states() == {"READY"}
    with pytest.raises(utils.InferenceServerException, match="nope"):
        client.load_model("nope")


def test_versions(client: Any) -> None:
    for version in ("1", "2"):
        result = client.infer("second", [input_of("FP32", ARRAYS["FP32"])], model_version=version)
        assert result.get_response()["model_version"] == version


def test_errors_have_text_and_status(client: Any) -> None:
    with pytest.raises(utils.InferenceServerException, match="Model nope not found") as error:
        client.infer("nope", [input_of("FP32", ARRAYS["FP32"])])
    assert error.value.status() == "404"


def test_parameters_timeout_and_priority(client: Any) -> None:
    result = client.infer(
        "echo",
        [input_of("FP32", ARRAYS["FP32"])],
        timeout=20_000_000,
        priority=1,
        parameters={"mine": "yes"},
    )

    np.testing.assert_array_equal(result.as_numpy("x"), ARRAYS["FP32"])


def test_concurrent_requests(client: Any) -> None:
    waiting = [
        client.async_infer("echo", [input_of("INT32", np.array([[number]], "i4"))])
        for number in range(32)
    ]

    assert [int(call.get_result().as_numpy("x")[0, 0]) for call in waiting] == list(range(32))


def test_a_request_made_apart(server: Server) -> None:
    """`generate_request_body` and `parse_response_body` work with another HTTP client."""
    array = np.arange(6, dtype="f8").reshape(2, 3)
    body, head = client_module.InferenceServerClient.generate_request_body(
        [input_of("FP64", array)]
    )
    response = server.client.post(
        "/v2/models/echo/infer",
        content=body,
        headers={"Inference-Header-Content-Length": str(head)},
    )
    length = int(response.headers["Inference-Header-Content-Length"])
    result = client_module.InferenceServerClient.parse_response_body(
        response.content, header_length=length
    )

    np.testing.assert_array_equal(result.as_numpy("x"), array)


# -- asyncio --


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ARRAYS)
async def test_asyncio_infer(server: Server, datatype: str, binary: bool) -> None:
    async with aio_module.InferenceServerClient(server.url.removeprefix("http://")) as client:
        result = await client.infer("echo", [input_of(datatype, ARRAYS[datatype], binary)])

    np.testing.assert_array_equal(result.as_numpy("x"), ARRAYS[datatype])


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_asyncio_compression(server: Server, algorithm: str) -> None:
    array = np.zeros((100, 100), "f4")
    async with aio_module.InferenceServerClient(server.url.removeprefix("http://")) as client:
        result = await client.infer(
            "echo",
            [input_of("FP32", array)],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )

    np.testing.assert_array_equal(result.as_numpy("x"), array)


async def test_the_other_methods_with_asyncio(server: Server) -> None:
    async with aio_module.InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("echo")
        assert (await client.get_server_metadata())["name"] == "mlserver"
        assert (await client.get_model_metadata("echo"))["platform"] == "python"
        assert (await client.get_model_config("echo"))["name"] == "echo"
        assert (await client.get_inference_statistics("echo"))["model_stats"][0]["name"] == "echo"
        assert {item["name"] for item in await client.get_model_repository_index()} == {
            "echo",
            "second",
        }
        await client.unload_model("second")
        await client.load_model("second")
        with pytest.raises(utils.InferenceServerException, match="Model nope not found"):
            await client.infer("nope", [input_of("FP32", ARRAYS["FP32"])])
