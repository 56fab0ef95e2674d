"""Workers that hold the same models, as whoever asks them sees them, and a model that they run.

Who starts and ends the workers is elsewhere: in the server's own process `pool`, for its further front ends the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

from ..errors import Unavailable
from ..pipeline import RequestContext
from ..types import InferenceRequest, InferenceResponse, MetadataModelResponse
from .executor import METADATA_TIMEOUT, HTTPRequest, HTTPResponse, ModelInfo
from .rpc.client import RPCClient, WorkerDied
from .rpc.protocol import MessageType, pack_request, unpack_response
from .stream_timer import StreamTimer

REPLACEMENT_WAIT = 0.8  # seconds a request waits for a worker to come back before it is refused
# Seconds before a request whose worker died is tried on another: who died together with it is known to be dead by then.
SECOND_TRY = 0.02

L = TypeVar("L", bound=RPCClient)


class WorkerGroup(Generic[L]):
    """The workers that are ready."""

    def __init__(self) -> None:
        self._ready: list[L] = []
        self._changed = asyncio.Event()

    @property
    def ready_workers(self) -> int:
        return len(self._ready)

    def has_model(self, key: str) -> bool:
        return any(key in worker.loaded for worker in self._ready)

    async def pick_worker(self, key: str) -> L:
        """The least busy worker that holds the model; waits a moment for one to come back.

        Raises:
            Unavailable: none came.
        """
        limit = time.monotonic() + REPLACEMENT_WAIT
        while True:
            holders = [worker for worker in self._ready if key in worker.loaded]
            if holders:
                return holders[0] if len(holders) == 1 else min(holders, key=_load_of)
            changed = self._changed
            try:
                async with asyncio.timeout(max(0.0, limit - time.monotonic())):
                    await changed.wait()
            except TimeoutError:
                raise Unavailable(
                    "No worker process is alive to run the model; a new one is being started"
                ) from None

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class RemoteModel:
    """A model in the workers of a crew.

    Args:
        key: The workers' name for it.
        limit: Seconds after which a worker that does not answer and does not react is to be ended.
    """

    def __init__(
        self, group: WorkerGroup[Any], key: str, info: ModelInfo, limit: float | None
    ) -> None:
        self._group = group
        self.key = key
        self.limit = limit
        self.info = info
        self._last_metadata: MetadataModelResponse | None = None

    unavailable_reason = "no worker process is alive to run the model"

    @property
    def available(self) -> bool:
        return self._group.has_model(self.key)

    @property
    def capacity(self) -> int:
        return max(1, self._group.ready_workers)

    async def infer(self, request: InferenceRequest, call: RequestContext) -> InferenceResponse:
        buffers: list[Any] = []
        head = [
            self.key,
            call.deadline,
            call.rows_per_request,
            call.trace_parent,
            pack_request(request, buffers),
        ]
        started = time.perf_counter_ns()
        for attempt in (1, 2):
            worker = await self._group.pick_worker(self.key)
            try:
                frame = await worker.call(MessageType.INFER, head, buffers, self.limit)
                break
            except WorkerDied:
                if attempt == 2:
                    raise Unavailable(
                        "Two worker processes ended while they ran this request"
                    ) from None
                await asyncio.sleep(SECOND_TRY)
        model_ns, values = frame.head
        call.timings.model_ns = model_ns
        call.timings.transport_ns = time.perf_counter_ns() - started - model_ns
        return unpack_response(values, frame.buffers)

    async def stream(
        self, requests: AsyncIterator[InferenceRequest], call: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        worker = await self._group.pick_worker(self.key)
        clock = StreamTimer()
        frames = worker.stream(self.key, clock.asking(requests))
        try:
            while True:
                frame, elapsed = await clock.next(frames)
                if frame is None:
                    return
                model_ns, values = frame.head
                call.timings.model_ns += model_ns
                call.timings.transport_ns += max(
                    0, elapsed - model_ns
                )  # the model may have worked ahead
                yield unpack_response(values, frame.buffers)
        except WorkerDied:
            raise Unavailable("The worker process ended in the middle of this stream") from None
        finally:
            await frames.aclose()

    async def metadata(self) -> MetadataModelResponse:
        """Ask a worker. One that is busy is not waited for: then it is what the model said last."""
        try:
            async with asyncio.timeout(METADATA_TIMEOUT):
                worker = await self._group.pick_worker(self.key)
                frame = await worker.call(MessageType.METADATA, self.key)
        except (TimeoutError, WorkerDied, Unavailable):
            return self._last_metadata or self.info.metadata
        self._last_metadata = MetadataModelResponse.model_validate(frame.head)
        return self._last_metadata

    async def route(self, request: HTTPRequest, call: RequestContext) -> HTTPResponse:
        worker = await self._group.pick_worker(self.key)
        head = [self.key, request.method, request.path, request.query, request.headers]
        try:
            frame = await worker.call(
                MessageType.ROUTE, head, [request.body] if request.body else (), self.limit
            )
        except WorkerDied:
            raise Unavailable("The worker process ended while it ran this request") from None
        status, headers = frame.head
        return HTTPResponse(
            status, [(name, value) for name, value in headers], bytes(frame.buffers[0])
        )


def _load_of(worker: RPCClient) -> int:
    return worker.running
