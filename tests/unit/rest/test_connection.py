"""Connection: reads that hold more or less than one request, driven without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from mlserver.rest.http.connection import MAX_PIPELINED, Connection
from mlserver.rest.http.request_head import MAX_HEAD, MAX_HEADERS
from mlserver.rest.http.timeouts import ConnectionTimeouts
from mlserver.settings import Settings

BODY = bytes(2 * MAX_HEAD)
LARGE = b"POST /first HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
SMALL = b"GET /second HTTP/1.1\r\nhost: x\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Records what is written."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 8080), "peername": ("127.0.0.1", 1)})
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        """Do nothing: tests decide what is read."""

    def resume_reading(self) -> None:
        """Do nothing: tests decide what is read."""

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.written.split(b"HTTP/1.1 ")[1:]]


async def respond_with_path(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    body = scope["path"].encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


Connect = Callable[..., tuple[Connection, FakeTransport]]


@pytest.fixture
def connect() -> Connect:
    """Open a connection whose application responds with the path."""

    def connect(**options: Any) -> tuple[Connection, FakeTransport]:
        config = uvicorn.Config(
            respond_with_path, ws="none", lifespan="off", log_config=None, **options
        )
        config.load()
        timeouts = ConnectionTimeouts(Settings())
        connection = Connection(timeouts, config=config, server_state=ServerState())
        transport = FakeTransport()
        connection.connection_made(transport)
        return connection, transport

    return connect


async def run_tasks() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_request(connect: Connect) -> None:
    connection, transport = connect()
    connection.data_received(SMALL)
    await run_tasks()
    assert transport.statuses == [200]
    assert transport.written.endswith(b"\r\n\r\n/second")


@pytest.mark.parametrize("size", [1, 20, len(SMALL) - 1])
async def test_a_head_that_begins_behind_a_large_body_is_not_too_large(
    connect: Connect, size: int
) -> None:
    connection, transport = connect()
    connection.data_received(LARGE + SMALL[:size])
    await run_tasks()
    connection.data_received(SMALL[size:])
    await run_tasks()
    assert transport.statuses == [200, 200]
    assert transport.written.endswith(b"\r\n\r\n/second")
    assert not transport.closed


async def test_a_head_that_begins_behind_a_body_has_the_limit_too(connect: Connect) -> None:
    connection, transport = connect()
    connection.data_received(LARGE + b"GET / HTTP/1.1\r\nhost: x\r\nx: ")
    await run_tasks()
    for _ in range(MAX_HEAD // 1024 + 1):
        connection.data_received(1024 * b"x")
    assert transport.statuses == [200, 431]


@pytest.mark.parametrize("is_complete", [True, False])
async def test_a_large_head_is_rejected(connect: Connect, is_complete: bool) -> None:
    connection, transport = connect()
    end = b"\r\n\r\n" if is_complete else b""
    connection.data_received(b"GET / HTTP/1.1\r\nhost: x\r\nx: " + MAX_HEAD * b"x" + end)
    await run_tasks()
    assert transport.statuses == [431]
    assert transport.closed


async def test_a_complete_large_head_behind_a_request_is_rejected(connect: Connect) -> None:
    connection, transport = connect()
    connection.data_received(SMALL)
    await run_tasks()
    head = b"GET / HTTP/1.1\r\nhost: x\r\nx: " + MAX_HEAD * b"x" + b"\r\n\r\n"
    connection.data_received(SMALL + SMALL + head)
    await run_tasks()
    assert transport.statuses in ([200, 200, 431], [200, 200])
    assert transport.closed


async def test_pipelined_requests_are_answered_in_order(connect: Connect) -> None:
    connection, transport = connect()
    paths = [f"/{number}" for number in range(MAX_PIPELINED)]
    connection.data_received(b"".join(SMALL.replace(b"/second", path.encode()) for path in paths))
    for _ in paths:
        await run_tasks()
    bodies = [part.rpartition(b"\r\n\r\n")[2] for part in transport.written.split(b"HTTP/1.1 ")[1:]]
    assert bodies == [path.encode() for path in paths]


async def test_limit_concurrency(connect: Connect) -> None:
    """An option of uvicorn that `_custom_rest_server_settings` may have."""
    connection, transport = connect(limit_concurrency=1)
    connection.data_received(SMALL)
    assert transport.statuses == [503]
    assert transport.closed


async def test_requests_run_in_a_task_that_a_disconnect_cancels(connect: Connect) -> None:
    connection, _ = connect()
    connection.data_received(LARGE[:-1])
    await run_tasks()
    (task,) = connection._tasks
    connection.connection_lost(None)
    await run_tasks()
    assert task.done()
    assert not connection._tasks


LAST_CHUNK = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"


@pytest.mark.parametrize("part", [b"a:b\r\n" * 10, 1024 * b"x", b"x: " + 1021 * b"y"])
async def test_trailers_have_the_limits_of_headers(connect: Connect, part: bytes) -> None:
    connection, transport = connect()
    connection.data_received(LAST_CHUNK)
    for _ in range(MAX_HEAD // len(part) + 2):
        connection.data_received(part)
    assert transport.statuses == [431]


async def test_trailers_in_one_read_have_the_limit_of_number(connect: Connect) -> None:
    connection, transport = connect()
    connection.data_received(LAST_CHUNK + b"a:b\r\n" * MAX_HEADERS + b"\r\n")
    await run_tasks()
    connection.data_received(LAST_CHUNK + b"a:b\r\n" * (MAX_HEADERS + 1) + b"\r\n")
    assert transport.statuses == [200, 431]


async def test_the_extension_of_a_chunk_has_the_limit_of_headers(connect: Connect) -> None:
    connection, transport = connect()
    connection.data_received(LAST_CHUNK.removesuffix(b"0\r\n") + b"1;")
    for _ in range(MAX_HEAD // 1024 + 2):
        connection.data_received(1024 * b"x")
    assert transport.statuses == [431]


@pytest.mark.parametrize("size", [MAX_HEAD // 8, len(BODY)])
async def test_reads_of_a_body_are_not_counted_as_headers(connect: Connect, size: int) -> None:
    """Also where the head's bytes and the body's together exceed the limit of a head."""
    connection, transport = connect()
    head = b"POST / HTTP/1.1\r\nhost: x\r\nx: %s\r\n" % (MAX_HEAD // 2 * b"x")
    data = head + b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY)
    for begin in range(0, len(data), size):
        connection.data_received(data[begin : begin + size])
        await run_tasks()
    assert transport.statuses == [200]


async def test_reads_that_end_with_the_header_of_a_chunk_are_not_counted(connect: Connect) -> None:
    connection, transport = connect()
    size = b"%x\r\n" % len(BODY)
    connection.data_received(LAST_CHUNK.removesuffix(b"0\r\n") + size)
    for following in (size, size, b"0\r\n"):
        connection.data_received(BODY + b"\r\n" + following)
        await run_tasks()
    connection.data_received(b"a: b\r\n\r\n")
    await run_tasks()
    assert transport.statuses == [200]
