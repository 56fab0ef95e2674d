"""How many processors this process may use: by its affinity, and by the quota of its control groups (cgroup v1 and v2).

`os.cpu_count()` is the machine's number, also in a container with `cpus: 2` on a machine of 64.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
_V1_CONTROLLERS = ("cpu", "cpu,cpuacct", "cpuacct,cpu")
# Those of OpenMP, OpenBLAS, MKL, BLIS and Accelerate.
VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def thread_variables(workers: int) -> dict[str, str]:
    """Environment variables that share out the processors among the numerical libraries of worker processes."""
    return dict.fromkeys(VARIABLES, str(threads_per_worker(workers, affinity(), quota())))


def threads_per_worker(workers: int, affinity: int, quota: float | None) -> int:
    """Return the threads for each worker process: whole ones within the quota, at least 1."""
    processors = affinity if quota is None else min(affinity, quota)
    return max(1, int(processors / max(1, workers)))


def affinity() -> int:
    """Return the number of processors that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(root: Path = ROOT) -> float | None:
    """Return the processors' time that the control groups allow per second; None = no limit.

    A group's limit holds for the groups below it, so the smallest counts.

    Args:
        root: Where `proc` and `sys` are; another folder for tests.
    """
    return min(_quotas(root), default=None)


def _quotas(root: Path) -> Iterator[float]:
    mounts = root / "sys" / "fs" / "cgroup"
    for line in _read(root / "proc" / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for folder in _groups([mounts, mounts / "unified"], path):
                yield from _v2(folder)
        elif "cpu" in controllers.split(","):
            for folder in _groups([mounts / name for name in _V1_CONTROLLERS], path):
                yield from _v1(folder)


def _groups(mounts: list[Path], path: str) -> Iterator[Path]:
    """A group's folder and those above it. In a container the path may be the host's: then only the mount is there."""
    inner = Path() if ".." in path.split("/") else Path(path.lstrip("/"))
    for mount in mounts:
        yield from (mount / each for each in dict.fromkeys([inner, *inner.parents]))


def _v2(folder: Path) -> Iterator[float]:
    limit, _, period = _read(folder / "cpu.max").strip().partition(" ")
    yield from _ratio(limit, period or "100000")


def _v1(folder: Path) -> Iterator[float]:
    yield from _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(limit: str, period: str) -> Iterator[float]:
    """The quota of one group, if it has one: `max` (v2) and -1 (v1) are none."""
    try:
        allowed, per = int(limit), int(period)
    except ValueError:
        return
    if allowed > 0 and per > 0:
        yield allowed / per


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
