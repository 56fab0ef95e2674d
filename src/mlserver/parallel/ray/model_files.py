"""Local files of a model: which they are, whether two nodes have the same, archives of them.

A replica uses the files at the model's own path if they are equal to the server's, and a copy from
a server otherwise (`node_files`). Nothing here imports Ray.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...errors import MLServerError
from ...locations import locate
from ...model_imports import find_local_modules
from ...settings import ModelSettings
from .file_digests import compute_file_digest

MAX_FILES = 10_000
# Bytes of one part of an archive: the directory answers other calls between two parts.
PART_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class ModelFiles:
    """One file or folder of a model on the server's machine.

    Attributes:
        path: Absolute path.
        digest: Equal for equal names and contents.
        is_folder: Whether it is a folder.
    """

    path: str
    digest: str
    is_folder: bool


def describe_files(model: ModelSettings) -> list[ModelFiles]:
    """Return the local files of a model, which may be several folders. Blocks.

    Raises:
        OSError: a file cannot be read.
        MLServerError: there are more than `MAX_FILES`.
    """
    paths = list_paths(model)
    return [ModelFiles(path, compute_digest(path), os.path.isdir(path)) for path in paths]


def list_paths(model: ModelSettings) -> list[str]:
    """Return the paths of a model's files that exist; none is inside of another."""
    uri = model.parameters.uri if model.parameters is not None else None
    source = None if uri is None else locate(uri, model.folder)
    paths = {path for path in (source, _find_folder(model, uri)) if path is not None}
    existing = sorted(path for path in paths if os.path.exists(path))
    outer: list[str] = []  # a folder is before what is in it
    for path in existing:
        if not any(_is_inside(path, folder) for folder in outer):
            outer.append(path)
    return outer


def _find_folder(model: ModelSettings, uri: str | None) -> str | None:
    """Return the folder of the model's settings if the model may read it."""
    folder = model.folder
    if folder is None or uri is None:
        return folder
    package = model.implementation_.replace(":", ".").partition(".")[0]
    source = locate(uri, folder)
    # A file's neighbours, such as a tokenizer, belong to it.
    is_file_in_folder = source is not None and os.path.isfile(source) and _is_inside(source, folder)
    return folder if is_file_in_folder or package in find_local_modules(folder) else None


def _is_inside(path: str, folder: str) -> bool:
    return path != folder and path.startswith(os.path.join(folder, ""))


# -- content --


def list_files(path: str) -> list[tuple[str, str]]:
    """Return name and path of a file, or of all files of a folder, links followed, in order.

    Raises:
        MLServerError: there are more than `MAX_FILES`.
    """
    if not os.path.isdir(path):
        return [(os.path.basename(path), path)]
    files: list[tuple[str, str]] = []
    for folder, folders, names in os.walk(path, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            file = os.path.join(folder, name)
            if os.path.isfile(file):
                files.append((os.path.relpath(file, path), file))
        if len(files) > MAX_FILES:
            raise MLServerError(f"{path}: expected at most {MAX_FILES} files of a model", 400)
    return sorted(files)


def measure(path: str) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    return sum(os.path.getsize(file) for _, file in list_files(path))


def compute_digest(path: str) -> str:
    """Return the digest of names, sizes and contents. Blocks.

    Raises:
        OSError: a file cannot be read.
        MLServerError: there are more than `MAX_FILES`.
    """
    digest = hashlib.sha256()
    for name, file in list_files(path):
        size = os.path.getsize(file)
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
        digest.update(compute_file_digest(file))
    return digest.hexdigest()


# -- archives --


def pack(path: str) -> Iterator[bytes]:
    """Yield the parts of an archive, equal for equal files. Blocks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w|", bufsize=1024 * 1024) as archive:
        for name, file in list_files(path):
            with open(file, "rb") as content:
                entry = tarfile.TarInfo(name)
                entry.size = os.fstat(content.fileno()).st_size
                entry.mode = 0o755 if os.access(file, os.X_OK) else 0o644
                archive.addfile(entry, content)
            yield from _take_parts(buffer)
    yield from _take_parts(buffer)
    yield buffer.getvalue()


def _take_parts(buffer: io.BytesIO) -> Iterator[bytes]:
    """Remove full parts from the begin of a buffer."""
    content = buffer.getbuffer()
    ends = range(PART_BYTES, len(content) + 1, PART_BYTES)
    parts = [bytes(content[end - PART_BYTES : end]) for end in ends]
    rest = bytes(content[len(parts) * PART_BYTES :])
    content.release()
    buffer.seek(0)
    buffer.truncate()
    buffer.write(rest)
    yield from parts


def unpack(parts: Iterator[bytes], folder: str) -> None:
    """Write the files of an archive into a folder. Blocks.

    Raises:
        OSError, tarfile.TarError: the archive cannot be read or written.
    """
    with tarfile.open(fileobj=_Stream(parts), mode="r|") as archive:  # type: ignore[call-overload]
        archive.extractall(folder, filter="data")


class _Stream:
    """A file of parts, for `tarfile`; reads small pieces without a copy of the rest."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._part = memoryview(b"")

    def read(self, size: int) -> bytes:
        pieces = []
        while size:
            if not self._part:
                self._part = memoryview(next(self._parts, b""))
                if not self._part:
                    break
            pieces.append(bytes(self._part[:size]))
            self._part = self._part[len(pieces[-1]) :]
            size -= len(pieces[-1])
        return b"".join(pieces)


# -- settings --


def relocate(model: ModelSettings, copies: Mapping[str, str]) -> ModelSettings:
    """Return the settings of a model whose files are at other paths.

    Args:
        copies: Path on the server's machine -> path of the copy.
    """
    changed = model.model_copy()
    uri = model.parameters.uri if model.parameters is not None else None
    path = None if uri is None else locate(uri, model.folder)
    if model.parameters is not None and path is not None:
        values = {"uri": _replace_begin(path, copies)}
        changed.parameters = model.parameters.model_copy(update=values)
    if model.folder is not None and model.source_name is not None:
        folder = _replace_begin(model.folder, copies)
        changed._source = os.path.join(folder, model.source_name)
    return changed


def _replace_begin(path: str, copies: Mapping[str, str]) -> str:
    for original, copy in copies.items():
        if path == original:
            return copy
        if _is_inside(path, original):
            return os.path.join(copy, os.path.relpath(path, original))
    return path
