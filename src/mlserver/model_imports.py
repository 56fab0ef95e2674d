"""Import of classes by path, with the modules of each model's folder isolated from those of others.

The first folder that uses a module name gets ordinary imports, as if it were the folder of a
script. If another file has the name already (two versions of a model with a `runtime.py` each, or
files changed since their import), the folder becomes a package: its modules are named after a
digest of its path and files, and `import helper` in its code, at any time, imports the folder's
`helper`. All these modules are compiled from their sources at each import, see `SourceLoader`.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from .errors import SettingsError

RUNTIMES_GROUP = "mlserver.runtimes"  # of entry points
_PREFIX = "mlserver_model_"
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_lock = threading.RLock()
# Folder -> fingerprint of its files when its modules were imported under their plain names.
_plainly_imported: dict[str, str] = {}


def get_import_path(cls: type[Any]) -> str:
    """Return the import path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def import_class(path: str, folder: str | None, what: str) -> Any:
    """Import a class.

    Args:
        path: `package.module.Class` or `package.module:Class`.
        folder: The model's folder, searched first; None = the ordinary search path.
        what: Subject of error messages: the setting's name, for a model also the model's.

    Raises:
        SettingsError: the module, the class, or a module that it imports does not exist.
    """
    module_name, _, attribute = path.rpartition(":") if ":" in path else path.rpartition(".")
    if not module_name or not attribute:
        raise SettingsError(
            f"{what}: expected an import path such as 'package.module.Class', received '{path}'"
        )
    with _lock:
        try:
            value = _import(module_name, os.path.realpath(folder) if folder else None)
        except ImportError as error:
            raise SettingsError(f"{what}: '{path}' cannot be imported: {error}") from error
    for name in attribute.split("."):
        try:
            value = _get_attribute(value, name)
        except _NoAttribute:
            text = f"module '{module_name}' has no '{attribute}'"
            raise SettingsError(f"{what}: '{path}' cannot be imported: {text}") from None
        except (AttributeError, ImportError) as error:
            text = f"{type(error).__name__}: {error}"
            raise SettingsError(f"{what}: '{path}' cannot be imported: {text}") from error
    return value


class _NoAttribute(Exception):
    """A module or class has no attribute of this name."""


def _get_attribute(owner: Any, name: str) -> Any:
    """Return an attribute of a module or class.

    A module may import its content on access (`__getattr__`). `hasattr` cannot distinguish an
    AttributeError raised within such an import from a missing name.

    Raises:
        _NoAttribute: the name does not exist.
        AttributeError, ImportError: an import within the module's own `__getattr__` failed.
    """
    try:
        return getattr(owner, name)
    except AttributeError as error:
        # Depth 2: this frame and the module's own `__getattr__`. Deeper errors have another cause.
        if _count_frames(error) <= 2:
            raise _NoAttribute(name) from None
        raise


def _count_frames(error: BaseException) -> int:
    """Return how many calls deep an exception was raised."""
    frames, traceback = 0, error.__traceback__
    while traceback is not None:
        frames, traceback = frames + 1, traceback.tb_next
    return frames


def _import(name: str, folder: str | None) -> Any:
    top_level = name.partition(".")[0]
    home = _find_home(top_level, folder)
    if home is None:
        return _import_module_or_attribute(name)
    local = find_local_modules(home)
    fingerprint = compute_fingerprint(home, local)
    has_changed = _plainly_imported.get(home, fingerprint) != fingerprint
    if has_changed or any(_is_name_in_use(module, file) for module, file in local.items()):
        name = f"{_create_package(home, fingerprint, frozenset(local))}.{name}"
    else:
        _plainly_imported[home] = fingerprint
        if home not in _source_folders:
            import_from_sources(home)
    with _first_on_path(home):
        return _import_module_or_attribute(name)


def _find_home(top_level: str, folder: str | None) -> str | None:
    """Return the folder of loose files with a module; None for installed and built-in modules.

    Packages that are entry points of `runtime_hooks` are installed distributions, wherever their
    files are (editable installations): their files are not compared at each load.
    """
    if folder is not None and top_level in find_local_modules(folder):
        return folder
    spec = importlib.machinery.PathFinder.find_spec(top_level)
    if spec is None or not spec.has_location or spec.origin is None:
        loaded_from = getattr(sys.modules.get(top_level), "__file__", None)
        loaded_folder = os.path.dirname(os.path.realpath(loaded_from)) if loaded_from else None
        if spec is None and loaded_folder in _plainly_imported:  # the module of another model
            raise ModuleNotFoundError(f"No module named '{top_level}'", name=top_level)
        return None
    home = os.path.dirname(os.path.realpath(spec.origin))
    home = os.path.dirname(home) if spec.submodule_search_locations else home
    is_installed = top_level == "mlserver" or _INSTALLED.intersection(Path(home).parts)
    if is_installed or top_level in list_runtimes():
        return None
    return home if top_level in find_local_modules(home) else None


@lru_cache(maxsize=1)
def list_runtimes() -> frozenset[str]:
    """Return the import packages of installed runtimes with hooks (`runtime_hooks`).

    Reads the metadata of all installed packages once: 10 ms with 170 of them.
    """
    return frozenset(entry_points(group=RUNTIMES_GROUP).names)


