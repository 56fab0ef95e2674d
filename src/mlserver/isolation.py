"""Isolation of the Python code that models ship: which process may load which code.

Python has one `sys.modules` and one `sys.path` per process. Libraries that load a model add its
code folder to the path, so two models with modules of the same name in one process would share the
module that was imported first. Therefore:

- a worker of a shared pool loads no model that ships code: `claim` raises `NeedsOwnProcess`, and
  the server loads the model into another pool (`parallel.pool_manager`);
- a worker of that pool loads it; a worker of a group's pool loads code of one content only;
- the server's process (`parallel_workers` of 0) loads a model only if none of its module names is
  in use.

A runtime calls `claim` before it imports anything of the model, and `release` at the unload.
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
from .model_imports import import_from_sources

# What a worker process may load: no code, any code, or code with one digest.
NO_CODE, ANY_CODE = "", "*"
_MAX_LISTED = 5
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True, eq=False)
class ShippedCode:
    """The Python code in a model's folder.

    Attributes:
        folder: The model's folder, links resolved.
        files: Paths of all files of the code, relative to the folder.
        modules: Top-level names under which the code can be imported.
        stray_modules: Names of modules outside of the code folders, which the model may add to
            the search path itself.
        names: File and folder names for messages: `prep.py`, `team/`.
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
        """SHA-256 of the relative paths and contents of all files. Blocks."""
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
        listed = ", ".join(self.names[:_MAX_LISTED])
        more = len(self.names) - _MAX_LISTED
        return f"{listed} and {more} more" if more > 0 else listed


class NeedsOwnProcess(MLServerError):
    """A model ships other code than its worker process may load.

    Args:
        code: The model's code; None = none.
        source: Address of the model with an explicit version, if its own address is mutable.
    """

    KEY = "needs_own_process"

    def __init__(self, name: str, code: ShippedCode | None, source: str | None) -> None:
        details = (
            None
            if code is None
            else {
                "names": str(code),
                "digest": code.digest,
                "modules": sorted(code.all_modules),
            }
        )
        shipped = "no code" if code is None else f"code ({code})"
        super().__init__(
            f"Model {name} ships {shipped}, which this worker process may not load: its files have "
            "changed since the model was loaded. Load the model again",
            500,
            details={self.KEY: {"code": details, "source": source}},
        )


@dataclass
class _Process:
    """The code that this process may load, and the code of the loaded models.

    Attributes:
        allowed: `NO_CODE`, `ANY_CODE` or a digest in a worker; None in the server's process.
        claims: Name and code of each loaded model, by claim number.
    """

    allowed: str | None = None
    last: int = 0
    claims: dict[int, tuple[str, ShippedCode]] = field(default_factory=dict)


_process = _Process()
_lock = threading.Lock()


def restrict(allowed: str) -> None:
    """Restrict this worker process to `NO_CODE`, `ANY_CODE`, or code with one digest."""
    _process.allowed = allowed


def claim(name: str, code: ShippedCode | None, source: str | None = None) -> int | None:
    """Prepare this process to import a model's code. Blocks.

    Args:
        name: The model's name.
        code: The model's code; None = none.
        source: See `NeedsOwnProcess`.

    Returns:
        The argument of `release`.

    Raises:
        NeedsOwnProcess: this worker may not load the code.
        MLServerError: this is the server's process, and a module name is in use.
    """
    allowed = _process.allowed
    if allowed == NO_CODE and code is not None:
        raise NeedsOwnProcess(name, code, source)
    is_digest = allowed not in (None, NO_CODE, ANY_CODE)
    if is_digest and (code is None or code.digest != allowed):
        raise NeedsOwnProcess(name, code, source)
    if code is None:
        return None
    with _lock:  # models may load in several threads
        if allowed is None:
            _check_names(name, code, code.digest)
        _forget_earlier_imports(code)
        import_from_sources(code.folder)
        _process.last += 1
        _process.claims[_process.last] = (name, code)
        return _process.last


def release(number: int | None) -> None:
    """Remove a model's modules and its folders from the search path. Further calls do nothing."""
    with _lock:
        if number is None or number not in _process.claims:
            return
        _, code = _process.claims.pop(number)
        if any(other.folder == code.folder for _, other in _process.claims.values()):
            return  # another loaded model uses the same folder
        _forget_modules(code, [code.folder])
        sys.path[:] = [entry for entry in sys.path if not _is_below(entry, code.folder)]
        importlib.invalidate_caches()


# -- in the server's process --


def _check_names(name: str, code: ShippedCode, digest: str) -> None:
    """Raise `MLServerError` if a module name of the code is in use or installed in this process.

    Args:
        digest: The code's digest at the time of the load; files may change later.
    """
    for other_name, other in _process.claims.values():
        shared = sorted(code.all_modules & other.all_modules)
        if shared and digest != other.digest:
            owner = (
                f"model {other_name}" if other_name != name else "the loaded version of this model"
            )
            raise _conflict(name, code, shared[0], f"which {owner} has too, with other content")
    folders = [other.folder for _, other in _process.claims.values()] + [code.folder]
    for module in sorted(code.modules):
        if module in sys.stdlib_module_names:
            raise _conflict(name, code, module, "which is a module of Python itself")
        path = _get_path(sys.modules.get(module))
        is_own = any(_is_below(path, folder) for folder in folders)
        if module in sys.modules and not is_own:
            raise _conflict(
                name, code, module, f"which is already imported from {path or 'elsewhere'}"
            )
        if _is_installed(module, folders):
            raise _conflict(name, code, module, "which is also an installed module")


def _conflict(name: str, code: ShippedCode, module: str, reason: str) -> MLServerError:
    return MLServerError(
        f"Model {name} ships code ({code}) with a module '{module}', {reason}. In the server's own "
        "process ('parallel_workers' of 0) both would be one module: set 'parallel_workers' to 1 "
        "or more",
        500,
    )


def _is_installed(module: str, folders: Iterable[str]) -> bool:
    """Whether an installed module has this name."""
    folders = list(folders)
    search_path = []
    for entry in sys.path:
        if not any(_is_below(entry, folder) for folder in folders):
            search_path.append(entry)
    spec = importlib.machinery.PathFinder.find_spec(module, search_path)
    if spec is None:
        return False
    paths = list(spec.submodule_search_locations or [])
    if spec.has_location and spec.origin:
        paths = [spec.origin]
    return any(part in path.split(os.sep) for path in paths for part in _INSTALLED)


# -- modules and the search path --


def _forget_earlier_imports(code: ShippedCode) -> None:
    """Remove modules that earlier loads of this code imported, with another model's variables."""
    _forget_modules(code, [other.folder for _, other in _process.claims.values()] + [code.folder])
    importlib.invalidate_caches()


def _forget_modules(code: ShippedCode, folders: Iterable[str]) -> None:
    folders = list(folders)
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] not in code.all_modules:
            continue
        path = _get_path(module)
        if any(_is_below(path, folder) for folder in folders):
            sys.modules.pop(module_name, None)


def _get_path(module: ModuleType | None) -> str:
    """Return the file of a module, or the folder of a namespace package; "" = unknown."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return file
    try:
        return str(next(iter(getattr(module, "__path__", ())), ""))
    except Exception:  # a module may replace `__path__` by any object
        return ""


def _is_below(path: str, folder: str) -> bool:
    return bool(path) and is_below(path, folder)
