"""NVIDIA's published gRPC client in one process with this package's messages, against a real
server.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from mlserver import MLModel, ModelSettings, Settings
from mlserver.grpc import GRPCServer, dataplane_pb2
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    ResponseOutput,
    TensorData,
)
from support.inline_pipeline import InlinePipeline

client_module = pytest.importorskip("tritonclient.grpc")
aio_module = pytest.importorskip("tritonclient.grpc.aio")
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
    "FP16": np.array([[0.5, np.nan]], "f2"),
    "FP32": np.array([[0.1, np.inf]], "f4"),
    "FP64": np.array([[0.1, -0.0]], "f8"),
    "BYTES": np.array([[b"\xff\x00", "snow \u2603".encode()]], object),
}


class Echo(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [ResponseOutput(**dict(tensor)) for tensor in payload.inputs]
        return InferenceResponse(model_name=self.name, outputs=outputs)


class Letters(MLModel):
    """One response per letter."""

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        async for payload in payloads:
            for letter in payload.inputs[0].data.root[0].decode():
                output = ResponseOutput(
                    name="letter", shape=[1], datatype="BYTES", data=TensorData([letter])
                )
                yield InferenceResponse(model_name=self.name, outputs=[output])


@pytest.fixture
async def address() -> AsyncIterator[str]:
    settings = Settings(host="127.0.0.1", grpc_port=0)
    tensor = MetadataTensor(name="x", datatype="FP32", shape=[-1, 2])
    models = [
        ModelSettings(
            name="echo", implementation=Echo, inputs=[tensor], outputs=[tensor], platform="python"
        ),
        ModelSettings(name="letters", implementation=Letters),
    ]
    async with InlinePipeline(settings, models) as pipeline:
        server = GRPCServer(settings, pipeline.data_plane, pipeline.handlers, pipeline.metrics)
        await server.start()
        yield f"127.0.0.1:{server.port}"
        await server.stop()


def tensor_of(datatype: str, array: Any) -> Any:
    tensor = client_module.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


async def in_thread(address: str, work: Callable[[Any], Any]) -> Any:
    """Run the blocking client beside the server's loop."""

    def run() -> Any:
        with client_module.InferenceServerClient(address) as client:
            return work(client)

    return await asyncio.to_thread(run)


def test_both_libraries_messages_live_in_one_process() -> None:
    theirs = client_module.service_pb2.ModelInferRequest(model_name="m", id="1")

    assert dataplane_pb2.ModelInferRequest.FromString(theirs.SerializeToString()).model_name == "m"
    assert type(theirs) is not dataplane_pb2.ModelInferRequest


@pytest.mark.parametrize("datatype", ARRAYS)
async def test_every_datatype(address: str, datatype: str) -> None:
    array = ARRAYS[datatype]
    result = await in_thread(
        address, lambda client: client.infer("echo", [tensor_of(datatype, array)], request_id="7")
    )

    np.testing.assert_array_equal(result.as_numpy("x"), array)
    assert result.get_response().id == "7"


async def test_bfloat16_tensors(address: str) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    array = np.array([[1.0, -2.5]], bfloat16)
    result = await in_thread(
        address, lambda client: client.infer("echo", [tensor_of("BF16", array)])
    )

    np.testing.assert_array_equal(result.as_numpy("x").astype("f4"), array.astype("f4"))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_compression(address: str, algorithm: str) -> None:
    array = np.zeros((100, 100), "f4")
    result = await in_thread(
        address,
        lambda client: client.infer(
            "echo", [tensor_of("FP32", array)], compression_algorithm=algorithm
        ),
    )

    np.testing.assert_array_equal(result.as_numpy("x"), array)


