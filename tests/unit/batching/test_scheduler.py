"""The scheduler between its callers and a next stage that does what the test says, when it says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
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

LIMIT = 30.0  # seconds after which a test has failed; nothing here takes one


class Run:
    """One request at the next stage, which the test answers."""

    def __init__(self, request: InferenceRequest, call: RequestContext) -> None:
        self.request = request
        self.call = call
        self.left = False
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
            self.left = True
            raise


class NextStage:
    """Hands every request to the test."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.all_runs: list[Run] = []
        self._news = asyncio.Event()
        self.closed_streams = 0

    async def infer(self, request: InferenceRequest, call: RequestContext) -> InferenceResponse:
        run = Run(request, call)
        self.runs.append(run)
        self.all_runs.append(run)
        self._news.set()
        return await run.result()

    async def stream(
        self, requests: AsyncIterator[InferenceRequest], call: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        try:
            async for request in requests:
                yield await self.infer(request, call)
        finally:
            self.closed_streams += 1

    async def next(self) -> Run:
        """The next request that arrives here."""
        async with asyncio.timeout(LIMIT):
            while not self.runs:
                self._news.clear()
                await self._news.wait()
        return self.runs.pop(0)


class Meter:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.rejections: list[str] = []
        self.queue_times = 0
        self.at_once = 0
        self.under_way: list[int] = []

    def sent(self, under_way: int) -> None:
        self.under_way.append(under_way)

    def not_queued(self) -> None:
        self.at_once += 1

    def queued(self, seconds: float) -> None:
        assert seconds >= 0
        self.queue_times += 1

    def executed(self, requests: int, rows: int, seconds: float) -> None:
        self.batches.append((requests, rows))

    def waiting(self, requests: int) -> None:
        assert requests >= 0

    def rejected(self, reason: str) -> None:
        self.rejections.append(reason)


class Slots:
    def __init__(self, count: int) -> None:
        self.count = count

    def free(self) -> int:
        return self.count


class Bench:
    """A scheduler with everything around it."""

    def __init__(self, policy: BatchPolicy, limits: AdmissionPolicy, slots: int) -> None:
        self.stage, self.meter, self.slots = NextStage(), Meter(), Slots(slots)
        self.scheduler = Scheduler("m", self.stage, policy, limits, self.meter, self.slots)
        self.callers: list[asyncio.Task[Any]] = []

    def ask(
        self, *values: float, call: RequestContext | None = None, **fields: Any
    ) -> asyncio.Task[InferenceResponse]:
        """A caller: its task is the answer."""
        tensor = RequestInput(
            name="x", shape=[len(values)], datatype="FP64", data=TensorData(list(values))
        )
        tensor.data.normalize("FP64", tensor.shape)
        request = InferenceRequest(inputs=[tensor], **fields)
        task = asyncio.ensure_future(self.scheduler.infer(request, call or RequestContext()))
        self.callers.append(task)
        return task

    async def busy(self) -> Run:
        """The first request, which keeps the one slot."""
        self.ask(0.0)
        return await self.stage.next()

    async def waiting(self, count: int) -> None:
        """Return when so many wait."""
        async with asyncio.timeout(LIMIT):
            while self.scheduler.waiting != count:  # noqa: ASYNC110 - a few turns of the loop, no time
                await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(
        policy: BatchPolicy = BatchPolicy(8),  # noqa: B008 - frozen
        limits: AdmissionPolicy = AdmissionPolicy(),  # noqa: B008 - frozen
        slots: int = 1,
    ) -> Bench:
        made.append(Bench(policy, limits, slots))
        return made[-1]

    yield make
    for one in made:
        async with asyncio.timeout(LIMIT):
            await one.scheduler.drained()
            await asyncio.gather(*one.callers, return_exceptions=True)
        assert (one.scheduler.waiting, one.scheduler.in_flight) == (0, 0)


async def values_of(caller: asyncio.Task[InferenceResponse]) -> list[Any]:
    async with asyncio.timeout(LIMIT):
        values: list[Any] = (await caller).outputs[0].data.root
    return values


# -- joining --


async def test_an_idle_model_gets_a_request_at_once(bench: Callable[..., Bench]) -> None:
    one = bench()
    call = RequestContext()
    caller = one.ask(1.0, 2.0, call=call)
    run = await one.stage.next()
    assert run.call is call
    run.answer()

    assert await values_of(caller) == [2.0, 4.0]
    assert one.meter.batches == [(1, 2)]
    assert (call.timings.batch_requests, call.timings.batch_rows, call.timings.queue_ns) == (
        1,
        2,
        0,
    )


async def test_what_arrives_while_the_model_is_busy_is_joined(bench: Callable[..., Bench]) -> None:
    one = bench()
    first = await one.busy()
    calls = [RequestContext() for _ in range(3)]
    callers = [
        one.ask(*values, call=call)
        for values, call in zip([(1.0,), (2.0, 3.0), (4.0,)], calls, strict=True)
    ]
    await one.waiting(3)
    assert not one.stage.runs
    first.answer()

    joined = await one.stage.next()
    assert joined.values == [1.0, 2.0, 3.0, 4.0]
    joined.answer()
    assert [await values_of(caller) for caller in callers] == [[2.0], [4.0, 6.0], [8.0]]
    assert one.meter.batches == [(1, 1), (3, 4)]
    assert [(call.timings.batch_requests, call.timings.batch_rows) for call in calls] == [
        (3, 4)
    ] * 3
    assert all(call.timings.queue_ns > 0 for call in calls)


async def test_those_that_differ_run_after_one_another(bench: Callable[..., Bench]) -> None:
    one = bench()
    first = await one.busy()
    alike = [one.ask(1.0), one.ask(2.0, parameters={"k": 1}), one.ask(3.0)]
    await one.waiting(3)
    first.answer()

    for values in ([1.0, 3.0], [2.0]):
        run = await one.stage.next()
        assert run.values == values
        assert not one.stage.runs
        run.answer()
    assert [await values_of(caller) for caller in alike] == [[2.0], [4.0], [6.0]]


async def test_without_batching_slots_bound_what_is_under_way(bench: Callable[..., Bench]) -> None:
    one = bench(BatchPolicy(), slots=2)
    callers = [one.ask(float(value)) for value in range(4)]
    await one.waiting(2)
    assert len(one.stage.runs) == one.scheduler.in_flight == 2
    for value in range(4):
        run = await one.stage.next()
        assert run.values == [float(value)]
        run.answer()

    assert [await values_of(caller) for caller in callers] == [[0.0], [2.0], [4.0], [6.0]]


async def test_more_workers_mean_more_batches(bench: Callable[..., Bench]) -> None:
    one = bench(BatchPolicy(2))
    first = await one.busy()
    callers = [one.ask(float(value)) for value in range(4)]
    await one.waiting(4)
    one.slots.count = 2
    first.answer()
    runs = [await one.stage.next(), await one.stage.next()]
    for run in runs:
        assert len(run.values) == 2
        run.answer()

    assert [await values_of(caller) for caller in callers] == [[0.0], [2.0], [4.0], [6.0]]


async def test_the_first_of_a_batch_waits_no_longer_than_asked(bench: Callable[..., Bench]) -> None:
    one = bench(BatchPolicy(3, max_wait=0.05), slots=4)
    started = time.monotonic()
    alone = one.ask(1.0)
    run = await one.stage.next()
    assert time.monotonic() - started >= 0.04
    run.answer()
    assert await values_of(alone) == [2.0]


async def test_a_full_batch_waits_no_longer(bench: Callable[..., Bench]) -> None:
    one = bench(BatchPolicy(3, max_wait=3600.0), slots=4)
    callers = [one.ask(float(value)) for value in range(3)]
    run = await one.stage.next()
    assert run.values == [0.0, 1.0, 2.0]
    run.answer()

    assert [await values_of(caller) for caller in callers] == [[0.0], [2.0], [4.0]]


async def test_priorities_go_first(bench: Callable[..., Bench]) -> None:
    one = bench(BatchPolicy())
    first = await one.busy()
    low, high = (
        one.ask(1.0, call=RequestContext(priority=2)),
        one.ask(2.0, call=RequestContext(priority=1)),
    )
    await one.waiting(2)
    first.answer()
    for values in ([2.0], [1.0]):
        run = await one.stage.next()
        assert run.values == values
        run.answer()

    assert [await values_of(low), await values_of(high)] == [[2.0], [4.0]]


# -- failures --


async def joined_with(
    one: Bench, *values: float
) -> tuple[list[asyncio.Task[InferenceResponse]], Run]:
    """Callers whose requests are joined, and their run."""
    first = await one.busy()
    callers = [one.ask(value) for value in values]
    await one.waiting(len(values))
    first.answer()
    run = await one.stage.next()
    assert len(run.values) == len(values)
    return callers, run


async def test_only_the_guilty_member_fails(bench: Callable[..., Bench]) -> None:
    one = bench()
    callers, run = await joined_with(one, 1.0, 2.0, 3.0)
    run.fail(ModelFailed("a row is bad"))
    for value in (1.0, 2.0, 3.0):
        alone = await one.stage.next()
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
async def test_faults_that_one_member_may_cause(
    bench: Callable[..., Bench], error: MLServerError
) -> None:
    one = bench()
    callers, run = await joined_with(one, 1.0, 2.0)
    run.fail(error)
    for _ in callers:
        (await one.stage.next()).answer()

    assert [await values_of(caller) for caller in callers] == [[2.0], [4.0]]


async def test_faults_of_the_server_hit_all(bench: Callable[..., Bench]) -> None:
    one = bench()
    callers, run = await joined_with(one, 1.0, 2.0)
    run.fail(Unavailable("no worker"))

    for caller in callers:
        with pytest.raises(Unavailable, match="no worker"):
            await caller
    assert not one.stage.runs


async def test_an_answer_with_other_rows_is_not_split(bench: Callable[..., Bench]) -> None:
    one = bench()
    callers, run = await joined_with(one, 1.0, 2.0)
    run.answer(rows=1)
    for _ in callers:
        (await one.stage.next()).answer()

    assert [await values_of(caller) for caller in callers] == [[2.0], [4.0]]


@pytest.mark.parametrize("count", [1, 2])
async def test_what_is_no_error_of_ours_is_told_as_one(
    bench: Callable[..., Bench], count: int
) -> None:
    one = bench()
    callers, run = await joined_with(one, *[1.0] * count)
    run.fail(ZeroDivisionError("x"))

    for caller in callers:
        with pytest.raises(MLServerError, match="ZeroDivisionError: x") as error:
            await caller
        assert error.value.status_code == 500


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_a_cancelled_next_stage_leaves_nobody_hanging(
    bench: Callable[..., Bench], count: int
) -> None:
    """A model may raise CancelledError, or its loop may be stopped: each caller is told."""
    one = bench()
    if count:
        callers, run = await joined_with(one, *[1.0] * count)
    else:
        callers = [one.ask(1.0)]
        run = await one.stage.next()
    run.fail(asyncio.CancelledError())

    async with asyncio.timeout(LIMIT):
        results = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(result, MLServerError) for result in results)


