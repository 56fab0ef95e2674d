"""Progress bar with a fake clock."""

from __future__ import annotations

import io

from mlserver.cli.scoring.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_share_rate_and_time_left() -> None:
    terminal, clock = Terminal(), Clock()
    progress = Progress(100, 20, terminal, clock)
    clock.now += 2.0
    progress.add(30, 1)
    assert terminal.getvalue().endswith(
        " 50% [############            ] 50/100  15/s  0:03 left  1 failed"
    )
    assert progress.format_bar(7200.0).endswith("0/s  3:20:00 left  1 failed")
    progress.clear()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_redrawing_is_limited_by_time() -> None:
    terminal, clock = Terminal(), Clock()
    progress = Progress(1000, 0, terminal, clock)
    for _ in range(100):
        clock.now += 0.01
        progress.add(1, 0)
    assert terminal.getvalue().count("\r") <= 11


def test_a_file_gets_no_bar() -> None:
    stream = io.StringIO()
    progress = Progress(10, 0, stream, Clock())
    progress.add(10, 2)
    progress.clear()
    assert stream.getvalue() == ""
    assert progress.format_summary().startswith("8 answered, 2 failed; ")


def test_an_empty_input() -> None:
    progress = Progress(0, 0, io.StringIO(), Clock())
    assert progress.format_bar(0.0).startswith("100%")
    assert "--:-- left" in progress.format_bar(0.0)
