"""Limits and counts of control groups, and which deaths are attributed to them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from mlserver.parallel import out_of_memory
from mlserver.parallel.out_of_memory import (
    RECENT,
    OutOfMemoryKills,
    count_kills,
    describe_death,
    read_memory_limit,
)
from mlserver.parallel.processes.exit_codes import classify_exit

V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/memory"
HOST = "4:memory:/docker/1\n0::/docker/1\n"
VMSTAT = {"proc/vmstat": "pgfault 9\noom_kill 7\n"}


def v1_count(folder: str, count: int) -> dict[str, str]:
    text = f"oom_kill_disable 0\nunder_oom 0\noom_kill {count}\n"
    return {f"{folder}/memory.oom_control": text}


def write_files(root: Path, groups: str, files: dict[str, str]) -> None:
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    "groups, files, expected",
    [
        ("", {}, 0),
        ("0::/\n", VMSTAT, 7),
        ("0::/\n", {f"{V2}/memory.events": "oom 3\noom_kill 2\noom_group_kill 0\n"} | VMSTAT, 2),
        ("0::/a/b\n", {f"{V2}/a/b/memory.events": "oom_kill 1\n"}, 1),
        # The innermost group: in version 1 the others do not count its kills.
        (HOST, v1_count(f"{V1}/docker/1", 4) | v1_count(V1, 1) | VMSTAT, 4),
        (HOST, v1_count(V1, 5), 5),  # in a container, whose path is the host's
        (HOST, {f"{V1}/memory.oom_control": "under_oom 0\n"} | VMSTAT, 7),  # before Linux 4.13
    ],
)
def test_counts(tmp_path: Path, groups: str, files: dict[str, str], expected: int) -> None:
    write_files(tmp_path, groups, files)
    assert count_kills(tmp_path) == expected


@pytest.mark.parametrize(
    "groups, files, expected",
    [
        ("", {}, None),
        ("0::/\n", {f"{V2}/memory.max": "max\n"}, None),
        ("0::/\n", {f"{V2}/memory.max": "1000\n"}, 1000),
        ("0::/a/b\n", {f"{V2}/a/b/memory.max": "max\n", f"{V2}/a/memory.max": "500\n"}, 500),
        (HOST, {f"{V1}/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        (HOST, {f"{V1}/docker/1/memory.limit_in_bytes": "2000\n"}, 2000),
    ],
)
def test_limits(tmp_path: Path, groups: str, files: dict[str, str], expected: int | None) -> None:
    write_files(tmp_path, groups, files)
    assert read_memory_limit(tmp_path) == expected


def test_a_kill_explains_deaths_for_a_while() -> None:
    """Of several workers as well, which the kernel kills one after the other."""
    count, now = 3, 0.0
    kills = OutOfMemoryKills(lambda: count, lambda: now)
    assert not kills.has_recent()
    count = 4
    assert kills.has_recent()
    now = RECENT
    assert kills.has_recent()
    now = RECENT + 1
    assert not kills.has_recent()


@pytest.mark.parametrize(
    "limit, text",
    [
        (None, "signal SIGKILL, probably out of memory"),
        (
            2**29,
            "signal SIGKILL, probably out of memory: the control group's limit is 512 MiB",
        ),
    ],
)
def test_texts(monkeypatch: pytest.MonkeyPatch, limit: int | None, text: str) -> None:
    count = 0
    kills = OutOfMemoryKills(lambda: count, lambda: 0.0)
    monkeypatch.setattr(out_of_memory, "get_kills", lambda: kills)
    monkeypatch.setattr(out_of_memory, "read_memory_limit", lambda: limit)
    assert describe_death(-signal.SIGKILL) == "signal SIGKILL"
    count = 1
    assert describe_death(-signal.SIGKILL) == text
    assert describe_death(-signal.SIGSEGV) == "signal SIGSEGV"


@pytest.mark.parametrize(
    "code, is_stuck, is_out_of_memory, expected",
    [
        (-9, False, True, "out_of_memory"),
        (-9, False, False, "killed"),
        (-9, True, True, "stuck"),
        (-11, False, True, "signal"),
        (1, False, True, "exit"),
    ],
)
def test_classes(code: int, is_stuck: bool, is_out_of_memory: bool, expected: str) -> None:
    assert classify_exit(code, is_stuck, is_out_of_memory) == expected
