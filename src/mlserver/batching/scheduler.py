"""The scheduler: a pipeline stage with admission, a queue with deadlines, and batching.

While the model has free capacity, a request is sent to it at once. Requests that arrive while it is
busy are queued, and joined into one batch when it is free: no added latency at low load, large
batches at high load. With `max_batch_time`, requests wait up to that time for others in any case.
The rules are in `queue`, `batch` and `admission`; this module runs them on the event loop, and ends
requests at their deadlines.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ..errors import CODES, DeadlineExceeded, MLServerError, Overloaded, Unavailable
from ..pipeline import RequestContext, Stage
from ..types import InferenceRequest, InferenceResponse
from .admission import AdmissionPolicy
from .batch import RowsDisagree, batch_key, count_rows, join, rows_of, split
from .queue import BatchPolicy, RequestQueue

# Codes of errors that a single request of a batch may have caused.
_CAUSED_BY_ONE_REQUEST = ("INVALID_ARGUMENT", "INTERNAL", "UNKNOWN", "FAILED_PRECONDITION")
# Weight of the latest run in the moving average of the seconds per request.
_SMOOTHING = 0.1


class SchedulerMetrics(Protocol):
    """Records what the scheduler does; see `metrics.model_metrics.ModelMetrics`."""

    def request_queued(self, queue_size: int) -> None: ...

    def request_rejected(self, reason: str) -> None: ...

    def run_started(self, in_flight: int, queue_seconds: Sequence[float]) -> None: ...

    def run_finished(self, requests: int, rows: int, seconds: float) -> None: ...


class ModelStage(Stage, Protocol):
    """The stage that runs the model."""

    @property
    def capacity(self) -> int:
        """Live workers, at least 1."""
        ...


class QueuedRequest:
    """A request in the queue, or in a batch that runs."""

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
        self.timer: asyncio.TimerHandle | None = None  # calls `_expire` at the deadline
        self.batch: Sequence[QueuedRequest] = ()  # the batch it runs in, itself included
        self.task: asyncio.Task[None] | None = None  # the task that runs the batch


class Scheduler:
    """Admits, queues and batches the requests of one model.

    Args:
        name: The model's name, for messages.
        next_stage: Runs the model.
        policy: When batches are closed.
        limits: Bounds of the queue.
        metrics: Records requests and batches.
        runs_per_worker: Batches, or requests without batching, that one worker runs at the same
            time.
        clock: Monotonic seconds, as in `RequestContext.deadline`.
    """

    def __init__(
        self,
        name: str,
        next_stage: ModelStage,
        policy: BatchPolicy,
        limits: AdmissionPolicy,
        metrics: SchedulerMetrics,
        runs_per_worker: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._next = next_stage
        self._policy = policy
        self._limits = limits
        self._metrics = metrics
        self._runs_per_worker = runs_per_worker
        self._clock = clock
        self._queue: RequestQueue[QueuedRequest] = RequestQueue()
        self._runs = 0
        self._unqueued = 0  # streams, and calls of custom routes
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispatch_timer: asyncio.TimerHandle | None = None
        self._avg_seconds_per_request = 0.0
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"Scheduler({self._name!r}, waiting={self.waiting}, under_way={self._runs})"

    @property
    def max_batch_size(self) -> int:
        """Requests per batch at most; 1 = no batching."""
        return self._policy.max_requests

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._queue.size

    @property
    def in_flight(self) -> int:
        """Requests, batches, streams and calls of custom routes at the next stage."""
        return self._runs + self._unqueued

    @property
    def open_requests(self) -> tuple[int, int]:
        """Requests in the queue, and runs at the next stage."""
        return self.waiting, self.in_flight

    async def drained(self) -> None:
        """Wait until the queue is empty and nothing is in flight."""
        await self._idle.wait()

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        """Return the response to a request, run alone or in a batch.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: the deadline passed before the model answered.
        """
        now = self._clock()
        if self._limits.request_timeout is not None:
            context.deadline = self._limits.deadline(now, context.deadline)
        if context.deadline is not None and context.deadline <= now:
            self._metrics.request_rejected("deadline")
            raise self._deadline_exceeded()
        rows = context.timings.batch_rows = rows_of(request)
        is_busy = self._runs and not self._has_capacity()
        if is_busy or self._queue.size or self._policy.max_wait:
            entry = self._enqueue(request, context, rows, now)
            try:
                return await entry.future
            finally:
                if entry.timer is not None:
                    entry.timer.cancel()
                if entry.future.cancelled():  # the client has disconnected
                    self._abandon(entry)
        self._metrics.run_started(self._runs + self._unqueued, (0.0,))
        self._runs += 1
        self._idle.clear()
        try:
            if context.deadline is None:
                return await self._next.infer(request, context)
            async with asyncio.timeout(context.deadline - now):
                return await self._next.infer(request, context)
        except TimeoutError:
            raise self._deadline_exceeded() from None
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise  # the client has disconnected
            raise _run_stopped() from None
        finally:
            self._finish_run(1, context.timings.batch_rows, self._clock() - now)

    async def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        """Pass a stream to the model, without queue or batching.

        It counts as one run on the rows of all its requests.
        """
        self._metrics.run_started(self.in_flight, ())
        self._unqueued += 1
        self._idle.clear()
        responses = self._next.stream(count_rows(requests, context), context)
        try:
            async for response in responses:
                yield response
        finally:
            try:
                await responses.aclose()  # type: ignore[attr-defined]
            finally:  # `aclose` may raise; a stream still counted would block the shutdown
                timings = context.timings
                self._metrics.run_finished(1, timings.batch_rows, timings.model_ns / 1e9)
                self._unqueued -= 1
                self._check_idle()

    @contextmanager
    def count_route(self) -> Iterator[None]:
        """Count a call of one of the model's custom routes as in flight during the block."""
        self._unqueued += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._unqueued -= 1
            self._check_idle()

    # -- one request --

    def _has_capacity(self) -> bool:
        return not self._runs or self._runs < self._next.capacity * self._runs_per_worker

    def _enqueue(
        self, request: InferenceRequest, context: RequestContext, rows: int, now: float
    ) -> QueuedRequest:
        """Queue a request, whose `future` is the response. Raises `Overloaded`."""
        try:
            self._limits.admit(self._name, self._queue.size, self._avg_seconds_per_request)
        except Overloaded:
            self._metrics.request_rejected("queue_full")
            raise
        self._metrics.request_queued(self._queue.size)
        entry = QueuedRequest(request, context, rows, now)
        if context.deadline is not None:
            loop = asyncio.get_running_loop()
            entry.timer = loop.call_later(context.deadline - now, self._expire, entry)
        self._queue.push(entry)
        self._idle.clear()
        self._dispatch()
        return entry

    def _expire(self, entry: QueuedRequest) -> None:
        """Fail a request whose deadline has passed."""
        if not entry.future.done():
            entry.future.set_exception(self._deadline_exceeded())
            self._metrics.request_rejected("deadline")
            self._abandon(entry)

    def _abandon(self, entry: QueuedRequest) -> None:
        """Drop an abandoned request: dequeue it, or cancel its batch if no other caller waits."""
        if self._queue.remove(entry):
            self._check_idle()
        elif entry.task is not None and all(other.future.done() for other in entry.batch):
            entry.task.cancel()

    def _deadline_exceeded(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"Request for model {self._name} timed out")

    # -- batches --

    def _dispatch(self) -> None:
        """Start a run for each batch that is closed, while the model has capacity."""
        while self._queue.size and self._has_capacity():
            now = self._clock()
            batch, wait = self._queue.take(self._policy, now)
            if not batch:
                self._dispatch_after(wait)
                return
            batch = [entry for entry in batch if not entry.future.done()]
            if not batch:
                continue
            waited = [now - entry.arrived for entry in batch]
            self._metrics.run_started(self._runs + self._unqueued, waited)
            self._runs += 1
            task = asyncio.get_running_loop().create_task(self._run(batch, now))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._check_idle()

    def _dispatch_after(self, seconds: float) -> None:
        if self._dispatch_timer is not None:
            self._dispatch_timer.cancel()
        self._dispatch_timer = asyncio.get_running_loop().call_later(seconds, self._dispatch)

    async def _run(self, batch: list[QueuedRequest], started: float) -> None:
        # `_abandon` may cancel this task from here on. A task cancelled before its first step would
        # skip `_finish_run`.
        task = asyncio.current_task()
        rows = sum(entry.rows for entry in batch)
        for entry in batch:
            entry.task, entry.batch = task, batch
            timings = entry.context.timings
            timings.queue_ns = int((started - entry.arrived) * 1e9)
            timings.batch_requests = len(batch)
            timings.batch_rows = rows
        try:
            if len(batch) == 1:
                await self._run_alone(batch[0])
            else:
                await self._run_joined(batch)
        finally:
            for entry in batch:
                entry.task, entry.batch = None, ()
                if not entry.future.done():  # the run was cancelled
                    _fail(entry, _run_stopped())
            self._finish_run(len(batch), rows, self._clock() - started)

    async def _run_alone(self, entry: QueuedRequest) -> None:
        if entry.future.done():
            return
        try:
            response = await self._next.infer(entry.request, entry.context)
        except Exception as error:
            _fail(entry, error)
        else:
            if not entry.future.done():
                entry.future.set_result(response)

    async def _run_joined(self, batch: list[QueuedRequest]) -> None:
        if all(entry.future.done() for entry in batch):
            return
        rows = [entry.rows for entry in batch]
        context = RequestContext(
            rows_per_request=rows,
            deadline=_latest_deadline(batch),
            # One execution of the model belongs to one trace.
            trace_parent=batch[0].context.trace_parent,
            joined_ids=[entry.request.id for entry in batch],
        )
        try:
            response = await self._next.infer(join([entry.request for entry in batch]), context)
            responses = split(response, rows)
        except RowsDisagree:
            await self._run_one_by_one(batch)
        except Exception as error:
            if isinstance(error, MLServerError) and error.code in _CAUSED_BY_ONE_REQUEST:
                await self._run_one_by_one(batch)
                return
            for entry in batch:
                _fail(entry, error)
        else:
            for entry, entry_response in zip(batch, responses, strict=True):
                entry.context.timings.model_ns = context.timings.model_ns
                entry.context.timings.transport_ns = context.timings.transport_ns
                if not entry.future.done():
                    entry.future.set_result(entry_response)

    async def _run_one_by_one(self, batch: list[QueuedRequest]) -> None:
        """Run the requests of a failed batch one by one: only the failing one gets the error."""
        for entry in batch:
            entry.context.timings.batch_requests, entry.context.timings.batch_rows = 1, entry.rows
            await self._run_alone(entry)

    def _finish_run(self, requests: int, rows: int, seconds: float) -> None:
        self._metrics.run_finished(requests, rows, seconds)
        average = self._avg_seconds_per_request
        self._avg_seconds_per_request = average + _SMOOTHING * (seconds / requests - average)
        self._runs -= 1
        if self._queue.size:
            self._dispatch()
        elif not self._runs and not self._unqueued:
            self._idle.set()

    def _check_idle(self) -> None:
        if not self._runs and not self._unqueued and not self._queue.size:
            self._idle.set()


def _latest_deadline(batch: Sequence[QueuedRequest]) -> float | None:
    """Return the latest deadline in the batch; None if a request has none."""
    latest = float("-inf")
    for entry in batch:
        if entry.context.deadline is None:
            return None
        latest = max(latest, entry.context.deadline)
    return latest


def _run_stopped() -> Unavailable:
    return Unavailable("The run of the model was stopped before it answered")


def _fail(entry: QueuedRequest, error: Exception) -> None:
    if entry.future.done():
        return
    if not isinstance(error, MLServerError):
        error = MLServerError(f"{type(error).__name__}: {error}", 500, code=CODES[500])
    entry.future.set_exception(error)
