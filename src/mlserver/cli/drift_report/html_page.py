"""The report as a page of HTML with plots: one file, without scripts, that loads nothing.

Names and values are escaped: clients choose them.
"""

from __future__ import annotations

from html import escape

from .comparison import DriftReport
from .statistics import SHIFTED, STABLE, Bar, ColumnDrift
from .table import describe, format_change, format_means, list_remarks

WIDTH, HEIGHT = 520, 150
_LEFT, _BOTTOM = 4, 20
MAX_BARS = 24
MAX_LABEL = 14

_STYLE = """
:root { color-scheme: light dark; --text: #1c2127; --muted: #5f6b7c; --line: #d3d8de;
  --back: #fff; --card: #f6f7f9; --reference: #8f99a8; --logged: #2d72d2;
  --stable: #165a36; --moderate: #935610; --shifted: #ac2f33; }
@media (prefers-color-scheme: dark) { :root { --text: #f6f7f9; --muted: #abb3bf; --line: #404854;
  --back: #1c2127; --card: #252a31; --reference: #738091; --logged: #4c90f0;
  --stable: #72ca9b; --moderate: #fbb360; --shifted: #fa999c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px; background: var(--back);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 8px; }
p { margin: 4px 0; } .muted { color: var(--muted); }
.remark { border-left: 3px solid var(--moderate); padding-left: 10px; margin: 8px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th { color: var(--muted); font-weight: 600; }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
a { color: inherit; } .stable { color: var(--stable); } .moderate { color: var(--moderate); }
.shifted { color: var(--shifted); font-weight: 600; }
.meter { display: inline-block; width: 90px; height: 8px; background: var(--line);
  border-radius: 4px; overflow: hidden; margin-right: 8px; }
.meter i { display: block; height: 100%; background: currentColor; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr));
  gap: 16px; }
.card { background: var(--card); border-radius: 8px; padding: 14px 16px; min-width: 0; }
.card h3 { margin: 0; font-size: 16px; overflow-wrap: anywhere; }
.card p { font-size: 13px; }
svg { width: 100%; height: auto; display: block; margin-top: 6px; }
svg text { font-size: 11px; fill: var(--muted); } .r { fill: var(--reference); }
.l { fill: var(--logged); } .axis { stroke: var(--line); }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 5px 0 14px; }
"""


def render(report: DriftReport) -> str:
    """Return the page."""
    title = f"Drift of model {escape(report.payloads.model)}"
    remarks = [f'<p class="remark">{escape(line)}</p>' for line in list_remarks(report)]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        f'<p class="muted">{escape(describe(report))}</p>',
        f"<p>{_summarize(report)}</p>",
        *remarks,
        "<h2>Inputs</h2>",
        _render_table(report.inputs, "i"),
    ]
    if report.outputs:
        parts += ["<h2>Predictions</h2>", _render_table(report.outputs, "o")]
    parts += [
        '<h2>Distributions <span class="muted">'
        '<span class="key" style="background:var(--reference)"></span>reference'
        '<span class="key" style="background:var(--logged)"></span>log</span></h2>',
        '<div class="cards">',
        *_render_cards(report.outputs, "o"),
        *_render_cards(report.inputs, "i"),
        "</div>",
        '<p class="muted" style="margin-top:24px">PSI: population stability index over quantile'
        f" bins of the reference, or over its values. Below {STABLE}: stable; from {SHIFTED} on:"
        " shifted. Outside: beyond the reference's range, or a value that it does not have."
        " Invalid: not a number where the reference has numbers.</p>",
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _summarize(report: DriftReport) -> str:
    compared = [column for column in report.columns if column.psi is not None]
    shifted = [column.name for column in compared if column.verdict == "shifted"]
    if not shifted:
        return f'<span class="stable">None of {len(compared)} columns has shifted.</span>'
    names = ", ".join(map(escape, shifted))
    text = f"{len(shifted)} of {len(compared)} columns have shifted: {names}"
    return f'<span class="shifted">{text}</span>'


def _render_table(columns: list[ColumnDrift], prefix: str) -> str:
    names = ("column", "PSI", "", "values", "missing", "invalid", "outside", "mean")
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = [_render_row(column, f"{prefix}{number}") for number, column in enumerate(columns)]
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>'
        f"{''.join(rows)}</tbody></table></div>"
    )


