"""Adaptive batching: admission, queue and scheduler of a model; joining and splitting."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batched_requests import AdaptiveBatcher, BatchedRequests, load_batching

# Imported on first use: most importers need one module of the package.
_MODULES = {
    "AdaptiveBatcher": ".batched_requests",
    "BatchedRequests": ".batched_requests",
    "load_batching": ".batched_requests",
}

__all__ = ["AdaptiveBatcher", "BatchedRequests", "load_batching"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
