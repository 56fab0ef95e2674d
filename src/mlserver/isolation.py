"""Whether this process may run the Python code that a model ships, so that no model ever meets the modules of another.

Python keeps one `sys.modules` and one `sys.path` per process. Libraries that load a model put the model's code folder on
the path, so two models with a module of one name in one process share the module that was imported first. Therefore:

- a worker of a shared pool loads no model that ships code: `claim` raises `NeedsOwnProcess`, and the server loads the
  model into a pool of its own (`execution.pools`);
- a worker of such a pool loads it; a worker of a group's pool loads code of one content only;
- in the server's own process (`parallel_workers` of 0) a model is loaded if none of its module names is in use, else
  refused with the reason.

A runtime calls `claim` before it imports anything of the model, and `release` when the model is unloaded.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import os
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType

from .errors import MLServerError
from .locations import is_below
from .model_imports import SourceLoader

# What a worker process may load, as its pool says: no code, any code, or code of the content with this digest.
NO_CODE, ANY_CODE = "", "*"
_SHOWN = 5
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True, eq=False)
class ShippedCode:
    """The Python code in a model's folder.

    Attributes:
        folder: The model's folder, without links.
        files: Paths of all files of the code, relative to the folder.
        modules: Names under which the code can be imported, without the names of submodules.
        stray_modules: Names of further modules, which the model may put on the search path itself.
        names: The same as a user sees them: `prep.py`, `team/`.
    """

    folder: str
    files: tuple[str, ...]
    modules: frozenset[str]
    stray_modules: frozenset[str]
    names: tuple[str, ...]

    @property
    def all_modules(self) -> frozenset[str]:
        return self.modules | self.stray_modules

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the relative paths and the bytes of all files. Reads them: blocks."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(f"{path}\0".encode())
            try:
                with open(os.path.join(self.folder, path), "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                digest.update(f"{error.errno}".encode())
        return digest.hexdigest()

    def __str__(self) -> str:
        more = len(self.names) - _SHOWN
        return ", ".join(self.names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


class NeedsOwnProcess(MLServerError):
    """A model ships other code than its worker process may load.

    Args:
        code: What it ships; None = no code.
        source: Address of the model with its version, where the model's own address may move.
    """

    KEY = "needs_own_process"

    def __init__(self, name: str, code: ShippedCode | None, source: str | None) -> None:
        found = None if code is None else {"names": str(code), "digest": code.digest}
        shipped = "no code" if code is None else f"code ({code})"
        super().__init__(
            f"Model {name} ships {shipped}, which this worker process does not load: its files changed since the model "
            "was loaded. Load the model again",
            500,
            details={self.KEY: {"code": found, "source": source}},
        )


@dataclass
class _Process:
    """What this process may load, and the code of the models that are loaded.

    Attributes:
        may_load: `NO_CODE`, `ANY_CODE` or a digest in a worker; None in the server's own process.
        claims: The code of each loaded model, by a number.
    """

    may_load: str | None = None
    last: int = 0
    claims: dict[int, tuple[str, ShippedCode]] = field(default_factory=dict)


_process = _Process()
_lock = threading.Lock()


def restrict(may_load: str) -> None:
    """Make this process a worker: `NO_CODE`, `ANY_CODE`, or the digest of the one content of code that it may load."""
    _process.may_load = may_load


def claim(name: str, code: ShippedCode | None, source: str | None = None) -> int | None:
    """Prepare this process for the load of a model. To be called before anything of the model is imported. Blocks.

    Args:
        name: The model's name.
        code: What it ships; None = no code.
        source: See `NeedsOwnProcess`.

    Returns:
        What `release` takes.

    Raises:
        NeedsOwnProcess: this is a worker of a pool for other models.
        MLServerError: this is the server's own process, and the code would meet other code there.
    """
    may_load = _process.may_load
    if may_load == NO_CODE and code is not None:
        raise NeedsOwnProcess(name, code, source)
    if may_load not in (None, NO_CODE, ANY_CODE) and (code is None or code.digest != may_load):
        raise NeedsOwnProcess(name, code, source)
    if code is None:
        return None
    with _lock:  # several models may be loading in threads
        if may_load is None:
            _check_names(name, code, code.digest)
        _start_over(code)
        _read_sources_of(code.folder)
        _process.last += 1
        _process.claims[_process.last] = (name, code)
        return _process.last


def release(number: int | None) -> None:
    """Let go of a model's code: its modules are forgotten and its folders leave the search path. Twice: nothing happens."""
    with _lock:
        if number is None or number not in _process.claims:
            return
        _, code = _process.claims.pop(number)
        if any(other.folder == code.folder for _, other in _process.claims.values()):
            return  # loaded again from the same folder in the meantime
        _forget_modules(code, [code.folder])
        sys.path[:] = [entry for entry in sys.path if not _is_below(entry, code.folder)]
        importlib.invalidate_caches()


