"""Markdown of the generated pages: heading, note, tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NOTE = "<!-- Written by `make reference` from {source}; a test compares it. Edit the source. -->"


def start_page(title: str, source: str, *paragraphs: str) -> list[str]:
    """Return the first lines of a page: title, note and introduction."""
    lines = [f"# {title}", "", _NOTE.format(source=source), ""]
    for paragraph in paragraphs:
        lines += [paragraph, ""]
    return lines


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table, and an empty line."""
    lines = [_row(headings), "|" + "---|" * len(headings)]
    lines += [_row(row) for row in rows]
    return [*lines, ""]


def code(text: str) -> str:
    """Return text as inline code, or nothing if it is empty."""
    return f"`{text}`" if text else ""


def clean_docstring(text: str | None) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def _row(cells: Sequence[str]) -> str:
    escaped = [re.sub(r"(?<!\\)\|", r"\\|", " ".join(cell.split())) for cell in cells]
    return "| " + " | ".join(escaped) + " |"
