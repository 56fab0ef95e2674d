"""The model registry: models by name and version, their pipelines, and traffic splits."""

from .mlserver1_names import MultiModelRegistry, SingleModelRegistry, model_initialiser
from .registry import (
    LOAD_RETRY,
    ModelPipeline,
    ModelRegistryView,
    ModelVersion,
    OuterStage,
    PipelineBuilder,
    Registry,
    default_version,
)

__all__ = [
    "LOAD_RETRY",
    "ModelRegistryView",
    "ModelVersion",
    "MultiModelRegistry",
    "Registry",
    "ModelPipeline",
    "OuterStage",
    "PipelineBuilder",
    "SingleModelRegistry",
    "default_version",
    "model_initialiser",
]
