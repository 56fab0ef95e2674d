"""Runs an ASGI application with uvicorn on the server's own loop: bind, serve, stop."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

import uvicorn

from ..errors import MLServerError
from ..settings import Settings
from ..tls import server_context
from .bounds import Bounds
from .protocol import Connection

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
    except OSError as problem:
        listener.close()
        reason = problem.strerror or str(problem)
        address = join_address(host, port)
        raise MLServerError(f"Cannot listen on {address} (setting '{setting}'): {reason}", 500) from None
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


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: the server's life is run in one place, not here."""

    def install_signal_handlers(self) -> None:
        """Older uvicorn calls this."""

    def capture_signals(self) -> Any:
        """Newer uvicorn enters this."""
        from contextlib import nullcontext

        return nullcontext()


class HTTPServer:
    """One listening socket and the application behind it.

    Args:
        listener: From `bind`.
        app: ASGI application.
        settings: Certificates, and the limits of connections.
        root_path: What a proxy in front strips off, or does not.

    Raises:
        MLServerError: the certificates cannot be used.
    """

    def __init__(self, listener: socket.socket, app: Any, settings: Settings, root_path: str = "") -> None:
        self._listener = listener
        self._bounds = bounds = Bounds(settings)
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
            config.ssl = server_context(settings.tls)
        self._server = _Uvicorn(config)
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
