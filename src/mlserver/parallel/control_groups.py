"""Files of this process's control groups (cgroup v1 and v2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
# Folders below /sys/fs/cgroup where version 1 mounts a controller.
_V1_MOUNTS = {"cpu": ("cpu", "cpu,cpuacct", "cpuacct,cpu"), "memory": ("memory",)}


def iterate_groups(controller: str, root: Path = ROOT) -> Iterator[tuple[int, Path]]:
    """Yield version (1 or 2) and folder of the groups with a controller, the innermost first.

    A group's limit also applies to the groups below it. A folder need not exist: in a container the
    path may be the host's, and then only the mount does.

    Args:
        controller: A key of `_V1_MOUNTS`.
        root: Folder that contains `proc` and `sys`; another one in tests.
    """
    mounts = root / "sys" / "fs" / "cgroup"
    for line in read_text(root / "proc" / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for folder in _iterate_folders([mounts, mounts / "unified"], path):
                yield 2, folder
        elif controller in controllers.split(","):
            for folder in _iterate_folders(
                [mounts / name for name in _V1_MOUNTS[controller]], path
            ):
                yield 1, folder


def _iterate_folders(mounts: list[Path], path: str) -> Iterator[Path]:
    """Yield the folders of a group and of its parents."""
    inner = Path() if ".." in path.split("/") else Path(path.lstrip("/"))
    for mount in mounts:
        yield from (mount / part for part in dict.fromkeys([inner, *inner.parents]))


def read_text(path: Path) -> str:
    """Return the text of a file; "" if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
