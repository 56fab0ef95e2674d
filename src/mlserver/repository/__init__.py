"""Model repositories: sources of model settings."""

from .factory import ModelRepositoryFactory
from .load import DEFAULT_MODEL_SETTINGS_FILENAME, load_model_settings
from .repository import ModelRepository, SchemalessModelRepository

__all__ = [
    "DEFAULT_MODEL_SETTINGS_FILENAME",
    "ModelRepository",
    "ModelRepositoryFactory",
    "SchemalessModelRepository",
    "load_model_settings",
]
