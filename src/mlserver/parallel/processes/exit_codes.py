"""Texts for exit codes of processes."""

from __future__ import annotations

import signal


def describe_exit(code: int) -> str:
    """Return a text for an exit code of `Popen`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
