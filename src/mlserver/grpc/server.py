"""The gRPC server: bind, serve, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from ..access_log import AccessLog
from ..cloudevents import CloudEvents, get_namespace
from ..errors import MLServerError
from ..handlers import DataPlane
from ..handlers.model_repository import RepositoryControl
from ..metrics.server_metrics import ServerMetrics
from ..security.authorization import Authorizer
from ..security.tls import create_grpc_credentials
from ..settings import Settings
from ..settings.addresses import get_client_host
from ..sockets import HANDSHAKE_WAIT, raise_descriptor_limit
from ..wire.pb import dataplane_pb2, health_pb2, model_repository_pb2, reflection_pb2
from .connections import PortConnections
from .health import HealthServicer
from .reflection import NAMES, ReflectionServicer
from .rpc import RPCInterceptor, logger
from .servicers import SERIALIZED_METHODS, InferenceServicer, RepositoryServicer
from .services import create_generic_handler

# Concurrent RPCs of one connection.
MAX_STREAMS = 1024
MAX_METADATA_BYTES = 64 * 1024
GOAWAY_HOLD_SECONDS = 0.05  # before and after a GOAWAY, for which no call ends
# Seconds from the first GOAWAY for clients without a running call to close their connections.
DISCONNECT_SECONDS = 2.0
# Seconds in which streams may be idle, as HTTP connections (`rest.http.timeouts`).
STREAM_SECONDS = 1.0
CHECK_INTERVAL = 0.01  # between two checks of the connections
STOP_INTERVAL = 0.1  # between two checks whether bytes are transferred
GOAWAY_INTERVAL = 0.25  # between two attempts to send GOAWAY to the connections without one
UNLIMITED_SECONDS = 1e9  # gRPC treats a grace of None as 0


class GRPCServer:
    """The gRPC front end.

    Args:
        metrics: Metrics of RPCs; None = metrics that are not published.
        access: Access rules; None = those of the settings.

    Raises:
        MLServerError: the port is in use, or the certificates are not valid; the text names the
            setting.
    """

    def __init__(
        self,
        settings: Settings,
        data_plane: DataPlane,
        model_repository_handlers: RepositoryControl,
        metrics: ServerMetrics | None = None,
        access: Authorizer | None = None,
    ) -> None:
        self._server = grpc.aio.server(options=_options(settings))
        access_log = AccessLog.from_settings(settings, "grpc", logger)
        self._interceptor = interceptor = RPCInterceptor(
            metrics or ServerMetrics(), access or Authorizer(settings), access_log
        )
        events = CloudEvents(settings.server_name, get_namespace())
        dataplane = dataplane_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        repository = model_repository_pb2.DESCRIPTOR.services_by_name["ModelRepositoryService"]
        health = health_pb2.DESCRIPTOR.services_by_name["Health"]
        reflection = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        reflection_servicer = ReflectionServicer(
            [dataplane.full_name, repository.full_name, health.full_name, *NAMES]
        )
        self._health = HealthServicer(data_plane)
        inference = InferenceServicer(data_plane, model_repository_handlers, events)
        self._server.add_generic_rpc_handlers(
            (
                create_generic_handler(
                    dataplane, inference, interceptor, serialized_methods=SERIALIZED_METHODS
                ),
                create_generic_handler(
                    repository, RepositoryServicer(model_repository_handlers), interceptor
                ),
                create_generic_handler(health, self._health, interceptor),
                *(
                    create_generic_handler(reflection, reflection_servicer, interceptor, name)
                    for name in NAMES
                ),
            )
        )
        self._host = settings.host
        self._is_encrypted = settings.tls is not None
        self.port = _bind(self._server, settings)

    @property
    def address(self) -> str:
        """Address for the log."""
        return f"gRPC {_join(self._host, self.port)}"

    @property
    def endpoints(self) -> dict[str, str]:
        """Address for clients on this machine."""
        return {"gRPC": _join(get_client_host(self._host), self.port)}

    async def start(self) -> None:
        """Start serving."""
        await self._server.start()

    async def serve(self) -> None:
        """Wait until the server has stopped."""
        await self._server.wait_for_termination()

    def end_connections(self) -> None:
        """Do nothing: `drain` sends GOAWAY to the clients."""

    async def drain(self) -> None:
        """Disconnect the clients gracefully, close the port, and wait for all open RPCs.

        Watched health statuses end first. Streams without a running request end `STREAM_SECONDS`
        later: their clients, which have a GOAWAY then, open the next ones to another server.
        """
        self._health.end_watches()
        asyncio.get_running_loop().call_later(STREAM_SECONDS, self._interceptor.end_streams)
        if await self._wait_disconnected():
            await self._stop_when_idle()
            return
        # gRPC cancels calls that arrive after `stop` and before the client has read its GOAWAY.
        # Therefore no call ends shortly before: clients that wait for a response send no further
        # call, and they read the GOAWAY before the response.
        async with self._holding():
            releasing = asyncio.get_running_loop().call_later(
                GOAWAY_HOLD_SECONDS, self._interceptor.release_responses
            )
            await self._stop_when_idle()
            releasing.cancel()

    async def _stop_when_idle(self) -> None:
        """Stop the library's server when all calls have ended.

        It waits for clients that do not react (a stopped process), and for requests and responses
        that are still transferred. Without a running call and a transferred byte for
        `DISCONNECT_SECONDS`, the connections are closed.
        """
        connections = PortConnections(self.port)
        stopping = asyncio.ensure_future(self._server.stop(UNLIMITED_SECONDS))
        transferred, since = connections.count_transferred(), time.monotonic()
        try:
            while not (await asyncio.wait((stopping,), timeout=STOP_INTERVAL))[0]:
                previous, transferred = transferred, connections.count_transferred()
                is_known = transferred is not None
                if self._interceptor.running or not is_known or transferred != previous:
                    since = time.monotonic()
                elif time.monotonic() - since > DISCONNECT_SECONDS:
                    await self._server.stop(None)
        finally:
            stopping.cancel()

    async def _wait_disconnected(self) -> bool:
        """Send GOAWAY while calls are served, and return whether all clients have disconnected."""
        if self._is_encrypted:
            return False
        connections = PortConnections(self.port)
        connections.ignore_new()
        await asyncio.sleep(HANDSHAKE_WAIT)
        began = time.monotonic()
        next_round = began
        while names := connections.list_open():
            now = time.monotonic()
            if not self._interceptor.running and now - began > DISCONNECT_SECONDS:
                connections.close_silent()
                return False
            if names - connections.informed and now >= next_round:
                async with self._holding():
                    connections.send_goaway()
                next_round = now + GOAWAY_INTERVAL
            await asyncio.sleep(CHECK_INTERVAL)
        return True

    @contextlib.asynccontextmanager
    async def _holding(self) -> AsyncIterator[None]:
        """Hold the responses of RPCs in the block and shortly before it."""
        self._interceptor.hold_responses()
        try:
            await asyncio.sleep(GOAWAY_HOLD_SECONDS)
            yield
        finally:
            self._interceptor.release_responses()

    async def stop(self, grace: float | None = None) -> None:
        """Reject new RPCs and cancel open ones after `grace` seconds (None = at once)."""
        await self._server.stop(grace)
        self._interceptor.flush_log()


def _bind(server: Any, settings: Settings) -> int:
    address = _join(settings.host, settings.grpc_port)
    credentials = create_grpc_credentials(settings.tls) if settings.tls is not None else None
    try:
        bound: int = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
    except RuntimeError:
        bound = 0
    if not bound:
        raise MLServerError(
            f"Cannot listen on {address} (setting 'grpc_port'): the port is in use or not allowed",
            500,
        )
    return bound


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _options(settings: Settings) -> list[tuple[str, Any]]:
    """Return the channel arguments: limits and keepalive; ports are shared by HTTP workers only."""
    limit = settings.grpc_max_message_length
    # Half of what the limit of open files allows: HTTP keeps the other half.
    connections = raise_descriptor_limit(2 * settings.max_connections) // 2
    options: dict[str, Any] = {
        "grpc.max_receive_message_length": settings.max_body_bytes if limit is None else limit,
        # Responses have no limit.
        "grpc.max_send_message_length": -1,
        "grpc.so_reuseport": int(settings.http_workers > 1),
        "grpc.max_concurrent_streams": MAX_STREAMS,
        # Further ones are closed at once, also those whose client sends nothing.
        "grpc.max_allowed_incoming_connections": connections,
        "grpc.max_metadata_size": MAX_METADATA_BYTES,
        # Until the client's SETTINGS; with TLS, its handshake included. gRPC's default is 120 s.
        "grpc.server_handshake_timeout_ms": int(settings.header_timeout * 1000),
        # Detects dead connections, and limits the rate of pings.
        "grpc.keepalive_time_ms": int(settings.keep_alive_timeout * 1000),
        "grpc.keepalive_timeout_ms": 20_000,
        # Without this, gRPC allows an idle connection one ping in two hours.
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_ping_interval_without_data_ms": 10_000,
        "grpc.http2.max_ping_strikes": 5,
    }
    if settings.grpc_max_connection_age is not None:
        options["grpc.max_connection_age_ms"] = math.ceil(settings.grpc_max_connection_age * 1000)
    return list({**options, **(settings._custom_grpc_server_settings or {})}.items())
