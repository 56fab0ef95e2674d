"""Modules that a template process imports for a model, from its `MLmodel`, without MLflow.

What an import costs and what a fork shares depends on the libraries: `parallel.processes` in the
server. Only packages of the flavors in MLflow are named; other ones are learned from workers.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

from mlserver.locations import locate
from mlserver.settings import ModelSettings

from . import mlmodel_text

_PICKLED = mlmodel_text.compile_entry("pickled_model")
# Names of scikit-learn's modules in a pickle, which has them as text; its code is not run.
_SKLEARN_MODULE = re.compile(rb"sklearn(?:\.[A-Za-z_]\w*)+")
# Bytes read of a pickle: a pipeline's classes are at its start, before the arrays of a large model.
_PICKLE_HEAD = 1024 * 1024
_FLAVOR = re.compile(r"^  ['\"]?(\w+)['\"]?:", re.MULTILINE)
# Modules of every model: the runtime, and what MLflow imports at the first load.
_COMMON = (
    "mlserver_mlflow.runtime",
    "numpy",
    "pandas",
    "mlflow.tracing.export.utils",
    "mlflow.tracing.processor.base_mlflow",
    "mlflow.tracing.processor.otel",
    "mlflow.tracing.utils.environment",
    "importlib_metadata._adapters",
    "pyarrow.pandas_compat",
    "pyarrow.vendored.version",
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
    # Its first prediction on a frame imports the last two.
    "sklearn": (
        "mlflow.sklearn",
        "sklearn",
        "narwhals.stable.v2._namespace",
        "narwhals._pandas_like.namespace",
    ),
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
    if folder is None:
        return list(_COMMON)
    text = mlmodel_text.read_text(folder)
    libraries = [name for flavor in _list_flavors(text) for name in _FLAVORS.get(flavor, ())]
    return [*_COMMON, *libraries, *_list_pickled(folder, text)]


def _list_pickled(folder: str, text: str) -> list[str]:
    """Return the modules of scikit-learn that a pickled model names, which `sklearn` imports not.

    A worker would import them at the load, each its own copy.
    """
    modules: dict[str, None] = {}
    for name in mlmodel_text.find_values(_PICKLED, text):
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            continue
        with suppress(OSError), open(path, "rb") as file:
            names = _SKLEARN_MODULE.findall(file.read(_PICKLE_HEAD))
            modules.update(dict.fromkeys(module.decode() for module in names))
    return list(modules)


def _list_flavors(text: str) -> list[str]:
    _, _, flavors = text.partition("flavors:\n")
    block = re.split(r"^\S", flavors, maxsplit=1, flags=re.MULTILINE)[0]
    return _FLAVOR.findall(block)
