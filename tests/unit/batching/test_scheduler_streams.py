"""Streams through the scheduler, and draining."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Any

import pytest

from mlserver.batching.admission import AdmissionPolicy
from mlserver.batching.queue import BatchPolicy
from mlserver.batching.scheduler import Scheduler
from mlserver.pipeline import RequestContext
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    RequestInput,
    TensorData,
)
from support.scheduler_bench import (
    LIMIT,
    Bench,
    NextStage,
)


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


async def test_the_seconds_of_a_stream_are_those_of_the_model(
    make_bench: Callable[..., Bench],
) -> None:
    """Not those in which the client waits between two requests."""
    bench, context = make_bench(), RequestContext()

    async def requests() -> AsyncIterator[InferenceRequest]:
        await asyncio.sleep(10)
        tensor = RequestInput(name="x", shape=[2], datatype="FP64", data=TensorData([1.0, 2.0]))
        yield InferenceRequest(inputs=[tensor])

    stream = bench.scheduler.stream(requests(), context)
    response = asyncio.ensure_future(anext(stream))
    (await bench.stage.next()).answer()
    await response
    context.timings.model_ns = 1_500_000_000
    await stream.aclose()  # type: ignore[attr-defined]
    assert bench.metrics.batches == [(1, 2, 1.5)]


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


async def test_drained_waits_for_calls_of_custom_routes(make_bench: Callable[..., Bench]) -> None:
    scheduler = make_bench().scheduler
    for calls in (1, 2):
        with ExitStack() as stack:
            for _ in range(calls):
                stack.enter_context(scheduler.count_route())
            assert scheduler.open_requests == (0, calls)
            draining = asyncio.ensure_future(scheduler.drained())
            await asyncio.sleep(1)
            assert not draining.done()
        async with asyncio.timeout(LIMIT):
            await draining
        assert scheduler.open_requests == (0, 0)


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
