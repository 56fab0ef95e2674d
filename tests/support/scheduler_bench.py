"""A scheduler between callers and a next stage whose responses the test sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from mlserver.batching.admission import AdmissionPolicy
from mlserver.batching.queue import BatchPolicy
from mlserver.batching.scheduler import Scheduler
from mlserver.pipeline import RequestContext
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    RequestInput,
    ResponseOutput,
    TensorData,
)

LIMIT = 30.0  # virtual seconds after which a test has failed


def now() -> float:
    return asyncio.get_running_loop().time()


class Run:
    """A request at the next stage; the test sends its response."""

    def __init__(self, request: InferenceRequest, context: RequestContext) -> None:
        self.request = request
        self.context = context
        self.was_cancelled = False
        self._answer: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()

    @property
    def values(self) -> list[Any]:
        values: list[Any] = self.request.inputs[0].data.root
        return values

    def answer(self, rows: int | None = None) -> None:
        """Answer each row with its double, or with another number of rows than there are."""
        doubled = [2 * value for value in self.values][:rows]
        output = ResponseOutput(
            name="y", shape=[len(doubled)], datatype="FP64", data=TensorData(doubled)
        )
        self._answer.set_result(InferenceResponse(model_name="m", outputs=[output]))

    def fail(self, error: BaseException) -> None:
        self._answer.set_exception(error)

    async def result(self) -> InferenceResponse:
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


class NextStage:
    """Passes every request to the test."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.all_runs: list[Run] = []
        self.capacity = 1
        self._news = asyncio.Event()
        self.closed_streams = 0

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        run = Run(request, context)
        self.runs.append(run)
        self.all_runs.append(run)
        self._news.set()
        return await run.result()

    async def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        try:
            async for request in requests:
                yield await self.infer(request, context)
        finally:
            self.closed_streams += 1

    async def next(self) -> Run:
        """Return the next request that arrives."""
        async with asyncio.timeout(LIMIT):
            while not self.runs:
                self._news.clear()
                await self._news.wait()
        return self.runs.pop(0)


class RecordedMetrics:
    """Records what the scheduler reports."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, float]] = []
        self.rejections: list[str] = []
        self.queue_sizes: list[int] = []
        self.queue_seconds: list[float] = []
        self.in_flight: list[int] = []

    def request_queued(self, queue_size: int) -> None:
        self.queue_sizes.append(queue_size)

    def request_rejected(self, reason: str) -> None:
        self.rejections.append(reason)

    def run_started(self, in_flight: int, queue_seconds: Sequence[float]) -> None:
        self.in_flight.append(in_flight)
        self.queue_seconds += queue_seconds

    def run_finished(self, requests: int, rows: int, seconds: float) -> None:
        self.batches.append((requests, rows, seconds))


class Bench:
    """A scheduler with its next stage and metrics."""

    def __init__(self, policy: BatchPolicy, limits: AdmissionPolicy, capacity: int) -> None:
        self.stage, self.metrics = NextStage(), RecordedMetrics()
        self.stage.capacity = capacity
        self.scheduler = Scheduler("m", self.stage, policy, limits, self.metrics, clock=now)
        self.callers: list[asyncio.Task[Any]] = []

    def ask(
        self, *values: float, context: RequestContext | None = None, **fields: Any
    ) -> asyncio.Task[InferenceResponse]:
        """Start a caller; its task returns the response."""
        tensor = RequestInput(
            name="x", shape=[len(values)], datatype="FP64", data=TensorData(list(values))
        )
        tensor.data.normalize("FP64", tensor.shape)
        request = InferenceRequest(inputs=[tensor], **fields)
        task = asyncio.ensure_future(self.scheduler.infer(request, context or RequestContext()))
        self.callers.append(task)
        return task

    async def busy(self) -> Run:
        """Start a request that occupies the model; return its run."""
        self.ask(0.0)
        return await self.stage.next()

    async def waiting(self, count: int) -> None:
        """Wait until the queue has so many requests."""
        async with asyncio.timeout(LIMIT):
            while self.scheduler.waiting != count:  # noqa: ASYNC110 - a few turns of the loop, no time
                await asyncio.sleep(0)


async def values_of(caller: asyncio.Task[InferenceResponse]) -> list[Any]:
    async with asyncio.timeout(LIMIT):
        values: list[Any] = (await caller).outputs[0].data.root
    return values


async def joined_with(
    bench: Bench, *values: float
) -> tuple[list[asyncio.Task[InferenceResponse]], Run]:
    """Return callers whose requests are joined, and their run."""
    first = await bench.busy()
    callers = [bench.ask(value) for value in values]
    await bench.waiting(len(values))
    first.answer()
    run = await bench.stage.next()
    assert len(run.values) == len(values)
    return callers, run
