"""The server's process without sockets, workers and a model: request bytes in, response bytes out.

The baseline is a program with the same HTTP parser that batches requests without validating them.
The difference between both is the cost of the pipeline; sockets and the model are excluded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import orjson
import pytest
import uvicorn
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from benchmarks import cases
from mlserver.assembly import PipelineFactory
from mlserver.cloudevents import CloudEvents
from mlserver.custom_routes import Route
from mlserver.handlers import DataPlane
from mlserver.parallel.executor import ModelInfo
from mlserver.parallel.rpc.protocol import (
    Frame,
    FrameReader,
    MessageType,
    encode,
    pack_request,
    pack_response,
    unpack_response,
)
from mlserver.pipeline import RequestContext
from mlserver.registry import Registry
from mlserver.rest.app import RESTApp
from mlserver.rest.endpoints import Endpoints
from mlserver.rest.http.connection import Connection
from mlserver.rest.http.timeouts import ConnectionTimeouts
from mlserver.rest.routing import Router
from mlserver.rest.runtime_routes.matching import ModelRoutes
from mlserver.settings import ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse

from .conftest import response_of

REQUESTS = 640
WINE = cases.CASES[0]
COLUMNS = [tensor["name"] for tensor in orjson.loads(cases.exchange(WINE, "v2").body)["inputs"]]


class Answering:
    """Replaces the workers: frames each call, and returns a framed response of equal rows."""

    def __init__(self) -> None:
        plan = {
            "kind": "columns",
            "columns": [[name, "double"] for name in COLUMNS],
            "output": "array",
            "rank": 1,
        }
        route = Route("/invocations", wire="mlserver_mlflow.invocations", config=plan)
        metadata = MetadataModelResponse(name="wine", platform="")
        self.info = ModelInfo(metadata=metadata, row_wise=True, routes=(route,))
        self.available, self.capacity = True, 1
        self._reader = FrameReader()

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        buffers: list[Any] = []
        head = [
            "wine#1",
            context.deadline,
            context.rows_per_request,
            context.trace_parent,
            context.joined_ids,
            pack_request(request, buffers),
        ]
        encode(Frame(MessageType.INFER, 1, head, buffers))
        await asyncio.sleep(0)
        values = pack_response(response_of(sum(context.rows_per_request) or 1, 1), buffers)
        answer = b"".join(encode(Frame(MessageType.REPLY, 1, values)))
        self._reader.get_buffer()[: len(answer)] = answer
        return unpack_response(self._reader.filled(len(answer))[0].head, ())

    async def unload(self) -> bool:
        return True


class _Executor:
    async def load(self, settings: ModelSettings) -> Answering:
        return Answering()


class Wire(asyncio.Transport):
    """Transport that passes each complete response to its waiting client."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 8080), "peername": ("127.0.0.1", 1)})
        self.answered: Callable[[], None] | None = None

    def write(self, data: Any) -> None:
        if data.endswith(b"}") and self.answered is not None:
            self.answered()

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


async def ours() -> Callable[[], Any]:
    settings = Settings()
    works = PipelineFactory(settings)
    registry = Registry(cast(Any, _Executor()), works.build_pipeline, works.metrics, 5)
    await registry.load(ModelSettings(name="wine", implementation="a.Model"))
    data_plane = DataPlane(settings, registry)
    data_plane.accepting = True
    router = Router()
    Endpoints(settings, data_plane, cast(Any, None), CloudEvents("mlserver")).register(router)
    app = RESTApp(settings, router, ModelRoutes(data_plane, None), works.metrics, works.authorizer)
    return partial(
        Connection,
        ConnectionTimeouts(settings),
        config=_config(app),
        server_state=ServerState(),
        app_state={},
    )


async def baseline() -> Callable[[], Any]:
    waiting: list[tuple[Any, asyncio.Future[Any]]] = []
    task: asyncio.Task[None] | None = None

    async def run() -> None:
        while waiting:
            batch = waiting[:]
            waiting.clear()
            rows = np.concatenate([rows for rows, _ in batch])
            await asyncio.sleep(0)
            values, start = np.zeros(len(rows)), 0
            for part, future in batch:
                future.set_result(values[start : start + len(part)].tolist())
                start += len(part)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal task
        document = orjson.loads((await receive())["body"])
        if scope["path"] == "/invocations":
            rows = np.array(document["dataframe_split"]["data"], dtype=np.float64)
        else:
            rows = np.array([tensor["data"] for tensor in document["inputs"]], dtype=np.float64).T
        future = asyncio.get_running_loop().create_future()
        waiting.append((rows, future))
        if task is None or task.done():
            task = asyncio.create_task(run())
        body = orjson.dumps({"predictions": await future})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return partial(HttpToolsProtocol, config=_config(app), server_state=ServerState(), app_state={})


def _config(app: Any) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        ws="none",
        loop="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        proxy_headers=False,
    )
    config.load()
    return config


async def drive(make: Callable[[], Any], request: bytes, connections: int) -> None:
    """So many connections, each of which asks again when it has its answer."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    left = REQUESTS

    def connect() -> None:
        protocol, wire = make(), Wire()
        protocol.connection_made(wire)
        loop.call_soon(ask, protocol, wire)

    def ask(protocol: Any, wire: Wire) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            done.set()
            return
        wire.answered = lambda: loop.call_soon(ask, protocol, wire)  # type: ignore[assignment]
        protocol.data_received(request)

    for _ in range(connections):
        connect()
    await done.wait()
    await asyncio.sleep(0.01)  # the last answers


@pytest.mark.parametrize("connections", [1, 16, 64])
@pytest.mark.parametrize("wire", ["v2", "invocations"])
@pytest.mark.parametrize("program", [baseline, ours], ids=["baseline", "ours"])
def test_requests(benchmark: BenchmarkFixture, program: Any, wire: str, connections: int) -> None:
    exchange = cases.exchange(WINE, wire)
    head = f"POST {exchange.paths[0]} HTTP/1.1\r\nhost: localhost\r\n"
    head += "content-type: application/json\r\n"
    request = f"{head}content-length: {len(exchange.body)}\r\n\r\n".encode() + exchange.body
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        make = runner.run(program())
        benchmark.pedantic(
            lambda: runner.run(drive(make, request, connections)), rounds=15, warmup_rounds=2
        )
    benchmark.extra_info["requests"] = REQUESTS
