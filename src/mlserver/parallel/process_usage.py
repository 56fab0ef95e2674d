"""Memory and processor time of a process of this server, from Linux' /proc."""

from __future__ import annotations

import os
from typing import Any

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def read_usage(pid: int) -> dict[str, Any]:
    """Return resident bytes (pages shared with other processes included) and processor seconds.

    Both are None if the system has no /proc, or if the process has ended.
    """
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            resident = int(statm.read().split()[1]) * _PAGE
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name may contain spaces and parentheses: count fields after the last one.
            fields = stat.read().rpartition(b")")[2].split()
    except (OSError, IndexError, ValueError):
        return {"resident_bytes": None, "processor_seconds": None}
    seconds = (int(fields[11]) + int(fields[12])) / _TICKS
    return {"resident_bytes": resident, "processor_seconds": seconds}
