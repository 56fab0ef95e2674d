"""Bar charts of the summary as SVG: text and bars that are readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

OURS, OTHERS = "#d1495b", "#7d93a6"
# A contrast of 4:1 with white and with the dark scheme of the site: a picture in a page does not
# know which scheme the reader has chosen.
TEXT = "#76808a"
WIDTH, LABEL_WIDTH, NUMBER_WIDTH = 720, 190, 80
ROW, BAR, TOP = 26, 16, 40
FONT = "font-family='system-ui, sans-serif'"


@dataclass(frozen=True)
class Chart:
    """A chart of one number per server.

    Attributes:
        name: Name of the file, without `.svg`.
        title: What is measured, with its unit.
        values: Server's title -> number.
        is_more_better: Whether the largest number is the best; the best is on top.
        digits: Decimals of the numbers.
    """

    name: str
    title: str
    values: Mapping[str, float]
    is_more_better: bool
    digits: int = 0


def write(chart: Chart, own_title: str, folder: Path) -> Path:
    """Write a chart; `own_title` is the server in the colour of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{chart.name}.svg"
    path.write_text(render(chart, own_title))
    return path


def render(chart: Chart, own_title: str) -> str:
    """Return the SVG document."""
    ordered = sorted(chart.values.items(), key=lambda item: item[1], reverse=chart.is_more_better)
    height = TOP + ROW * len(ordered) + 4
    scale = (WIDTH - LABEL_WIDTH - NUMBER_WIDTH) / max(chart.values.values())
    label = "; ".join(f"{title} {number:,.{chart.digits}f}" for title, number in ordered)
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' role='img'"
        f" aria-label='{_quote(f'{chart.title}: {label}')}'>",
        f"<text x='0' y='18' {FONT} font-size='15' font-weight='600' fill='{TEXT}'>"
        f"{escape(chart.title)}</text>",
    ]
    for index, (title, number) in enumerate(ordered):
        lines += _render_row(index, title, number, scale, chart, title == own_title)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _render_row(
    index: int, title: str, number: float, scale: float, chart: Chart, is_own: bool
) -> list[str]:
    top = TOP + ROW * index
    middle, width = top + BAR / 2 + 5, max(1.0, number * scale)
    weight = "600" if is_own else "400"
    style = f"{FONT} font-size='13' font-weight='{weight}' fill='{TEXT}'"
    colour = OURS if is_own else OTHERS
    return [
        f"<text x='{LABEL_WIDTH - 10}' y='{middle:.0f}' text-anchor='end' {style}>"
        f"{escape(title)}</text>",
        f"<rect x='{LABEL_WIDTH}' y='{top}' width='{width:.1f}' height='{BAR}' rx='2'"
        f" fill='{colour}'/>",
        f"<text x='{LABEL_WIDTH + width + 8:.1f}' y='{middle:.0f}' {style}>"
        f"{number:,.{chart.digits}f}</text>",
    ]


def _quote(text: str) -> str:
    return escape(text, {"'": "&#39;"})
