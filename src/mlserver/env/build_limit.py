"""What ends the search for an environment: its time limit, or the end of the server."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..errors import MLServerError


class BuildLimit:
    """The limit of one search for an environment, which runs in one thread.

    Args:
        seconds: Until the search must have ended; None = no limit.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._is_stopped = False
        self._lock = threading.Lock()
        self._process: subprocess.Popen[Any] | None = None

    def check(self) -> None:
        """Raise `MLServerError` if the time has passed, or the server stops."""
        if self._is_stopped:
            raise MLServerError("The environment is not built: the server stops", 503)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise MLServerError(
                f"The environment was not built within {self._seconds:g} s "
                "(setting 'load_timeout')",
                504,
            )

    def stop(self) -> None:
        """End the search: kill its process, and let it start no other. From any thread."""
        with self._lock:
            self._is_stopped = True
            self._kill()

    @contextmanager
    def watch(self, process: subprocess.Popen[Any], timeout: float | None = None) -> Iterator[None]:
        """Kill a process with a group of its own if the search must end during the block.

        Args:
            timeout: Seconds after which the process is killed in any case; None = no limit.

        Raises:
            MLServerError: at the end of the block, if the search must end.
        """
        timer: threading.Timer | None = None
        limits = [] if timeout is None else [timeout]
        if self._deadline is not None:
            limits.append(max(0.0, self._deadline - time.monotonic()))
        if limits:
            timer = threading.Timer(min(limits), self._kill_late)
            timer.daemon = True
            timer.start()
        with self._lock:
            self._process = process
            if self._is_stopped:
                self._kill()
        try:
            yield
        finally:
            with self._lock:
                self._process = None
            if timer is not None:
                timer.cancel()
            self.check()

    def _kill_late(self) -> None:
        with self._lock:
            self._kill()

    def _kill(self) -> None:
        """Kill the process and its children, which hold its output open. The lock is held."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


NO_LIMIT = BuildLimit()
