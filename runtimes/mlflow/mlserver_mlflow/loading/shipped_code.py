"""Finds the Python code that an MLflow model ships, by its files alone: imports neither MLflow nor a YAML library.

Code are the folders that `MLmodel` names as `code` (from `code_paths` or `infer_code_paths`) and any other Python module
in the model's folder, for a model may put that folder on the search path itself (an artifact with modules, code of
transformers' models). The script of a model from code alone is none: MLflow imports it under a name of its own.
"""

from __future__ import annotations

import asyncio
import importlib.machinery
import importlib.util
import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress

from mlserver import isolation
from mlserver.errors import MLServerError
from mlserver.isolation import ShippedCode
from mlserver.locations import resolve_links
from mlserver.settings import ModelSettings
from mlserver.utils import get_model_uri

MLMODEL = "MLmodel"
_ENTRY = r"^ +['\"]?(?:%s)['\"]?: *(.+?) *$"
_CODE = re.compile(_ENTRY % "code|code_path", re.MULTILINE)
_SCRIPT = re.compile(_ENTRY % "model_code_path", re.MULTILINE)
_SUFFIXES = tuple(importlib.machinery.all_suffixes())
_ARCHIVES = (".zip", ".whl", ".egg")
_CACHE = "__pycache__"


def of_settings(settings: ModelSettings) -> ShippedCode | None:
    """The code of a model that lies on this machine; None = it ships none, or its address is no path. Blocks."""
    try:
        path = asyncio.run(get_model_uri(settings))
    except MLServerError:
        return None  # the load says what is wrong
    return find(path) if os.path.exists(path) else None


def claim(name: str, folder: str, source: str | None) -> int | None:
    """`isolation.claim` for the model in a folder. Blocks."""
    for script in _scripts(_read(os.path.join(folder, MLMODEL))):
        # Python would miss a change within one second of the last load, see `isolation`.
        with suppress(OSError):
            os.unlink(importlib.util.cache_from_source(os.path.join(folder, script)))
    return isolation.claim(name, find(folder), source)


def find(folder: str) -> ShippedCode | None:
    """The code in a model's folder; None = it ships none. Blocks."""
    folder = resolve_links(folder)
    if os.path.basename(folder) == MLMODEL and os.path.isfile(folder):
        folder = os.path.dirname(folder)
    described = _read(os.path.join(folder, MLMODEL))
    code_folders = sorted({_relative(folder, value) for value in _values(_CODE, described)})
    scripts = _scripts(described)
    roots = [part for part in code_folders if os.path.isdir(os.path.join(folder, part))]
    in_roots = [path for root in roots for path in _files_below(folder, root)]
    elsewhere = [
        path
        for path in _files_below(folder, "")
        if path not in set(in_roots) and _is_code(folder, path)
    ]
    stray = [path for path in elsewhere if path not in scripts]
    if not stray and not in_roots:
        return None
    entries = sorted({entry for root in roots for entry in _entries(folder, root)})
    return ShippedCode(
        folder,
        files=tuple(sorted({*in_roots, *elsewhere})),
        modules=_identifiers(_module_name(entry) for entry in entries),
        stray_modules=_identifiers(_stray_modules(folder, stray)),
        names=(*entries, *stray),
    )


def _identifiers(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if name.isidentifier())


def _scripts(described: str) -> set[str]:
    """Scripts of a model from code; `MLmodel` has the paths that they were saved from, they lie beside it."""
    return {os.path.basename(value) for value in _values(_SCRIPT, described)}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _values(pattern: re.Pattern[str], text: str) -> list[str]:
    values = [match[1].strip("'\"") for match in pattern.finditer(text)]
    return [value for value in values if value not in ("null", "~", "")]


def _relative(folder: str, path: str) -> str:
    return os.path.relpath(os.path.join(folder, path), folder)


def _files_below(folder: str, start: str) -> Iterator[str]:
    """Relative paths of all files below `folder/start`, through links too, without compiled code of sources."""
    seen: set[str] = set()
    for root, folders, files in os.walk(os.path.join(folder, start), followlinks=True):
        real = resolve_links(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name != _CACHE)
        yield from (os.path.relpath(os.path.join(root, name), folder) for name in sorted(files))


def _is_code(folder: str, path: str) -> bool:
    if path.endswith(_ARCHIVES):
        try:
            with zipfile.ZipFile(os.path.join(folder, path)) as archive:
                return any(name.endswith(_SUFFIXES) for name in archive.namelist())
        except (OSError, zipfile.BadZipFile):
            return False
    return path.endswith(_SUFFIXES)


def _entries(folder: str, root: str) -> Iterator[str]:
    """What can be imported from a code folder, as a user sees it: `prep.py`, `team/`."""
    for entry in sorted(os.listdir(os.path.join(folder, root))):
        if os.path.isdir(os.path.join(folder, root, entry)):
            if entry != _CACHE:
                yield f"{entry}/"
        else:
            yield entry


def _module_name(entry: str) -> str:
    return entry.rstrip("/").partition(".")[0]


def _stray_modules(folder: str, paths: Iterable[str]) -> Iterator[str]:
    """Names under which modules outside of a code folder may be imported: modules, packages, and what archives hold."""
    packages = {
        os.path.dirname(path)
        for path in paths
        if _module_name(os.path.basename(path)) == "__init__"
    }
    for path in paths:
        parent, name = os.path.split(path)
        if name.endswith(_ARCHIVES):
            with zipfile.ZipFile(os.path.join(folder, path)) as archive:
                yield from {_module_name(member.partition("/")[0]) for member in archive.namelist()}
        elif parent not in packages:
            yield _module_name(name)
        elif os.path.dirname(parent) not in packages:
            yield os.path.basename(parent)
