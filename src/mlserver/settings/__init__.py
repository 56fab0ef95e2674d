"""Settings of the server and of models: fields, sources, errors."""

from ..errors import SettingsError
from .base import ENV_FILE_SETTINGS, BaseSettings
from .fields import (
    DEFAULT_ENVIRONMENTS_DIR,
    DEFAULT_METRICS_DIR,
    DEFAULT_PARALLEL_WORKERS,
    ENV_PREFIX_MODEL_SETTINGS,
    ENV_PREFIX_SETTINGS,
    CORSSettings,
    ModelParameters,
    ModelSettings,
    Settings,
)

__all__ = [
    "DEFAULT_ENVIRONMENTS_DIR",
    "DEFAULT_METRICS_DIR",
    "DEFAULT_PARALLEL_WORKERS",
    "ENV_FILE_SETTINGS",
    "ENV_PREFIX_MODEL_SETTINGS",
    "ENV_PREFIX_SETTINGS",
    "BaseSettings",
    "CORSSettings",
    "ModelParameters",
    "ModelSettings",
    "Settings",
    "SettingsError",
]
