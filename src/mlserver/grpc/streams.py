"""How `ModelStreamInfer` keeps the requests of one stream apart. Nothing here knows a message's form.

`by_model`: the requests for one model are one conversation with it (MLServer's way). `one_by_one`: each request is
answered for itself, several at a time, in the order in which they came (Triton's way).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
# Requests of one stream that are worked on at a time.
MAX_UNDER_WAY = 64


class ModelStream(Generic[Item]):
    """The requests of one stream that are for one model. At most one waits here, so that a slow model holds the client."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Item | None] = asyncio.Queue(maxsize=1)
        self._ended = False

    async def put(self, item: Item | None) -> None:
        """Add a request; None = there will be no more."""
        await self._waiting.put(item)

    async def next(self) -> Item | None:
        """The next request, or None at the end."""
        if self._ended:
            return None
        item = await self._waiting.get()
        self._ended = item is None
        return item

    async def conversation(self, first: Item) -> AsyncIterator[Item]:
        """`first` and all that follow, for as long as the model goes on reading."""
        yield first
        while (item := await self.next()) is not None:
            yield item


async def by_model(
    items: AsyncIterator[Item],
    key_of: Callable[[Item], Key],
    answer: Callable[[Key, ModelStream[Item]], Coroutine[Any, Any, None]],
) -> None:
    """Deal requests out to a lane per key; `answer` serves one lane until its end.

    Raises:
        BaseExceptionGroup: what reading or one of the lanes raised; the others are stopped.
    """
    lanes: dict[Key, ModelStream[Item]] = {}
    async with asyncio.TaskGroup() as group:
        async for item in items:
            key = key_of(item)
            lane = lanes.get(key)
            if lane is None:
                lane = lanes[key] = ModelStream()
                group.create_task(answer(key, lane))
            await lane.put(item)
        for lane in lanes.values():
            await lane.put(None)


async def one_by_one(
    items: AsyncIterator[Item],
    answer: Callable[[Item, Callable[[], Awaitable[None]]], Awaitable[None]],
) -> None:
    """Answer each request in a task of its own.

    Args:
        answer: Gets the request, and what to await before it writes its first response: its turn.
    """
    places = asyncio.Semaphore(MAX_UNDER_WAY)
    before = asyncio.Event()
    before.set()

    async def run(item: Item, turn: asyncio.Event, done: asyncio.Event) -> None:
        async def wait() -> None:
            await turn.wait()

        try:
            await answer(item, wait)
            await turn.wait()
        finally:
            done.set()
            places.release()

    async with asyncio.TaskGroup() as group:
        async for item in items:
            await places.acquire()
            done = asyncio.Event()
            group.create_task(run(item, before, done))
            before = done
