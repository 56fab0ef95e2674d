"""Processes that the kernel kills for lack of memory: recognized by its counts, cgroup v1 and v2.

SIGKILL does not say who sent it. The kernel counts its kills before the process ends.
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable
from pathlib import Path

from .control_groups import ROOT, iterate_groups, read_text
from .processes.exit_codes import describe_exit

# Seconds after which the death of a worker has nothing to do with a kill for lack of memory.
RECENT = 5.0
_COUNT_FILES = {1: "memory.oom_control", 2: "memory.events"}
_LIMIT_FILES = {1: "memory.limit_in_bytes", 2: "memory.max"}
_NO_LIMIT = 2**60  # version 1 has a number of this size for "none"
_MIB = 1024 * 1024


def count_kills(root: Path = ROOT) -> int:
    """Return how many processes of this control group the kernel has killed for lack of memory.

    The count of the machine, if the group has none: the group of all processes.
    """
    for version, folder in iterate_groups("memory", root):
        count = _find_count(read_text(folder / _COUNT_FILES[version]))
        if count is not None:
            return count
    return _find_count(read_text(root / "proc" / "vmstat")) or 0


def read_memory_limit(root: Path = ROOT) -> int | None:
    """Return the bytes that the control groups allow, the smallest limit; None = no limit."""
    limits = []
    for version, folder in iterate_groups("memory", root):
        text = read_text(folder / _LIMIT_FILES[version]).strip()
        if text.isdigit() and int(text) < _NO_LIMIT:
            limits.append(int(text))
    return min(limits, default=None)


def _find_count(text: str) -> int | None:
    for line in text.splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.strip().isdigit():
            return int(count)
    return None


class OutOfMemoryKills:
    """Whether the kernel has killed a process of this server lately.

    Args:
        count: Returns the kernel's count.
        clock: Returns seconds.
    """

    def __init__(
        self, count: Callable[[], int] = count_kills, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read_count = count
        self._clock = clock
        self._count = count()
        self._last_kill: float | None = None

    def has_recent(self) -> bool:
        """Return whether there was a kill. Call it at each death, so that none is taken for new."""
        count, now = self._read_count(), self._clock()
        if count > self._count:
            self._last_kill = now
        self._count = count
        return self._last_kill is not None and now - self._last_kill <= RECENT


@functools.cache
def get_kills() -> OutOfMemoryKills:
    """Return the one instance of this process; kills before the first call do not count."""
    return OutOfMemoryKills()


def describe_death(code: int) -> str:
    """Return a text for the exit code of a worker that has just died."""
    text = describe_exit(code)
    if code != -signal.SIGKILL or not get_kills().has_recent():
        return text
    limit = read_memory_limit()
    if limit is None:
        return f"{text}, probably out of memory"
    return f"{text}, probably out of memory: the control group's limit is {limit // _MIB} MiB"
