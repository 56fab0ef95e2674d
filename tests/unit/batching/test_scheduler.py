"""The scheduler in virtual time, with a next stage whose responses the test sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from mlserver.batching.admission import AdmissionPolicy
from mlserver.batching.queue import BatchPolicy
from mlserver.batching.scheduler import Scheduler
from mlserver.errors import (
    DeadlineExceeded,
    InvalidInput,
    MLServerError,
    ModelFailed,
    Overloaded,
    Unavailable,
)
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


@pytest.fixture
async def make_bench() -> AsyncIterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(
        policy: BatchPolicy = BatchPolicy(8),  # noqa: B008 - frozen
        limits: AdmissionPolicy = AdmissionPolicy(),  # noqa: B008 - frozen
        capacity: int = 1,
    ) -> Bench:
        benches.append(Bench(policy, limits, capacity))
        return benches[-1]

    yield make
    for bench in benches:
        async with asyncio.timeout(LIMIT):
            await bench.scheduler.drained()
            await asyncio.gather(*bench.callers, return_exceptions=True)
        assert (bench.scheduler.waiting, bench.scheduler.in_flight) == (0, 0)


async def values_of(caller: asyncio.Task[InferenceResponse]) -> list[Any]:
    async with asyncio.timeout(LIMIT):
        values: list[Any] = (await caller).outputs[0].data.root
    return values


# -- joining --


async def test_an_idle_model_receives_a_request_at_once(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    context = RequestContext()
    caller = bench.ask(1.0, 2.0, context=context)
    run = await bench.stage.next()
    assert run.context is context
    await asyncio.sleep(0.25)
    run.answer()

    assert await values_of(caller) == [2.0, 4.0]
    assert bench.metrics.batches == [(1, 2, 0.25)]
    assert bench.metrics.queue_seconds == [0.0]
    assert (
        context.timings.batch_requests,
        context.timings.batch_rows,
        context.timings.queue_ns,
    ) == (
        1,
        2,
        0,
    )


async def test_requests_that_arrive_while_the_model_is_busy_are_joined(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    first = await bench.busy()
    contexts = [RequestContext() for _ in range(3)]
    callers = [
        bench.ask(*values, context=context)
        for values, context in zip([(1.0,), (2.0, 3.0), (4.0,)], contexts, strict=True)
    ]
    await bench.waiting(3)
    assert not bench.stage.runs
    await asyncio.sleep(0.5)
    first.answer()

    joined = await bench.stage.next()
    assert joined.values == [1.0, 2.0, 3.0, 4.0]
    joined.answer()
    assert [await values_of(caller) for caller in callers] == [[2.0], [4.0, 6.0], [8.0]]
    assert bench.metrics.batches == [(1, 1, 0.5), (3, 4, 0.0)]
    assert bench.metrics.queue_sizes == [0, 1, 2]
    assert bench.metrics.queue_seconds == [0.0, 0.5, 0.5, 0.5]
    assert [
        (context.timings.batch_requests, context.timings.batch_rows) for context in contexts
    ] == [(3, 4)] * 3
    assert [context.timings.queue_ns for context in contexts] == [500_000_000] * 3


async def test_requests_that_differ_run_one_after_another(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    first = await bench.busy()
    alike = [bench.ask(1.0), bench.ask(2.0, parameters={"k": 1}), bench.ask(3.0)]
    await bench.waiting(3)
    first.answer()

    for values in ([1.0, 3.0], [2.0]):
        run = await bench.stage.next()
        assert run.values == values
        assert not bench.stage.runs
        run.answer()
    assert [await values_of(caller) for caller in alike] == [[2.0], [4.0], [6.0]]


async def test_without_batching_the_capacity_bounds_the_runs(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(BatchPolicy(), capacity=2)
    callers = [bench.ask(float(value)) for value in range(4)]
    await bench.waiting(2)
    assert len(bench.stage.runs) == bench.scheduler.in_flight == 2
    for value in range(4):
        run = await bench.stage.next()
        assert run.values == [float(value)]
        run.answer()

    assert [await values_of(caller) for caller in callers] == [[0.0], [2.0], [4.0], [6.0]]


async def test_more_workers_mean_more_batches(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(BatchPolicy(2))
    first = await bench.busy()
    callers = [bench.ask(float(value)) for value in range(4)]
    await bench.waiting(4)
    bench.stage.capacity = 2
    first.answer()
    runs = [await bench.stage.next(), await bench.stage.next()]
    for run in runs:
        assert len(run.values) == 2
        run.answer()

    assert [await values_of(caller) for caller in callers] == [[0.0], [2.0], [4.0], [6.0]]


async def test_the_first_request_of_a_batch_waits_max_wait(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(BatchPolicy(3, max_wait=0.05), capacity=4)
    started = now()
    alone = bench.ask(1.0)
    run = await bench.stage.next()
    assert now() - started == pytest.approx(0.05)
    run.answer()
    assert await values_of(alone) == [2.0]


async def test_a_full_batch_runs_at_once(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(BatchPolicy(3, max_wait=3600.0), capacity=4)
    callers = [bench.ask(float(value)) for value in range(3)]
    run = await bench.stage.next()
    assert run.values == [0.0, 1.0, 2.0]
    run.answer()

    assert [await values_of(caller) for caller in callers] == [[0.0], [2.0], [4.0]]


async def test_higher_priorities_run_first(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(BatchPolicy())
    first = await bench.busy()
    low, high = (
        bench.ask(1.0, context=RequestContext(priority=2)),
        bench.ask(2.0, context=RequestContext(priority=1)),
    )
    await bench.waiting(2)
    first.answer()
    for values in ([2.0], [1.0]):
        run = await bench.stage.next()
        assert run.values == values
        run.answer()

    assert [await values_of(low), await values_of(high)] == [[2.0], [4.0]]


# -- failures --


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


async def test_only_the_failing_request_of_a_batch_gets_the_error(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, 1.0, 2.0, 3.0)
    run.fail(ModelFailed("a row is bad"))
    for value in (1.0, 2.0, 3.0):
        alone = await bench.stage.next()
        assert alone.values == [value]
        if value == 2.0:
            alone.fail(ModelFailed("mine"))
        else:
            alone.answer()

    assert await values_of(callers[0]) == [2.0]
    assert await values_of(callers[2]) == [6.0]
    with pytest.raises(ModelFailed, match="mine"):
        await callers[1]


@pytest.mark.parametrize(
    "error", [InvalidInput("x", "a", "b"), MLServerError("?", 422), MLServerError("?", 500)]
)
async def test_errors_that_one_request_may_cause_run_the_batch_one_by_one(
    make_bench: Callable[..., Bench], error: MLServerError
) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, 1.0, 2.0)
    run.fail(error)
    for _ in callers:
        (await bench.stage.next()).answer()

    assert [await values_of(caller) for caller in callers] == [[2.0], [4.0]]


async def test_errors_of_the_server_fail_the_whole_batch(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, 1.0, 2.0)
    run.fail(Unavailable("no worker"))

    for caller in callers:
        with pytest.raises(Unavailable, match="no worker"):
            await caller
    assert not bench.stage.runs


async def test_a_response_with_another_number_of_rows_is_not_split(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, 1.0, 2.0)
    run.answer(rows=1)
    for _ in callers:
        (await bench.stage.next()).answer()

    assert [await values_of(caller) for caller in callers] == [[2.0], [4.0]]


@pytest.mark.parametrize("count", [1, 2])
async def test_other_exceptions_become_internal_errors(
    make_bench: Callable[..., Bench], count: int
) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, *[1.0] * count)
    run.fail(ZeroDivisionError("x"))

    for caller in callers:
        with pytest.raises(MLServerError, match="ZeroDivisionError: x") as error:
            await caller
        assert error.value.status_code == 500


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_a_cancelled_next_stage_fails_every_caller(
    make_bench: Callable[..., Bench], count: int
) -> None:
    """A model may raise CancelledError, or its loop may be stopped: each caller gets an error."""
    bench = make_bench()
    if count:
        callers, run = await joined_with(bench, *[1.0] * count)
    else:
        callers = [bench.ask(1.0)]
        run = await bench.stage.next()
    run.fail(asyncio.CancelledError())

    async with asyncio.timeout(LIMIT):
        results = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(result, MLServerError) for result in results)


# -- deadlines --


@pytest.mark.parametrize("seconds", [0, 1])
async def test_an_expired_request_never_runs(
    make_bench: Callable[..., Bench], seconds: float
) -> None:
    bench = make_bench()
    late = bench.ask(1.0, context=RequestContext(deadline=now() - seconds))
    with pytest.raises(DeadlineExceeded, match="Request for model m timed out"):
        await late

    assert bench.stage.all_runs == []
    assert bench.metrics.rejections == ["deadline"]


async def test_a_deadline_in_the_queue(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    first = await bench.busy()
    late = bench.ask(1.0, context=RequestContext(deadline=now() + 0.02))
    on_time = bench.ask(2.0)
    with pytest.raises(DeadlineExceeded):
        await late
    assert bench.scheduler.waiting == 1
    first.answer()
    run = await bench.stage.next()
    assert run.values == [2.0]
    run.answer()

    assert await values_of(on_time) == [4.0]
    assert bench.metrics.rejections == ["deadline"]


async def test_a_deadline_in_the_model(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(limits=AdmissionPolicy(request_timeout=0.02))
    late = bench.ask(1.0)
    run = await bench.stage.next()
    with pytest.raises(DeadlineExceeded):
        await late

    assert run.was_cancelled
    assert run.context.deadline is not None
    assert bench.scheduler.in_flight == 0


async def test_a_deadline_in_the_model_after_the_queue(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    first = await bench.busy()
    late = bench.ask(1.0, context=RequestContext(deadline=now() + 0.1))
    await bench.waiting(1)
    first.answer()
    run = await bench.stage.next()
    with pytest.raises(DeadlineExceeded):
        await late
    await bench.scheduler.drained()

    assert run.was_cancelled


async def test_the_deadline_of_one_request_does_not_stop_its_batch(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    first = await bench.busy()
    late = bench.ask(1.0, context=RequestContext(deadline=now() + 0.1))
    patient = bench.ask(2.0)
    await bench.waiting(2)
    first.answer()
    run = await bench.stage.next()
    with pytest.raises(DeadlineExceeded):
        await late
    assert not run.was_cancelled
    assert run.context.deadline is None
    run.answer()

    assert await values_of(patient) == [4.0]


# -- clients that disconnect --


async def test_a_disconnected_client_leaves_the_queue(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    first = await bench.busy()
    leaving, staying = bench.ask(1.0), bench.ask(2.0)
    await bench.waiting(2)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert bench.scheduler.waiting == 1
    first.answer()
    run = await bench.stage.next()
    assert run.values == [2.0]
    run.answer()

    assert await values_of(staying) == [4.0]


@pytest.mark.parametrize("queued", [False, True])
async def test_a_disconnected_client_frees_the_capacity(
    make_bench: Callable[..., Bench], queued: bool
) -> None:
    bench = make_bench()
    first = await bench.busy() if queued else None
    leaving = bench.ask(1.0)
    if first is not None:
        await bench.waiting(1)
        first.answer()
    run = await bench.stage.next()
    leaving.cancel()
    await bench.scheduler.drained()
    assert run.was_cancelled
    staying = bench.ask(2.0)
    (await bench.stage.next()).answer()

    assert await values_of(staying) == [4.0]


async def test_a_disconnected_client_does_not_stop_its_batch(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, 1.0, 2.0)
    callers[0].cancel()
    await asyncio.wait([callers[0]])
    assert not run.was_cancelled
    run.answer()

    assert await values_of(callers[1]) == [4.0]


async def test_abandoned_requests_are_not_run_one_by_one(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, 1.0, 2.0)
    callers[0].cancel()
    await asyncio.wait([callers[0]])
    run.fail(ModelFailed("?"))
    alone = await bench.stage.next()
    assert alone.values == [2.0]
    alone.answer()

    assert await values_of(callers[1]) == [4.0]


async def test_a_batch_without_callers_is_cancelled(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, 1.0, 2.0)
    for caller in callers:
        caller.cancel()
    await bench.scheduler.drained()

    assert run.was_cancelled


async def test_disconnecting_before_the_batch_closes(make_bench: Callable[..., Bench]) -> None:
    """Requests without a caller are removed from the queue."""
    bench = make_bench(BatchPolicy(3, max_wait=3600.0))
    callers = [bench.ask(1.0), bench.ask(2.0)]
    await bench.waiting(2)
    for caller in callers:
        caller.cancel()
    await bench.scheduler.drained()

    assert bench.stage.all_runs == []


# -- overload --


async def test_overload_is_rejected_at_once(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(limits=AdmissionPolicy(max_queue_size=2))
    first = await bench.busy()
    callers = [bench.ask(1.0), bench.ask(2.0)]
    await bench.waiting(2)
    with pytest.raises(Overloaded, match="2 requests wait already") as rejection:
        await bench.ask(3.0)
    assert rejection.value.retry_after == 1.0
    assert bench.metrics.rejections == ["queue_full"]
    first.answer()
    (await bench.stage.next()).answer()

    assert [await values_of(caller) for caller in callers] == [[2.0], [4.0]]


async def test_retry_after_follows_the_measured_seconds_per_request(
    make_bench: Callable[..., Bench],
) -> None:
    """Two runs of 100 s and 50 s per request.

    The average moves by a tenth of the difference each time.
    """
    bench = make_bench(BatchPolicy(2), AdmissionPolicy(max_queue_size=2))
    first = await bench.busy()
    bench.ask(1.0)
    bench.ask(2.0)
    await bench.waiting(2)
    await asyncio.sleep(100)
    first.answer()
    second = await bench.stage.next()
    bench.ask(3.0)
    bench.ask(4.0)
    await bench.waiting(2)
    with pytest.raises(Overloaded) as rejection:
        await bench.ask(5.0)
    assert rejection.value.retry_after == pytest.approx(2 * 10.0)
    await asyncio.sleep(100)
    second.answer()
    third = await bench.stage.next()
    bench.ask(6.0)
    bench.ask(7.0)
    await bench.waiting(2)
    with pytest.raises(Overloaded) as rejection:
        await bench.ask(8.0)
    assert rejection.value.retry_after == pytest.approx(2 * (10.0 + 0.1 * (50.0 - 10.0)))
    third.answer()
    (await bench.stage.next()).answer()


async def test_abandoning_a_batch_before_the_first_step_of_its_task(
    make_bench: Callable[..., Bench],
) -> None:
    """A task that is cancelled before its first step runs no `finally`.

    The capacity must be released all the same.
    """
    bench = make_bench()
    first = await bench.busy()
    abandoned = bench.ask(1.0)
    await bench.waiting(1)
    loop = asyncio.get_running_loop()

    def create_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        abandoned.cancel()
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(create_task)
    first.answer()
    await asyncio.wait([abandoned])
    loop.set_task_factory(None)

    async with asyncio.timeout(LIMIT):
        await bench.scheduler.drained()
    assert bench.stage.runs == []


# -- details of runs --


async def test_runs_per_worker() -> None:
    stage = NextStage()
    policy, limits, metrics = BatchPolicy(), AdmissionPolicy(), RecordedMetrics()
    scheduler = Scheduler("m", stage, policy, limits, metrics, runs_per_worker=2, clock=now)
    bench = Bench(policy, limits, 1)
    bench.scheduler, bench.stage = scheduler, stage
    callers = [bench.ask(float(value)) for value in range(3)]
    await bench.waiting(1)
    assert scheduler.in_flight == 2
    for _ in callers:
        (await stage.next()).answer()
    await scheduler.drained()


async def test_a_request_does_not_overtake_the_queue(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(BatchPolicy())
    first = await bench.busy()
    bench.ask(1.0)
    await bench.waiting(1)
    bench.stage.capacity = 2
    bench.ask(2.0)
    second = await bench.stage.next()
    assert second.values == [1.0]
    first.answer()
    second.answer()
    third = await bench.stage.next()
    assert third.values == [2.0]
    third.answer()


async def test_the_context_of_a_batch(make_bench: Callable[..., Bench]) -> None:
    """The latest deadline, the first trace; its timings are copied to every request."""
    bench = make_bench()
    first = await bench.busy()
    contexts = [
        RequestContext(deadline=now() + 9, trace_parent="a"),
        RequestContext(deadline=now() + 5, trace_parent="b"),
    ]
    callers = [bench.ask(1.0, context=context) for context in contexts]
    await bench.waiting(2)
    first.answer()
    run = await bench.stage.next()
    assert run.context.deadline == now() + 9
    assert run.context.trace_parent == "a"
    assert run.context.rows_per_request == [1, 1]
    run.context.timings.model_ns, run.context.timings.transport_ns = 5, 7
    run.answer()
    for caller, context in zip(callers, contexts, strict=True):
        await caller
        assert (context.timings.model_ns, context.timings.transport_ns) == (5, 7)


async def test_timings_of_requests_run_one_by_one(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    first = await bench.busy()
    contexts = [RequestContext(), RequestContext()]
    callers = [bench.ask(1.0, 2.0, context=context) for context in contexts]
    await bench.waiting(2)
    first.answer()
    (await bench.stage.next()).fail(ModelFailed("?"))
    for _ in callers:
        (await bench.stage.next()).answer()
    await asyncio.gather(*callers)
    sizes = [(context.timings.batch_requests, context.timings.batch_rows) for context in contexts]
    assert sizes == [(1, 2), (1, 2)]


async def test_drained_waits_for_a_stream_and_for_max_wait(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(BatchPolicy(3, max_wait=5.0))

    async def requests() -> AsyncIterator[InferenceRequest]:
        tensor = RequestInput(name="x", shape=[1], datatype="FP64", data=TensorData([1.0]))
        yield InferenceRequest(inputs=[tensor])

    queued = bench.ask(1.0)
    await bench.waiting(1)
    draining = asyncio.ensure_future(bench.scheduler.drained())
    await asyncio.sleep(1)
    assert not draining.done()
    stream = bench.scheduler.stream(requests(), RequestContext())
    response = asyncio.ensure_future(anext(stream))
    streamed = await bench.stage.next()
    (await bench.stage.next()).answer()
    await queued
    await asyncio.sleep(1)
    assert not draining.done()
    abandoned = bench.ask(2.0)
    await bench.waiting(1)
    abandoned.cancel()
    await asyncio.sleep(1)
    assert not draining.done()
    streamed.answer()
    await response
    await stream.aclose()  # type: ignore[attr-defined]
    await draining
    assert [rows for _, rows, _ in bench.metrics.batches] == [1, 1]


# -- streams and draining --


async def test_streams_are_passed_on_and_in_flight(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()

    async def requests() -> AsyncIterator[InferenceRequest]:
        for value in (1.0, 2.0):
            yield InferenceRequest(
                inputs=[
                    RequestInput(name="x", shape=[1], datatype="FP64", data=TensorData([value]))
                ]
            )

    async def consume() -> list[Any]:
        return [
            answer.outputs[0].data.root
            async for answer in bench.scheduler.stream(requests(), RequestContext())
        ]

    consumer = asyncio.ensure_future(consume())
    (await bench.stage.next()).answer()
    second = await bench.stage.next()
    assert bench.scheduler.in_flight == 1
    draining = asyncio.ensure_future(bench.scheduler.drained())
    await asyncio.sleep(0)
    assert not draining.done()
    second.answer()

    assert await consumer == [[2.0], [4.0]]
    await draining
    assert bench.stage.closed_streams == 1


async def test_closing_a_stream_closes_the_next_stage(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()

    async def requests() -> AsyncIterator[InferenceRequest]:
        while True:
            yield InferenceRequest(
                inputs=[RequestInput(name="x", shape=[1], datatype="FP64", data=TensorData([1.0]))]
            )

    stream = bench.scheduler.stream(requests(), RequestContext())
    first = asyncio.ensure_future(anext(stream))
    (await bench.stage.next()).answer()
    await first
    await stream.aclose()  # type: ignore[attr-defined]

    assert bench.stage.closed_streams == 1
    assert bench.scheduler.in_flight == 0


async def test_a_stream_that_fails_to_close_is_no_longer_in_flight(
    make_bench: Callable[..., Bench],
) -> None:
    """Otherwise the shutdown would wait for the whole drain timeout."""
    bench = make_bench()

    class Stubborn(NextStage):
        async def stream(
            self, requests: AsyncIterator[InferenceRequest], context: RequestContext
        ) -> AsyncIterator[InferenceResponse]:
            try:
                yield InferenceResponse(model_name="m", outputs=[])
            finally:
                raise RuntimeError("it cannot be closed")

    async def none() -> AsyncIterator[InferenceRequest]:
        return
        yield

    scheduler = Scheduler("m", Stubborn(), BatchPolicy(), AdmissionPolicy(), bench.metrics)
    stream = scheduler.stream(none(), RequestContext())
    await anext(stream)
    with pytest.raises(RuntimeError, match="cannot be closed"):
        await stream.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(LIMIT):
        await scheduler.drained()
    assert scheduler.in_flight == 0


async def test_drained_waits_for_the_queue_and_the_runs(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    await bench.scheduler.drained()
    first = await bench.busy()
    bench.ask(1.0)
    await bench.waiting(1)
    draining = asyncio.ensure_future(bench.scheduler.drained())
    first.answer()
    second = await bench.stage.next()
    assert not draining.done()
    second.answer()

    async with asyncio.timeout(LIMIT):
        await draining


async def test_repr_and_batch_size(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(BatchPolicy(8))
    first = await bench.busy()
    bench.ask(1.0)
    await bench.waiting(1)
    assert repr(bench.scheduler) == "Scheduler('m', waiting=1, under_way=1)"
    assert bench.scheduler.max_batch_size == 8
    first.answer()
    (await bench.stage.next()).answer()
