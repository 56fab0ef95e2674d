"""Python code that an MLflow model ships, found by its files, without MLflow or a YAML library.

Code is what the folders hold that `MLmodel` names as `code` (from `code_paths` or
`infer_code_paths`), and any other Python module in the model's folder, because a model may add
that folder to `sys.path` itself (an artifact with modules, code of transformers' models). The
script of a model from code does not count: MLflow imports it under a unique name.
"""

from __future__ import annotations

import asyncio
import importlib.machinery
import importlib.util
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress

from mlserver import isolation
from mlserver.errors import MLServerError
from mlserver.isolation import ShippedCode
from mlserver.locations import resolve_links
from mlserver.settings import ModelSettings
from mlserver.utils import get_model_uri

from . import mlmodel_text
from .mlmodel_text import MLMODEL

_CODE = mlmodel_text.compile_entry("code|code_path")
_SCRIPT = mlmodel_text.compile_entry("model_code_path")
_SUFFIXES = tuple(importlib.machinery.all_suffixes())
_ARCHIVES = (".zip", ".whl", ".egg")
_CACHE = "__pycache__"


def find_for_settings(settings: ModelSettings) -> ShippedCode | None:
    """Return the code of a model in a local folder; None if it has none or is elsewhere. Blocks."""
    try:
        path = asyncio.run(get_model_uri(settings))
    except MLServerError:
        return None  # loading raises the same error
    return find(path) if os.path.exists(path) else None


def claim(name: str, folder: str, source: str | None) -> int | None:
    """Reserve this process for a model's code (`isolation.claim`). Blocks."""
    for script in _get_scripts(mlmodel_text.read_text(folder)):
        # Compiled code has a resolution of one second: a change right after a load is missed.
        with suppress(OSError):
            os.unlink(importlib.util.cache_from_source(os.path.join(folder, script)))
    return isolation.claim(name, find(folder), source)


def find(folder: str) -> ShippedCode | None:
    """Return the code in a model's folder; None if it has none. Blocks."""
    folder = resolve_links(folder)
    if os.path.basename(folder) == MLMODEL and os.path.isfile(folder):
        folder = os.path.dirname(folder)
    mlmodel = mlmodel_text.read_text(folder)
    code_folders = sorted(
        {_to_relative(folder, path) for path in mlmodel_text.find_values(_CODE, mlmodel)}
    )
    roots = [path for path in code_folders if os.path.isdir(os.path.join(folder, path))]
    in_roots: set[str] = set()
    entries: set[str] = set()
    for root in roots:
        in_roots.update(_list_files(folder, root))
        entries.update(_list_entries(folder, root))
    others = [path for path in _list_files(folder, "") if path not in in_roots]
    stray_and_scripts = [path for path in others if _is_code(folder, path)]
    scripts = _get_scripts(mlmodel)
    stray = [path for path in stray_and_scripts if path not in scripts]
    if not stray and not in_roots:
        return None
    return ShippedCode(
        folder,
        files=tuple(sorted({*in_roots, *stray_and_scripts})),
        modules=_select_identifiers(map(_get_module_name, entries)),
        stray_modules=_select_identifiers(_list_stray_modules(folder, stray)),
        names=(*sorted(entries), *stray),
    )


def _select_identifiers(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if name.isidentifier())


def _get_scripts(mlmodel: str) -> set[str]:
    """Return the scripts of a model from code; `MLmodel` has the paths they were saved from."""
    return {os.path.basename(path) for path in mlmodel_text.find_values(_SCRIPT, mlmodel)}


def _to_relative(folder: str, path: str) -> str:
    return os.path.relpath(os.path.join(folder, path), folder)


def _list_files(folder: str, start: str) -> Iterator[str]:
    """Yield the relative paths of all files below `folder/start`; links are followed."""
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


def _list_entries(folder: str, root: str) -> Iterator[str]:
    """Yield the files and folders in a code folder as users see them: `prep.py`, `team/`."""
    for entry in sorted(os.listdir(os.path.join(folder, root))):
        if os.path.isdir(os.path.join(folder, root, entry)):
            if entry != _CACHE:
                yield f"{entry}/"
        else:
            yield entry


def _get_module_name(entry: str) -> str:
    return entry.rstrip("/").partition(".")[0]


def _list_stray_modules(folder: str, paths: Iterable[str]) -> Iterator[str]:
    """Yield the import names of modules, packages and archives outside of code folders."""
    packages = {
        os.path.dirname(path)
        for path in paths
        if _get_module_name(os.path.basename(path)) == "__init__"
    }
    for path in paths:
        parent, name = os.path.split(path)
        if name.endswith(_ARCHIVES):
            with zipfile.ZipFile(os.path.join(folder, path)) as archive:
                for member in archive.namelist():
                    yield _get_module_name(member.partition("/")[0])
        elif parent not in packages:
            yield _get_module_name(name)
        elif os.path.dirname(parent) not in packages:
            yield os.path.basename(parent)
