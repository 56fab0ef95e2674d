"""`mlserver drift`: compare a payload log with a reference table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from .drift_report.comparison import compare_payloads
from .drift_report.log_reader import find_files, read_log
from .drift_report.reference import read_reference
from .terminal import CommandError

# Exit code with --fail-above; 1 is the code of errors.
DRIFTED = 3


@click.command(name="drift", short_help="Compare a payload log with a reference table.")
@click.argument("log", type=click.Path(path_type=Path))
@click.option(
    "--reference",
    required=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Table to compare with: CSV, or Parquet (needs mlserver[arrow]).",
)
@click.option("-m", "--model", help="Model, if the log has several.")
@click.option(
    "--prediction",
    metavar="COLUMN",
    help="Column of the reference with predictions.  [default: the output's name, prediction]",
)
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page with plots; it loads nothing from the network.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--bins",
    type=click.IntRange(2, 100),
    default=10,
    show_default=True,
    help="Quantile bins of a number.",
)
@click.option(
    "--fail-above",
    metavar="PSI",
    type=click.FloatRange(0, min_open=True),
    help=f"Exit with code {DRIFTED} if the PSI of a column is above this value, such as 0.2.",
)
def command(
    log: Path,
    reference: Path,
    model: str | None,
    prediction: str | None,
    html: Path | None,
    as_json: bool,
    bins: int,
    fail_above: float | None,
) -> None:
    """Compare the requests and responses in a payload log with a table, such as the training data.

    LOG is the path of the setting `payload_log.to`; rotated files, those of other HTTP worker
    processes, and `.gz` files beside it are read too. Columns are found by name. For each, the
    population stability index (PSI) is printed, and the shares of missing, invalid and unseen
    values.

    \b
    Examples:
      mlserver drift payload.jsonl --reference training.parquet
      mlserver drift payload.jsonl --reference training.csv --html drift.html --fail-above 0.2
    """
    table = read_reference(reference)
    if prediction is not None and prediction not in table:
        raise click.UsageError(
            f"--prediction: expected a column of {reference.name}, received '{prediction}'"
        )
    features = [name for name in table if name != prediction]
    payloads = read_log(find_files(log), model, features)
    report = compare_payloads(payloads, table, reference.name, prediction, bins)
    if html is not None:
        from .drift_report.html_page import render

        try:
            html.write_text(render(report), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"--html {html}: cannot be written: {error.strerror}") from None
    if as_json:
        click.echo(json.dumps(report.to_document(), ensure_ascii=False, indent=2))
    else:
        from .drift_report.table import print_report

        print_report(report)
    if fail_above is not None and report.greatest > fail_above:
        names = [column.name for column in report.columns if (column.psi or 0.0) > fail_above]
        click.echo(f"PSI above {fail_above:g}: {', '.join(names)}", err=True)
        sys.exit(DRIFTED)
