"""HTTP/1.1 protocols without sockets: `Connection` and uvicorn's `HttpToolsProtocol`.

Both run the same ASGI application, which returns the body that it receives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import uvicorn
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from mlserver.rest.http.connection import Connection
from mlserver.rest.http.timeouts import ConnectionTimeouts
from mlserver.settings import Settings

REQUESTS = 640


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class FakeTransport(asyncio.Transport):
    """Calls back after each complete response."""

    def __init__(self, on_response: Callable[[], object]) -> None:
        super().__init__({"sockname": ("127.0.0.1", 8080), "peername": ("127.0.0.1", 1)})
        self._on_response = on_response

    def write(self, data: Any) -> None:
        if data.endswith(b"}"):
            self._on_response()

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


def create_factory(name: str) -> Callable[[], Any]:
    config = uvicorn.Config(
        echo, ws="none", loop="none", lifespan="off", interface="asgi3", log_config=None
    )
    config.load()
    protocol = (
        HttpToolsProtocol
        if name == "uvicorn"
        else partial(Connection, ConnectionTimeouts(Settings()))
    )
    return partial(protocol, config=config, server_state=ServerState(), app_state={})


async def send_requests(create: Callable[[], Any], request: bytes) -> None:
    """Send `REQUESTS` requests on one connection, each after the response to the one before."""
    loop, is_done = asyncio.get_running_loop(), asyncio.Event()
    remaining = REQUESTS

    def send() -> None:
        nonlocal remaining
        remaining -= 1
        if remaining < 0:
            is_done.set()
        else:
            protocol.data_received(request)

    protocol = create()
    protocol.connection_made(FakeTransport(lambda: loop.call_soon(send)))
    send()
    await is_done.wait()


@pytest.mark.parametrize("size", [200, 20_000])
@pytest.mark.parametrize("name", ["uvicorn", "mlserver"])
def test_protocols(benchmark: BenchmarkFixture, name: str, size: int) -> None:
    """Microseconds of `REQUESTS` requests and responses with a body of `size` bytes."""
    body = b"{" + bytes(size) + b"}"
    head = (
        "POST /v2/models/wine/infer HTTP/1.1\r\nhost: localhost\r\n"
        "content-type: application/json\r\n"
        f"accept: */*\r\nuser-agent: bench\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def run() -> None:
            await send_requests(create_factory(name), request)

        benchmark.pedantic(lambda: runner.run(run()), rounds=25, warmup_rounds=3)
    benchmark.extra_info["requests"] = REQUESTS
