"""Runs an ASGI application with uvicorn on the server's own loop: bind, serve, stop."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from functools import partial
from typing import Any

import uvicorn

from ...errors import MLServerError
from ...security.tls import create_ssl_context
from ...settings import Settings
from .connection import Connection, is_readable
from .timeouts import ConnectionTimeouts

SPARE_DESCRIPTORS = 512  # for files, workers and gRPC


def bind(host: str, port: int, setting: str, shared: bool = False) -> socket.socket:
    """A listening socket. Raises `MLServerError` in one line that names the setting.

    Args:
        shared: Whether other processes of this server listen on the same port: the kernel shares connections out.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        address = join_address(host, port)
        raise MLServerError(
            f"Cannot listen on {address} (setting '{setting}'): {reason}", 500
        ) from None
    listener.setblocking(False)
    listener.set_inheritable(False)
    return listener


def join_address(host: str, port: int) -> str:
    """Return host and port as they stand in a URL: IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def allow_descriptors(connections: int) -> None:
    """Let this process open so many sockets, and what it needs beside them, as far as the system lets it."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


HANDSHAKES = (
    0.05  # seconds that connections under way get to be there before a listening socket is closed
)
_SO_ATTACH_FILTER = 26
# Classic BPF over a TCP segment: drop those with SYN and without ACK, which open a connection. The instructions load the
# flags, mask SYN and ACK, compare, and keep or drop.
_NO_SYN = (
    (0x30, 0, 0, 13),
    (0x54, 0, 0, 0x12),
    (0x15, 1, 0, 0x02),
    (0x06, 0, 0, 0xFFFFFFFF),
    (0x06, 0, 0, 0),
)


def ignore_new_connections(listener: socket.socket) -> bool:
    """Let the kernel begin no further connection to a listening socket, while those that have begun can be accepted.

    Closing it would reset them, with the requests that their clients have sent by then. A client that is ignored sends
    again after a second, and is refused. Returns whether the system can do that.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_SYN)
    program = ctypes.create_string_buffer(code, len(code))
    try:
        argument = struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
    except OSError:
        return False
    return True


class SignallessServer(uvicorn.Server):
    """uvicorn without its signal handlers: the server's life is run in one place, not here."""

    def install_signal_handlers(self) -> None:
        """Older uvicorn calls this."""

    def capture_signals(self) -> Any:
        """Newer uvicorn enters this."""
        from contextlib import nullcontext

        return nullcontext()


class HTTPListener:
    """One listening socket and the application behind it.

    Args:
        listener: From `bind`.
        app: ASGI application.
        settings: Certificates, and the limits of connections.
        root_path: What a proxy in front strips off, or does not.

    Raises:
        MLServerError: the certificates cannot be used.
    """

    def __init__(
        self, listener: socket.socket, app: Any, settings: Settings, root_path: str = ""
    ) -> None:
        self._listener = listener
        self._bounds = bounds = ConnectionTimeouts(settings)
        config = uvicorn.Config(
            app,
            http=partial(Connection, bounds),  # type: ignore[arg-type]  # uvicorn only calls it
            ws="none",
            loop="none",
            lifespan="off",
            interface="asgi3",
            root_path=root_path,
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            **(settings._custom_rest_server_settings or {}),
        )
        if settings.tls is not None:
            config.load()
            config.ssl = create_ssl_context(settings.tls)
        self._server = SignallessServer(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections from now on."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise MLServerError("The REST server could not be started", 500)
            await asyncio.sleep(0.001)
        self._bounds.watch(lambda: self._server.server_state.connections)

    def end_connections(self) -> None:
        """Say `connection: close` with each answer from now on."""
        self._bounds.is_ending = True

    async def drain(self) -> None:
        """Answer what has begun, then take no more connections; return when those that there are have ended.

        A connection that is idle gets a moment to bring one more request, for it may be on its way.
        """
        self.end_connections()
        if self._task is None:
            return
        running = list(self._server.server_state.tasks)
        if running:
            await asyncio.wait(running)
        await self._stop_accepting()
        began = asyncio.get_running_loop().time()
        while self._server.server_state.connections:
            self._bounds.close_idle(began)
            await asyncio.sleep(0.02)

    async def _stop_accepting(self) -> None:
        if self._listener.fileno() < 0:
            return
        if ignore_new_connections(self._listener):
            await asyncio.sleep(HANDSHAKES)
        while is_readable(self._listener):  # noqa: ASYNC110 - connections wait to be accepted
            await asyncio.sleep(0.001)
        for server in self._server.servers:
            server.close()
        self._listener.close()

    async def stop(self, grace: float) -> None:
        """Accept no more, answer what has begun within `grace` seconds."""
        if self._task is None:
            self._listener.close()
            return
        self._server.should_exit = True
        try:
            async with asyncio.timeout(grace):
                await asyncio.shield(self._task)
        except TimeoutError:
            self._server.force_exit = True
            await self._task
        self._bounds.stop()
        self._listener.close()