# -- deadlines --


async def test_a_request_that_expired_never_runs(bench: Callable[..., Bench]) -> None:
    one = bench()
    late = one.ask(1.0, call=RequestContext(deadline=time.monotonic() - 1))
    with pytest.raises(DeadlineExceeded, match="Request for model m timed out"):
        await late

    assert one.stage.all_runs == []
    assert one.meter.rejections == ["deadline"]


async def test_a_deadline_in_the_queue(bench: Callable[..., Bench]) -> None:
    one = bench()
    first = await one.busy()
    late = one.ask(1.0, call=RequestContext(deadline=time.monotonic() + 0.02))
    on_time = one.ask(2.0)
    with pytest.raises(DeadlineExceeded):
        await late
    assert one.scheduler.waiting == 1
    first.answer()
    run = await one.stage.next()
    assert run.values == [2.0]
    run.answer()

    assert await values_of(on_time) == [4.0]
    assert one.meter.rejections == ["deadline"]


async def test_a_deadline_in_the_model(bench: Callable[..., Bench]) -> None:
    one = bench(limits=AdmissionPolicy(request_timeout=0.02))
    late = one.ask(1.0)
    run = await one.stage.next()
    with pytest.raises(DeadlineExceeded):
        await late

    assert run.left
    assert run.call.deadline is not None
    assert one.scheduler.in_flight == 0


