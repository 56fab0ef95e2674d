"""Texts and classes of exit codes of processes."""

from __future__ import annotations

import signal

# Classes of unexpected exits, the label `reason` of the metrics: an exit code; SIGKILL, as from the
# kernel without memory; another signal; killed by the server, because it did not react.
EXIT_REASONS = ("exit", "killed", "signal", "stuck")


def classify_exit(code: int, is_stuck: bool) -> str:
    """Return one of `EXIT_REASONS` for an exit code of `Popen`."""
    if is_stuck:
        return "stuck"
    if code >= 0:
        return "exit"
    return "killed" if code == -signal.SIGKILL else "signal"


def describe_exit(code: int) -> str:
    """Return a text for an exit code of `Popen`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
