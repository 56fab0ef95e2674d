"""Executors of models: worker processes in pools, a thread of the server, replicas in Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy_names import create_getattr

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


__getattr__ = create_getattr(__name__, _MODULES)