async def test_a_deadline_in_the_model_after_the_queue(bench: Callable[..., Bench]) -> None:
    one = bench()
    first = await one.busy()
    late = one.ask(1.0, call=RequestContext(deadline=time.monotonic() + 0.1))
    await one.waiting(1)
    first.answer()
    run = await one.stage.next()
    with pytest.raises(DeadlineExceeded):
        await late
    await one.scheduler.drained()

    assert run.left


async def test_a_deadline_of_one_member_leaves_the_others(bench: Callable[..., Bench]) -> None:
    one = bench()
    first = await one.busy()
    late = one.ask(1.0, call=RequestContext(deadline=time.monotonic() + 0.1))
    patient = one.ask(2.0)
    await one.waiting(2)
    first.answer()
    run = await one.stage.next()
    with pytest.raises(DeadlineExceeded):
        await late
    assert not run.left
    assert run.call.deadline is None
    run.answer()

    assert await values_of(patient) == [4.0]


# -- callers that leave --


async def test_leaving_the_queue(bench: Callable[..., Bench]) -> None:
    one = bench()
    first = await one.busy()
    leaving, staying = one.ask(1.0), one.ask(2.0)
    await one.waiting(2)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert one.scheduler.waiting == 1
    first.answer()
    run = await one.stage.next()
    assert run.values == [2.0]
    run.answer()

    assert await values_of(staying) == [4.0]


