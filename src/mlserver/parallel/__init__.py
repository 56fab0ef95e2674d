"""Runs models: in worker processes, one pool per environment and group, or in a thread of this process."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference_pool import InferencePoolRegistry, configure_inference_pool
    from .worker.worker import Worker

# Loaded on first use: the parts import each other, and most importers need one of them.
_MODULES = {
    "InferencePoolRegistry": ".inference_pool",
    "Worker": ".worker.worker",
    "configure_inference_pool": ".inference_pool",
}

__all__ = ["InferencePoolRegistry", "Worker", "configure_inference_pool"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
