"""The gRPC server's life: bind, serve, stop. One event loop, shared with the rest of the server."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from ..cloudevents import CloudEvents, get_namespace
from ..errors import MLServerError
from ..handlers import DataPlane
from ..handlers.model_repository import RepositoryControl
from ..metrics.server_metrics import ServerMetrics
from ..security.authorization import Authorizer
from ..security.tls import grpc_credentials
from ..settings import Settings
from ..wire.pb import dataplane_pb2, health_pb2, model_repository_pb2, reflection_pb2
from .health import HealthServicer
from .reflection import NAMES, ReflectionServicer
from .rpc import RPCInterceptor
from .servicers import IN_BYTES, InferenceServicer, RepositoryServicer
from .services import generic_handler

# RPCs of one connection that may be open at a time.
MAX_STREAMS = 1024
MAX_METADATA = 64 * 1024
HOLD = 0.05  # seconds before and after the GOAWAY for which no call ends
UNLIMITED = 1e9  # seconds; to gRPC, None would be 0


class GRPCServer:
    """The gRPC front end.

    Args:
        metrics: Who counts RPCs.
        access: Who may do what; None = as the settings say.

    Raises:
        MLServerError: the port is taken, or the certificates cannot be used; the text names the setting.
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
        access_log = settings.debug if settings.access_log is None else settings.access_log
        self._guard = guard = RPCInterceptor(
            metrics or ServerMetrics(), access or Authorizer(settings), access_log
        )
        events = CloudEvents(settings.server_name, get_namespace())
        dataplane = dataplane_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        repository = model_repository_pb2.DESCRIPTOR.services_by_name["ModelRepositoryService"]
        health = health_pb2.DESCRIPTOR.services_by_name["Health"]
        reflection = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        described = ReflectionServicer(
            [dataplane.full_name, repository.full_name, health.full_name, *NAMES]
        )
        inference = InferenceServicer(data_plane, model_repository_handlers, events)
        self._server.add_generic_rpc_handlers(
            (
                generic_handler(dataplane, inference, guard, in_bytes=IN_BYTES),
                generic_handler(repository, RepositoryServicer(model_repository_handlers), guard),
                generic_handler(health, HealthServicer(data_plane), guard),
                *(generic_handler(reflection, described, guard, name) for name in NAMES),
            )
        )
        self._host = settings.host
        self.port = _bind(self._server, settings)

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        return f"gRPC {_join(self._host, self.port)}"

    async def start(self) -> None:
        """Answer from now on."""
        await self._server.start()

    async def serve(self) -> None:
        """Return when the server has been stopped."""
        await self._server.wait_for_termination()

    def end_connections(self) -> None:
        """Nothing: gRPC tells its clients (GOAWAY) when it takes no more connections, in `drain`."""

    async def drain(self) -> None:
        """Take no more connections, tell the clients (GOAWAY); return when all open RPCs are answered."""
        # gRPC cancels calls that arrive after `stop` and before the client has read the GOAWAY. So no call ends for a
        # moment before: clients that wait for an answer send no further call, and they read the GOAWAY before the answer.
        self._guard.hold_answers()
        try:
            await asyncio.sleep(HOLD)
            releasing = asyncio.get_running_loop().call_later(HOLD, self._guard.release_answers)
            await self._server.stop(UNLIMITED)
            releasing.cancel()
        finally:
            self._guard.release_answers()

    async def stop(self, grace: float | None = None) -> None:
        """Take no new RPC; those open have `grace` seconds (None = none) to finish."""
        await self._server.stop(grace)


def _bind(server: Any, settings: Settings) -> int:
    address = _join(settings.host, settings.grpc_port)
    credentials = grpc_credentials(settings.tls) if settings.tls is not None else None
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
            f"Cannot listen on {address} (setting 'grpc_port'): the port is taken or not allowed",
            500,
        )
    return bound


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _options(settings: Settings) -> list[tuple[str, Any]]:
    """Channel arguments: limits from the settings, and no other server on the same port."""
    limit = settings.grpc_max_message_length
    options: dict[str, Any] = {
        "grpc.max_receive_message_length": settings.max_body_bytes if limit is None else limit,
        # An answer that was computed is sent, however large.
        "grpc.max_send_message_length": -1,
        "grpc.so_reuseport": int(settings.http_workers > 1),
        "grpc.max_concurrent_streams": MAX_STREAMS,
        "grpc.max_metadata_size": MAX_METADATA,
        # A connection whose other end is gone without a word is noticed, and pings are no way to keep us busy.
        "grpc.keepalive_time_ms": int(settings.keep_alive_timeout * 1000),
        "grpc.keepalive_timeout_ms": 20_000,
        # Without it, gRPC allows an idle connection one ping in two hours.
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_ping_interval_without_data_ms": 10_000,
        "grpc.http2.max_ping_strikes": 5,
    }
    return list({**options, **(settings._custom_grpc_server_settings or {})}.items())
