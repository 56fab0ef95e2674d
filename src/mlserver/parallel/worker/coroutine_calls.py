"""The calls of one model's coroutines that run; an unload ends them first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from ...errors import Unavailable
from ...logging import get_logger

logger = get_logger()

# Seconds that a coroutine may take to end after its cancellation.
END_LIMIT = 5.0


class CoroutineCalls:
    """A context manager around each call of a coroutine of the model.

    It may be entered by many tasks at a time, once by each.

    Args:
        name: The model's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[object]] = set()
        self._cancelled: set[asyncio.Task[object]] = set()
        self._is_closed = False

    def __enter__(self) -> None:
        """Raises `Unavailable` if the model is being unloaded."""
        if self._is_closed:
            raise self._create_error()
        self._tasks.add(_current_task())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raises `Unavailable` if `close` has cancelled the call."""
        task = _current_task()
        self._tasks.discard(task)
        if task in self._cancelled and isinstance(error, asyncio.CancelledError):
            self._cancelled.discard(task)
            task.uncancel()
            raise self._create_error() from None

    def __contains__(self, task: object) -> bool:
        """Whether a task runs a call. From any thread."""
        return task in self._tasks

    @contextmanager
    def exclude(self) -> Iterator[None]:
        """Do not cancel the call within the block: it waits for a plain function."""
        task = _current_task()
        is_call = task in self._tasks
        self._tasks.discard(task)
        try:
            yield
        finally:
            if is_call:
                self._tasks.add(task)

    async def close(self) -> None:
        """Accept no further call, cancel those that run, and wait up to `END_LIMIT` for them."""
        self._is_closed = True
        for task in self._tasks:
            if not task.cancelling():
                self._cancelled.add(task)
                task.cancel()
        if not self._tasks:
            return
        _, running = await asyncio.wait(self._tasks.copy(), timeout=END_LIMIT)
        if running:
            logger.warning(
                "Model '%s': %d calls have not ended within %g s of their cancellation; its "
                "unload() runs beside them",
                self._name,
                len(running),
                END_LIMIT,
            )

    def _create_error(self) -> Unavailable:
        return Unavailable(
            f"Model {self._name} was unloaded before the call ended (setting 'drain_timeout')"
        )


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task
