"""The time limit between two responses of a stream. `batching.scheduler` has that of a request.

Time spent waiting for the client's next request does not count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


class StreamDeadline:
    """Limits the time between two responses of one stream.

    Args:
        seconds: None = no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timeout: asyncio.Timeout | None = None
        self._is_waiting_for_client = False

    async def watch_requests(self, requests: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield the client's requests. The timer is paused while the client sends none."""
        iterator = aiter(requests)
        while True:
            self._pause(True)
            try:
                request = await anext(iterator)
            except StopAsyncIteration:
                return
            finally:
                self._pause(False)
            yield request

    async def watch_responses(self, responses: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield the responses. Raises `TimeoutError` if one exceeds the limit."""
        iterator = aiter(responses)
        while True:
            async with asyncio.timeout(
                None if self._is_waiting_for_client else self._seconds
            ) as self._timeout:
                try:
                    response = await anext(iterator)
                except StopAsyncIteration:
                    return
                finally:
                    self._timeout = None
            yield response

    def _pause(self, is_paused: bool) -> None:
        self._is_waiting_for_client = is_paused
        if self._timeout is not None and self._seconds is not None and not self._timeout.expired():
            now = asyncio.get_running_loop().time()
            self._timeout.reschedule(None if is_paused else now + self._seconds)
