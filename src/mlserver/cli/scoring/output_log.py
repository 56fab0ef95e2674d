"""The output of a job, line by line: what is in it after an interruption, and how it ends in the order of the input."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ...errors import MLServerError
from ...wire import json
from ..terminal import CommandError
from .items import ItemFailure, ItemResult
from .source import line_is_response


class OutputLog:
    """Lines of JSON, each with the number of its item.

    Args:
        path: The file.
        resume: Keep the answers that are there (not the failures, which are tried again); else begin anew.

    Raises:
        Failed: the file cannot be written.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self._path = path
        self.done: set[int] = set()
        self._last = -1
        self._in_order = True
        try:
            if resume and path.exists():
                self._tidy()
            self._file = path.open("ab" if resume else "wb")
        except OSError as error:
            raise CommandError(f"{path}: cannot be written: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, done: ItemResult) -> bool:
        """Write one line. Returns whether it is an answer: one that JSON cannot hold is written as a failure."""
        try:
            line = json.write_document(done.document())
        except MLServerError as error:
            done = ItemResult(done.item, failure=ItemFailure(error.message))
            line = json.write_document(done.document())
        self._file.write(line + b"\n")
        self._in_order = self._in_order and done.item > self._last
        self._last = done.item
        return done.failure is None

    def flush(self) -> None:
        """Hand over to the system, so that an interruption loses nothing."""
        self._file.flush()

    def finish(self) -> None:
        """Put the lines in the order of the input, if answers were added behind earlier ones."""
        self._file.close()
        if not self._in_order:
            self._rewrite(sorted(self._index(self._path), key=lambda entry: entry[0]))
            self._in_order = True

    # -- what is there --

    def _tidy(self) -> None:
        """Drop failures, a line that was cut off, and second answers to one item."""
        found: dict[int, tuple[int, int, int]] = {}
        for number, start, size in self._index(self._path, answers=True):
            found.setdefault(number, (number, start, size))
        self._rewrite(sorted(found.values()))
        self.done = set(found)
        self._last = max(found, default=-1)

    @staticmethod
    def _index(path: Path, answers: bool = False) -> Iterator[tuple[int, int, int]]:
        """Number, place and size of each line."""
        start = 0
        with path.open("rb") as file:
            for line in file:
                number = line_is_response(line) if answers else _number_of(line)
                if number is not None and line.endswith(b"\n"):
                    yield number, start, len(line)
                start += len(line)

    def _rewrite(self, entries: list[tuple[int, int, int]]) -> None:
        """Replace the file by these of its lines; it is whole at every moment."""
        with (
            self._path.open("rb") as old,
            tempfile.NamedTemporaryFile(
                dir=self._path.parent, prefix=f".{self._path.name}.", delete=False
            ) as new,
        ):
            for _, start, size in entries:
                _copy(old, new, start, size)
        os.chmod(new.name, self._path.stat().st_mode)
        os.replace(new.name, self._path)


def _copy(old: IO[bytes], new: IO[bytes], start: int, size: int) -> None:
    old.seek(start)
    new.write(old.read(size))


def _number_of(line: bytes) -> int | None:
    try:
        number = json.read_json(line)["parameters"]["batch_index"]
    except (MLServerError, KeyError, TypeError):
        return None
    return number if isinstance(number, int) else None