def _render_row(column: ColumnDrift, anchor: str) -> str:
    name = escape(column.name)
    if column.psi is None:
        verdict = f'<span class="muted">{escape(column.note)}</span>'
        return f'<tr><td>{name}</td><td></td><td colspan="6">{verdict}</td></tr>'
    width = min(100.0, column.psi / (2 * SHIFTED) * 100)
    meter = f'<span class="meter"><i style="width:{width:.0f}%"></i></span>'
    cells = [
        str(column.count),
        format_change(column.reference_missing, column.missing).replace("->", "&rarr;"),
        f"{column.invalid:.1%}",
        f"{column.outside:.1%}",
        format_means(column).replace("->", "&rarr;"),
    ]
    return (
        f'<tr><td><a href="#{anchor}">{name}</a></td>'
        f'<td class="{column.verdict}">{meter}{column.psi:.3f}</td>'
        f'<td class="{column.verdict}">{column.verdict}</td>'
        f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    )


def _render_cards(columns: list[ColumnDrift], prefix: str) -> list[str]:
    return [_render_card(column, f"{prefix}{number}") for number, column in enumerate(columns)]


def _render_card(column: ColumnDrift, anchor: str) -> str:
    if not column.bars or column.psi is None:
        return ""
    means = format_means(column).replace("->", "&rarr;")
    text = f"mean {means}; " if means else ""
    highest = max(max(bar.reference, bar.logged) for bar in column.bars)
    return (
        f'<section class="card" id="{anchor}"><h3>{escape(column.name)} '
        f'<span class="{column.verdict}">{column.psi:.3f} {column.verdict}</span></h3>'
        f'<p class="muted">{text}{column.outside:.1%} outside; highest bar {highest:.1%}</p>'
        f"{_render_plot(column)}</section>"
    )


def _render_plot(column: ColumnDrift) -> str:
    bars = column.bars[:MAX_BARS]
    top = max(max(bar.reference, bar.logged) for bar in bars) or 1.0
    step = (WIDTH - _LEFT) / len(bars)
    floor = HEIGHT - _BOTTOM
    is_number = len(column.bars) == MAX_BARS and column.kind == "number"
    shapes = [
        _render_bar(bar, _LEFT + number * step, step, floor, top) for number, bar in enumerate(bars)
    ]
    labels = _label_ends(bars) if is_number else _label_bars(bars, step)
    title = escape(f"Shares of {column.name} in the reference and in the log")
    hidden = len(column.bars) - len(bars)
    more = f'<p class="muted">{hidden} more values</p>' if hidden else ""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{"".join(shapes)}'
        f'<line class="axis" x1="0" x2="{WIDTH}" y1="{floor}" y2="{floor}"/>{labels}</svg>{more}'
    )


def _render_bar(bar: Bar, left: float, step: float, floor: float, top: float) -> str:
    width = step * 0.42
    tip = escape(f"{bar.label}: reference {bar.reference:.1%}, log {bar.logged:.1%}")
    shapes = []
    for index, (name, share) in enumerate((("r", bar.reference), ("l", bar.logged))):
        height = share / top * (floor - 8)
        shapes.append(
            f'<rect class="{name}" x="{left + step * 0.06 + index * width:.1f}"'
            f' y="{floor - height:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        )
    # A transparent area of full height, so that the tip shows between the bars too.
    area = f'<rect x="{left:.1f}" y="0" width="{step:.1f}" height="{floor}" fill="transparent"/>'
    return f"<g><title>{tip}</title>{''.join(shapes)}{area}</g>"


def _label_ends(bars: list[Bar]) -> str:
    low, high = bars[0].label.split(" to ")[0], bars[-1].label.split(" to ")[1]
    middle = bars[len(bars) // 2].label.split(" to ")[0]
    y = HEIGHT - 5
    return (
        f'<text x="{_LEFT}" y="{y}">{low}</text>'
        f'<text x="{WIDTH / 2}" y="{y}" text-anchor="middle">{middle}</text>'
        f'<text x="{WIDTH}" y="{y}" text-anchor="end">{high}</text>'
    )


def _label_bars(bars: list[Bar], step: float) -> str:
    limit = max(1, min(MAX_LABEL, int(step / 6.5)))
    texts = []
    for number, bar in enumerate(bars):
        is_long = len(bar.label) > limit
        label = f"{bar.label[: limit - 1]}\u2026" if is_long and limit > 1 else bar.label[:limit]
        x = _LEFT + (number + 0.5) * step
        texts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{escape(label)}</text>'
        )
    return "".join(texts)
