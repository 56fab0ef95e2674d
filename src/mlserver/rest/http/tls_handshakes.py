"""TLS handshakes of one listener: limited in number and in time.

With the certificates passed to `create_server`, asyncio reports a connection when its handshake has
ended, and one whose handshake fails never: they could not be counted.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable

from .request_head import logger


class TLSHandshakes:
    """Runs the handshakes of accepted connections.

    Args:
        context: The certificates.
        create_protocol: Returns the protocol of a connection whose handshake has succeeded.
        timeout: Seconds for one handshake.
        count_connections: Returns the number of open connections without those in a handshake.
        max_connections: Further connections are closed at once, those in a handshake included.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        create_protocol: Callable[[], asyncio.Protocol],
        timeout: float,
        count_connections: Callable[[], int],
        max_connections: int,
    ) -> None:
        self._context = context
        self._create_protocol = create_protocol
        self._timeout = timeout
        self._count_connections = count_connections
        self._max_connections = max_connections
        self._running: set[asyncio.Task[None]] = set()

    def create_acceptor(self) -> asyncio.Protocol:
        """Return the protocol of an accepted connection, before its handshake."""
        return _Acceptor(self)

    def start(self, connection: socket.socket) -> None:
        """Run the handshake of a connection; close it if there are too many.

        One more than `max_connections` is admitted: `Connection` answers its request with 503.
        """
        if len(self._running) + self._count_connections() > self._max_connections:
            connection.close()
            return
        task = asyncio.get_running_loop().create_task(self._run(connection))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._create_protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._timeout,
            )
        except OSError as error:  # also of `ssl`, and the timeout
            logger.debug("A TLS handshake failed: %s", error)


class _Acceptor(asyncio.Protocol):
    """Hands an accepted connection over to its handshake."""

    def __init__(self, handshakes: TLSHandshakes) -> None:
        self._handshakes = handshakes

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # A duplicate: the transport, which has read nothing yet, closes its own descriptor.
        number = transport.get_extra_info("socket").fileno()
        connection = socket.socket(fileno=os.dup(number))
        connection.setblocking(False)
        transport.abort()
        self._handshakes.start(connection)
