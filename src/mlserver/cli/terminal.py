"""Shared by the commands: their error, a status line for waits, SIGTERM as an interruption."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

_CLEAR_LINE = "\r\x1b[K"


class CommandError(click.ClickException):
    """The command failed: its message is printed in one line, exit code 1."""

    exit_code = 1


@contextmanager
def show_status(text: str) -> Iterator[None]:
    """Show a line on standard error during the block, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    sys.stdout.flush()
    print(f"{_CLEAR_LINE}{text}", end="", file=sys.stderr, flush=True)  # noqa: T201
    try:
        yield
    finally:
        print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that a command stops in order; only in the main thread."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
