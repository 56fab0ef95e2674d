"""Client-side view of a group of workers, and the proxy of a model that they hold.

Starting and ending workers is the task of `worker_pool` in the server's process, and of the server
for HTTP workers.
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
from .out_of_memory import get_kills
from .rpc.client import RPCClient, WorkerDied
from .rpc.protocol import Frame, MessageType, pack_request, unpack_response
from .stream_timer import StreamTimer

# Seconds that a request waits for a replacement worker before it is refused.
REPLACEMENT_WAIT = 2.0
# Seconds before a request of a dead worker is sent to another one: workers killed by the same event
# (a process group, the kernel's out-of-memory killer) have been detected by then.
RETRY_DELAY = 0.02

OUT_OF_MEMORY = " (the last one was probably killed because the memory limit was reached)"

ClientT = TypeVar("ClientT", bound=RPCClient)


class WorkerGroup(Generic[ClientT]):
    """Connections to the ready workers of one pool.

    Attributes:
        unavailable_message: Error of a request for which no worker became ready in time.
        last_death: Why the last worker that died has probably died, for errors; "" = unknown.
    """

    unavailable_message = "No worker process is alive to run the model; a new one is being started"

    def __init__(self) -> None:
        self._ready: list[ClientT] = []
        self._changed = asyncio.Event()
        self._kills = get_kills()
        self.last_death = ""

    @property
    def ready_workers(self) -> int:
        return len(self._ready)

    def has_model(self, key: str) -> bool:
        return any(key in worker.model_keys for worker in self._ready)

    async def pick_worker(self, key: str) -> ClientT:
        """Return the least loaded worker that has the model, waiting up to `REPLACEMENT_WAIT` s.

        While none of them reads what was sent to it, the request waits here until its deadline:
        its bytes could not be taken back from a connection.

        Raises:
            Unavailable: no worker became ready in time.
        """
        limit: float | None = None
        while True:
            selected: ClientT | None = None
            for worker in self._ready:
                is_holder = key in worker.model_keys
                if is_holder and (selected is None or worker.in_flight < selected.in_flight):
                    selected = worker
            if selected is not None and selected.is_backed_up:
                selected = await self._find_writable(key)
                if selected is None:
                    continue
            if selected is not None:
                return selected
            limit = limit or time.monotonic() + REPLACEMENT_WAIT
            changed = self._changed
            try:
                async with asyncio.timeout(max(0.0, limit - time.monotonic())):
                    await changed.wait()
            except TimeoutError:
                raise Unavailable(self.unavailable_message + self.last_death) from None

    async def _find_writable(self, key: str) -> ClientT | None:
        """Return the least loaded worker that reads; if none does, wait, and return None."""
        holders = [worker for worker in self._ready if key in worker.model_keys]
        writable = [worker for worker in holders if not worker.is_backed_up]
        if writable:
            return min(writable, key=_count_calls)
        changes = [worker.wait_writable() for worker in holders]
        waits = [asyncio.ensure_future(change) for change in (self._changed.wait(), *changes)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return None

    def _record_death(self) -> None:
        """Record the probable cause of a worker's death. Call it when the death is detected."""
        self.last_death = OUT_OF_MEMORY if self._kills.has_recent() else ""

    def _announce(self) -> None:
        """Notify the requests that wait for a worker."""
        self._changed.set()
        self._changed = asyncio.Event()


def _count_calls(worker: RPCClient) -> int:
    return worker.in_flight


class RemoteModel:
    """Proxy of a model in the workers of a group.

    Args:
        key: The model's key in the workers.
        limit: Seconds after which a worker that neither answers nor reacts is killed; None = never.
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

    @property
    def abandoned_calls(self) -> int:
        """0: workers report these calls to the server's process only."""
        return 0

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        buffers: list[Any] = []
        values = pack_request(request, buffers)
        ids = context.trace_parent, context.joined_ids
        head = [self.key, context.deadline, context.rows_per_request, *ids, values]
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
                        + self._group.last_death
                    ) from None
                await asyncio.sleep(RETRY_DELAY)
        model_ns, values = frame.head
        context.timings.model_ns = model_ns
        context.timings.transport_ns = time.perf_counter_ns() - started - model_ns
        return unpack_response(values, frame.buffers)

    async def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        worker = await self._group.pick_worker(self.key)
        timer = StreamTimer()
        head = {"key": self.key, "trace_parent": context.trace_parent}
        frames = worker.stream(head, timer.exclude_wait(requests), self.limit)
        try:
            while True:
                frame, elapsed = await timer.next(frames)
                if frame is None:
                    return
                model_ns, values = frame.head
                context.timings.model_ns += model_ns
                # The model may have computed this response before it was pulled: never below 0.
                context.timings.transport_ns += max(0, elapsed - model_ns)
                yield unpack_response(values, frame.buffers)
        except WorkerDied:
            raise Unavailable(
                f"The worker process ended in the middle of this stream{self._group.last_death}"
            ) from None
        finally:
            await frames.aclose()

    async def metadata(self) -> MetadataModelResponse:
        """Return the model's metadata, the last known after `METADATA_TIMEOUT`."""
        try:
            async with asyncio.timeout(METADATA_TIMEOUT):
                worker = await self._group.pick_worker(self.key)
                frame = await worker.call(MessageType.METADATA, self.key)
        except (TimeoutError, WorkerDied, Unavailable):
            return self._last_metadata or self.info.metadata
        self._last_metadata = MetadataModelResponse.model_validate(frame.head)
        return self._last_metadata

    async def resolve_source(self, uri: str) -> str:
        frame = await self._call_once(MessageType.RESOLVE_SOURCE, [self.key, uri])
        return str(frame.head)

    async def route(self, request: HTTPRequest, context: RequestContext) -> HTTPResponse:
        head = [self.key, request.method, request.path, request.query, request.headers]
        buffers = [request.body] if request.body else []
        frame = await self._call_once(MessageType.ROUTE, head, buffers, self.limit)
        status, headers = frame.head
        pairs = [(name, value) for name, value in headers]
        return HTTPResponse(status, pairs, bytes(frame.buffers[0]))

    async def _call_once(self, kind: MessageType, head: Any, *arguments: Any) -> Frame:
        worker = await self._group.pick_worker(self.key)
        try:
            frame: Frame = await worker.call(kind, head, *arguments)
        except WorkerDied:
            raise Unavailable(
                f"The worker process ended while it ran this request{self._group.last_death}"
            ) from None
        return frame
