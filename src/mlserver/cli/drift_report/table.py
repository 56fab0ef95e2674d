"""The report as a table of text; in colour on a terminal where the library rich is installed."""

from __future__ import annotations

import importlib.util
import sys

import click

from ..text_table import format_table
from .comparison import DriftReport
from .statistics import ColumnDrift

HEADER = ["column", "psi", "verdict", "values", "missing", "invalid", "outside", "mean"]
_COLOURS = {"shifted": "bold red", "moderate": "yellow", "stable": "green"}


def print_report(report: DriftReport) -> None:
    """Print the report on standard output."""
    click.echo(describe(report))
    rows = [_to_row(column) for column in report.inputs]
    rows += [_to_row(column, "output ") for column in report.outputs]
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        _print_rich(rows)
    else:
        click.echo(format_table([HEADER, *rows]))
    for line in list_remarks(report):
        click.echo(line)


def describe(report: DriftReport) -> str:
    """Return what is compared, in one line."""
    payloads = report.payloads
    return (
        f"Model '{payloads.model}': {payloads.rows} rows of {payloads.requests} requests from"
        f" {_format_time(payloads.first)} to {_format_time(payloads.last)} UTC, against"
        f" {report.reference_rows} rows of {report.reference}"
    )


def _format_time(moment: str) -> str:
    return moment[:16].replace("T", " ")


def list_remarks(report: DriftReport) -> list[str]:
    """Return remarks that qualify the numbers, one line each."""
    payloads, remarks = report.payloads, []
    noise = max([column.noise for column in report.columns], default=0.0)
    if noise > 0.05:
        remarks.append(
            f"Few rows: a PSI of about {noise:.2f} is to be expected without drift; log more"
        )
    if report.unknown:
        shares = [f"'{name}' ({share:.1%} of rows)" for name, share in report.unknown.items()]
        remarks.append(f"Inputs that the reference does not have: {', '.join(shares)}")
    if payloads.errors:
        remarks.append(f"Failed requests: {payloads.errors}")
    if payloads.without_data:
        remarks.append(
            f"Tensors without data: {payloads.without_data}, larger than 'payload_log.max_bytes'"
        )
    if payloads.skipped_lines:
        remarks.append(f"Lines that are not events: {payloads.skipped_lines}")
    return remarks


def _to_row(column: ColumnDrift, prefix: str = "") -> list[str]:
    if not column.kind:
        return [f"{prefix}{column.name}", "", column.note, "", "", "", "", ""]
    psi = "" if column.psi is None else f"{column.psi:.3f}"
    return [
        f"{prefix}{column.name}",
        psi,
        column.note or column.verdict,
        str(column.count),
        format_change(column.reference_missing, column.missing),
        f"{column.invalid:.1%}",
        f"{column.outside:.1%}",
        format_means(column),
    ]


def format_change(before: float, after: float) -> str:
    """Return a share of the reference and of the log; one if they are equal."""
    texts = f"{before:.1%}", f"{after:.1%}"
    return texts[0] if texts[0] == texts[1] else " -> ".join(texts)


def format_means(column: ColumnDrift) -> str:
    """Return the means of the reference and of the log; "" for categories."""
    if column.mean is None:
        return ""
    if column.reference_mean is None:
        return f"{column.mean:.4g}"
    return f"{column.reference_mean:.4g} -> {column.mean:.4g}"


def _print_rich(rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*HEADER, box=None, pad_edge=False)
    for row in rows:
        colour = _COLOURS.get(row[2], "")
        table.add_row(*(Text(cell, style=colour if cell == row[2] else "") for cell in row))
    Console().print(table)
