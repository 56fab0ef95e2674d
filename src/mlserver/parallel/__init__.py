"""Executors of models: worker processes in pools, or a thread of the server's process."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference_pool import InferencePoolRegistry, configure_inference_pool
    from .worker.worker import Worker

# Imported on first use, so that importing a submodule does not import the others.
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
