"""How many threads a worker process gets, from affinity and the quota of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlserver.parallel.processors import (
    count_processors,
    read_quota,
    thread_variables,
    threads_per_worker,
)

V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu,cpuacct"
SLICE = "0::/kubepods.slice/pod1/box\n"
HOST = "12:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1\n0::/docker/1\n"
NONE = {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}


def v1(folder: str, limit: int, period: int = 100_000) -> dict[str, str]:
    return {
        f"{folder}/cpu.cfs_quota_us": f"{limit}\n",
        f"{folder}/cpu.cfs_period_us": f"{period}\n",
    }


@pytest.mark.parametrize(
    "groups, files, expected",
    [
        ("", {}, None),
        ("0::/\n", {}, None),
        ("0::/\n", {f"{V2}/cpu.max": "max 100000\n"}, None),
        ("0::/\n", {f"{V2}/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {f"{V2}/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {f"{V2}/cpu.max": "150000\n"}, 1.5),
        ("0::/\n", {f"{V2}/cpu.max": "garbage\n"}, None),
        ("0::/\n", {f"{V2}/cpu.max": "0 0\n"}, None),
        # The smallest of a group and those above it.
        (SLICE, {f"{V2}/kubepods.slice/pod1/box/cpu.max": "400000 100000\n"}, 4.0),
        (
            SLICE,
            {
                f"{V2}/kubepods.slice/pod1/cpu.max": "300000 100000\n",
                f"{V2}/cpu.max": "max 100000\n",
            },
            3.0,
        ),
        (
            SLICE,
            {
                f"{V2}/kubepods.slice/pod1/box/cpu.max": "400000 100000\n",
                f"{V2}/kubepods.slice/cpu.max": "100000 50000",
            },
            2.0,
        ),
        # In a container the path is the host's, and the mount is the group itself.
        ("0::/host/only\n", {f"{V2}/cpu.max": "250000 100000\n"}, 2.5),
        ("0::/../../other\n", {f"{V2}/cpu.max": "250000 100000\n"}, 2.5),
        (HOST, v1(V1, 150_000), 1.5),
        (HOST, v1(V1, -1), None),
        (HOST, v1(f"{V1}/docker/1", 300_000) | v1(V1, -1), 3.0),
        (HOST, v1("sys/fs/cgroup/cpu", 200_000), 2.0),
        ("3:cpu:/\n", v1("sys/fs/cgroup/cpu", 10_000, 20_000), 0.5),
        ("3:cpuset:/\n", v1("sys/fs/cgroup/cpuset", 100_000), None),
        (HOST, {f"{V1}/cpu.cfs_quota_us": "100000\n"}, None),
        # Both hierarchies at once.
        (HOST, v1(V1, 300_000) | {f"{V2}/unified/docker/1/cpu.max": "200000 100000\n"}, 2.0),
    ],
)
def test_quota(tmp_path: Path, groups: str, files: dict[str, str], expected: float | None) -> None:
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert read_quota(tmp_path) == expected


@pytest.mark.parametrize(
    "workers, processors, limit, expected",
    [
        (1, 8, None, 8),
        (2, 8, None, 4),
        (3, 8, None, 2),
        (16, 8, None, 1),
        (0, 8, None, 8),
        (1, 64, 2.0, 2),
        (1, 64, 2.5, 2),
        (2, 64, 5.0, 2),
        (1, 64, 0.5, 1),
        (4, 64, 2.0, 1),
        (1, 2, 64.0, 2),
    ],
)
def test_threads_per_worker(
    workers: int, processors: int, limit: float | None, expected: int
) -> None:
    assert threads_per_worker(workers, processors, limit) == expected


def test_this_machine() -> None:
    assert count_processors() >= 1
    limit = read_quota()
    assert limit is None or limit > 0
    assert int(thread_variables(1)["OMP_NUM_THREADS"]) <= count_processors()
