"""How long the answers of one stream take, which is hard to tell from outside: a model may also wait for its caller."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


class StreamTimer:
    """Measures the answers of one stream; the time for which the caller's next request is waited for does not count."""

    def __init__(self) -> None:
        self._waited = 0

    async def asking(self, requests: AsyncIterator[T]) -> AsyncIterator[T]:
        """The caller's requests."""
        while True:
            started = time.perf_counter_ns()
            try:
                request = await anext(requests)
            except StopAsyncIteration:
                return
            finally:
                self._waited += time.perf_counter_ns() - started
            yield request

    async def next(self, responses: AsyncIterator[T]) -> tuple[T | None, int]:
        """The next answer, None after the last one, and the nanoseconds that it took."""
        started, waited = time.perf_counter_ns(), self._waited
        response = await anext(responses, None)
        return response, max(0, time.perf_counter_ns() - started - (self._waited - waited))