@pytest.mark.parametrize("queued", [False, True])
async def test_leaving_the_model_frees_its_slot(bench: Callable[..., Bench], queued: bool) -> None:
    one = bench()
    first = await one.busy() if queued else None
    leaving = one.ask(1.0)
    if first is not None:
        await one.waiting(1)
        first.answer()
    run = await one.stage.next()
    leaving.cancel()
    await one.scheduler.drained()
    assert run.left
    staying = one.ask(2.0)
    (await one.stage.next()).answer()

    assert await values_of(staying) == [4.0]


async def test_leaving_a_batch_leaves_the_others(bench: Callable[..., Bench]) -> None:
    one = bench()
    callers, run = await joined_with(one, 1.0, 2.0)
    callers[0].cancel()
    await asyncio.wait([callers[0]])
    assert not run.left
    run.answer()

    assert await values_of(callers[1]) == [4.0]


async def test_those_that_left_are_not_run_one_by_one(bench: Callable[..., Bench]) -> None:
    one = bench()
    callers, run = await joined_with(one, 1.0, 2.0)
    callers[0].cancel()
    await asyncio.wait([callers[0]])
    run.fail(ModelFailed("?"))
    alone = await one.stage.next()
    assert alone.values == [2.0]
    alone.answer()

    assert await values_of(callers[1]) == [4.0]


async def test_a_batch_that_all_left_is_stopped(bench: Callable[..., Bench]) -> None:
    one = bench()
    callers, run = await joined_with(one, 1.0, 2.0)
    for caller in callers:
        caller.cancel()
    await one.scheduler.drained()

    assert run.left


async def test_leaving_before_the_batch_begins(bench: Callable[..., Bench]) -> None:
    """The place of a request that left in the very moment its batch was taken is not computed."""
    one = bench(BatchPolicy(3, max_wait=3600.0))
    callers = [one.ask(1.0), one.ask(2.0)]
    await one.waiting(2)
    for caller in callers:
        caller.cancel()
    await one.scheduler.drained()

    assert one.stage.all_runs == []


