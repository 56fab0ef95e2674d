"""A gRPC server on a free port, over an in-process pipeline with small models."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from mlserver import MLModel, ModelSettings, Settings
from mlserver.errors import MLServerError
from mlserver.grpc import GRPCServer
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    ResponseOutput,
    TensorData,
)
from support.inline_pipeline import InlinePipeline


class Echo(MLModel):
    """Returns its inputs, and the received headers if the header `show` is set."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [ResponseOutput(**dict(tensor)) for tensor in payload.inputs]
        headers = (payload.parameters.headers if payload.parameters else None) or {}
        returned = {"X-Seen": headers["show"], "Ce-Source": "mine"} if "show" in headers else None
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=outputs,
            parameters=Parameters(headers=returned),
        )


class Words(MLModel):
    """Streams the words of each received text, prefixed with the number of the text."""

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        number = 0
        async for payload in payloads:
            number += 1
            for word in payload.inputs[0].data.root[0].decode().split():
                if word == "fail":
                    raise ValueError("a word failed")
                data = TensorData([f"{number}:{word}"])
                output = ResponseOutput(name="word", shape=[1], datatype="BYTES", data=data)
                yield InferenceResponse(model_name=self.name, outputs=[output])


class Halves(MLModel):
    """Returns FP16, which has no typed contents, and NaN, which has no JSON form."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [
            ResponseOutput(name="half", shape=[1], datatype="FP16", data=TensorData([0.5])),
            ResponseOutput(name="nan", shape=[1], datatype="FP32", data=TensorData([None])),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)


class Stuck(MLModel):
    """Never returns; records the start and the end of `predict`."""

    entered = threading.Event()
    left = threading.Event()

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()
        raise AssertionError("the event is never set")


class Gated(MLModel):
    """Returns no outputs, once its gate is open; records the start of `predict`."""

    entered = threading.Event()
    gate = threading.Event()

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        self.entered.set()
        await asyncio.to_thread(self.gate.wait, 60)
        return InferenceResponse(model_name=self.name, outputs=[])


class Broken(MLModel):
    """Fails as its input specifies."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        if payload.inputs[0].name == "status":
            raise MLServerError("as asked \u2603 " + "x" * 5000, payload.inputs[0].data[0])
        if payload.inputs[0].name == "shape":
            output = ResponseOutput(name="y", shape=[3], datatype="FP32", data=TensorData([1.0]))
            return InferenceResponse(model_name=self.name, outputs=[output])
        raise ValueError("a value error")


class Sad(MLModel):
    """Fails to load."""

    async def load(self) -> bool:
        raise ValueError("no file")


MODELS = [
    ModelSettings(name="echo", implementation=Echo, parameters={"version": "v1"}),
    ModelSettings(name="other", implementation=Echo),
    ModelSettings(name="words", implementation=Words),
    ModelSettings(name="halves", implementation=Halves),
    ModelSettings(name="stuck", implementation=Stuck),
    ModelSettings(name="gated", implementation=Gated),
    ModelSettings(name="broken", implementation=Broken),
]


@dataclass
class Serving:
    """A server under test, and a client of it."""

    pipeline: InlinePipeline
    server: GRPCServer
    channel: Any
    stub: Any


Start = Callable[..., Awaitable[Serving]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(models, concurrency=..., **settings)` returns a server; the test stops it."""
    async with AsyncExitStack() as stack:

        async def started(
            models: list[ModelSettings] | None = None, concurrency: int = 64, **settings: Any
        ) -> Serving:
            server_settings = Settings(host="127.0.0.1", grpc_port=0, **settings)
            pipeline = await stack.enter_async_context(
                InlinePipeline(server_settings, models or MODELS, concurrency)
            )
            server = GRPCServer(
                server_settings, pipeline.data_plane, pipeline.handlers, pipeline.metrics
            )
            stack.push_async_callback(server.stop)
            await server.start()
            unlimited = [("grpc.max_receive_message_length", -1)]
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=unlimited)
            )
            return Serving(pipeline, server, channel, GRPCInferenceServiceStub(channel))

        yield started


@pytest.fixture
async def serving(start: Start) -> Serving:
    """A server with all models above but `Sad`."""
    return await start()


@pytest.fixture
def stuck() -> type[Stuck]:
    """The model that never returns, with cleared events."""
    Stuck.entered.clear()
    Stuck.left.clear()
    return Stuck


@pytest.fixture
def gated() -> type[Gated]:
    """The model that waits for its gate, which is closed."""
    Gated.entered.clear()
    Gated.gate.clear()
    return Gated


@pytest.fixture
def sad() -> ModelSettings:
    """A model that fails to load."""
    return ModelSettings(name="sad", implementation=Sad)
