"""Requests whose deadline has passed or whose client has disconnected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mlserver.batching.admission import AdmissionPolicy
from mlserver.batching.queue import BatchPolicy
from mlserver.errors import (
    DeadlineExceeded,
    ModelFailed,
)
from mlserver.pipeline import RequestContext
from support.scheduler_bench import (
    LIMIT,
    Bench,
    joined_with,
    now,
    values_of,
)

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


async def test_a_request_abandoned_as_its_run_would_start(make_bench: Callable[..., Bench]) -> None:
    """It leaves the queue before its caller can remove it; the drain must end all the same."""
    bench = make_bench()
    first = await bench.busy()
    caller = bench.ask(1.0)
    await bench.waiting(1)
    first.answer()
    caller.cancel()
    async with asyncio.timeout(LIMIT):
        await bench.scheduler.drained()
    assert bench.scheduler.open_requests == (0, 0)
    assert not bench.stage.runs