# -- overload --


async def test_overload_is_refused_at_once(bench: Callable[..., Bench]) -> None:
    one = bench(limits=AdmissionPolicy(max_queue_size=2))
    first = await one.busy()
    callers = [one.ask(1.0), one.ask(2.0)]
    await one.waiting(2)
    with pytest.raises(Overloaded, match="2 requests wait already") as refusal:
        await one.ask(3.0)
    assert refusal.value.retry_after >= 1.0
    assert one.meter.rejections == ["queue_full"]
    first.answer()
    (await one.stage.next()).answer()

    assert [await values_of(caller) for caller in callers] == [[2.0], [4.0]]


# -- streams and draining --


async def test_streams_pass_and_count(bench: Callable[..., Bench]) -> None:
    one = bench()

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
            async for answer in one.scheduler.stream(requests(), RequestContext())
        ]

    consumer = asyncio.ensure_future(consume())
    (await one.stage.next()).answer()
    second = await one.stage.next()
    assert one.scheduler.in_flight == 1
    draining = asyncio.ensure_future(one.scheduler.drained())
    await asyncio.sleep(0)
    assert not draining.done()
    second.answer()

    assert await consumer == [[2.0], [4.0]]
    await draining
    assert one.stage.closed_streams == 1


async def test_closing_a_stream_closes_the_next_stage(bench: Callable[..., Bench]) -> None:
    one = bench()

    async def requests() -> AsyncIterator[InferenceRequest]:
        while True:
            yield InferenceRequest(
                inputs=[RequestInput(name="x", shape=[1], datatype="FP64", data=TensorData([1.0]))]
            )

    stream = one.scheduler.stream(requests(), RequestContext())
    first = asyncio.ensure_future(anext(stream))
    (await one.stage.next()).answer()
    await first
    await stream.aclose()  # type: ignore[attr-defined]

    assert one.stage.closed_streams == 1
    assert one.scheduler.in_flight == 0


async def test_a_stream_that_cannot_be_closed_does_not_count_for_ever(
    bench: Callable[..., Bench],
) -> None:
    """Else the model would never be idle again, and the server's end would wait for its whole grace."""
    one = bench()

    class Stubborn(NextStage):
        async def stream(
            self, requests: AsyncIterator[InferenceRequest], call: RequestContext
        ) -> AsyncIterator[InferenceResponse]:
            try:
                yield InferenceResponse(model_name="m", outputs=[])
            finally:
                raise RuntimeError("it cannot be closed")

    async def none() -> AsyncIterator[InferenceRequest]:
        return
        yield

    scheduler = Scheduler("m", Stubborn(), BatchPolicy(), AdmissionPolicy(), one.meter, one.slots)
    stream = scheduler.stream(none(), RequestContext())
    await anext(stream)
    with pytest.raises(RuntimeError, match="cannot be closed"):
        await stream.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(LIMIT):
        await scheduler.drained()
    assert scheduler.in_flight == 0


async def test_drained_waits_for_all(bench: Callable[..., Bench]) -> None:
    one = bench()
    await one.scheduler.drained()
    first = await one.busy()
    one.ask(1.0)
    await one.waiting(1)
    draining = asyncio.ensure_future(one.scheduler.drained())
    first.answer()
    second = await one.stage.next()
    assert not draining.done()
    second.answer()

    async with asyncio.timeout(LIMIT):
        await draining


async def test_what_it_says_of_itself(bench: Callable[..., Bench]) -> None:
    one = bench(BatchPolicy(8))
    first = await one.busy()
    one.ask(1.0)
    await one.waiting(1)
    assert repr(one.scheduler) == "Scheduler('m', waiting=1, under_way=1)"
    assert one.scheduler.max_batch_size == 8
    first.answer()
    (await one.stage.next()).answer()
