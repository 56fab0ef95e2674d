"""The scheduler in virtual time: batches, their order, and overload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mlserver.batching.admission import AdmissionPolicy
from mlserver.batching.queue import BatchPolicy
from mlserver.batching.scheduler import Scheduler
from mlserver.errors import (
    ModelFailed,
    Overloaded,
)
from mlserver.pipeline import RequestContext
from support.scheduler_bench import (
    LIMIT,
    Bench,
    NextStage,
    RecordedMetrics,
    now,
    values_of,
)

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


# -- streams and draining --


async def test_repr_and_batch_size(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(BatchPolicy(8))
    first = await bench.busy()
    bench.ask(1.0)
    await bench.waiting(1)
    assert repr(bench.scheduler) == "Scheduler('m', waiting=1, under_way=1)"
    assert bench.scheduler.max_batch_size == 8
    first.answer()
    (await bench.stage.next()).answer()
