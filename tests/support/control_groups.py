"""Control groups of the kernel for tests, version 1 or 2, where a test may create them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import Server

MOUNT = Path("/sys/fs/cgroup")


def find_parent(controller: str) -> tuple[int, Path] | None:
    """Version and folder of a group in which groups with this controller can be made."""
    if os.geteuid() != 0:
        return None
    if (MOUNT / controller / "cgroup.procs").exists():
        return 1, MOUNT / controller
    control = MOUNT / "cgroup.subtree_control"
    with contextlib.suppress(OSError):
        control.write_text(f"+{controller}")
        if controller in control.read_text().split():
            return 2, MOUNT
    return None


@contextlib.contextmanager
def control_group(controller: str, v1: dict[str, str], v2: dict[str, str]) -> Iterator[Path]:
    """The folder of a new group; skips the test where none can be made.

    Args:
        v1: Values by file, for version 1.
        v2: The same for version 2; no file = the test needs version 1, and vice versa.
    """
    parent = find_parent(controller)
    if parent is None:
        pytest.skip(f"a test may not create control groups with {controller!r} on this machine")
    version, mount = parent
    values = v1 if version == 1 else v2
    if not values:
        pytest.skip(f"this machine has version {version} of control groups")
    folder = mount / f"mlserver-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"a test may not create control groups on this machine: {error}")
    try:
        for name, value in values.items():
            (folder / name).write_text(value)
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a group. Its processes have ended, but the kernel may take a moment to notice."""
    deadline = time.monotonic() + 10
    while True:
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def server_in(folder: Path) -> type[Server]:
    """A class of servers that run in a group with all their processes."""

    class InGroup(Server):
        prefix = ("sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh")

    return InGroup
