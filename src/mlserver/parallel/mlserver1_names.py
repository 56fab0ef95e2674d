"""Public names of MLServer 1.x for workers. The server uses `pool_manager`, `worker_pool`."""

from ..settings import Settings
from .pool_manager import PoolExecutor as InferencePoolRegistry
from .worker.worker import Worker

__all__ = ["InferencePoolRegistry", "Worker", "configure_inference_pool"]


def configure_inference_pool(settings: Settings) -> None:
    """Do nothing: workers receive their settings over their connection.

    Kept for callers of MLServer 1.x.
    """
