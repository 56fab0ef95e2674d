"""An exchange's bytes: what leaves for the ASGI messages that come, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from mlserver.rest.http.cycle import RequestResponseCycle


class Wire(asyncio.Transport):
    """Keeps what is written."""

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

    def is_ending(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    def resume_reading(self) -> None:
        """Nothing comes by itself."""


def exchange(
    wire: Wire,
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
        scope, wire, FlowControl(wire), [(b"date", b"today")], keep_alive, expects, lambda: None
    )


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_head_and_body_are_one_write() -> None:
    wire = Wire()
    answer = exchange(wire)
    await answer.send(start(200, (b"Content-Length", b"2"), (b"x-a", b"1\t2")))
    await answer.send(body(b"ok"))
    assert wire.written == [
        b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\nx-a: 1\t2\r\n\r\nok"
    ]
    assert answer.response_complete
    assert not wire.closed


async def test_large_bodies_are_not_copied_behind_their_head() -> None:
    wire = Wire()
    answer = exchange(wire)
    data = bytes(100_000)
    await answer.send(start(200, (b"content-length", b"100000")))
    await answer.send({"type": "http.response.body", "body": memoryview(data)})
    assert len(wire.written) == 2
    assert wire.written[1] == data


async def test_bodies_of_unknown_length_are_chunked() -> None:
    wire = Wire()
    answer = exchange(wire)
    await answer.send(start())
    for part in (b"abc", b"", b"defg"):
        await answer.send(body(part, more=True))
    await answer.send(body())
    head, _, rest = b"".join(wire.written).partition(b"\r\n\r\n")
    assert head.endswith(b"transfer-encoding: chunked")
    assert rest == b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"


async def test_the_first_version_knows_no_chunks() -> None:
    wire = Wire()
    answer = exchange(wire, keep_alive=False, version="1.0")
    await answer.send(start())
    for more in (True, True, False):
        await answer.send(body(b"abc", more))
    head, _, rest = b"".join(wire.written).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert rest == b"abcabcabc"
    assert wire.closed


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_say_no_length(status: int) -> None:
    wire = Wire()
    answer = exchange(wire)
    await answer.send(start(status))
    await answer.send(body())
    assert b"".join(wire.written).endswith(b"date: today\r\n\r\n")


async def test_head_gets_the_length_but_no_body() -> None:
    wire = Wire()
    answer = exchange(wire, "HEAD")
    await answer.send(start(200, (b"content-length", b"5")))
    await answer.send(body(b"hello"))
    assert b"".join(wire.written).endswith(b"content-length: 5\r\n\r\n")
    assert answer.response_complete


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
async def test_headers_cannot_be_split(header: tuple[bytes, bytes]) -> None:
    wire = Wire()
    with pytest.raises(RuntimeError):
        await exchange(wire).send(start(200, header))
    assert not wire.written


@pytest.mark.parametrize("data", [b"short", b"much too long"])
async def test_a_body_of_another_length_than_declared_is_an_error(data: bytes) -> None:
    wire = Wire()
    answer = exchange(wire)
    await answer.send(start(200, (b"content-length", b"8")))
    with pytest.raises(RuntimeError):
        await answer.send(body(data))
    assert not answer.response_complete


@pytest.mark.parametrize("headers", [[], [(b"connection", b"Close")]])
async def test_the_last_answer_says_so_and_closes(headers: list[tuple[bytes, bytes]]) -> None:
    wire = Wire()
    answer = exchange(wire, keep_alive=bool(headers))
    await answer.send(start(200, (b"content-length", b"0"), *headers))
    await answer.send(body())
    assert b"".join(wire.written).lower().count(b"connection: close") == 1
    assert wire.closed


async def test_messages_out_of_turn_are_errors() -> None:
    answer = exchange(Wire())
    with pytest.raises(RuntimeError):
        await answer.send(body(b"x"))
    await answer.send(start(204))
    with pytest.raises(RuntimeError):
        await answer.send(start(204))
    await answer.send(body())
    with pytest.raises(RuntimeError):
        await answer.send(body())


async def test_the_body_comes_as_it_arrives() -> None:
    asked = exchange(Wire())
    waiting = asyncio.ensure_future(asked.receive())
    await asyncio.sleep(0)
    assert not waiting.done()
    asked.feed(b"ab")
    assert await waiting == {"type": "http.request", "body": b"ab", "more_body": True}
    asked.feed(b"c")
    asked.feed(b"d")
    asked.end()
    assert await asked.receive() == {"type": "http.request", "body": b"cd", "more_body": False}


async def test_who_waits_hears_that_the_caller_left() -> None:
    asked = exchange(Wire())
    asked.end()
    await asked.receive()
    waiting = asyncio.ensure_future(asked.receive())
    await asyncio.sleep(0)
    asked.disconnected = True
    asked.wake()
    assert await waiting == {"type": "http.disconnect"}
    await asked.send(start())
    assert not asked.response_started


async def test_a_caller_that_waits_to_be_asked_is_asked_once() -> None:
    wire = Wire()
    asked = exchange(wire, expects=True)
    asked.feed(b"x")
    await asked.receive()
    asked.end()
    await asked.receive()
    assert wire.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
