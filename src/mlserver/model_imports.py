"""From an import path to a class, such that the code in one model's folder never meets another's.

The first folder that uses a module name gets ordinary imports, as if it were the script's folder. A folder with a name
that is already taken by another file (two versions of a model, each with a `runtime.py`, or files that changed
since they were imported) becomes a package of its own: its modules live under a name made of the folder's path and
contents, and `import helper` in its code, early or late, means the folder's own `helper`.
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
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from .errors import SettingsError

_PREFIX = "mlserver_model_"
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_lock = threading.RLock()
# Folder -> how its files looked when its modules were imported under their plain names.
_plain: dict[str, str] = {}


def path_of(cls: type[Any]) -> str:
    """The import path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def load(path: str, folder: str | None, what: str) -> Any:
    """Import a class.

    Args:
        path: `package.module.Class` or `package.module:Class`.
        folder: The model's folder, searched first; None = the ordinary search path.
        what: What is being imported, for messages.

    Raises:
        SettingsError: There is no such module or class, or one that it needs is missing.
    """
    module_name, _, attribute = path.rpartition(":") if ":" in path else path.rpartition(".")
    if not module_name or not attribute:
        raise SettingsError(
            f"{what}: expected an import path such as 'package.module.Class', received '{path}'"
        )
    with _lock:
        try:
            found = _import(module_name, os.path.realpath(folder) if folder else None)
        except ImportError as error:
            raise SettingsError(f"{what}: '{path}' cannot be imported: {error}") from error
    for name in attribute.split("."):
        try:
            found = _member(found, name)
        except _NoMember:
            text = f"module '{module_name}' has no '{attribute}'"
            raise SettingsError(f"{what}: '{path}' cannot be imported: {text}") from None
        except (AttributeError, ImportError) as error:
            text = f"{type(error).__name__}: {error}"
            raise SettingsError(f"{what}: '{path}' cannot be imported: {text}") from error
    return found


class _NoMember(Exception):
    """A module or class has nothing of a name."""


def _member(owner: Any, name: str) -> Any:
    """An attribute of a module or class.

    A module may import what it offers only when asked (`__getattr__`). An AttributeError from within such an import is
    not "no such name", which `hasattr` cannot tell apart.

    Raises:
        _NoMember: there is no such name.
        AttributeError, ImportError: an import within the module's own `__getattr__` failed.
    """
    try:
        return getattr(owner, name)
    except AttributeError as error:
        # This frame and the module's own `__getattr__`; anything raised deeper has another reason.
        if _depth(error) <= 2:
            raise _NoMember(name) from None
        raise


def _depth(error: BaseException) -> int:
    """How many calls deep an exception was raised."""
    frames, traceback = 0, error.__traceback__
    while traceback is not None:
        frames, traceback = frames + 1, traceback.tb_next
    return frames


def _import(name: str, folder: str | None) -> Any:
    head = name.partition(".")[0]
    home = _home(head, folder)
    if home is None:
        return _module_or_member(name)
    local = _local_modules(home)
    looks = _fingerprint(home, local)
    if _plain.get(home, looks) != looks or any(
        _taken(module, file) for module, file in local.items()
    ):
        name = f"{_package(home, looks, frozenset(local))}.{name}"
    else:
        _plain[home] = looks
    with _first_on_path(home):
        return _module_or_member(name)


def _home(head: str, folder: str | None) -> str | None:
    """The folder of loose files in which a top-level module lies; None for installed and built-in ones."""
    if folder is not None and head in _local_modules(folder):
        return folder
    spec = importlib.machinery.PathFinder.find_spec(head)
    if spec is None or not spec.has_location or spec.origin is None:
        loaded_from = getattr(sys.modules.get(head), "__file__", None)
        if (
            spec is None
            and loaded_from
            and os.path.dirname(os.path.realpath(loaded_from)) in _plain
        ):
            raise ModuleNotFoundError(
                f"No module named '{head}'", name=head
            )  # it is another model's
        return None
    home = os.path.dirname(os.path.realpath(spec.origin))
    home = os.path.dirname(home) if spec.submodule_search_locations else home
    if head == "mlserver" or _INSTALLED.intersection(Path(home).parts):
        return None
    return home if head in _local_modules(home) else None


