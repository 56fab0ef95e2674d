"""Installed modules that a worker has imported, for the template of later workers.

Modules of user code are not among them: only files of installed packages and of Python itself.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from types import ModuleType

_INSTALLED = frozenset(("site-packages", "dist-packages"))
# Packages that start threads, open sockets or databases, or take a GPU at their import.
_EXCLUDED = frozenset(
    "__main__ cupy grpc jpype numba_cuda polars pyspark py4j ray sqlite3 vllm".split()
)
_STANDARD = tuple(
    os.path.join(os.path.realpath(sysconfig.get_path(name)), "")
    for name in ("stdlib", "platstdlib")
)


class ImportedModules:
    """The modules that this process has imported since the start of a worker."""

    def __init__(self) -> None:
        self._known = set(sys.modules)

    def take_new(self) -> list[str]:
        """Return the names of installed modules since the last call, in order of import."""
        added = [name for name in list(sys.modules) if name not in self._known]
        self._known.update(added)
        return [name for name in added if _is_installed(name, sys.modules.get(name))]


def _is_installed(name: str, module: ModuleType | None) -> bool:
    """Whether a name imports the same module in any process of this environment."""
    spec = getattr(module, "__spec__", None)
    if spec is None or getattr(spec, "name", None) != name:
        return False
    if name.partition(".")[0] in _EXCLUDED or name.rpartition(".")[2] == "__main__":
        return False
    path = getattr(spec, "origin", None)
    if not isinstance(path, str) or not os.path.isabs(path):
        return False
    return path.startswith(_STANDARD) or not _INSTALLED.isdisjoint(path.split(os.sep))
