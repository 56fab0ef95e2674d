"""The memory and processor time of a process and its children, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """Peak memory of a process in bytes since `reset_peak` or its start."""
    return _status(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Reset the peak to the present value."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def held_bytes(pid: int) -> int:
    """Memory of a process in bytes."""
    return _status(pid, "VmRSS")


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time of processes since their start, in seconds."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def descriptors(pid: int) -> int:
    """The number of open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)