def _module_or_member(name: str) -> Any:
    """Import `name`; its last parts may also be classes in a module (`module.Outer` of `module.Outer.Inner`)."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        parent, _, member = name.rpartition(".")
        if not parent or error.name != name or (parent.startswith(_PREFIX) and "." not in parent):
            raise
        try:
            return _member(_module_or_member(parent), member)
        except _NoMember:
            raise error from None


@contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # Only our own entry goes: what the imported code put on the path is its business.
        if folder in sys.path:
            sys.path.remove(folder)


def _local_modules(folder: str) -> dict[str, str]:
    """The modules and packages that lie in a folder: name -> file. Never one that would hide the standard library."""
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
    """Whether a folder without `__init__.py` is a package: a module or package of that name elsewhere comes first."""
    if not entry.name.isidentifier() or not _files_below(entry.path):
        return False
    spec = importlib.machinery.PathFinder.find_spec(entry.name)
    return spec is None or not spec.has_location


def _taken(name: str, file: str) -> bool:
    """Whether another file, or another folder of a package without `__init__.py`, is imported under this name."""
    module = sys.modules.get(name)
    if module is None:
        return False
    loaded_from = getattr(module, "__file__", None)
    if loaded_from is None and os.path.isdir(file):
        return os.path.realpath(file) not in map(os.path.realpath, getattr(module, "__path__", ()))
    return loaded_from is None or os.path.realpath(loaded_from) != os.path.realpath(file)


def _fingerprint(folder: str, local: Mapping[str, str]) -> str:
    """How a folder's Python files look now: any change of name, size or time of change gives another answer."""
    digest = hashlib.sha256(folder.encode())
    for name, file in sorted(local.items()):
        package = os.path.dirname(file) if os.path.basename(file) == "__init__.py" else file
        files = _files_below(package) if os.path.isdir(package) else [file]
        for each in files:
            stat = os.stat(each)
            digest.update(f"\0{name}\0{each}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _files_below(folder: str) -> list[str]:
    return sorted(
        os.path.join(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if name.endswith(".py")
    )


def _package(folder: str, looks: str, local: frozenset[str]) -> str:
    """The name of the package that stands for a folder; made if it does not exist yet."""
    name = _PREFIX + looks
    if name not in sys.modules:
        package = ModuleType(name, f"The code in the folder of one model: {folder}")
        package.__path__ = [folder]
        sys.modules[name] = package
        _Finder.builtins_of[name] = {**vars(builtins), "__import__": _importer(name, local)}
        if _Finder not in sys.meta_path:
            sys.meta_path.insert(0, _Finder)
    return name


def _importer(package: str, local: frozenset[str]) -> Any:
    """The `__import__` of a folder's code: a name that lies in the folder is the folder's, any other is the world's."""

    def import_(
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - the names of __import__
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        head = name.partition(".")[0]
        if level or head not in local:
            return builtins.__import__(name, globals, locals, fromlist, level)
        found = builtins.__import__(
            f"{package}.{name}", globals, locals, fromlist or ("__name__",), 0
        )
        return found if fromlist else importlib.import_module(f"{package}.{head}")

    return import_


class _Finder:
    """Finds the modules of such packages, and gives their code its own `__import__`."""

    builtins_of: ClassVar[dict[str, dict[str, Any]]] = {}

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        own_builtins = cls.builtins_of.get(name.partition(".")[0])
        if own_builtins is None or path is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path, own_builtins)
        return spec


class SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles the source, whatever lies in `__pycache__`, and writes nothing there.

    Python takes compiled code for current if the source's size and its time in whole seconds are those of the compiled
    source, so it would miss a change of files within one second of the import.
    """

    def path_stats(self, path: Any) -> Any:
        raise OSError("compiled code is not read")


class _Loader(SourceLoader):
    def __init__(self, name: str, path: str, own_builtins: dict[str, Any]) -> None:
        super().__init__(name, path)
        self.own_builtins = own_builtins

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self.own_builtins
        super().exec_module(module)
