"""The scheduler of one model: a stage that admits or refuses, lets requests wait with a deadline, and joins them.

A request is sent on at once when the model is idle. What arrives while it is busy waits, and is joined into one batch as
soon as it is free: no added wait at low load, full batches under load. The rules are in `policy`, `batch` and `limits`;
this thin task drives them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Protocol

from ..errors import CODES, DeadlineExceeded, MLServerError, Unavailable
from ..pipeline import RequestContext, Stage
from ..types import InferenceRequest, InferenceResponse
from .admission import AdmissionPolicy
from .batch import RowsDisagree, batch_key, join, rows_of, split
from .queue import BatchPolicy, RequestQueue

_FAULTS_OF_A_MEMBER = ("INVALID_ARGUMENT", "INTERNAL", "UNKNOWN", "FAILED_PRECONDITION")


class SchedulerMetrics(Protocol):
    """Who counts what the scheduler does."""

    def sent(self, under_way: int) -> None: ...

    def not_queued(self) -> None: ...

    def queued(self, seconds: float) -> None: ...

    def executed(self, requests: int, rows: int, seconds: float) -> None: ...

    def waiting(self, requests: int) -> None: ...

    def rejected(self, reason: str) -> None: ...


class QueuedRequest:
    """One waiting request."""

    __slots__ = (
        "arrived",
        "batch",
        "context",
        "future",
        "key",
        "priority",
        "request",
        "rows",
        "task",
        "timer",
    )

    def __init__(
        self, request: InferenceRequest, context: RequestContext, rows: int, arrived: float
    ) -> None:
        self.request = request
        self.context = context
        self.rows = rows
        self.key: Any = batch_key(request) if rows else None
        self.arrived = arrived
        self.priority = context.priority
        self.future: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None
        self.batch: list[QueuedRequest] = []  # those it runs with, itself among them
        self.task: asyncio.Task[None] | None = None  # what runs them


class Scheduler:
    """Requests of one model on their way to the next stage.

    Args:
        name: The model's name, for messages.
        next_stage: Where requests go.
        policy: When batches close.
        limits: What bounds the queue.
        meter: Who counts.
        slots: How many batches (or requests, without batching) may be under way; asked anew each time, for it follows the
            number of live workers.
    """

    def __init__(
        self,
        name: str,
        next_stage: Stage,
        policy: BatchPolicy,
        limits: AdmissionPolicy,
        meter: SchedulerMetrics,
        slots: Capacity,
    ) -> None:
        self._name = name
        self._next = next_stage
        self._policy = policy
        self._limits = limits
        self._meter = meter
        self._slots = slots
        self._queue: RequestQueue[QueuedRequest] = RequestQueue()
        self._under_way = 0
        self._streams = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake: asyncio.TimerHandle | None = None
        self._avg_seconds_per_request = 0.0  # seconds per request, smoothed
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"Scheduler({self._name!r}, waiting={len(self._queue)}, under_way={self._under_way})"

    @property
    def max_batch_size(self) -> int:
        """Requests in one batch at most; 1 = they are not joined."""
        return self._policy.max_requests

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        """Requests, batches and streams that the next stage works on."""
        return self._under_way + self._streams

    async def drained(self) -> None:
        """Wait until nothing waits and nothing is under way."""
        await self._idle.wait()

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        """Answer a request, alone or in a batch.

        Raises:
            Overloaded: too many wait already.
            DeadlineExceeded: its time was over before there was an answer.
        """
        now = time.monotonic()
        context.deadline = self._limits.deadline(now, context.deadline)
        if context.deadline is not None and context.deadline <= now:
            self._meter.rejected("deadline")
            raise self._too_late()
        rows = rows_of(request)
        context.timings.batch_rows = rows
        if not self._queue and self._under_way < self._slots.free() and not self._policy.max_wait:
            return await self._infer_at_once(request, context)
        try:
            self._limits.admit(self._name, len(self._queue), self._avg_seconds_per_request)
        except MLServerError:
            self._meter.rejected("queue_full")
            raise
        self._meter.waiting(len(self._queue))
        return await self._wait_in_line(QueuedRequest(request, context, rows, now))

    async def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        """Pass a stream on; streams are neither joined nor queued. Each is one run of the model on the rows of all its requests."""
        self._meter.sent(self.in_flight)
        self._streams += 1
        self._idle.clear()
        responses = self._next.stream(_counted(requests, context), context)
        try:
            async for response in responses:
                yield response
        finally:
            try:
                await responses.aclose()  # type: ignore[attr-defined]
            finally:  # closing may fail or be cancelled; a stream that still counted would keep the server from ending
                self._meter.executed(1, context.timings.batch_rows, context.timings.model_ns / 1e9)
                self._streams -= 1
                self._check_idle()

    # -- one request --

    async def _infer_at_once(
        self, request: InferenceRequest, context: RequestContext
    ) -> InferenceResponse:
        started = time.monotonic()
        self._meter.not_queued()
        self._begin()
        try:
            if context.deadline is None:
                return await self._next.infer(request, context)
            async with asyncio.timeout(context.deadline - started):
                return await self._next.infer(request, context)
        except TimeoutError:
            raise self._too_late() from None
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise  # the caller left
            raise _stopped() from None
        finally:
            self._executed(1, context.timings.batch_rows, time.monotonic() - started)
            self._finish()

    async def _wait_in_line(self, entry: QueuedRequest) -> InferenceResponse:
        if entry.context.deadline is not None:
            remaining = entry.context.deadline - entry.arrived
            entry.timer = asyncio.get_running_loop().call_later(remaining, self._expire, entry)
        self._queue.push(entry)
        self._idle.clear()
        self._dispatch()
        try:
            return await entry.future
        finally:
            if entry.timer is not None:
                entry.timer.cancel()
            # A caller that left frees its place; in a batch that others wait for its rows are computed and dropped.
            if entry.future.cancelled():
                self._forget(entry)

    def _expire(self, entry: QueuedRequest) -> None:
        if not entry.future.done():
            entry.future.set_exception(self._too_late())
            self._meter.rejected("deadline")
            self._forget(entry)

    def _forget(self, entry: QueuedRequest) -> None:
        """Nobody waits for this entry any more: out of line with it, or stop its work."""
        if self._queue.remove(entry):
            self._check_idle()
        elif entry.task is not None and all(member.future.done() for member in entry.batch):
            entry.task.cancel()

    def _too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"Request for model {self._name} timed out")

    # -- batches --

    def _dispatch(self) -> None:
        """Start whatever may run now."""
        while self._queue and self._under_way < self._slots.free():
            batch, wait = self._queue.take(self._policy, time.monotonic())
            if not batch:
                self._wake_after(wait)
                return
            batch = [entry for entry in batch if not entry.future.done()]
            if not batch:
                continue
            self._begin()
            task = asyncio.get_running_loop().create_task(self._run(batch))
            for entry in batch:
                entry.task, entry.batch = task, batch
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._check_idle()

    def _wake_after(self, seconds: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = asyncio.get_running_loop().call_later(seconds, self._dispatch)

    async def _run(self, batch: list[QueuedRequest]) -> None:
        started = time.monotonic()
        rows = sum(entry.rows for entry in batch)
        for entry in batch:
            entry.context.timings.queue_ns = int((started - entry.arrived) * 1e9)
            entry.context.timings.batch_requests = len(batch)
            entry.context.timings.batch_rows = rows
            self._meter.queued(started - entry.arrived)
        try:
            if len(batch) == 1:
                await self._run_alone(batch[0])
            else:
                await self._run_joined(batch)
        finally:
            for entry in batch:
                entry.task, entry.batch = None, []
                if not entry.future.done():  # whatever happened, nobody is left waiting
                    _fail(entry, _stopped())
            self._executed(len(batch), rows, time.monotonic() - started)
            self._finish()

    async def _run_alone(self, entry: QueuedRequest) -> None:
        try:
            response = await self._next.infer(entry.request, entry.context)
        except Exception as error:
            _fail(entry, error)
        else:
            if not entry.future.done():
                entry.future.set_result(response)

    async def _run_joined(self, batch: list[QueuedRequest]) -> None:
        deadlines = [entry.context.deadline for entry in batch]
        rows = [entry.rows for entry in batch]
        context = RequestContext(
            rows_per_request=rows,
            deadline=None if None in deadlines else max(d for d in deadlines if d is not None),
            trace_parent=batch[
                0
            ].context.trace_parent,  # a call of the model can be part of one trace only
        )
        try:
            response = await self._next.infer(join([entry.request for entry in batch]), context)
            responses = split(response, rows)
        except RowsDisagree:
            await self._run_one_by_one(batch)
        except MLServerError as error:
            if error.code in _FAULTS_OF_A_MEMBER:
                await self._run_one_by_one(batch)  # so that only the guilty one fails
            else:
                for entry in batch:
                    _fail(entry, error)
        except Exception as error:
            for entry in batch:
                _fail(entry, error)
        else:
            for entry, own in zip(batch, responses, strict=True):
                entry.context.timings.model_ns = context.timings.model_ns
                entry.context.timings.transport_ns = context.timings.transport_ns
                if not entry.future.done():
                    entry.future.set_result(own)

    async def _run_one_by_one(self, batch: list[QueuedRequest]) -> None:
        for entry in batch:
            entry.context.timings.batch_requests, entry.context.timings.batch_rows = 1, entry.rows
            if not entry.future.done():
                await self._run_alone(entry)

    # -- bookkeeping --

    def _begin(self) -> None:
        self._meter.sent(self._under_way + self._streams)
        self._under_way += 1
        self._idle.clear()

    def _finish(self) -> None:
        self._under_way -= 1
        if self._queue:
            self._dispatch()
        else:
            self._check_idle()

    def _check_idle(self) -> None:
        if not self.in_flight and not self._queue:
            self._idle.set()

    def _executed(self, requests: int, rows: int, seconds: float) -> None:
        self._meter.executed(requests, rows, seconds)
        self._avg_seconds_per_request += 0.1 * (seconds / requests - self._avg_seconds_per_request)


class Capacity(Protocol):
    """How many batches may be under way at a time."""

    def free(self) -> int: ...


def _stopped() -> Unavailable:
    return Unavailable("The run of the model was stopped before it answered")


async def _counted(
    requests: AsyncIterator[InferenceRequest], context: RequestContext
) -> AsyncIterator[InferenceRequest]:
    """The requests of a stream, whose rows are added up."""
    async for request in requests:
        context.timings.batch_rows += rows_of(request)
        yield request


def _fail(entry: QueuedRequest, error: Exception) -> None:
    if entry.future.done():
        return
    if not isinstance(error, MLServerError):
        error = MLServerError(f"{type(error).__name__}: {error}", 500, code=CODES[500])
    entry.future.set_exception(error)
