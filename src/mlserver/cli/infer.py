"""`mlserver infer`: score a file against a running server. The flags and variables are those of MLServer 1.x, and more."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from .scoring import export
from .scoring.client import Client, GRPCClient, Refusal, RESTClient, Target
from .scoring.client_tls import Trust
from .scoring.items import ItemResult
from .scoring.output_log import OutputLog
from .scoring.progress import Progress
from .scoring.runner import RetryPolicy, ScoringJob, Unreachable, patiently
from .scoring.source import JSONLines, Source, check_suffix, open_source
from .terminal import CommandError

F = TypeVar("F", bound=Callable[..., Any])

# Rows of a table in one request, and lines of JSON, unless the user says.
TABLE_BATCH, LINE_BATCH = 256, 1
# Characters of the reason that the command ends with; all of it is in the output.
MAX_REASON = 500

# `A:1`, but neither `A:` nor `https://host`.
_HEADER_WORD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:(?!//).+")

_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Header(click.ParamType):  # type: ignore[type-arg]
    """`Name: value`; in the environment, one per line, or several `Name:value` with spaces between them."""

    name = "NAME: VALUE"

    def split_envvar_value(self, rv: str) -> list[str]:
        lines = [line.strip() for line in rv.splitlines() if line.strip()]
        return [header for line in lines for header in _headers_of(line)]

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, colon, text = str(value).partition(":")
        if not colon or not name.strip():
            self.fail(f"expected 'Name: value', received {value!r}", param, ctx)
        return name.strip(), text.strip()


def _headers_of(line: str) -> list[str]:
    """The headers in a line: one for each word where all words are `Name:value`, else one."""
    words = line.split()
    return words if all(_HEADER_WORD.fullmatch(word) for word in words) else [line]


def _option(*names: str, env: str, **options: Any) -> Callable[[F], F]:
    return click.option(*names, envvar=f"MLSERVER_INFER_{env}", show_default=True, **options)


@click.command(
    name="infer", short_help="Score a file of requests or rows against a running server."
)
@_option(
    "--url",
    "-u",
    env="URL",
    default="localhost:8080",
    help="The server: HOST:PORT; for gRPC, of its gRPC port.",
)
@_option("--model-name", "-m", env="MODEL_NAME", required=True, help="The model to ask.")
@_option(
    "--input-data-path",
    "-i",
    "source",
    env="INPUT_DATA_PATH",
    required=True,
    type=click.Path(path_type=Path),
    help="The input: .csv, .tsv, .parquet, .jsonl (a V2 request per line) or .json (one, or a list).",
)
@_option(
    "--output-data-path",
    "-o",
    "output",
    env="OUTPUT_DATA_PATH",
    required=True,
    type=click.Path(path_type=Path),
    help="The output: .csv, .tsv, .parquet, or .jsonl (also .json): one answer in JSON per line.",
)
@_option(
    "--workers",
    "-w",
    env="WORKERS",
    default=10,
    type=click.IntRange(1),
    help="Requests under way at once.",
)
@_option(
    "--retries",
    "-r",
    env="RETRIES",
    default=3,
    type=click.IntRange(0),
    help="Further tries of a request.",
)
@_option(
    "--retry-pause",
    env="RETRY_PAUSE",
    default=1.0,
    type=click.FloatRange(0),
    help="Seconds before the first of them; doubled each time. A server's Retry-After counts first.",
)
@_option(
    "--batch-size",
    "-s",
    env="BATCH_SIZE",
    type=click.IntRange(1),
    help=f"Lines or rows in one request.  [default: {LINE_BATCH}; for tables {TABLE_BATCH}]",
)
@_option(
    "--binary-data",
    "-b",
    env="BINARY_DATA",
    is_flag=True,
    help="Send tensors as bytes, not as JSON numbers.",
)
@_option("--verbose", "-v", env="VERBOSE", is_flag=True, help="Name every item that failed.")
@_option("--extra-verbose", "-vv", env="EXTRA_VERBOSE", is_flag=True, help="Name every item.")
@_option(
    "--transport",
    "-t",
    env="TRANSPORT",
    default="rest",
    type=click.Choice(["rest", "grpc"]),
    help="The protocol.",
)
@_option(
    "--request-headers",
    "-H",
    "headers",
    env="REQUEST_HEADERS",
    multiple=True,
    type=_Header(),
    help="A header of every request; may be repeated.",
)
@_option(
    "--timeout",
    env="CONNECTION_TIMEOUT",
    default=60.0,
    type=click.FloatRange(0, min_open=True),
    help="Seconds to wait for an answer.",
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
    help="Up to so many more, by chance.",
)
@_option("--use-ssl", env="USE_SSL", is_flag=True, help="Speak TLS.")
@_option("--insecure", env="INSECURE", is_flag=True, help="Believe any certificate.")
@_option(
    "--ca",
    env="CA",
    type=_PEM,
    help="The authorities to believe, in PEM.  [default: the machine's]",
)
@_option(
    "--certificate", env="CERTIFICATE", type=_PEM, help="The client's own certificate, in PEM."
)
@_option("--key", env="KEY", type=_PEM, help="Its key, in PEM.  [default: in the same file]")
@_option(
    "--resume",
    env="RESUME",
    is_flag=True,
    help="Keep the answers that an earlier run wrote; send the rest, and what failed.",
)
def command(source: Path, output: Path, resume: bool, **options: Any) -> None:
    """Send every line or row of the input to a model, and write its answers in the order of the input.

    Exit code 0: every item was answered. 1: some were not; their lines hold the reason. 130: interrupted; --resume goes on.
    """
    patience = RetryPolicy(
        options["retries"],
        options["retry_pause"],
        options["batch_interval"],
        options["batch_jitter"],
    )
    check_suffix(source)
    export.check(output)
    client = _client(options)
    try:
        with _termination_interrupts():
            _run(client, source, output, resume, patience, options)
    except Unreachable as error:
        raise CommandError(f"{error.message}; --resume goes on from here") from None
    finally:
        client.close()


def _client(options: dict[str, Any]) -> Client:
    target = Target(
        options["url"],
        options["model_name"],
        options["binary_data"],
        dict(options["headers"]),
        options["timeout"],
        options["use_ssl"],
        Trust(options["ca"], options["certificate"], options["key"], not options["insecure"]),
    )
    if options["transport"] == "rest":
        return RESTClient(target)
    if options["insecure"]:
        raise click.UsageError("--insecure is for rest only: gRPC always checks certificates.")
    return GRPCClient(target)


def _run(
    client: Client,
    path: Path,
    output: Path,
    resume: bool,
    patience: RetryPolicy,
    options: dict[str, Any],
) -> None:
    source = _open(client, path, patience)
    total = source.count()
    size = options["batch_size"] or (LINE_BATCH if isinstance(source, JSONLines) else TABLE_BATCH)
    lines = export.journal_path(output)
    with OutputLog(lines, resume) as journal:
        if max(journal.done, default=-1) >= total:
            raise CommandError(
                f"{lines} answers item {max(journal.done)}, but {path} has {total} only: it is of another input"
            )
        progress = Progress(total, len(journal.done), sys.stderr)
        first: ItemResult | None = None
        try:
            for done in ScoringJob(client, options["workers"], patience).run(
                source.works(size, journal.done)
            ):
                failed = [each for each in done if not journal.write(each)]
                first = first or next(iter(failed), None)
                journal.flush()
                _tell(done, failed, options)
                progress.add(len(done), len(failed))
            journal.finish()
        finally:
            progress.end()
            click.echo(progress.summary(), err=True)
    if lines != output:
        export.export(lines, output)
        if not progress.failed:
            lines.unlink()
    if progress.failed:
        raise CommandError(
            f"{progress.failed} of {total} failed{_reason(first)}; --resume tries them again"
        )


def _reason(failed: ItemResult | None) -> str:
    """The reason of the first failure, in words for one line."""
    if failed is None or failed.failure is None:
        return ""
    words = " ".join(failed.failure.message.split())
    text = words if len(words) <= MAX_REASON else f"{words[:MAX_REASON]}..."
    return f", the first (item {failed.item}): {text}"


def _open(client: Client, path: Path, patience: RetryPolicy) -> Source:
    """The input; tables are read as the model's metadata wants it. Asking for that also shows that the model is there."""
    try:
        metadata = patiently(client.metadata, patience, threading.Event())
    except Refusal as error:
        raise CommandError(error.message) from None
    return open_source(path, metadata)


def _tell(done: list[ItemResult], failed: list[ItemResult], options: dict[str, Any]) -> None:
    if not options["verbose"] and not options["extra_verbose"]:
        return
    for each in done if options["extra_verbose"] else failed:
        what = each.failure.message if each.failure else "answered"
        click.echo(f"{each.item}: {' '.join(what.split())}", err=True)


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """SIGTERM ends a job as Ctrl-C does, with everything that was answered on disk."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
