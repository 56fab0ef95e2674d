"""Request and response cycle: the bytes written for ASGI messages, and the messages that are
errors.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mlserver.rest.http.cycle import RequestResponseCycle
from mlserver.rest.http.flow_control import FlowControl


class FakeTransport(asyncio.Transport):
    """Records what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def is_last_response(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """Do nothing: tests feed the body themselves."""

    def resume_reading(self) -> None:
        """Do nothing: tests feed the body themselves."""


def create_cycle(
    transport: FakeTransport,
    method: str = "POST",
    keep_alive: bool = True,
    expects: bool = False,
    version: str = "1.1",
) -> RequestResponseCycle:
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "headers": [],
        "http_version": version,
    }
    return RequestResponseCycle(
        scope,
        transport,
        FlowControl(transport),
        [(b"date", b"today")],
        keep_alive,
        expects,
        lambda: None,
    )


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_head_and_body_are_one_write() -> None:
    transport = FakeTransport()
    cycle = create_cycle(transport)
    await cycle.send(start(200, (b"Content-Length", b"2"), (b"x-a", b"1\t2")))
    await cycle.send(body(b"ok"))
    assert transport.written == [
        b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\nx-a: 1\t2\r\n\r\nok"
    ]
    assert cycle.response_complete
    assert not transport.closed


async def test_head_and_large_body_are_two_writes() -> None:
    transport = FakeTransport()
    cycle = create_cycle(transport)
    data = bytes(100_000)
    await cycle.send(start(200, (b"content-length", b"100000")))
    await cycle.send({"type": "http.response.body", "body": memoryview(data)})
    assert len(transport.written) == 2
    assert transport.written[1] == data


async def test_a_body_of_unknown_length_is_chunked() -> None:
    transport = FakeTransport()
    cycle = create_cycle(transport)
    await cycle.send(start())
    for part in (b"abc", b"", b"defg"):
        await cycle.send(body(part, more=True))
    await cycle.send(body())
    head, _, rest = b"".join(transport.written).partition(b"\r\n\r\n")
    assert head.endswith(b"transfer-encoding: chunked")
    assert rest == b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"


async def test_http_1_0_gets_no_chunks() -> None:
    transport = FakeTransport()
    cycle = create_cycle(transport, keep_alive=False, version="1.0")
    await cycle.send(start())
    for more in (True, True, False):
        await cycle.send(body(b"abc", more))
    head, _, rest = b"".join(transport.written).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert rest == b"abcabcabc"
    assert transport.closed


@pytest.mark.parametrize("status", [204, 304])
async def test_responses_without_a_body_have_no_length(status: int) -> None:
    transport = FakeTransport()
    cycle = create_cycle(transport)
    await cycle.send(start(status))
    await cycle.send(body())
    assert b"".join(transport.written).endswith(b"date: today\r\n\r\n")


async def test_the_response_to_head_has_the_length_but_no_body() -> None:
    transport = FakeTransport()
    cycle = create_cycle(transport, "HEAD")
    await cycle.send(start(200, (b"content-length", b"5")))
    await cycle.send(body(b"hello"))
    assert b"".join(transport.written).endswith(b"content-length: 5\r\n\r\n")
    assert cycle.response_complete


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"1\r\ny: 2"),
        (b"x", b"a\nb"),
        (b"x", b"\0"),
        (b"x y", b"1"),
        (b"x:", b"1"),
        (b"", b"1"),
    ],
)
async def test_invalid_headers_are_errors(header: tuple[bytes, bytes]) -> None:
    transport = FakeTransport()
    with pytest.raises(RuntimeError):
        await create_cycle(transport).send(start(200, header))
    assert not transport.written


@pytest.mark.parametrize("data", [b"short", b"much too long"])
async def test_a_body_of_another_length_than_declared_is_an_error(data: bytes) -> None:
    transport = FakeTransport()
    cycle = create_cycle(transport)
    await cycle.send(start(200, (b"content-length", b"8")))
    with pytest.raises(RuntimeError):
        await cycle.send(body(data))
    assert not cycle.response_complete


@pytest.mark.parametrize("headers", [[], [(b"connection", b"Close")]])
async def test_the_last_response_has_connection_close(headers: list[tuple[bytes, bytes]]) -> None:
    transport = FakeTransport()
    cycle = create_cycle(transport, keep_alive=bool(headers))
    await cycle.send(start(200, (b"content-length", b"0"), *headers))
    await cycle.send(body())
    assert b"".join(transport.written).lower().count(b"connection: close") == 1
    assert transport.closed


async def test_unexpected_messages_are_errors() -> None:
    cycle = create_cycle(FakeTransport())
    with pytest.raises(RuntimeError):
        await cycle.send(body(b"x"))
    await cycle.send(start(204))
    with pytest.raises(RuntimeError):
        await cycle.send(start(204))
    await cycle.send(body())
    with pytest.raises(RuntimeError):
        await cycle.send(body())


async def test_receive_returns_parts_as_they_arrive() -> None:
    cycle = create_cycle(FakeTransport())
    waiting = asyncio.ensure_future(cycle.receive())
    await asyncio.sleep(0)
    assert not waiting.done()
    cycle.feed_body(b"ab")
    assert await waiting == {"type": "http.request", "body": b"ab", "more_body": True}
    cycle.feed_body(b"c")
    cycle.feed_body(b"d")
    cycle.end_body()
    assert await cycle.receive() == {"type": "http.request", "body": b"cd", "more_body": False}


async def test_receive_returns_the_disconnect() -> None:
    cycle = create_cycle(FakeTransport())
    cycle.end_body()
    await cycle.receive()
    waiting = asyncio.ensure_future(cycle.receive())
    await asyncio.sleep(0)
    cycle.disconnected = True
    cycle.notify()
    assert await waiting == {"type": "http.disconnect"}
    await cycle.send(start())
    assert not cycle.response_started


async def test_100_continue_is_sent_once() -> None:
    transport = FakeTransport()
    cycle = create_cycle(transport, expects=True)
    cycle.feed_body(b"x")
    await cycle.receive()
    cycle.end_body()
    await cycle.receive()
    assert transport.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
