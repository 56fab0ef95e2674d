"""Concurrency of the requests of one `ModelStreamInfer` call, independent of message formats.

`serve_by_model` passes the requests for each model to the model as one stream (as MLServer does).
`serve_in_order` serves each request on its own, concurrently, with responses in order of arrival
(as Triton does).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
# Requests of one call that `serve_in_order` serves at a time.
MAX_CONCURRENT_REQUESTS = 64


class ModelStream(Generic[Item]):
    """Requests of one call for one model; the buffer of one lets flow control reach the client."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Item | None] = asyncio.Queue(maxsize=1)
        self._has_ended = False

    async def put(self, item: Item | None) -> None:
        """Add a request; None = end of the stream."""
        await self._queue.put(item)

    async def next(self) -> Item | None:
        """Return the next request; None at the end."""
        if self._has_ended:
            return None
        item = await self._queue.get()
        self._has_ended = item is None
        return item

    async def iterate_from(self, first: Item) -> AsyncIterator[Item]:
        """Yield `first` and all following requests."""
        yield first
        while (item := await self.next()) is not None:
            yield item


async def serve_by_model(
    items: AsyncIterator[Item],
    get_key: Callable[[Item], Key],
    serve: Callable[[Key, ModelStream[Item]], Coroutine[Any, Any, None]],
) -> None:
    """Distribute requests to one stream per key.

    Args:
        serve: Serves one stream until its end.

    Raises:
        BaseExceptionGroup: reading or one of the streams failed; the others are cancelled.
    """
    streams: dict[Key, ModelStream[Item]] = {}
    async with asyncio.TaskGroup() as group:
        async for item in items:
            key = get_key(item)
            stream = streams.get(key)
            if stream is None:
                stream = streams[key] = ModelStream()
                group.create_task(serve(key, stream))
            await stream.put(item)
        for stream in streams.values():
            await stream.put(None)


async def serve_in_order(
    items: AsyncIterator[Item],
    serve: Callable[[Item, Callable[[], Awaitable[None]]], Awaitable[None]],
) -> None:
    """Serve each request in its own task, with responses in the order of the requests.

    Args:
        serve: Receives the request, and a function to await before it writes its first response.
    """
    capacity = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
    previous_done = asyncio.Event()
    previous_done.set()

    async def run(item: Item, previous: asyncio.Event, done: asyncio.Event) -> None:
        async def wait_for_turn() -> None:
            await previous.wait()

        try:
            await serve(item, wait_for_turn)
            await previous.wait()
        finally:
            done.set()
            capacity.release()

    async with asyncio.TaskGroup() as group:
        async for item in items:
            await capacity.acquire()
            done = asyncio.Event()
            group.create_task(run(item, previous_done, done))
            previous_done = done
