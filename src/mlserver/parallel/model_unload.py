"""Unloads a model within `unload_timeout`, also if its `unload` blocks the process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from ..errors import MLServerError
from .rpc.client import RPCClient, WorkerDied
from .rpc.protocol import Frame, MessageType

T = TypeVar("T")

# Seconds after the limit for a process to report the timeout itself.
REPORT_SECONDS = 1.0


def unload_exceeded(name: str, limit: float | None) -> MLServerError:
    return MLServerError(
        f"Model {name}: unload exceeded {limit:g} s (setting 'unload_timeout'); it receives no "
        "requests any more, but what it did not release remains until its process ends",
        504,
    )


async def unload_in_time(key: str, unload: Coroutine[Any, Any, T], limit: float | None) -> T:
    """Return the result of the unload of a model in another process or thread.

    Raises:
        MLServerError: the process did not answer in time, or the model's `unload` raised.
    """
    try:
        async with asyncio.timeout(None if limit is None else limit + REPORT_SECONDS):
            return await unload
    except TimeoutError:
        raise unload_exceeded(key.partition("#")[0], limit) from None


async def unload_from(worker: RPCClient, key: str, limit: float | None) -> Frame:
    """Unload a model from a worker, which is killed if its event loop does not react in time."""
    call = worker.call(MessageType.UNLOAD, {"key": key}, kill_after=limit)
    return await unload_in_time(key, call, limit)


async def drop_from(worker: RPCClient, key: str, limit: float | None) -> None:
    """Unload a model from a worker; the worker's log has what its `unload` raises."""
    with suppress(MLServerError, WorkerDied):
        await unload_from(worker, key, limit)
