"""The main function of every child process of the server: model workers and HTTP workers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from .processes.linux import die_with_parent
from .worker.model_failures import prepare_loop, run_protected


def run_child(serve: Callable[[socket.socket], Coroutine[Any, Any, None]], fd: int) -> NoReturn:
    """Serve the connection of a file descriptor, then exit.

    The server closes the connection to end this process.
    """
    die_with_parent()
    ignore_signals()
    end = socket.socket(fileno=fd)
    end.set_inheritable(False)
    _run_child_loop(serve(end))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `sys.exit`: it would wait for threads of model libraries, which may never end.
    os._exit(0)


def ignore_signals() -> None:
    """Ignore signals that a terminal sends to the process group: the server handles them."""
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGQUIT", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on uvloop if it is installed, else on asyncio's own loop."""
    with asyncio.Runner(loop_factory=_find_loop_factory()) as runner:
        runner.run(work)


def _find_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _run_child_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end; exceptions of models' tasks do not stop it."""
    with asyncio.Runner(loop_factory=_find_loop_factory()) as runner:
        loop = runner.get_loop()
        prepare_loop(loop)
        task = loop.create_task(work)
        run_protected(loop, lambda: loop.run_until_complete(task), task.done)


def extend_sys_path(folders: list[str]) -> None:
    """Prepend the server's import folders to this process's."""
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]


def absolute_sys_path() -> list[str]:
    """Return this process's import folders for a child process."""
    return [os.path.abspath(entry) for entry in sys.path]
