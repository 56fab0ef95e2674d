"""The HTTP listener on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest

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


async def test_refused_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that get 503 stay open for a moment; further ones are closed at once."""
    monkeypatch.setattr("mlserver.rest.http.connection.MAX_REFUSED", 2)
    monkeypatch.setattr("mlserver.rest.http.timeouts.LINGER", 600)
    socket_ = bind("127.0.0.1", 0, "http_port")
    listener = HTTPListener(socket_, respond, Settings(max_connections=1))
    await listener.start()
    received = []
    try:
        async with asyncio.timeout(30), contextlib.AsyncExitStack() as stack:
            for _ in range(5):  # the first one waits for its request
                reader, writer = await asyncio.open_connection(*socket_.getsockname())
                stack.callback(writer.close)
                received.append(reader)
            heads = [(await read_all(reader))[:12] for reader in received[1:]]
        assert heads == [b"HTTP/1.1 503", b"HTTP/1.1 503", b"", b""]
    finally:
        await listener.stop(30)


async def test_handshakes_of_tls_are_limited(tmp_path: Path) -> None:
    """Connections and handshakes together; the places are free again when handshakes end."""
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("server")
    tls = TLSSettings(certificate=str(certificate), key=str(key))
    socket_ = bind("127.0.0.1", 0, "http_port")
    address = socket_.getsockname()
    settings = Settings(tls=tls, max_connections=2, header_timeout=600)
    listener = HTTPListener(socket_, respond, settings)
    await listener.start()
    context = ssl.create_default_context(cafile=str(authority.path))
    try:
        async with asyncio.timeout(30), contextlib.AsyncExitStack() as stack:
            silent = []
            for _ in range(3):  # one more than may be open
                silent.append(await asyncio.open_connection(*address))
                stack.callback(silent[-1][1].close)
            reader, writer = await asyncio.open_connection(*address)
            stack.callback(writer.close)
            assert await read_all(reader) == b""

            silent[0][1].write(b"no TLS")  # ends its handshake
            await read_all(silent[0][0])
            silent[1][1].close()
            head = b""
            while b" 204 " not in head:  # until the server has read that the second one is closed
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection(
                        *address, ssl=context, server_hostname="127.0.0.1"
                    )
                    stack.callback(writer.close)
                    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    head = await read_all(reader)
    finally:
        await listener.stop(30)


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Read until the server closes the connection or resets it."""
    with contextlib.suppress(ConnectionResetError):
        return await reader.read()
    return b""
