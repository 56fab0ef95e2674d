"""Limits the processor time of a template beside workers that answer requests.

A template imports modules and releases memory while its workers run. At full speed that takes a
core from them: the 99th percentile of a loaded server doubled for a second. A lower priority is no
cure: an unprivileged process cannot raise it again, and forked workers would inherit it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Seconds of work, then of pause: a tenth of a core.
RUN, PAUSE = 0.001, 0.009


@contextmanager
def small_share(wait: Callable[[float], bool]) -> Iterator[None]:
    """Interrupt the block after each `RUN` seconds for `PAUSE` seconds, until a request arrives.

    Only in the main thread, and only Python code is interrupted. The timer is not inherited by
    forked processes.

    Args:
        wait: Waits up to so many seconds, and returns early, with True, once a request has arrived.
    """

    is_over = False

    def pause(*_: Any) -> None:
        # Python runs this some time after the signal: perhaps after the timer below was stopped.
        if not is_over and not wait(PAUSE):
            signal.setitimer(signal.ITIMER_REAL, RUN)

    previous = signal.signal(signal.SIGALRM, pause)
    signal.setitimer(signal.ITIMER_REAL, RUN)
    try:
        yield
    finally:
        is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
