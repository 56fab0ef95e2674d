"""Modules that a template process imports for a model, from its `MLmodel`, without MLflow.

What an import costs and what a fork shares depends on the libraries: `parallel.processes` in the
server. Only packages of the flavors in MLflow are named; other ones are learned from workers.
"""

from __future__ import annotations

import os
import re

from mlserver.locations import locate
from mlserver.settings import ModelSettings

from . import mlmodel_text

_FLAVOR = re.compile(r"^  ['\"]?(\w+)['\"]?:", re.MULTILINE)
# Modules of every model: the runtime, and what MLflow imports at the first load.
_COMMON = (
    "mlserver_mlflow.runtime",
    "numpy",
    "pandas",
    "mlflow.tracing.processor.otel",
    "pyarrow.pandas_compat",
)
# Flavor -> its module in MLflow and the libraries that loading a model imports.
_FLAVORS: dict[str, tuple[str, ...]] = {
    "catboost": ("mlflow.catboost", "catboost"),
    "keras": ("mlflow.keras", "keras"),
    "langchain": ("mlflow.langchain", "langchain"),
    "lightgbm": ("mlflow.lightgbm", "lightgbm"),
    "onnx": ("mlflow.onnx", "onnx", "onnxruntime"),
    "openai": ("mlflow.openai", "openai"),
    "prophet": ("mlflow.prophet", "prophet"),
    "pytorch": ("mlflow.pytorch", "torch"),
    "sentence_transformers": ("mlflow.sentence_transformers", "sentence_transformers"),
    "sklearn": ("mlflow.sklearn", "sklearn"),
    "spacy": ("mlflow.spacy", "spacy"),
    "statsmodels": ("mlflow.statsmodels", "statsmodels"),
    "tensorflow": ("mlflow.tensorflow", "tensorflow"),
    "transformers": ("mlflow.transformers", "transformers"),
    "xgboost": ("mlflow.xgboost", "xgboost"),
}


def list_for_settings(settings: ModelSettings) -> list[str]:
    """Return the modules of a model; without a local folder, those of every model. Blocks."""
    uri = settings.parameters.uri if settings.parameters else None
    folder = locate(uri, settings.folder) if uri else settings.folder
    if folder is not None and os.path.basename(folder) == mlmodel_text.MLMODEL:
        folder = os.path.dirname(folder)
    flavors = [] if folder is None else _list_flavors(mlmodel_text.read_text(folder))
    return [*_COMMON, *(name for flavor in flavors for name in _FLAVORS.get(flavor, ()))]


def _list_flavors(text: str) -> list[str]:
    _, _, flavors = text.partition("flavors:\n")
    block = re.split(r"^\S", flavors, maxsplit=1, flags=re.MULTILINE)[0]
    return _FLAVOR.findall(block)
