"""Python environments of models: existing folders, unpacked archives, and built environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy_names import create_getattr

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


__getattr__ = create_getattr(__name__, _MODULES)
