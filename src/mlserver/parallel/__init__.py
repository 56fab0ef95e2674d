"""Executors of models: worker processes in pools, a thread of the server, replicas in Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy_names import create_getattr

if TYPE_CHECKING:
    from .mlserver1_names import InferencePoolRegistry, configure_inference_pool
    from .worker.worker import Worker

# Imported on first use, so that importing a submodule does not import the others.
_MODULES = {
    "InferencePoolRegistry": ".mlserver1_names",
    "Worker": ".worker.worker",
    "configure_inference_pool": ".mlserver1_names",
}

__all__ = ["InferencePoolRegistry", "Worker", "configure_inference_pool"]


__getattr__ = create_getattr(__name__, _MODULES)
