"""The small share of a processor that a template has beside workers."""

from __future__ import annotations

import signal
import time

import pytest

from mlserver.parallel.worker.processor_share import PAUSE, small_share


def spin(seconds: float) -> None:
    """Use a processor for so long."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_block_is_interrupted_by_pauses() -> None:
    pauses: list[float] = []

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return False

    with small_share(wait):
        spin(0.1)
    assert len(pauses) > 10
    assert set(pauses) == {PAUSE}


def test_a_request_ends_the_pauses() -> None:
    pauses: list[float] = []

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return True

    with small_share(wait):
        spin(0.1)
    assert len(pauses) == 1


def test_a_signal_at_the_end_of_the_block_does_not_start_the_timer_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python runs a handler some time after its signal; the default action ends the process."""
    setitimer = signal.setitimer

    def set_late(which: int, seconds: float) -> None:
        setitimer(which, seconds)
        handler = signal.getsignal(signal.SIGALRM)
        if not seconds and callable(handler):
            handler(signal.SIGALRM, None)

    monkeypatch.setattr(signal, "setitimer", set_late)
    with small_share(lambda seconds: False):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_timer_and_its_handler_are_restored() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    with small_share(lambda seconds: False):
        pass
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
