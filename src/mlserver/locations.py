"""Where a model's files are: which texts are paths of this machine, which are addresses, and where links lead.

Everything that takes a `uri` decides by these functions, so that what is checked is what is loaded.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from .settings import ModelSettings

# `s3://bucket/x`, `models:/wine/3`, `runs:/1/model`; `v1:2` and `C#/wine` are paths.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_FILE = re.compile(r"file:(?://(?:localhost(?=/))?)?", re.IGNORECASE)
# Links into another process's file system: their text is a path there, not here (KServe's modelcar has one).
_OTHER_ROOT = re.compile(r"/proc/\d+(?:/task/\d+)?/(?:root|cwd|fd/\d+)")
_MOST_LINKS = 40  # as Linux has it


def is_address(uri: str) -> bool:
    """Whether a uri names a place that is not a path of this machine."""
    return _ADDRESS.match(uri) is not None and _FILE.match(uri) is None


def locate(uri: str, folder: str | None = None) -> str | None:
    """Return the absolute path that a uri names; None for an address (see `is_address`).

    A path is taken as it is written: `#`, `?` and `%20` are parts of names. In `file:` URIs `%20` is a space, unless only
    the path as it is written exists.

    Args:
        folder: Where relative paths start; None = the current folder.
    """
    if is_address(uri):
        return None
    prefix = _FILE.match(uri)
    if prefix is None:
        return _join(folder, uri)
    written = uri[prefix.end() :]
    path, as_written = _join(folder, unquote(written)), _join(folder, written)
    return as_written if not os.path.lexists(path) and os.path.lexists(as_written) else path


def _join(folder: str | None, path: str) -> str:
    return os.path.normpath(os.path.join(os.getcwd(), folder or "", path))


def resolve_links(path: str) -> str:
    """Return the absolute path without symbolic links, as `os.path.realpath` does.

    Links into another process's file system (`/proc/1/root`) stay: what their text names is another folder here.
    """
    resolved, links = "/", 0
    parts = os.path.join(os.getcwd(), path).split("/")[::-1]
    while parts:
        part = parts.pop()
        if part == "..":
            resolved = os.path.dirname(resolved)
        if part in ("", ".", ".."):
            continue
        step = os.path.join(resolved, part)
        if _OTHER_ROOT.fullmatch(step) or not os.path.islink(step) or links == _MOST_LINKS:
            resolved = step
            continue
        links += 1
        target = os.readlink(step)
        resolved = "/" if target.startswith("/") else resolved
        parts += target.split("/")[::-1]
    return resolved


def with_resolved_folder(settings: ModelSettings) -> ModelSettings:
    """Return the settings with links in the path of the model's folder resolved.

    So all worker processes load the same files, also those that start after a link has been pointed elsewhere. The name
    of a file stays as it is written: its ending says how to read it.
    """
    parameters = settings.parameters
    path = locate(parameters.uri, settings.folder) if parameters and parameters.uri else None
    if parameters is None or path is None or not os.path.exists(path):
        return settings
    folder, name = (path, "") if os.path.isdir(path) else os.path.split(path)
    uri = os.path.join(resolve_links(folder), name) if name else resolve_links(folder)
    return settings.model_copy(update={"parameters": parameters.model_copy(update={"uri": uri})})


def is_below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder, or is it, wherever links lead."""
    real, root = resolve_links(path), resolve_links(folder)
    return real == root or real.startswith(os.path.join(root, ""))
