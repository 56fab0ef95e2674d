"""Locations of model files: local paths, addresses, links.

Policy checks and loading both use these functions, so that the checked location is the loaded one.
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
# Links into the file system of another process, as in KServe's modelcar: the target is a path
# there.
_OTHER_ROOT = re.compile(r"/proc/\d+(?:/task/\d+)?/(?:root|cwd|fd/\d+)")
_MAX_LINKS = 40  # as in Linux


def is_address(uri: str) -> bool:
    """Return whether a uri is not a local path."""
    return _ADDRESS.match(uri) is not None and _FILE.match(uri) is None


def locate(uri: str, folder: str | None = None) -> str | None:
    """Return the absolute path that a uri names; None for an address (see `is_address`).

    In plain paths `#`, `?` and `%20` are parts of names. In `file:` URIs `%20` is a space, unless
    only the undecoded path exists.

    Args:
        folder: Start of relative paths; None = the current folder.
    """
    if is_address(uri):
        return None
    prefix = _FILE.match(uri)
    if prefix is None:
        return _join(folder, uri)
    encoded = uri[prefix.end() :]
    path, undecoded_path = _join(folder, unquote(encoded)), _join(folder, encoded)
    has_undecoded_only = not os.path.lexists(path) and os.path.lexists(undecoded_path)
    return undecoded_path if has_undecoded_only else path


def _join(folder: str | None, path: str) -> str:
    return os.path.normpath(os.path.join(os.getcwd(), folder or "", path))


def resolve_links(path: str) -> str:
    """Return the absolute path without symbolic links, as `os.path.realpath` does.

    Links into the file system of another process (`/proc/1/root`) are not resolved.
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
        if _OTHER_ROOT.fullmatch(step) or not os.path.islink(step) or links == _MAX_LINKS:
            resolved = step
            continue
        links += 1
        target = os.readlink(step)
        resolved = "/" if target.startswith("/") else resolved
        parts += target.split("/")[::-1]
    return resolved


def with_resolved_folder(settings: ModelSettings) -> ModelSettings:
    """Return the settings with links in the path of the model's folder resolved.

    All worker processes then load the same files, even if a link changes between their starts. A
    file's own name is not resolved, because its extension determines the format.
    """
    parameters = settings.parameters
    path = locate(parameters.uri, settings.folder) if parameters and parameters.uri else None
    if parameters is None or path is None or not os.path.exists(path):
        return settings
    folder, name = (path, "") if os.path.isdir(path) else os.path.split(path)
    uri = os.path.join(resolve_links(folder), name) if name else resolve_links(folder)
    return settings.model_copy(update={"parameters": parameters.model_copy(update={"uri": uri})})


def is_below(path: str, folder: str) -> bool:
    """Return whether a path, links resolved, is a folder or below it."""
    real, root = resolve_links(path), resolve_links(folder)
    return real == root or real.startswith(os.path.join(root, ""))
