"""The tests that docs/reliability.md names, and those among them that every release must pass many times in a row.

`python -m support.reliability_index` lists the files of the latter.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
_ROW = re.compile(r"^\| (\d+)( P0)? \|(.*)$", re.MULTILINE)
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


@cache
def rows() -> dict[int, tuple[bool, tuple[tuple[str, str], ...]]]:
    """By number: whether it is P0, and its tests as file and name."""
    found = _ROW.findall(PAGE.read_text())
    return {int(number): (bool(p0), tuple(_TEST.findall(text))) for number, p0, text in found}


@cache
def p0_tests() -> frozenset[tuple[str, str]]:
    return frozenset(test for p0, tests in rows().values() if p0 for test in tests)


if __name__ == "__main__":
    sys.stdout.write("\n".join(sorted({str(TESTS / file) for file, _ in p0_tests()})) + "\n")
