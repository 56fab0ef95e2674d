"""Number of processors that this process may use: affinity and quota (cgroup v1 and v2).

`os.cpu_count()` returns the machine's number, also in a container with `cpus: 2` on a machine with
64.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .control_groups import ROOT, iterate_groups, read_text

# Read by OpenMP, OpenBLAS, MKL, BLIS and Accelerate.
VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def thread_variables(workers: int) -> dict[str, str]:
    """Return variables that divide the processors among the workers' numerical libraries."""
    return dict.fromkeys(
        VARIABLES, str(threads_per_worker(workers, count_processors(), read_quota()))
    )


def threads_per_worker(workers: int, affinity: int, quota: float | None) -> int:
    """Return the number of threads for each worker process: rounded down, at least 1."""
    processors = affinity if quota is None else min(affinity, quota)
    return max(1, int(processors / max(1, workers)))


def count_processors() -> int:
    """Return the number of processors that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_quota(root: Path = ROOT) -> float | None:
    """Return the processor seconds per second that the control groups allow; None = no limit.

    A group's limit also applies to the groups below it: the smallest limit counts.

    Args:
        root: Folder that contains `proc` and `sys`; another one in tests.
    """
    return min(_iterate_quotas(root), default=None)


def _iterate_quotas(root: Path) -> Iterator[float]:
    for version, folder in iterate_groups("cpu", root):
        yield from _read_v2_quota(folder) if version == 2 else _read_v1_quota(folder)


def _read_v2_quota(folder: Path) -> Iterator[float]:
    limit, _, period = read_text(folder / "cpu.max").strip().partition(" ")
    yield from _parse_quota(limit, period or "100000")


def _read_v1_quota(folder: Path) -> Iterator[float]:
    yield from _parse_quota(
        read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us")
    )


def _parse_quota(limit: str, period: str) -> Iterator[float]:
    """Yield the quota of one group; `max` (v2) and -1 (v1) mean none."""
    try:
        limit_us, period_us = int(limit), int(period)
    except ValueError:
        return
    if limit_us > 0 and period_us > 0:
        yield limit_us / period_us
