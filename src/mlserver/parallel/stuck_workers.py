"""Kills workers that exceed a request's time limit and do not react."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ..logging import get_logger
from .child_process import ChildProcess as WorkerProcess
from .rpc.client import WorkerDied

logger = get_logger()

WATCH_INTERVAL = 0.5
PING_TIMEOUT = 1.0


async def watch(
    list_workers: Callable[[], Sequence[WorkerProcess]],
    spawn: Callable[[Coroutine[Any, Any, None]], object],
) -> None:
    """Check workers whose calls exceed their limits; never returns.

    Args:
        list_workers: Returns the ready workers.
        spawn: Runs a check in a task.
    """
    while True:
        await asyncio.sleep(WATCH_INTERVAL)
        now = time.monotonic()
        for worker in list_workers():
            if worker.has_overdue_call(now):
                spawn(kill_if_stuck(worker))


async def kill_if_stuck(worker: WorkerProcess) -> None:
    """Kill a worker that does not answer a ping within `PING_TIMEOUT` seconds."""
    try:
        is_stuck = not await worker.is_reacting(PING_TIMEOUT)
    except WorkerDied:
        return
    if is_stuck:
        logger.error("Worker %s is stuck in a request past its time limit: killed", worker.pid)
        worker.kill_stuck()


def kill_stalled(workers: Sequence[WorkerProcess], pid: int, key: str) -> None:
    """Kill the worker in which a model runs nothing but calls past their time limit."""
    for worker in [ready for ready in workers if ready.pid == pid]:
        logger.error("Worker %s: no call of model '%s' can run: killed", pid, key.split("#")[0])
        worker.kill_stuck()


def record_abandoned(workers: Sequence[WorkerProcess], pid: int, key: str, count: int) -> None:
    """Store how many functions of a model run in a worker although their callers are gone."""
    for worker in workers:
        if worker.pid != pid:
            continue
        worker.abandoned_calls.pop(key, None)
        if count:  # a key without calls is not kept: each load of a model has a new one
            worker.abandoned_calls[key] = count
