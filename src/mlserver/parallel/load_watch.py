"""Kills a forked worker that hangs in the load of a model.

A fork copies one thread: a lock that another thread held stays locked in the child, and a library
that waits for its thread pool waits forever. `worker.fork_safety` finds such threads before a fork;
this finds what it misses. The pool's workers are new interpreters from then on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..logging import get_logger
from .child_process import ChildProcess as WorkerProcess
from .process_usage import read_usage
from .processes.worker_launcher import WorkerLauncher

logger = get_logger()

# Seconds in which a load that makes progress uses more than `MIN_USED` seconds of a processor.
# A load that waits for a slow store longer than this is started again, once.
IDLE_LIMIT = 60.0
MIN_USED = 0.1


@asynccontextmanager
async def watch_load(worker: WorkerProcess, launcher: WorkerLauncher) -> AsyncIterator[None]:
    """Kill the worker if it is a fork that makes no progress within this block."""
    if not worker.is_forked:
        yield
        return
    watching = asyncio.get_running_loop().create_task(_kill_if_idle(worker, launcher))
    try:
        yield
    finally:
        watching.cancel()


async def _kill_if_idle(worker: WorkerProcess, launcher: WorkerLauncher) -> None:
    used, since = 0.0, time.monotonic()
    while time.monotonic() - since < IDLE_LIMIT:
        await asyncio.sleep(IDLE_LIMIT / 60)
        seconds = read_usage(worker.pid)["processor_seconds"]
        if seconds is None:
            return
        if seconds > used + MIN_USED:
            used, since = seconds, time.monotonic()
    logger.error(
        "Worker %s, a fork, used no processor for %g s of a load: killed", worker.pid, IDLE_LIMIT
    )
    launcher.stop_forking("a forked worker made no progress in a load")
    worker.kill_stuck()
