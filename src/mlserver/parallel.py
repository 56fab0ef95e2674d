"""Worker processes under the names of MLServer 1.x; they live in `execution`."""

from .execution.pools import PoolExecutor as InferencePoolRegistry
from .execution.worker import Worker
from .settings import Settings

__all__ = ["InferencePoolRegistry", "Worker", "configure_inference_pool"]


def configure_inference_pool(settings: Settings) -> None:
    """Nothing is left to configure: workers get their settings, and send their metrics, over their own channel."""
