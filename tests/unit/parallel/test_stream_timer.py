"""How long the answers of a stream take, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mlserver.parallel import stream_timer
from mlserver.parallel.stream_timer import StreamTimer


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def perf_counter_ns(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stream_timer, "time", clock)
    return clock


async def test_waiting_for_the_caller_does_not_count(clock: Clock) -> None:
    async def caller() -> AsyncIterator[str]:
        for item in "ab":
            clock.now += 1000
            yield item

    async def model(items: AsyncIterator[str]) -> AsyncIterator[str]:
        async for item in items:
            clock.now += 7
            yield item
            clock.now += 3

    stream = StreamTimer()
    answers = model(stream.exclude_wait(caller()))

    assert await stream.next(answers) == ("a", 7)
    clock.now += 500  # between two responses no caller waits
    assert await stream.next(answers) == ("b", 10)
    assert await stream.next(answers) == (None, 3)