def _import_module_or_attribute(name: str) -> Any:
    """Import `name`, whose last parts may be classes (`module.Outer` of `module.Outer.Inner`)."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        parent, _, attribute = name.rpartition(".")
        is_folder_package = parent.startswith(_PREFIX) and "." not in parent
        if not parent or error.name != name or is_folder_package:
            raise
        try:
            return _get_attribute(_import_module_or_attribute(parent), attribute)
        except _NoAttribute:
            raise error from None


@contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # Entries that the imported code added remain.
        if folder in sys.path:
            sys.path.remove(folder)


def find_local_modules(folder: str) -> dict[str, str]:
    """Return a folder's modules and packages (name -> file), except standard library names."""
    suffixes = tuple(importlib.machinery.all_suffixes())
    local: dict[str, str] = {}
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return local
    for entry in entries:
        package = os.path.join(entry.path, "__init__.py")
        if entry.is_dir() and os.path.isfile(package):
            local[entry.name] = package
        elif entry.is_dir() and _is_namespace(entry):
            local[entry.name] = entry.path
        elif entry.name.endswith(suffixes) and entry.is_file():
            local.setdefault(entry.name.partition(".")[0], entry.path)
    return {
        name: file
        for name, file in local.items()
        if name.isidentifier() and name not in sys.stdlib_module_names
    }


def _is_namespace(entry: os.DirEntry[str]) -> bool:
    """Return whether a folder without `__init__.py` is a package.

    As in Python, a module or regular package of that name on the search path has precedence.
    """
    if not entry.name.isidentifier() or not _find_python_files(entry.path):
        return False
    spec = importlib.machinery.PathFinder.find_spec(entry.name)
    return spec is None or not spec.has_location


def _is_name_in_use(name: str, file: str) -> bool:
    """Return whether another file, or folder of a namespace package, has the module name."""
    module = sys.modules.get(name)
    if module is None:
        return False
    loaded_from = getattr(module, "__file__", None)
    if loaded_from is None and os.path.isdir(file):
        return os.path.realpath(file) not in map(os.path.realpath, getattr(module, "__path__", ()))
    return loaded_from is None or os.path.realpath(loaded_from) != os.path.realpath(file)


def compute_fingerprint(folder: str, local: Mapping[str, str]) -> str:
    """Return a digest of the names, sizes and modification times of a folder's Python files."""
    digest = hashlib.sha256(folder.encode())
    for name, file in sorted(local.items()):
        package = os.path.dirname(file) if os.path.basename(file) == "__init__.py" else file
        paths = _find_python_files(package) if os.path.isdir(package) else [file]
        for path in paths:
            stat = os.stat(path)
            digest.update(f"\0{name}\0{path}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _find_python_files(folder: str) -> list[str]:
    return sorted(
        os.path.join(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if name.endswith(".py")
    )


def _create_package(folder: str, fingerprint: str, local: frozenset[str]) -> str:
    """Return the name of the package for a folder, creating it if necessary."""
    name = _PREFIX + fingerprint
    if name not in sys.modules:
        package = ModuleType(name, f"The code in the folder of one model: {folder}")
        package.__path__ = [folder]
        sys.modules[name] = package
        _Finder.builtins_by_package[name] = {
            **vars(builtins),
            "__import__": _create_import_function(name, local),
        }
        if _Finder not in sys.meta_path:
            sys.meta_path.insert(0, _Finder)
    return name


def _create_import_function(package: str, local: frozenset[str]) -> Any:
    """Return the `__import__` of a folder's code: the folder's names resolve to its modules."""

    def import_(
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - the names of __import__
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        top_level = name.partition(".")[0]
        if level or top_level not in local:
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = builtins.__import__(
            f"{package}.{name}", globals, locals, fromlist or ("__name__",), 0
        )
        return module if fromlist else importlib.import_module(f"{package}.{top_level}")

    return import_


class _Finder:
    """Finds the modules of folder packages and sets the `__import__` of their code."""

    builtins_by_package: ClassVar[dict[str, dict[str, Any]]] = {}

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package_builtins = cls.builtins_by_package.get(name.partition(".")[0])
        if package_builtins is None or path is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path, package_builtins)
        return spec


# -- reading sources --

_source_folders: set[str] = set()  # links resolved


def import_from_sources(folder: str) -> None:
    """Import modules below a folder from their sources from now on, not from cached bytecode."""
    _source_folders.add(os.path.realpath(folder))
    if _find_in_source_folders not in sys.path_hooks:
        sys.path_hooks.insert(0, _find_in_source_folders)
    for entry in list(sys.path_importer_cache):  # imports in other threads add to it
        if _is_in_source_folder(entry):
            sys.path_importer_cache.pop(entry, None)


def _find_in_source_folders(path: str) -> importlib.machinery.FileFinder:
    """A path hook, see `sys.path_hooks`."""
    if not os.path.isdir(path) or not _is_in_source_folder(path):
        raise ImportError(f"{path} is not a folder of a model's code", path=path)
    return importlib.machinery.FileFinder(
        path,
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (SourceLoader, importlib.machinery.SOURCE_SUFFIXES),
        (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
    )


def _is_in_source_folder(path: str) -> bool:
    real = os.path.join(os.path.realpath(path), "")
    return any(real.startswith(os.path.join(folder, "")) for folder in list(_source_folders))


class SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles the source at every import; neither reads nor writes `__pycache__`.

    Python considers compiled code valid if the source's size and its modification time in whole
    seconds are unchanged, so it misses changes within one second of the import.
    """

    def path_stats(self, path: Any) -> Any:
        raise OSError("compiled code is not read")


class _Loader(SourceLoader):
    def __init__(self, name: str, path: str, package_builtins: dict[str, Any]) -> None:
        super().__init__(name, path)
        self.package_builtins = package_builtins

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self.package_builtins
        super().exec_module(module)
