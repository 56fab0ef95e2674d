"""How long a stream may keep its caller waiting for the next answer; waiting for the caller's next request does not count."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


class StreamDeadline:
    """The limit between two answers of one stream.

    Args:
        seconds: None = no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timeout: asyncio.Timeout | None = None
        self._caller_is_slow = False

    async def asking(self, requests: AsyncIterator[T]) -> AsyncIterator[T]:
        """The caller's requests; the clock stands still while there is none."""
        iterator = aiter(requests)
        while True:
            self._set_aside(True)
            try:
                request = await anext(iterator)
            except StopAsyncIteration:
                return
            finally:
                self._set_aside(False)
            yield request

    async def answering(self, responses: AsyncIterator[T]) -> AsyncIterator[T]:
        """The answers. Raises `TimeoutError` if one takes too long."""
        iterator = aiter(responses)
        while True:
            async with asyncio.timeout(
                None if self._caller_is_slow else self._seconds
            ) as self._timeout:
                try:
                    response = await anext(iterator)
                except StopAsyncIteration:
                    return
                finally:
                    self._timeout = None
            yield response

    def _set_aside(self, waiting: bool) -> None:
        self._caller_is_slow = waiting
        if self._timeout is not None and self._seconds is not None and not self._timeout.expired():
            now = asyncio.get_running_loop().time()
            self._timeout.reschedule(None if waiting else now + self._seconds)
