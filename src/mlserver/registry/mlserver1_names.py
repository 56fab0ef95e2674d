"""The registry under the names of MLServer 1.x."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..settings import ModelSettings
from .model_version import ModelVersion
from .registry import Registry

if TYPE_CHECKING:
    from ..model import MLModel

MultiModelRegistry = Registry


class SingleModelRegistry:
    """The versions of one model."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name

    def get_model(self, version: str | None = None) -> ModelVersion:
        """Return one version, or the default version. Raises `ModelNotFound`."""
        return self._registry.find(self._name, version)

    def get_models(self) -> list[ModelVersion]:
        return self._registry.versions(self._name)


def model_initialiser(model_settings: ModelSettings) -> MLModel:
    """Return the model that the settings describe, created in this process and not loaded."""
    implementation: type[MLModel] = model_settings.implementation
    return implementation(model_settings)
