"""Whether this process may be forked: one thread, known file descriptors, no device in use.

A fork copies one thread. Locks that other threads hold stay locked in the child, and a library that
waits for its thread pool waits forever: measured with 29 models of 15 flavors, every failure
of a forked child was such a hang.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path

# Seconds in which a thread that an import has started may end.
PATIENCE = 0.5
# Names of native threads that survive a fork: jemalloc in pyarrow starts its own again.
HARMLESS_THREADS = frozenset(("jemalloc_bg_thd",))
# Files without a position or state that a parent and its child would share.
_HARMLESS_FILES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/full")
_GPU_FILES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/")
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd")
# Modules that use a GPU on request of a model; their state does not survive a fork.
_GPU_MODULES = ("torch", "tensorflow", "jax", "cupy", "onnxruntime", "cudf", "paddle")
_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def find_lasting_obstacle(known_fds: Collection[int]) -> str | None:
    """Return the obstacle of `find_obstacle` that is still there after `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    while (obstacle := find_obstacle(known_fds)) is not None and time.monotonic() < deadline:
        time.sleep(PATIENCE / 50)
    return obstacle


def find_obstacle(known_fds: Collection[int]) -> str | None:
    """Return why this process must not be forked, None if it may be.

    Args:
        known_fds: File descriptors that the caller handles itself.
    """
    return _find_thread() or _find_descriptor(known_fds) or _find_gpu()


def _find_thread() -> str | None:
    python_threads = [thread.name for thread in threading.enumerate()]
    if len(python_threads) > 1:
        return f"an imported package has started the thread '{python_threads[-1]}'"
    own = str(threading.get_native_id())
    for task in Path("/proc/self/task").iterdir():
        name = _read(task / "comm")
        if task.name != own and name not in HARMLESS_THREADS:
            return f"an imported package has started a native thread ('{name}')"
    if len(sys._current_frames()) > 1:
        return "an imported package runs Python code in a native thread"
    return None


def _find_descriptor(known_fds: Collection[int]) -> str | None:
    for entry in os.listdir("/proc/self/fd"):
        fd = int(entry)
        if fd in known_fds:
            continue
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the descriptor of the listing itself
            continue
        if target not in _HARMLESS_FILES:
            return f"an imported package has opened '{target}'"
    return None


def _find_gpu() -> str | None:
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue
        if target.startswith(_GPU_FILES):
            return f"an imported package has opened the device '{target}'"
    libraries = [name for name in _GPU_MODULES if name in sys.modules]
    if libraries and _has_visible_gpu():
        return f"a GPU is visible and '{libraries[0]}' is imported"
    return None


def _has_visible_gpu() -> bool:
    if not any(map(os.path.exists, _GPU_DEVICES)):
        return False
    return all(os.environ.get(name, "all") not in ("", "-1") for name in _GPU_VARIABLES)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # the thread has ended
        return "ended"
