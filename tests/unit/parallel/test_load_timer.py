"""The duration of a load is its own, whatever loads beside it."""

from __future__ import annotations

import asyncio

import pytest

from mlserver.parallel.worker.load_timer import LoadTimer


class Clock:
    """Seconds that only the tested code lets pass."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def block(self, seconds: float) -> None:
        self.seconds += seconds


async def durations(*loads: float) -> list[float]:
    """Durations of simultaneous loads that each wait for a thread and then block the loop."""
    clock = Clock()
    loading = LoadTimer(clock)

    async def load(seconds: float) -> str:
        await asyncio.sleep(0)
        clock.block(seconds)
        await asyncio.sleep(0)
        return f"{seconds}"

    done = await asyncio.gather(*(loading.measure(load(seconds)) for seconds in loads))
    assert [result for result, _ in done] == [f"{seconds}" for seconds in loads]
    return [seconds for _, seconds in done]


async def test_loads_that_block_the_loop_for_each_other() -> None:
    assert await durations(8.0, 1.0, 30.0) == pytest.approx([8.0, 1.0, 30.0])


async def test_a_wait_of_its_own_counts() -> None:
    clock = Clock()
    loading = LoadTimer(clock)
    fetched = asyncio.Event()

    async def slow() -> None:
        await fetched.wait()

    async def quick() -> None:
        clock.block(2.0)

    waiting = asyncio.create_task(loading.measure(slow()))
    await asyncio.sleep(0)
    _, seconds = await loading.measure(quick())
    clock.block(5.0)  # nothing loads, the fetch goes on
    fetched.set()
    _, waited = await waiting
    assert (seconds, waited) == (2.0, 7.0)


async def test_errors_and_cancellations_pass_through() -> None:
    loading = LoadTimer()
    heard = []

    async def fails() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("the weights are missing")

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise

    with pytest.raises(RuntimeError, match="weights"):
        await loading.measure(fails())
    task = asyncio.create_task(loading.measure(waits()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == ["cancelled"]
