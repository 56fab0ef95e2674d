"""Loads a model into one worker within `load_timeout`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import MLServerError
from ..settings import ModelSettings, Settings
from .child_process import ChildProcess as WorkerProcess
from .executor import ModelInfo
from .load_watch import watch_load
from .model_source import get_source, get_trial_results, with_resolved_uri
from .model_unload import drop_from
from .processes.worker_launcher import WorkerLauncher
from .rpc.protocol import MessageType


async def load_into(
    worker: WorkerProcess,
    key: str,
    settings: ModelSettings,
    earlier: ModelInfo | None,
    server_settings: Settings,
    launcher: WorkerLauncher,
    spawn: Callable[[Coroutine[Any, Any, None]], object],
) -> ModelInfo:
    """Load a model into a worker.

    A load that is cancelled or exceeds `load_timeout` may end nevertheless: the worker unloads the
    model then.

    Args:
        key: The model's key in the worker.
        earlier: Of the load in another worker: the source and the trial results are the same.
        launcher: That of the worker, which starts no further forks if this one hangs.
        spawn: Runs the unload of such a load in a task.

    Raises:
        MLServerError: the load failed, or exceeded `load_timeout`.
        WorkerDied: the worker ended first.
    """
    settings = with_resolved_uri(settings, get_source(earlier))
    trial_results = get_trial_results(earlier)
    head = {"key": key, "settings": settings.to_frame(), "trial_results": trial_results}
    limit = server_settings.load_timeout
    try:
        async with asyncio.timeout(limit), watch_load(worker, launcher):
            frame = await worker.call(MessageType.LOAD, head, kill_after=limit)
    except (asyncio.CancelledError, TimeoutError) as error:
        # Sent after the cancellation of the load, which has no effect if `load` awaits nothing.
        spawn(drop_from(worker, key, server_settings.unload_timeout))
        if isinstance(error, asyncio.CancelledError):
            raise
        raise MLServerError(
            f"Model {settings.name}: load exceeded {limit:g} s (setting 'load_timeout')", 504
        ) from None
    worker.model_keys.add(key)
    return ModelInfo.from_plain(frame.head)
