"""`grpc.health.v1`: what orchestrators and client-side load balancing ask."""

from __future__ import annotations

import asyncio

from ..errors import MLServerError
from ..handlers import DataPlane
from ..wire.pb import health_pb2 as pb
from .rpc import Context, StreamWriter

# The names that may be asked for: the whole server, and the service that needs models.
SERVICES = ("", "inference.GRPCInferenceService")
# Seconds after which a watched state is looked at again.
LOOK_AGAIN = 0.5


class HealthServicer:
    """Serving while the server is ready."""

    def __init__(self, data_plane: DataPlane) -> None:
        self._data_plane = data_plane

    async def check(
        self, request: pb.HealthCheckRequest, context: Context
    ) -> pb.HealthCheckResponse:
        if request.service not in SERVICES:
            raise MLServerError(f"Service {request.service[:100]!r} is not known here", 404)
        return await self._state()

    async def watch(
        self, request: pb.HealthCheckRequest, context: Context, write: StreamWriter
    ) -> None:
        """The state now, and each change, until the client leaves."""
        if request.service not in SERVICES:
            # A name that is unknown now is no error: the protocol lets it appear later.
            await write(pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN))
            await asyncio.Event().wait()
        told = None
        while True:
            state = await self._state()
            if state != told:
                await write(state)
                told = state
            await asyncio.sleep(LOOK_AGAIN)

    async def _state(self) -> pb.HealthCheckResponse:
        ready = await self._data_plane.ready()
        return pb.HealthCheckResponse(
            status=pb.HealthCheckResponse.SERVING if ready else pb.HealthCheckResponse.NOT_SERVING
        )
