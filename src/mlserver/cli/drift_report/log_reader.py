"""Reader of payload logs: lines of all rotated files -> values of a model's inputs and outputs."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ..terminal import CommandError

# A number, a further process and a compression, after the path of the log.
_SUFFIX = re.compile(r"(\.w\d+)?(\.\d+)?(\.gz)?")
_NARROW = ("FP32", "FP16", "BF16")


@dataclass
class LoggedColumn:
    """The values of one input or output.

    Attributes:
        values: Of all events, in the order of the files; None = missing.
        is_narrow: Whether the values are floats of 32 bits or less.
    """

    values: list[Any] = field(default_factory=list)
    is_narrow: bool = False


@dataclass
class LoggedPayloads:
    """The logged payloads of one model.

    Attributes:
        inputs: Columns of the requests.
        outputs: Columns of the responses.
        requests: Request events.
        rows: Rows of all requests with values.
        errors: Failed requests.
        without_data: Tensors left out because of their size.
        masked: Names of masked columns.
        skipped_lines: Lines that are not events, such as one that a full disk has truncated.
        first: Time of the first event; "" = there is none.
        last: Time of the last event.
    """

    model: str
    inputs: dict[str, LoggedColumn] = field(default_factory=dict)
    outputs: dict[str, LoggedColumn] = field(default_factory=dict)
    requests: int = 0
    rows: int = 0
    errors: int = 0
    without_data: int = 0
    masked: set[str] = field(default_factory=set)
    skipped_lines: int = 0
    first: str = ""
    last: str = ""


def find_files(path: Path) -> list[Path]:
    """Return the files of a log: the path itself, rotated ones, and those of other processes.

    Raises:
        CommandError: there is none.
    """
    name = path.name
    candidates = sorted(path.parent.glob(f"{name}*")) if path.parent.is_dir() else []
    files = [item for item in candidates if _SUFFIX.fullmatch(item.name[len(name) :])]
    if not files:
        raise CommandError(f"{path}: expected a payload log, received no such file")
    return files


def read_log(files: Sequence[Path], model: str | None, columns: Sequence[str]) -> LoggedPayloads:
    """Return the payloads of one model.

    Args:
        model: Name of the model; None = the only one in the log.
        columns: Names of the columns of a request that is one matrix with as many columns.

    Raises:
        CommandError: a file cannot be read, the log has no event of the model, or it has several
            models and none is named.
    """
    models: dict[str, LoggedPayloads] = {}
    skipped = 0
    for event in _read_events(files):
        if event is None:
            skipped += 1
            continue
        name = event["model"]
        if model is None or name == model:
            payloads = models.setdefault(name, LoggedPayloads(name))
            _add_event(payloads, event, columns)
    if len(models) > 1:
        raise CommandError(f"--model: expected one of {', '.join(sorted(models))}")
    if not models:
        what = f"events of the model '{model}'" if model else "events"
        raise CommandError(f"{files[0]}: expected {what}, received none")
    (payloads,) = models.values()
    payloads.skipped_lines = skipped
    return payloads


def _read_events(files: Sequence[Path]) -> Iterator[dict[str, Any] | None]:
    """Yield the events of all files; None for a line that is none."""
    for path in files:
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
                for line in lines:
                    yield _parse(line)
        except (OSError, EOFError) as error:
            raise CommandError(f"{path}: cannot be read: {error}") from None


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    is_event = isinstance(event, dict) and isinstance(event.get("model"), str)
    return event if is_event and event.get("type") in ("request", "response") else None


def _add_event(payloads: LoggedPayloads, event: dict[str, Any], columns: Sequence[str]) -> None:
    moment = str(event.get("time", ""))
    payloads.first = min(payloads.first or moment, moment)
    payloads.last = max(payloads.last, moment)
    if event["type"] == "response":
        payloads.errors += "error" in event
        tensors, into = event.get("outputs", ()), payloads.outputs
    else:
        payloads.requests += 1
        tensors, into = event.get("inputs", ()), payloads.inputs
    rows = max([_add_tensor(payloads, into, tensor, columns) for tensor in tensors], default=0)
    if event["type"] == "request":
        payloads.rows += rows


def _add_tensor(
    payloads: LoggedPayloads,
    into: dict[str, LoggedColumn],
    tensor: dict[str, Any],
    columns: Sequence[str],
) -> int:
    """Add the values of a tensor to the columns; return its rows."""
    name, data = tensor["name"], tensor.get("data")
    if data is None:
        is_masked = "masked" in tensor.get("parameters", {})
        payloads.masked.update([name] if is_masked else [])
        payloads.without_data += not is_masked
        return 0
    shape = tensor["shape"]
    rows = shape[0] if shape else 1
    width = len(data) // rows if rows else 0
    names = [name]
    if width > 1:
        is_table = into is payloads.inputs and width == len(columns)
        names = list(columns) if is_table else [f"{name}[{index}]" for index in range(width)]
    for index, column_name in enumerate(names):
        column = into.setdefault(column_name, LoggedColumn())
        column.values += data[index::width] if width > 1 else data
        column.is_narrow |= tensor["datatype"] in _NARROW
    return int(rows)