# -- in the server's own process --


def _check_names(name: str, code: ShippedCode, digest: str) -> None:
    """Raise `MLServerError` if a module of the code has a name that other code in this process has or may have.

    The digest is an argument because it is that of the time of the load: files may change later.
    """
    for other_name, other in _process.claims.values():
        shared = sorted(code.all_modules & other.all_modules)
        if shared and digest != other.digest:
            whose = (
                "the loaded version of this model" if other_name == name else f"model {other_name}"
            )
            raise _refusal(name, code, shared[0], f"which {whose} has too, with other content")
    folders = [other.folder for _, other in _process.claims.values()] + [code.folder]
    for module in sorted(code.modules):
        if module in sys.stdlib_module_names:
            raise _refusal(name, code, module, "which is a module of Python itself")
        place = _place_of(sys.modules.get(module))
        if module in sys.modules and not any(_is_below(place, folder) for folder in folders):
            raise _refusal(
                name, code, module, f"which is already imported from {place or 'elsewhere'}"
            )
        if _is_installed(module, folders):
            raise _refusal(name, code, module, "which is also an installed module")


def _refusal(name: str, code: ShippedCode, module: str, reason: str) -> MLServerError:
    return MLServerError(
        f"Model {name} ships code ({code}) with a module '{module}', {reason}. In the server's own process "
        "('parallel_workers' of 0) both would be one module: set 'parallel_workers' to 1 or more",
        500,
    )


def _is_installed(module: str, folders: Iterable[str]) -> bool:
    """Whether an installed module has this name."""
    elsewhere = [
        entry for entry in sys.path if not any(_is_below(entry, folder) for folder in folders)
    ]
    spec = importlib.machinery.PathFinder.find_spec(module, elsewhere)
    if spec is None:
        return False
    places = (
        [spec.origin]
        if spec.has_location and spec.origin
        else list(spec.submodule_search_locations or [])
    )
    return any(part in place.split(os.sep) for place in places for part in _INSTALLED)


# -- modules and the search path --


def _start_over(code: ShippedCode) -> None:
    """Forget modules of this code that earlier loads imported: their module variables are those of another model."""
    _forget_modules(code, [other.folder for _, other in _process.claims.values()] + [code.folder])
    importlib.invalidate_caches()


def _forget_modules(code: ShippedCode, folders: Iterable[str]) -> None:
    folders = list(folders)
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] not in code.all_modules:
            continue
        place = _place_of(module)
        if any(_is_below(place, folder) for folder in folders):
            del sys.modules[module_name]


def _place_of(module: ModuleType | None) -> str:
    """The file or, for a namespace package, the folder that a module was imported from; "" = unknown."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return file
    try:
        return str(next(iter(getattr(module, "__path__", ())), ""))
    except Exception:  # a module may put any object in its place
        return ""


def _is_below(path: str, folder: str) -> bool:
    return bool(path) and is_below(path, folder)


# -- reading sources --

_source_folders: set[str] = set()


def _read_sources_of(folder: str) -> None:
    """Import modules below a folder from their sources."""
    _source_folders.add(folder)
    if _find_in_source_folders not in sys.path_hooks:
        sys.path_hooks.insert(0, _find_in_source_folders)
    for entry in [entry for entry in sys.path_importer_cache if _is_below(entry, folder)]:
        del sys.path_importer_cache[entry]


def _find_in_source_folders(path: str) -> importlib.machinery.FileFinder:
    """A path hook, see `sys.path_hooks`."""
    if not os.path.isdir(path) or not any(_is_below(path, folder) for folder in _source_folders):
        raise ImportError(f"{path} is no folder of a model's code", path=path)
    return importlib.machinery.FileFinder(
        path,
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (SourceLoader, importlib.machinery.SOURCE_SUFFIXES),
        (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
    )
