"""A file of JSON lines that is renamed when it is full. Used by one thread."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from contextlib import suppress

from ..settings.payload_log import PayloadLogSettings

# Requests may be personal data: only the server's user may read them.
FILE_MODE = 0o600
# Seconds between two checks whether another program has renamed the file.
CHECK_INTERVAL = 1.0


class WriteFailed(Exception):
    """Lines could not be written; `written` lines before them were."""

    def __init__(self, written: int, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.written = written


class RotatingFile:
    """Appends lines to a file; a full one becomes `PATH.1`, and `PATH.1` becomes `PATH.2`.

    Several processes may append to one path: lines are written as a whole, with O_APPEND.

    Args:
        path: Path of the current file. Its folder must exist.
        max_bytes: Bytes of one file.
        max_files: Files that are kept, the current one included.
    """

    def __init__(self, path: str, max_bytes: int, max_files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._fd = -1
        self._size = 0
        self._is_torn = False
        self._next_check = 0.0

    @classmethod
    def from_settings(cls, settings: PayloadLogSettings, process_index: int) -> RotatingFile:
        """Return the file of one process: others than the server's append `.wN` to the path."""
        assert settings.to is not None
        suffix = f".w{process_index + 1}" if process_index else ""
        return cls(settings.to + suffix, settings.max_file_bytes, settings.max_files)

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines, with one system call for those that fit into the file.

        Raises:
            WriteFailed: the file cannot be opened or written (a full disk).
        """
        start = 0
        try:
            while start < len(lines):
                self._prepare(len(lines[start]))
                end, size = start + 1, self._size + len(lines[start])
                while end < len(lines) and size + len(lines[end]) <= self._max_bytes:
                    size += len(lines[end])
                    end += 1
                self._write(b"".join(lines[start:end]))
                start = end
        except OSError as error:
            raise WriteFailed(start, error) from None

    def _prepare(self, size: int) -> None:
        """Open the file, or rotate it if `size` bytes do not fit."""
        if self._fd >= 0:
            if self._size and self._size + size > self._max_bytes:
                self._rotate()
            elif time.monotonic() >= self._next_check and not self._is_current():
                self.close()
        if self._fd < 0:
            self._open()

    def _write(self, text: bytes) -> None:
        if self._is_torn:
            text = b"\n" + text
        written = os.write(self._fd, text)
        self._size += written
        # After a partial write the next line must start on a new line.
        self._is_torn = written < len(text)
        if self._is_torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = os.open(self._path, flags, FILE_MODE)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        """Rename the files, unless another process has done so already."""
        is_current = self._is_current()
        self.close()
        if not is_current:
            return
        if self._max_files == 1:
            os.unlink(self._path)
            return
        for number in range(self._max_files - 2, 0, -1):
            with suppress(FileNotFoundError):
                os.replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
        os.replace(self._path, f"{self._path}.1")

    def _is_current(self) -> bool:
        """Whether the open file is the one at the path."""
        self._next_check = time.monotonic() + CHECK_INTERVAL
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return False
        opened = os.fstat(self._fd)
        return (status.st_dev, status.st_ino) == (opened.st_dev, opened.st_ino)
