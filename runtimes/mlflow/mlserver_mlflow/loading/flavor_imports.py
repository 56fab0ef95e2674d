"""Modules that a model's flavor needs and that are imported before MLflow, from its `MLmodel`."""

from __future__ import annotations

import os

from mlserver.locations import locate
from mlserver.settings import ModelSettings

from . import mlmodel_text

_SERIALIZATION = mlmodel_text.compile_entry("serialization_format")
# Value of `serialization_format` -> module.
_MODULES = {"skops": "mlserver_mlflow.loading.skops_import"}


def list_for_settings(settings: ModelSettings) -> list[str]:
    """Return the modules of a model in a local folder; [] for one at another address. Blocks."""
    uri = settings.parameters.uri if settings.parameters else None
    folder = locate(uri, settings.folder) if uri else None
    if folder is None:
        return []
    if os.path.basename(folder) == mlmodel_text.MLMODEL:
        folder = os.path.dirname(folder)
    formats = mlmodel_text.find_values(_SERIALIZATION, mlmodel_text.read_text(folder))
    return [_MODULES[name] for name in formats if name in _MODULES]
