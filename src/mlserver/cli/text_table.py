"""Plain tables for a terminal or a file: columns of equal width, the last one wrapped."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

_GAP = "  "
# The last column is wrapped to at least this width; a narrower terminal wraps the lines itself.
_MIN_LAST = 24


def get_width() -> int | None:
    """Return the terminal's width in characters; None = standard output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def format_table(
    rows: Sequence[Sequence[str]], width: int | None = None, max_column: int = 40
) -> str:
    """Return rows as lines of text; a first row with the names of the columns is a row as well.

    Args:
        width: Width in characters that the last column is wrapped to; None = it is not wrapped.
        max_column: Maximum width of the other columns; longer cells move the next ones.
    """
    columns = zip(*(row[:-1] for row in rows), strict=True)
    sizes = [min(max(map(len, cells)), max_column) for cells in columns]
    lines: list[str] = []
    for row in rows:
        cells = [cell.ljust(size) for cell, size in zip(row[:-1], sizes, strict=True)]
        start = _GAP.join([*cells, ""])
        lines += _wrap(start, row[-1], sum(sizes) + len(_GAP) * len(sizes), width)
    return "\n".join(line.rstrip() for line in lines)


def _wrap(start: str, text: str, indent: int, width: int | None) -> list[str]:
    if width is None:
        return [start + text]
    room = max(width - indent, _MIN_LAST)
    first_room = max(width - len(start), _MIN_LAST)
    if len(text) <= first_room:
        return [start + text]
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    if len(start) > indent:
        return [start.rstrip(), *(" " * indent + line for line in lines)]
    first, *others = lines
    return [start + first, *(" " * indent + line for line in others)]
