"""Measures how long a stream's responses take, without waits for the client's requests."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


class StreamTimer:
    """Times the responses of one stream."""

    def __init__(self) -> None:
        self._waited = 0

    async def exclude_wait(self, requests: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield the client's requests; the time until each arrives is not counted."""
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
        """Return the next response (None after the last one) and the nanoseconds that it took."""
        started, waited = time.perf_counter_ns(), self._waited
        response = await anext(responses, None)
        return response, max(0, time.perf_counter_ns() - started - (self._waited - waited))
