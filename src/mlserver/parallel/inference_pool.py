"""Worker processes under the names of MLServer 1.x; they live in `execution`."""

from ..settings import Settings
from .pool_manager import PoolExecutor as InferencePoolRegistry
from .worker.worker import Worker

__all__ = ["InferencePoolRegistry", "Worker", "configure_inference_pool"]


def configure_inference_pool(settings: Settings) -> None:
    """Nothing is left to configure: workers get their settings, and send their metrics, over their own channel."""
