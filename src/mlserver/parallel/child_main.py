"""What each process does first and last that the server starts: a worker, or a further front end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from .worker.model_failures import prepare_loop, run_protected


def run_child(serve: Callable[[socket.socket], Coroutine[Any, Any, None]]) -> None:
    """Serve the channel whose number is the first argument, until it closes; then end this process.

    The server decides when that is: signals for the whole group are left to it.
    """
    _die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGQUIT", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    end = socket.socket(fileno=int(sys.argv[1]))
    end.set_inheritable(False)
    _run_child(serve(end))
    # Threads of the model's libraries may never end by themselves: the work is done, so leave.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the server dies, however it dies. Elsewhere the closed channel ends the process."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where there is one, else on asyncio's own loop."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _run_child(work: Coroutine[Any, Any, None]) -> None:
    """Run until the work is done, whatever models' tasks raise meanwhile."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        loop = runner.get_loop()
        prepare_loop(loop)
        task = loop.create_task(work)
        run_protected(loop, lambda: loop.run_until_complete(task), task.done)


def extend_sys_path(folders: list[str]) -> None:
    """Import from where the server does."""
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]


def absolute_sys_path() -> list[str]:
    """Where this process imports from, for another one to do the same."""
    return [os.path.abspath(entry) for entry in sys.path]
