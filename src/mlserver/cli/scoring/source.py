"""From a file of V2 requests (JSON lines, or one JSON document) to work. Tables are read by `tables`."""

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

# `.txt` and no ending at all are JSON lines, as they were for MLServer 1.x.
SUFFIXES = (".csv", ".tsv", ".parquet", ".pq", ".json", ".jsonl", ".ndjson", ".txt")


class Source(Protocol):
    """An input file."""

    def count(self) -> int:
        """How many items it has."""
        ...

    def works(self, size: int, done: set[int]) -> Iterator[WorkItem]:
        """All items that are not `done`, in order, up to `size` of them together."""
        ...


def open_source(path: Path, metadata: MetadataModelResponse | None) -> Source:
    """The reader for a file, by its name: see `SUFFIXES`.

    Raises:
        Failed: it cannot be read.
    """
    check_suffix(path)
    if not path.is_file():
        raise CommandError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        from .csv_table import CSVTable

        return CSVTable(path, metadata)
    if suffix in (".parquet", ".pq"):
        from .parquet_table import ParquetTable

        return ParquetTable(path, metadata)
    if suffix == ".json" and not has_request_per_line(path):
        return JSONDocument(path)
    return JSONLines(path)


def check_suffix(path: Path) -> None:
    """Raises `CommandError` for a file whose name does not say how to read it."""
    if path.suffix and path.suffix.lower() not in SUFFIXES:
        raise CommandError(
            f"{path}: expected a name that ends in {', '.join(SUFFIXES)}, received '{path.suffix}'"
        )


def has_request_per_line(path: Path) -> bool:
    """Whether a `.json` file holds JSON lines: its first line is a whole object, and another one follows."""
    with path.open("rb") as file:
        lines = (line for line in file if line.strip())
        first, second = next(lines, b""), next(lines, None)
    try:
        document = json.read_json(first)
    except MLServerError:
        return False
    return isinstance(document, dict) and second is not None


class JSONLines:
    """A V2 request per line, blank lines left out. Requests that agree in everything but their rows are joined."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def count(self) -> int:
        with self._path.open("rb") as file:
            return sum(1 for line in file if line.strip())

    def works(self, size: int, done: set[int]) -> Iterator[WorkItem]:
        waiting: list[tuple[int, InferenceRequest]] = []
        for number, line in enumerate(self._lines()):
            if number in done:
                continue
            try:
                request = read(line)
            except MLServerError as error:
                if waiting:
                    yield joined(waiting)
                    waiting = []
                yield WorkItem(
                    [number], [0], [None], None, {number: ItemFailure(error.message, NOT_SENT)}
                )
                continue
            if waiting and not _agree(waiting[0][1], request):
                yield joined(waiting)
                waiting = []
            waiting.append((number, request))
            if len(waiting) >= size or not rows_of(request):
                yield joined(waiting)
                waiting = []
        if waiting:
            yield joined(waiting)

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            yield from (line for line in file if line.strip())


class JSONDocument(JSONLines):
    """One JSON document: a V2 request, or a list of them.

    Raises:
        Failed: it is not valid JSON, or neither an object nor a list.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            document = json.read_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
        except MLServerError as error:
            raise CommandError(f"{path}: {error.message}") from None
        if not isinstance(document, (dict, list)):
            raise CommandError(
                f"{path}: expected a V2 request or a list of them, received {type(document).__name__}"
            )
        self._requests = document if isinstance(document, list) else [document]

    def count(self) -> int:
        return len(self._requests)

    def _lines(self) -> Iterator[bytes]:
        return (json.write_document(request) for request in self._requests)


def read(line: bytes) -> InferenceRequest:
    """One line. Raises `MLServerError`: it is no request, or a tensor's data does not fit its shape."""
    request = json.read_request(line)
    for tensor in request.inputs:
        try:
            tensor.data.normalize(str(tensor.datatype), tensor.shape)
        except TensorError as error:
            raise MLServerError(f"Invalid data of input '{tensor.name}': {error}") from None
    return request


def _agree(one: InferenceRequest, other: InferenceRequest) -> bool:
    return bool(rows_of(one)) and bool(rows_of(other)) and bool(batch_key(one) == batch_key(other))


def joined(members: list[tuple[int, InferenceRequest]]) -> WorkItem:
    """One request of several; each keeps its number and its id."""
    requests = [request for _, request in members]
    items = [number for number, _ in members]
    rows = [rows_of(request) for request in requests]
    ids = [request.id for request in requests]
    if len(members) == 1:
        [request] = requests
        request.id = request.id or generate_uuid()
        return WorkItem(items, rows, ids, request)
    request = join(requests)
    request.id = generate_uuid()
    middle = len(members) // 2
    return WorkItem(
        items,
        rows,
        ids,
        request,
        halves=lambda: (joined(members[:middle]), joined(members[middle:])),
    )


def line_is_response(line: bytes) -> int | None:
    """The number of the item that a line of an output file answers; None = it is a failure, or cut off."""
    with suppress(MLServerError):
        document = json.read_json(line)
        if isinstance(document, dict) and "outputs" in document:
            number = document.get("parameters", {}).get("batch_index")
            return number if isinstance(number, int) else None
    return None
