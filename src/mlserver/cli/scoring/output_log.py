"""Output of a scoring job as JSON lines; a run can resume it, and the end sorts it by item."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from ...errors import MLServerError
from ...wire import json
from ..terminal import CommandError
from .items import ItemFailure, ItemResult
from .source import read_response_item


class LogLine(NamedTuple):
    """Item, offset in bytes and size in bytes of one line."""

    item: int
    offset: int
    size: int


class OutputLog:
    """File of JSON lines, each with the index of its item.

    Args:
        resume: Keep the responses in the file, and drop its failures; False = truncate the file.

    Raises:
        CommandError: the file cannot be written.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self._path = path
        self.done: set[int] = set()
        self._last_item = -1
        self._is_sorted = True
        try:
            if resume and path.exists():
                self._keep_responses()
            self._file = path.open("ab" if resume else "wb")
        except OSError as error:
            raise CommandError(f"{path}: cannot be written: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, result: ItemResult) -> bool:
        """Write one line; return whether it is a response.

        A response that JSON cannot represent is written as a failure.
        """
        try:
            line = json.write_document(result.to_document())
        except MLServerError as error:
            result = ItemResult(result.item, failure=ItemFailure(error.message))
            line = json.write_document(result.to_document())
        self._file.write(line + b"\n")
        self._is_sorted = self._is_sorted and result.item > self._last_item
        self._last_item = result.item
        return result.failure is None

    def flush(self) -> None:
        """Pass buffered lines to the operating system, so that they survive an interruption."""
        self._file.flush()

    def finish(self) -> None:
        """Close the file, and sort its lines by item if a resumed run has appended to it."""
        self._file.close()
        if not self._is_sorted:
            self._rewrite(sorted(self._read_index(self._path)))
            self._is_sorted = True

    # -- lines of an earlier run --

    def _keep_responses(self) -> None:
        """Drop failures, an incomplete last line, and repeated responses to one item."""
        lines: dict[int, LogLine] = {}
        for line in self._read_index(self._path, responses_only=True):
            lines.setdefault(line.item, line)
        self._rewrite(sorted(lines.values()))
        self.done = set(lines)
        self._last_item = max(lines, default=-1)

    @staticmethod
    def _read_index(path: Path, responses_only: bool = False) -> Iterator[LogLine]:
        read_item = read_response_item if responses_only else _read_item
        offset = 0
        with path.open("rb") as file:
            for line in file:
                item = read_item(line)
                if item is not None and line.endswith(b"\n"):
                    yield LogLine(item, offset, len(line))
                offset += len(line)

    def _rewrite(self, lines: list[LogLine]) -> None:
        """Replace the file atomically by some of its lines."""
        with (
            self._path.open("rb") as old,
            tempfile.NamedTemporaryFile(
                dir=self._path.parent, prefix=f".{self._path.name}.", delete=False
            ) as new,
        ):
            for line in lines:
                _copy_line(old, new, line)
        os.chmod(new.name, self._path.stat().st_mode)
        os.replace(new.name, self._path)


def _copy_line(old: IO[bytes], new: IO[bytes], line: LogLine) -> None:
    old.seek(line.offset)
    new.write(old.read(line.size))


def _read_item(line: bytes) -> int | None:
    """Return the item of a line; None = the line is invalid."""
    try:
        item = json.read_json(line)["parameters"]["batch_index"]
    except (MLServerError, KeyError, TypeError):
        return None
    return item if isinstance(item, int) else None
