"""What is loaded: models by name and version, their states and pipelines, and how traffic is split."""

from .registry import (
    LOAD_RETRY,
    Catalogue,
    Entry,
    MultiModelRegistry,
    Registry,
    Road,
    RoadBuilder,
    SingleModelRegistry,
    default_version,
    model_initialiser,
)

__all__ = [
    "LOAD_RETRY",
    "Catalogue",
    "Entry",
    "MultiModelRegistry",
    "Registry",
    "Road",
    "RoadBuilder",
    "SingleModelRegistry",
    "default_version",
    "model_initialiser",
]
