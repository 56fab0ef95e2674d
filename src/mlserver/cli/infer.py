"""`mlserver infer`: score a file with a running server. Has all options and variables of 1.x."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

import click

from .scoring import export
from .scoring.client import Client, GRPCClient, RequestFailed, RESTClient, Target
from .scoring.client_tls import ClientTLS
from .scoring.items import ItemResult
from .scoring.output_log import OutputLog
from .scoring.progress import Progress
from .scoring.runner import RetryPolicy, ScoringJob, Unreachable, call_with_retries
from .scoring.source import JSONLines, Source, check_input, open_source
from .terminal import CommandError, interrupt_on_sigterm

F = TypeVar("F", bound=Callable[..., Any])

# Default of --batch-size: rows of a table, and JSON lines, in one request.
TABLE_BATCH_SIZE, LINE_BATCH_SIZE = 256, 1
# The job stops if so many items, in so many requests or more, have failed and none has a response.
MAX_FAILED_ITEMS, MAX_FAILED_WORK_ITEMS = 20, 3
# Characters of the first failure's message on standard error; the output has the whole message.
MAX_MESSAGE_LENGTH = 500

# Matches `A:1`; matches neither `A:` nor `https://host`.
_HEADER_WORD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:(?!//).+")

_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Header(click.ParamType):  # type: ignore[type-arg]
    """`Name: value`; a variable has one per line, or several `Name:value` in a line."""

    name = "NAME: VALUE"

    def split_envvar_value(self, rv: str) -> list[str]:
        lines = [line.strip() for line in rv.splitlines() if line.strip()]
        return [header for line in lines for header in _split_headers(line)]

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, colon, text = str(value).partition(":")
        if not colon or not name.strip():
            self.fail(f"expected 'Name: value', received {value!r}", param, ctx)
        return name.strip(), text.strip()


def _split_headers(line: str) -> list[str]:
    """Return each word as a header if all words are `Name:value`, else the line as one header."""
    words = line.split()
    return words if all(_HEADER_WORD.fullmatch(word) for word in words) else [line]


def _option(*names: str, env: str, **options: Any) -> Callable[[F], F]:
    return click.option(*names, envvar=f"MLSERVER_INFER_{env}", show_default=True, **options)


@click.command(name="infer", short_help="Score a file of requests or rows with a running server.")
@_option(
    "--url",
    "-u",
    env="URL",
    default="localhost:8080",
    help="Server as HOST:PORT; for gRPC, the gRPC port.",
)
@_option("--model-name", "-m", env="MODEL_NAME", required=True, help="Name of the model.")
@_option(
    "--input-data-path",
    "-i",
    "source",
    env="INPUT_DATA_PATH",
    required=True,
    type=click.Path(path_type=Path),
    help="Input: .csv, .tsv, .parquet, .jsonl (a V2 request per line) or .json (one, or a list).",
)
@_option(
    "--output-data-path",
    "-o",
    "output",
    env="OUTPUT_DATA_PATH",
    required=True,
    type=click.Path(path_type=Path),
    help="Output: .csv, .tsv, .parquet, or .jsonl (also .json) with a V2 response per line.",
)
@_option(
    "--workers",
    "-w",
    env="WORKERS",
    default=10,
    type=click.IntRange(1),
    help="Maximum number of requests in flight.",
)
@_option(
    "--retries",
    "-r",
    env="RETRIES",
    default=3,
    type=click.IntRange(0),
    help="Retries of a failed request.",
)
@_option(
    "--retry-pause",
    env="RETRY_PAUSE",
    default=1.0,
    type=click.FloatRange(0),
    help="Seconds before the first retry, doubled for each further one; Retry-After overrides it.",
)
@_option(
    "--batch-size",
    "-s",
    env="BATCH_SIZE",
    type=click.IntRange(1),
    help="Lines or rows in one request."
    f"  [default: {LINE_BATCH_SIZE}; for tables {TABLE_BATCH_SIZE}]",
)
@_option(
    "--binary-data",
    "-b",
    env="BINARY_DATA",
    is_flag=True,
    help="Send tensors as binary data instead of JSON numbers.",
)
@_option("--verbose", "-v", env="VERBOSE", is_flag=True, help="Print every failed item.")
@_option("--extra-verbose", "-vv", env="EXTRA_VERBOSE", is_flag=True, help="Print every item.")
@_option(
    "--transport",
    "-t",
    env="TRANSPORT",
    default="rest",
    type=click.Choice(["rest", "grpc"]),
    help="Protocol.",
)
@_option(
    "--request-headers",
    "-H",
    "headers",
    env="REQUEST_HEADERS",
    multiple=True,
    type=_Header(),
    help="Header of every request; may be repeated.",
)
@_option(
    "--timeout",
    env="CONNECTION_TIMEOUT",
    default=60.0,
    type=click.FloatRange(0, min_open=True),
    help="Timeout of a request, in seconds.",
)
@_option(
    "--batch-interval",
    env="BATCH_INTERVAL",
    default=0.0,
    type=click.FloatRange(0),
    help="Seconds that each worker waits before a request.",
)
@_option(
    "--batch-jitter",
    env="BATCH_JITTER",
    default=0.0,
    type=click.FloatRange(0),
    help="Maximum of a random delay in seconds, added to --batch-interval.",
)
@_option("--use-ssl", env="USE_SSL", is_flag=True, help="Use TLS.")
@_option("--insecure", env="INSECURE", is_flag=True, help="Accept any server certificate.")
@_option(
    "--ca",
    env="CA",
    type=_PEM,
    help="Certificate authorities, PEM file.  [default: those of the system]",
)
@_option("--certificate", env="CERTIFICATE", type=_PEM, help="Client certificate, PEM file.")
@_option(
    "--key",
    env="KEY",
    type=_PEM,
    help="Key of the client certificate, PEM.  [default: --certificate]",
)
@_option(
    "--resume",
    env="RESUME",
    is_flag=True,
    help="Keep the responses of an earlier run; send failed and missing items only.",
)
@_option(
    "--overwrite",
    "--force",
    env="OVERWRITE",
    is_flag=True,
    help="Replace an existing output.",
)
def command(source: Path, output: Path, resume: bool, overwrite: bool, **options: Any) -> None:
    """Send every line or row of the input to a model, and write the responses in input order.

    Exit code 0: every item has a response. 1: some items failed; their lines have the error. The
    job stops early if all of the first items fail. 130: interrupted; --resume continues the job.

    \b
    Examples:
      mlserver infer -m wine -i wines.csv -o quality.csv
      mlserver infer -m wine -i requests.jsonl -o answers.jsonl -w 20 --resume
    """
    retry_policy = RetryPolicy(
        options["retries"],
        options["retry_pause"],
        options["batch_interval"],
        options["batch_jitter"],
    )
    check_input(source)
    export.check_output(output)
    if not (resume or overwrite):
        export.require_new_output(output)
    if output.exists() and source.exists() and output.samefile(source):
        raise CommandError(f"{output}: the output is the input")
    client = _create_client(options)
    try:
        with interrupt_on_sigterm():
            _run(client, source, output, resume, retry_policy, options)
    except Unreachable as error:
        raise CommandError(f"{error.message}; --resume continues the job") from None
    finally:
        client.close()


def _create_client(options: dict[str, Any]) -> Client:
    target = Target(
        options["url"],
        options["model_name"],
        options["binary_data"],
        dict(options["headers"]),
        options["timeout"],
        options["use_ssl"],
        ClientTLS(options["ca"], options["certificate"], options["key"], not options["insecure"]),
    )
    if options["transport"] == "rest":
        return RESTClient(target)
    if options["insecure"]:
        raise click.UsageError("--insecure is for rest only: gRPC always verifies certificates.")
    return GRPCClient(target)


def _run(
    client: Client,
    path: Path,
    output: Path,
    resume: bool,
    retry_policy: RetryPolicy,
    options: dict[str, Any],
) -> None:
    source = _open_source(client, path, retry_policy)
    total = source.count()
    default_size = LINE_BATCH_SIZE if isinstance(source, JSONLines) else TABLE_BATCH_SIZE
    job = ScoringJob(client, options["workers"], retry_policy)
    log_path = export.get_log_path(output)
    with OutputLog(log_path, resume) as output_log:
        last_item = max(output_log.done, default=-1)
        if last_item >= total:
            raise CommandError(
                f"{log_path} has a response to item {last_item}, but {path} has {total} items:"
                " it is the output of another input"
            )
        progress = Progress(total, len(output_log.done), sys.stderr)
        work_items = source.read_work_items(options["batch_size"] or default_size, output_log.done)
        try:
            first_failure = _write_results(job.run(work_items), output_log, progress, options)
            output_log.finish()
        finally:
            progress.clear()
            click.echo(progress.format_summary(), err=True)
    if log_path != output:
        export.export(log_path, output)
        if not progress.failed:
            log_path.unlink()
    if progress.failed:
        reason = _format_failure(first_failure)
        failed = f"{progress.failed} of {total} failed, the first{reason}"
        raise CommandError(f"{failed}; --resume retries them")


def _write_results(
    groups: Generator[list[ItemResult]],
    output_log: OutputLog,
    progress: Progress,
    options: dict[str, Any],
) -> ItemResult | None:
    """Write all results, and return the first failed one.

    Raises:
        CommandError: all of the first items failed, so that the others would probably fail as well.
    """
    first_failure: ItemResult | None = None
    for work_items, results in enumerate(groups, 1):
        failed = [result for result in results if not output_log.write(result)]
        output_log.flush()
        if failed and first_failure is None:
            first_failure = failed[0]
            progress.clear()
            click.echo(f"first failure{_format_failure(first_failure)}", err=True)
        if options["extra_verbose"]:
            _print_items(results)
        elif options["verbose"]:
            _print_items(failed)
        progress.add(len(results), len(failed))
        has_failed = work_items >= MAX_FAILED_WORK_ITEMS and progress.done >= MAX_FAILED_ITEMS
        if has_failed and progress.failed == progress.done < progress.total - progress.kept:
            groups.close()
            raise CommandError(
                f"stopped: all of the first {progress.done} items failed, the first"
                f"{_format_failure(first_failure)}; --resume continues the job"
            )
    return first_failure


def _format_failure(result: ItemResult | None) -> str:
    """Return the first failure's message, shortened to one line."""
    if result is None or result.failure is None:
        return ""
    message = " ".join(result.failure.message.split())
    if len(message) > MAX_MESSAGE_LENGTH:
        message = f"{message[:MAX_MESSAGE_LENGTH]}..."
    return f" (item {result.item}): {message}"


def _open_source(client: Client, path: Path, retry_policy: RetryPolicy) -> Source:
    """Open the input, with the model's metadata for tables.

    Raises:
        CommandError: the model is unknown, or the input cannot be read.
    """
    try:
        metadata = call_with_retries(client.metadata, retry_policy, threading.Event())
    except RequestFailed as error:
        raise CommandError(error.message) from None
    return open_source(path, metadata)


def _print_items(results: list[ItemResult]) -> None:
    for result in results:
        text = result.failure.message if result.failure else "answered"
        click.echo(f"{result.item}: {' '.join(text.split())}", err=True)
