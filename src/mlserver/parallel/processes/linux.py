"""Linux process controls that Python lacks: death signals, names, adoption of orphans (prctl)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
# Names of processes (`/proc/PID/comm`, at most 15 characters).
TEMPLATE, FORKING, WORKER = "mlserver-templ", "mlserver-fork", "mlserver-worker"

_lock = threading.Lock()
_adoptions = 0
_was_adopting = False


def _prctl(option: int, value: object) -> int:
    """Call prctl(2). Raises `OSError`."""
    result = int(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0))
    if result:
        raise OSError(ctypes.get_errno(), "prctl failed")
    return result


def die_with_parent() -> None:
    """Make the kernel kill this process when its parent dies.

    Linux only; elsewhere this process exits when the connection to its parent is closed.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def set_process_name(name: str) -> None:
    """Set the name that `ps` and `top` show for this thread's process."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def can_adopt() -> bool:
    """Whether this system can adopt forked processes and wait for them by descriptors."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
        _get_subreaper()
    except OSError:
        return False
    return True


def _get_subreaper() -> bool:
    value = ctypes.c_int()
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value))
    return bool(value.value)


def start_adopting() -> None:
    """Become the parent of descendants whose parents end, until `stop_adopting`.

    Only while a template forks: at other times orphans of models' own child processes would become
    children of the server, which would never reap them.
    """
    global _adoptions, _was_adopting
    with _lock:
        if not _adoptions:
            _was_adopting = _get_subreaper()
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _adoptions += 1


def stop_adopting() -> None:
    """End what one call of `start_adopting` has begun."""
    global _adoptions
    with _lock:
        _adoptions -= 1
        if not _adoptions and not _was_adopting:
            _prctl(_PR_SET_CHILD_SUBREAPER, 0)


def list_ended_children(name: str) -> Iterator[int]:
    """Yield ids of this process's children with a name that have ended and were not waited for."""
    for tasks in Path("/proc/self/task").glob("*/children"):
        try:
            pids = tasks.read_text().split()
        except OSError:  # the thread has ended
            continue
        for pid in pids:
            try:
                head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
            except OSError:
                continue
            if head.partition("(")[2] == name and tail.split()[0] == "Z":
                yield int(pid)
