"""Modules in the folders of custom runtimes, and conflicts of their names within one process.

`model_imports` gives the `import` statements of each folder that folder's modules. A look-up by
name finds the module that was imported first: `importlib.import_module("helper")`, or a pickled
object of a class in `helper`. Therefore a model that may look names up is not loaded into a
process that has another module of such a name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .locations import is_below, locate
from .model_imports import compute_fingerprint, find_local_modules
from .settings import ModelSettings

# Files without Python objects; any other file may contain pickled ones.
_PLAIN_SUFFIXES = frozenset(
    ".cfg .csv .html .ini .json .jsonl .md .onnx .parquet .png .py .pyi .rst .safetensors .sql .svg"
    " .toml .tsv .txt .yaml .yml".split()
)
# In a source: imports by a string, and libraries that unpickle.
_LOOKS_UP = re.compile(
    r"import_module|__import__|find_spec|sys\.modules|runpy|pickle|joblib|dill|torch|keras|tensorflow"
    r"|skops|load_model|multiprocessing"
)
_MAX_FILES = 1000


@dataclass(frozen=True)
class FolderModules:
    """The modules in the folder from which a model's runtime is imported.

    Attributes:
        model: The model's name, for messages.
        folder: The folder, links resolved.
        fingerprint: Changes with the Python files of the folder.
        names: Top-level names of its modules and packages.
        looks_up: Whether the model may look modules up by their names.
    """

    model: str
    folder: str
    fingerprint: str
    names: frozenset[str]
    looks_up: bool

    @classmethod
    def from_settings(cls, settings: ModelSettings) -> FolderModules | None:
        """Return the modules of a model; None if its runtime is not in its folder. Blocks."""
        if settings.folder is None:
            return None
        folder = os.path.realpath(settings.folder)
        local = find_local_modules(folder)
        if re.split(r"[.:]", settings.implementation_)[0] not in local:
            return None
        uri = settings.parameters.uri if settings.parameters else None
        data = folder if uri is None else locate(uri, folder)
        is_elsewhere = data is None or not is_below(os.path.realpath(data), folder)
        looks_up = is_elsewhere or any(map(_may_look_up, _list_files(folder)))
        fingerprint = compute_fingerprint(folder, local)
        return cls(settings.name, folder, fingerprint, frozenset(local), looks_up)

    def is_same_code(self, other: FolderModules) -> bool:
        return (self.folder, self.fingerprint) == (other.folder, other.fingerprint)


def _list_files(folder: str) -> Iterator[str]:
    """Yield up to `_MAX_FILES` files of a folder; then a name that may be anything."""
    count = 0
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            count += 1
            if count > _MAX_FILES:
                yield ""
                return
            yield os.path.join(root, name)


def _may_look_up(path: str) -> bool:
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _PLAIN_SUFFIXES:
        return True
    if suffix != ".py":
        return False
    try:
        with open(path, encoding="utf-8") as file:
            return _LOOKS_UP.search(file.read()) is not None
    except (OSError, ValueError):
        return True


class ImportedModules:
    """The folders whose modules the processes of one pool may have imported since its start.

    In which order a process loads its models is not known: of two folders with a module of one
    name, neither may look modules up.
    """

    def __init__(self) -> None:
        self._folders: dict[str, list[FolderModules]] = {}

    def add(self, modules: FolderModules) -> None:
        for name in modules.names:
            others = self._folders.setdefault(name, [])
            if not any(map(modules.is_same_code, others)):
                others.append(modules)

    def find_conflict(self, modules: FolderModules) -> str | None:
        """Return why a model needs a process of its own; None if it may join the others."""
        for name in sorted(modules.names & self._folders.keys()):
            for other in self._folders[name]:
                has_lookups = modules.looks_up or other.looks_up
                if not has_lookups or modules.is_same_code(other):
                    continue
                if other.folder == modules.folder:
                    return f"its module '{name}' was loaded before its files were changed"
                return f"model '{other.model}' has another module '{name}'"
        return None
