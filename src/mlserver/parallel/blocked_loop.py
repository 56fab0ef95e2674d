"""Logs that code of a model blocks the event loop of the models in the server's process."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

from ..logging import get_logger

logger = get_logger()

CHECK_INTERVAL = 0.5  # seconds
# Calls of the blocking code that a line of the log shows, the innermost last.
MAX_CALLS = 12


async def log_blocks(
    thread: threading.Thread,
    list_unready: Callable[[], Sequence[str]],
    find_running: Callable[[], str | None],
) -> None:
    """Log when the loop of a thread blocks and when it reacts again; never returns.

    Args:
        list_unready: Returns the names of the models that are not ready because the loop is
            blocked.
        find_running: Returns what the loop runs, None if that is not known.
    """
    since: float | None = None
    while True:
        await asyncio.sleep(CHECK_INTERVAL)
        unready = list_unready()
        if unready and since is None:
            since = time.monotonic()
            logger.warning(
                "Models not ready, because the event loop of the models is blocked by %s: %s\n%s",
                find_running() or "a task of a model",
                ", ".join(f"'{name}'" for name in unready),
                _format_stack(thread),
            )
        elif since is not None and not unready:
            seconds = time.monotonic() - since
            logger.warning("The event loop of the models reacts again, after %.1f s", seconds)
            since = None


def _format_stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    calls = [] if frame is None else traceback.format_stack(frame)[-MAX_CALLS:]
    return "".join(calls).rstrip()
