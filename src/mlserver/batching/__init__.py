"""Adaptive batching: admission, queue and scheduler of a model; joining and splitting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy_names import create_getattr

if TYPE_CHECKING:
    from .mlserver1_names import AdaptiveBatcher, BatchedRequests, load_batching

# Imported on first use: most importers need one module of the package.
_MODULES = {
    "AdaptiveBatcher": ".mlserver1_names",
    "BatchedRequests": ".mlserver1_names",
    "load_batching": ".mlserver1_names",
}

__all__ = ["AdaptiveBatcher", "BatchedRequests", "load_batching"]


__getattr__ = create_getattr(__name__, _MODULES)
