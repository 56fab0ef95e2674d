"""The model registry: models by name and version, their pipelines, and traffic splits."""

from .mlserver1_names import MultiModelRegistry, SingleModelRegistry, model_initialiser
from .model_version import (
    LOAD_RETRY,
    ModelPipeline,
    ModelVersion,
    OuterStage,
    PipelineBuilder,
    default_version,
)
from .registry import ModelRegistryView, Registry

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
