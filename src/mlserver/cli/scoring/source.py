"""From a file of V2 requests, one JSON object per line, to work. Tables are read by `tables`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ...errors import MLServerError
from ...scheduling.batch import batch_key, join, rows_of
from ...tensor import TensorError
from ...types import InferenceRequest, MetadataModelResponse
from ...utils import generate_uuid
from ...wire import json
from ..terminal import Failed
from .work import NOT_SENT, Failure, Work


class Source(Protocol):
    """An input file."""

    def count(self) -> int:
        """How many items it has."""
        ...

    def works(self, size: int, done: set[int]) -> Iterator[Work]:
        """All items that are not `done`, in order, up to `size` of them together."""
        ...


def open_source(path: Path, metadata: MetadataModelResponse | None) -> Source:
    """The reader for a file, by its name: `.csv` and `.parquet` are tables, all others JSON lines.

    Raises:
        Failed: it cannot be read.
    """
    if not path.is_file():
        raise Failed(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix == ".csv":
        from .csv_table import CSVTable

        return CSVTable(path, metadata)
    if suffix in (".parquet", ".pq"):
        from .parquet_table import ParquetTable

        return ParquetTable(path, metadata)
    return JSONLines(path)


class JSONLines:
    """A V2 request per line. Requests that agree in everything but their rows are joined."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def count(self) -> int:
        with self._path.open("rb") as file:
            return sum(1 for line in file if line.strip())

    def works(self, size: int, done: set[int]) -> Iterator[Work]:
        waiting: list[tuple[int, InferenceRequest]] = []
        for number, line in enumerate(self._lines()):
            if number in done:
                continue
            try:
                request = read(line)
            except MLServerError as problem:
                if waiting:
                    yield joined(waiting)
                    waiting = []
                yield Work([number], [0], [None], None, {number: Failure(problem.message, NOT_SENT)})
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


def read(line: bytes) -> InferenceRequest:
    """One line. Raises `MLServerError`: it is no request, or a tensor's data does not fit its shape."""
    request = json.read_request(line)
    for tensor in request.inputs:
        try:
            tensor.data.settle(str(tensor.datatype), tensor.shape)
        except TensorError as problem:
            raise MLServerError(f"Invalid data of input '{tensor.name}': {problem}") from None
    return request


def _agree(one: InferenceRequest, other: InferenceRequest) -> bool:
    return bool(rows_of(one)) and bool(rows_of(other)) and bool(batch_key(one) == batch_key(other))


def joined(members: list[tuple[int, InferenceRequest]]) -> Work:
    """One request of several; each keeps its number and its id."""
    requests = [request for _, request in members]
    items = [number for number, _ in members]
    rows = [rows_of(request) for request in requests]
    ids = [request.id for request in requests]
    if len(members) == 1:
        [request] = requests
        request.id = request.id or generate_uuid()
        return Work(items, rows, ids, request)
    request = join(requests)
    request.id = generate_uuid()
    middle = len(members) // 2
    return Work(items, rows, ids, request, halves=lambda: (joined(members[:middle]), joined(members[middle:])))


def line_is_response(line: bytes) -> int | None:
    """The number of the item that a line of an output file answers; None = it is a failure, or cut off."""
    with suppress(MLServerError):
        document = json.read_json(line)
        if isinstance(document, dict) and "outputs" in document:
            number = document.get("parameters", {}).get("batch_index")
            return number if isinstance(number, int) else None
    return None
