"""Adaptive batching: admission, queue and scheduler of a model; joining and splitting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy_names import create_getattr

if TYPE_CHECKING:
    from .batched_requests import AdaptiveBatcher, BatchedRequests, load_batching

# Imported on first use: most importers need one module of the package.
_MODULES = {
    "AdaptiveBatcher": ".batched_requests",
    "BatchedRequests": ".batched_requests",
    "load_batching": ".batched_requests",
}

__all__ = ["AdaptiveBatcher", "BatchedRequests", "load_batching"]


__getattr__ = create_getattr(__name__, _MODULES)
