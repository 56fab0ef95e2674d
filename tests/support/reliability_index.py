"""The tests that the page failure-modes.md names, and those marked P0, which `make p0` repeats.

`python -m support.reliability_index` prints the files of the P0 tests.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "explanation" / "failure-modes.md"
_ROW = re.compile(r"^\| (\d+)( P0)? \|(.*)$", re.MULTILINE)
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


@cache
def rows() -> dict[int, tuple[bool, tuple[tuple[str, str], ...]]]:
    """The page's rows by number: whether it is P0, and its tests as (file, name)."""
    matches = _ROW.findall(PAGE.read_text())
    return {int(number): (bool(p0), tuple(_TEST.findall(text))) for number, p0, text in matches}


@cache
def p0_tests() -> frozenset[tuple[str, str]]:
    return frozenset(test for p0, tests in rows().values() if p0 for test in tests)


if __name__ == "__main__":
    sys.stdout.write("\n".join(sorted({str(TESTS / file) for file, _ in p0_tests()})) + "\n")
