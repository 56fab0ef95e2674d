"""What is loaded: models by name and version, their states and pipelines, and how traffic is split."""

from .registry import (
    LOAD_RETRY,
    ModelPipeline,
    ModelRegistryView,
    ModelVersion,
    MultiModelRegistry,
    PipelineBuilder,
    Registry,
    SingleModelRegistry,
    default_version,
    model_initialiser,
)

__all__ = [
    "LOAD_RETRY",
    "ModelRegistryView",
    "ModelVersion",
    "MultiModelRegistry",
    "Registry",
    "ModelPipeline",
    "PipelineBuilder",
    "SingleModelRegistry",
    "default_version",
    "model_initialiser",
]