async def test_health_metadata_config_and_statistics(address: str) -> None:
    def ask(client: Any) -> Any:
        client.infer(
            "echo",
            [tensor_of("FP32", ARRAYS["FP32"])],
            outputs=[client_module.InferRequestedOutput("x")],
        )
        return (
            client.is_server_live(),
            client.is_server_ready(),
            client.is_model_ready("echo"),
            client.get_server_metadata(),
            client.get_model_metadata("echo"),
            client.get_model_config("echo"),
            client.get_model_config("letters", as_json=True),
            client.get_inference_statistics("echo"),
        )

    live, ready, model_ready, server, model, config, letters, statistics = await in_thread(
        address, ask
    )

    assert live
    assert ready
    assert model_ready
    assert "statistics" in server.extensions
    assert (model.platform, model.inputs[0].shape) == ("python", [-1, 2])
    assert (config.config.name, config.config.input[0].data_type, config.config.input[0].dims) == (
        "echo",
        11,
        [-1, 2],
    )
    assert letters["config"]["model_transaction_policy"]["decoupled"] is True
    assert statistics.model_stats[0].inference_stats.success.count == 1


async def test_repository(address: str) -> None:
    def ask(client: Any) -> list[str]:
        client.unload_model("echo")
        states = [_state(client, "echo")]
        client.load_model("echo")
        return [*states, _state(client, "echo")]

    assert await in_thread(address, ask) == ["UNAVAILABLE", "READY"]


def _state(client: Any, name: str) -> str:
    return str({item.name: item.state for item in client.get_model_repository_index().models}[name])


async def test_errors(address: str) -> None:
    with pytest.raises(utils.InferenceServerException, match="Model nope not found") as error:
        await in_thread(
            address, lambda client: client.infer("nope", [tensor_of("FP32", ARRAYS["FP32"])])
        )
    assert error.value.status() == "StatusCode.NOT_FOUND"


async def test_callbacks(address: str) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def ask(client: Any) -> tuple[Any, Any]:
        client.async_infer("echo", [tensor_of("INT32", ARRAYS["INT32"])], partial(_put, answers))
        return answers.get(timeout=20)

    result, error = await in_thread(address, ask)
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("x"), ARRAYS["INT32"])


def _put(answers: queue.Queue[tuple[Any, Any]], result: Any, error: Any) -> None:
    answers.put((result, error))


async def test_stream(address: str) -> None:
    def ask(client: Any) -> list[tuple[str, bool]]:
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(partial(_put, answers), headers={"mlserver-stream-form": "triton"})
        text = tensor_of("BYTES", np.array([b"abc"], object))
        for number in ("1", "2"):
            client.async_stream_infer(
                "letters", [text], request_id=number, enable_empty_final_response=True
            )
        actual: list[tuple[str, bool]] = []
        while len(actual) < 8:
            result, error = answers.get(timeout=20)
            assert error is None
            response = result.get_response()
            letter = result.as_numpy("letter")[0].decode() if response.outputs else ""
            actual.append(
                (response.id + letter, response.parameters["triton_final_response"].bool_param)
            )
        client.async_stream_infer("nope", [text])
        _, error = answers.get(timeout=20)
        assert error.message() == "Model nope not found"
        client.stop_stream()
        return actual

    ended = [("1a", False), ("1b", False), ("1c", False), ("1", True)]
    assert await in_thread(address, ask) == [
        *ended,
        *((name.replace("1", "2"), final) for name, final in ended),
    ]


async def test_asyncio_client(address: str) -> None:
    async with aio_module.InferenceServerClient(address) as client:
        result = await client.infer("echo", [tensor_of("FP64", ARRAYS["FP64"])], client_timeout=20)

    np.testing.assert_array_equal(result.as_numpy("x"), ARRAYS["FP64"])


async def test_asyncio_stream(address: str) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        text = tensor_of("BYTES", np.array([b"ab"], object))
        yield {"model_name": "letters", "inputs": [text], "request_id": "1"}

    async with aio_module.InferenceServerClient(address) as client:
        # The client has no argument for the final response: metadata selects the form.
        stream = client.stream_infer(requests(), headers={"mlserver-stream-form": "triton"})
        answers = [answer async for answer in stream]

    assert [error for _, error in answers] == [None] * 2
    assert [result.as_numpy("letter")[0] for result, _ in answers] == [b"a", b"b"]
