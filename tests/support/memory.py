"""The memory and processor time of a process."""

from __future__ import annotations

import os
import time
from pathlib import Path

_CPUCLOCK_SCHED = 2  # include/linux/posix-timers.h


def peak_bytes(pid: int) -> int:
    """Peak memory of a process in bytes since `reset_peak` or its start."""
    return _status(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Reset the peak to the present value."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def held_bytes(pid: int) -> int:
    """Memory of a process in bytes."""
    return _status(pid, "VmRSS")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process since its start, in seconds, exact to a microsecond.

    The identifier is that of clock_getcpuclockid(3), which Python has for its own process only.
    """
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def descriptors(pid: int) -> int:
    """The number of open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)
