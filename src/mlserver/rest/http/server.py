"""HTTP listener: runs an ASGI application on one listening socket, on the running event loop.

`uvicorn.Server` accepts the connections; each is a `Connection`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import uvicorn

from ...errors import MLServerError
from ...security.tls import create_ssl_context
from ...settings import Settings
from ...sockets import HANDSHAKE_WAIT, ignore_new_connections, is_readable
from .connection import Connection
from .timeouts import ConnectionTimeouts
from .tls_handshakes import TLSHandshakes


class SignallessServer(uvicorn.Server):
    """`uvicorn.Server` without signal handlers: `mlserver.server` handles signals.

    Args:
        settings: Time and number of TLS handshakes; uvicorn limits them by asyncio's 60 s only.
    """

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections on sockets."""
        config, loop = self.config, asyncio.get_running_loop()
        protocol: Any = config.http_protocol_class
        create: Callable[[], asyncio.Protocol] = partial(
            protocol, config=config, server_state=self.server_state
        )
        if config.ssl is not None:
            create = TLSHandshakes(
                config.ssl,
                create,
                self._settings.header_timeout,
                lambda: len(self.server_state.connections),
                self._settings.max_connections,
            ).create_acceptor
        self.servers = [
            await loop.create_server(create, sock=listener, backlog=config.backlog)
            for listener in sockets or ()
        ]
        self.started = True

    def install_signal_handlers(self) -> None:
        """Do nothing. Called by uvicorn before 0.29."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return an empty context manager. Called by uvicorn from 0.29 on."""
        return nullcontext()


class HTTPListener:
    """One listening socket and the application that answers its requests.

    Args:
        listener: From `sockets.bind`.
        app: ASGI application.
        settings: Certificates, time limits and `max_connections`.
        root_path: Path prefix of a proxy, which may or may not strip it.

    Raises:
        MLServerError: the certificates cannot be used.
    """

    def __init__(
        self, listener: socket.socket, app: Any, settings: Settings, root_path: str = ""
    ) -> None:
        self._listener = listener
        self._timeouts = ConnectionTimeouts(settings)
        config = uvicorn.Config(
            app,
            http=partial(Connection, self._timeouts),  # type: ignore[arg-type]  # uvicorn only calls it
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
        config.load()
        if settings.tls is not None:
            config.ssl = create_ssl_context(settings.tls)
        self._server = SignallessServer(config, settings)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to accept connections."""
        # The clock first: connections are accepted before uvicorn reports that it has started.
        self._timeouts.start(lambda: cast(set[Connection], self._server.server_state.connections))
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:
            if self._task.done():
                self._timeouts.stop()
                await self._task
                raise MLServerError("The REST server could not be started", 500)
            await asyncio.sleep(0.001)

    def end_connections(self) -> None:
        """Send `connection: close` with each response from now on."""
        self._timeouts.is_draining = True

    async def drain(self) -> None:
        """Finish running requests, stop accepting, and return when all connections are closed.

        An idle connection stays open for `LAST_REQUEST_WAIT` seconds: a request may be in flight.
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
            self._timeouts.close_idle(began)
            await asyncio.sleep(0.02)

    async def _stop_accepting(self) -> None:
        if self._listener.fileno() < 0:
            return
        if ignore_new_connections(self._listener):
            await asyncio.sleep(HANDSHAKE_WAIT)
        while is_readable(self._listener):  # noqa: ASYNC110 - connections wait to be accepted
            await asyncio.sleep(0.001)
        for server in self._server.servers:
            server.close()
        self._listener.close()

    async def stop(self, grace: float) -> None:
        """Stop accepting, and finish running requests within `grace` seconds."""
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
        self._timeouts.stop()
        self._listener.close()
