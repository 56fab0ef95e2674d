"""The model registry: models by name and version, their pipelines, and traffic splits."""

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
