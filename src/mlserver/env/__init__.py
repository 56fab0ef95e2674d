"""Python environments of models: existing folders, unpacked archives, and built environments."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .environment import Environment
    from .names import compute_hash_of_file, compute_hash_of_string

# Imported on first use, so that importing a submodule does not import the others.
_MODULES = {
    "Environment": ".environment",
    "compute_hash_of_file": ".names",
    "compute_hash_of_string": ".names",
}

__all__ = ["Environment", "compute_hash_of_file", "compute_hash_of_string"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
