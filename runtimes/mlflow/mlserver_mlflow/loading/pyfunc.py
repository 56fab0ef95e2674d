"""MLflow's pyfunc without its import warnings, for all releases from 2.15 on."""

from __future__ import annotations

import copy
import inspect
import json
import os
import warnings
from typing import Any

from mlflow.version import VERSION

with warnings.catch_warnings():
    warnings.filterwarnings(
        "ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning
    )
    from mlflow import pyfunc
    from mlflow.models import model as models_from_code
    from mlflow.pyfunc import PyFuncModel

    try:
        from mlflow.pyfunc import scoring_server
    except ModuleNotFoundError as error:
        # Before 2.21 the scoring server imports the tracking server, absent from mlflow-skinny.
        raise ImportError(
            f"the scoring server of MLflow {VERSION} needs the full package ('{error.name}' is"
            f" missing): pip install 'mlflow=={VERSION}'"
        ) from error

from ..v2.signature_inputs import ExactSchema, has_exact_names
from . import fast_yaml, requirements_check

__all__ = [
    "PyFuncModel",
    "input_example",
    "is_from_type_hint",
    "load_model",
    "raw_model",
    "read_model_config",
    "scoring_server",
    "with_exact_names",
    "with_implementation",
    "with_metadata",
    "wrapper_module",
]


# Without it, MLflow leaves bytes and datetimes of type-hinted models as the text in the JSON body.
SERVING_ENVIRONMENT = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"
SERVING_MODEL_CONFIG = "SERVING_MODEL_CONFIG"

fast_yaml.install(models_from_code)


def read_model_config(extra: dict[str, Any]) -> dict[str, Any] | None:
    """Return `parameters.extra.model_config`, else the content of MLflow's variable."""
    config: dict[str, Any] | None = extra.get("model_config")
    if config is None and os.environ.get(SERVING_MODEL_CONFIG):
        config = json.loads(os.environ[SERVING_MODEL_CONFIG])
    return config


def load_model(uri: str, model_config: dict[str, Any] | None = None) -> PyFuncModel:
    """Load the model in a folder."""
    os.environ.setdefault(SERVING_ENVIRONMENT, "true")
    # The script of a model from code sets this; one that sets nothing must not get another's model.
    models_from_code.__mlflow_model__ = None
    if not requirements_check.IS_SUPPORTED:
        return pyfunc.load_model(uri, model_config=model_config)
    with requirements_check.replace_check(uri):
        return pyfunc.load_model(uri, suppress_warnings=True, model_config=model_config)


def is_from_type_hint(model: PyFuncModel) -> bool:
    """Whether the signature was inferred from a type hint, so that the model validates its data.

    MLflow before 2.20 has no such signatures.
    """
    method = getattr(model.metadata, "_is_signature_from_type_hint", None)
    return bool(method()) if method is not None else False


def input_example(model: PyFuncModel) -> Any:
    """Return the example saved with the model; None without one, and before MLflow 3.0."""
    return getattr(model, "input_example", None)


def raw_model(model: PyFuncModel) -> Any:
    """Return the library's model from the flavor's wrapper."""
    wrapper = model._model_impl
    if hasattr(wrapper, "get_raw_model"):
        return wrapper.get_raw_model()
    return getattr(wrapper, "sklearn_model", wrapper)


def wrapper_module(model: PyFuncModel) -> str:
    """Return the module of the class that MLflow wraps the model with."""
    return type(model._model_impl).__module__


def with_metadata(model: PyFuncModel, metadata: Any) -> PyFuncModel:
    """Return the same implementation with other metadata."""
    predict_fn = metadata.flavors["python_function"].get("predict_fn", "predict")
    accepted = inspect.signature(PyFuncModel.__init__).parameters
    options: dict[str, Any] = {}
    if "model_id" in accepted:
        options["model_id"] = model.model_id
    # A bound method of the implementation; None if the model is not streamable.
    predict_stream = getattr(model, "_predict_stream_fn", None)
    if predict_stream is not None:
        options["predict_stream_fn"] = predict_stream.__name__
    return PyFuncModel(metadata, model._model_impl, predict_fn, **options)


def with_exact_names(model: PyFuncModel) -> PyFuncModel:
    """Return a model that validates data by the signature's exact names.

    MLflow itself treats the names 0 and "" as missing.
    """
    schema = model.metadata.get_input_schema()
    if schema is None or has_exact_names(schema):
        return model
    metadata, signature = copy.copy(model.metadata), copy.copy(model.metadata.signature)
    signature.inputs = ExactSchema(schema.inputs)
    metadata.signature = signature
    return with_metadata(model, metadata)


def with_implementation(model: PyFuncModel, implementation: Any) -> PyFuncModel:
    """Return a model with another implementation (`predict`) and the same metadata and checks."""
    return PyFuncModel(model.metadata, implementation, "predict")
