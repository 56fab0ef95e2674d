"""The HTTP listener on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from mlserver.rest.http.server import HTTPListener
from mlserver.settings import Settings
from mlserver.settings.security import TLSSettings
from mlserver.sockets import bind
from support.certificates import Authority


async def respond(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def test_connections_that_come_before_the_start_are_served() -> None:
    """The kernel accepts connections from `bind` on.

    Their time limits begin when the listener starts, not with its clock at 0: they are not closed
    by the first check.
    """
    socket_ = bind("127.0.0.1", 0, "http_port")
    listener = HTTPListener(socket_, respond, Settings())
    reader, writer = await asyncio.open_connection(*socket_.getsockname())
    await listener.start()
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 204")
    finally:
        writer.close()
        await listener.stop(30)


async def test_a_silent_client_of_tls_is_disconnected(tmp_path: Path) -> None:
    """After `header_timeout`; asyncio's default for a handshake is 60 s."""
    certificate, key = Authority(tmp_path, "authority").issue("server")
    tls = TLSSettings(certificate=str(certificate), key=str(key))
    socket_ = bind("127.0.0.1", 0, "http_port")
    listener = HTTPListener(socket_, respond, Settings(tls=tls, header_timeout=0.1))
    await listener.start()
    reader, writer = await asyncio.open_connection(*socket_.getsockname())
    try:
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
    finally:
        writer.close()
        await listener.stop(30)
