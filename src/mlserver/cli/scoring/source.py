"""Input files: V2 requests as JSON lines or one JSON document; opens tables by their suffix."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ...batching.batch import batch_key, join, rows_of
from ...errors import MLServerError
from ...tensor import TensorError
from ...types import InferenceRequest, MetadataModelResponse
from ...utils import generate_uuid
from ...wire import json
from ..terminal import CommandError
from .items import NOT_SENT, ItemFailure, WorkItem

# MLServer 1.x reads `.txt` and names without a suffix as JSON lines.
SUFFIXES = (".csv", ".tsv", ".parquet", ".pq", ".json", ".jsonl", ".ndjson", ".txt")


class Source(Protocol):
    """An input file."""

    def count(self) -> int:
        """Return the number of items."""
        ...

    def read_work_items(self, batch_size: int, done: set[int]) -> Iterator[WorkItem]:
        """Yield all items that are not `done`, in order, at most `batch_size` per work item."""
        ...


def open_source(path: Path, metadata: MetadataModelResponse | None) -> Source:
    """Return the reader for a file, selected by its suffix.

    Raises:
        CommandError: the file does not exist, cannot be read, or has a suffix not in SUFFIXES.
    """
    check_input(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        from .csv_table import CSVTable

        return CSVTable(path, metadata)
    if suffix in (".parquet", ".pq"):
        from .parquet_table import ParquetTable

        return ParquetTable(path, metadata)
    if suffix == ".json" and not is_json_lines(path):
        return JSONDocument(path)
    return JSONLines(path)


def check_input(path: Path) -> None:
    """Raise `CommandError` unless the file exists and its suffix is empty or one of SUFFIXES."""
    check_suffix(path)
    if not path.is_file():
        raise CommandError(f"{path}: no such file")


def check_suffix(path: Path) -> None:
    """Raise `CommandError` unless the suffix is empty or one of SUFFIXES."""
    if path.suffix and path.suffix.lower() not in SUFFIXES:
        raise CommandError(
            f"{path}: expected a name that ends in {', '.join(SUFFIXES)}, received '{path.suffix}'"
        )


def is_json_lines(path: Path) -> bool:
    """Return whether a `.json` file has JSON lines: a complete object, and a second line."""
    with path.open("rb") as file:
        lines = (line for line in file if line.strip())
        first_line, second_line = next(lines, b""), next(lines, None)
    try:
        document = json.read_json(first_line)
    except MLServerError:
        return False
    return isinstance(document, dict) and second_line is not None


class JSONLines:
    """A V2 request per line; empty lines are skipped, and requests of equal inputs are joined."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def count(self) -> int:
        with self._path.open("rb") as file:
            return sum(1 for line in file if line.strip())

    def read_work_items(self, batch_size: int, done: set[int]) -> Iterator[WorkItem]:
        batch: list[tuple[int, InferenceRequest]] = []
        for item, line in enumerate(self._read_lines()):
            if item in done:
                continue
            try:
                request = read_request(line)
            except MLServerError as error:
                if batch:
                    yield join_items(batch)
                    batch = []
                failed = {item: ItemFailure(error.message, NOT_SENT)}
                yield WorkItem([item], [0], [None], None, failed)
                continue
            if batch and not _can_join(batch[0][1], request):
                yield join_items(batch)
                batch = []
            batch.append((item, request))
            if len(batch) >= batch_size or not rows_of(request):
                yield join_items(batch)
                batch = []
        if batch:
            yield join_items(batch)

    def _read_lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            yield from (line for line in file if line.strip())


class JSONDocument(JSONLines):
    """One JSON document: a V2 request, or a list of them.

    Raises:
        CommandError: the file is not valid JSON, or neither an object nor a list.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            document = json.read_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
        except MLServerError as error:
            raise CommandError(f"{path}: {error.message}") from None
        if not isinstance(document, (dict, list)):
            raise CommandError(
                f"{path}: expected a V2 request or a list of them,"
                f" received {type(document).__name__}"
            )
        self._requests = document if isinstance(document, list) else [document]

    def count(self) -> int:
        return len(self._requests)

    def _read_lines(self) -> Iterator[bytes]:
        return (json.write_document(request) for request in self._requests)


def read_request(line: bytes) -> InferenceRequest:
    """Parse one line.

    Raises:
        MLServerError: the line is not a request, or the data of an input does not fit its shape.
    """
    request = json.read_request(line)
    for tensor in request.inputs:
        try:
            tensor.data.normalize(str(tensor.datatype), tensor.shape)
        except TensorError as error:
            raise MLServerError(f"Invalid data of input '{tensor.name}': {error}") from None
    return request


def _can_join(first: InferenceRequest, second: InferenceRequest) -> bool:
    has_rows = bool(rows_of(first)) and bool(rows_of(second))
    return has_rows and bool(batch_key(first) == batch_key(second))


def join_items(batch: list[tuple[int, InferenceRequest]]) -> WorkItem:
    """Return one work item for several items; each item keeps its index and its id."""
    items = [item for item, _ in batch]
    requests = [request for _, request in batch]
    rows = [rows_of(request) for request in requests]
    ids = [request.id for request in requests]
    if len(batch) == 1:
        [request] = requests
        request.id = request.id or generate_uuid()
        return WorkItem(items, rows, ids, request)

    def make_halves() -> tuple[WorkItem, WorkItem]:
        middle = len(batch) // 2
        return join_items(batch[:middle]), join_items(batch[middle:])

    request = join(requests)
    request.id = generate_uuid()
    return WorkItem(items, rows, ids, request, halves=make_halves)


def read_response_item(line: bytes) -> int | None:
    """Return the item of a line of the output log; None = a failure, or an incomplete line."""
    with suppress(MLServerError):
        document = json.read_json(line)
        if isinstance(document, dict) and "outputs" in document:
            item = document.get("parameters", {}).get("batch_index")
            return item if isinstance(item, int) else None
    return None
