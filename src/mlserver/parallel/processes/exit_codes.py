"""Texts and classes of exit codes of processes."""

from __future__ import annotations

import signal

# Classes of unexpected exits, the label `reason` of the metrics: an exit code; SIGKILL; another
# signal; killed by the server, because it did not react; probably killed by the kernel for lack of
# memory.
EXIT_REASONS = ("exit", "killed", "signal", "stuck", "out_of_memory")


def classify_exit(code: int, is_stuck: bool, is_out_of_memory: bool = False) -> str:
    """Return one of `EXIT_REASONS` for an exit code of `Popen`.

    Args:
        is_out_of_memory: Whether the kernel has just killed a process for lack of memory.
    """
    if is_stuck:
        return "stuck"
    if code >= 0:
        return "exit"
    if code != -signal.SIGKILL:
        return "signal"
    return "out_of_memory" if is_out_of_memory else "killed"


def describe_exit(code: int) -> str:
    """Return a text for an exit code of `Popen`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
