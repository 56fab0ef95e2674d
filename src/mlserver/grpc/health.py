"""Health service `grpc.health.v1`, for orchestrators and client-side load balancing."""

from __future__ import annotations

import asyncio
import contextlib

from ..errors import MLServerError
from ..handlers import DataPlane
from ..wire.pb import health_pb2 as pb
from .messages import StreamWriter
from .rpc import Context

# Services with a health status: the whole server, and the inference service.
SERVICES = ("", "inference.GRPCInferenceService")
# Interval between two checks of a watched service.
POLL_SECONDS = 0.5


class HealthServicer:
    """Reports SERVING while the server is ready."""

    def __init__(self, data_plane: DataPlane) -> None:
        self._data_plane = data_plane
        self._is_ending = asyncio.Event()
        # The status at the last check. One of the watches holds the lock and checks; the others
        # wait for the lock, and cost nothing until the status changes.
        self._status: pb.HealthCheckResponse | None = None
        self._checking = asyncio.Lock()

    def end_watches(self) -> None:
        """End all calls of `watch` with NOT_SERVING: they would delay a shutdown."""
        self._is_ending.set()

    async def check(
        self, request: pb.HealthCheckRequest, context: Context
    ) -> pb.HealthCheckResponse:
        if request.service not in SERVICES:
            raise MLServerError(f"Service {request.service[:100]!r} not found", 404)
        return await self._get_status()

    async def watch(
        self, request: pb.HealthCheckRequest, context: Context, write: StreamWriter
    ) -> None:
        """Send the status now and after each change, until the client or `end_watches` ends it."""
        if request.service not in SERVICES:
            # Not an error by the protocol: the service may be added later.
            await write(pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN))
            await self._is_ending.wait()
            return
        last_sent = None
        self._status = await self._get_status()
        while not self._is_ending.is_set():
            if self._status != last_sent:
                last_sent = self._status
                await write(last_sent)
            await self._wait_for_change(last_sent)
        status = pb.HealthCheckResponse(status=pb.HealthCheckResponse.NOT_SERVING)
        if status != last_sent:
            await write(status)

    async def _wait_for_change(self, last_sent: pb.HealthCheckResponse | None) -> None:
        """Return when the status differs from the one last sent, or by `end_watches`."""
        async with self._checking:
            while self._status == last_sent and not self._is_ending.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._is_ending.wait()
                self._status = await self._get_status()

    async def _get_status(self) -> pb.HealthCheckResponse:
        ready = await self._data_plane.ready()
        return pb.HealthCheckResponse(
            status=pb.HealthCheckResponse.SERVING if ready else pb.HealthCheckResponse.NOT_SERVING
        )
