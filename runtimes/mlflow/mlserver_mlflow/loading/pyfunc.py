"""MLflow's pyfunc, imported without the warnings about classes of its own, and what its releases from 2.15 on differ in."""

from __future__ import annotations

import copy
import inspect
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
    except ModuleNotFoundError as problem:
        # Before 2.21 the scoring server imports the tracking server, which mlflow-skinny does not have.
        raise ImportError(
            f"the scoring code of MLflow {VERSION} needs all of MLflow ('{problem.name}' is missing):"
            f" pip install 'mlflow=={VERSION}'"
        ) from problem

from ..v2.signature_inputs import ExactSchema, has_exact_names

__all__ = [
    "PyFuncModel",
    "from_type_hint",
    "input_example",
    "load_model",
    "raw_model",
    "scoring_server",
    "with_exact_names",
    "with_implementation",
    "with_metadata",
    "wrapper_module",
]


def load_model(uri: str, model_config: dict[str, Any] | None = None) -> PyFuncModel:
    """The model in a folder."""
    # What the script of a model from code sets last; a script that sets nothing must not get another model's.
    models_from_code.__mlflow_model__ = None
    return pyfunc.load_model(uri, model_config=model_config)


def from_type_hint(model: PyFuncModel) -> bool:
    """Whether the signature came from a Python type hint, so that the model checks its data itself (from 2.20 on)."""
    said = getattr(model.metadata, "_is_signature_from_type_hint", None)
    return bool(said()) if said is not None else False


def input_example(model: PyFuncModel) -> Any:
    """The example that was saved with the model, or None (also before 3.0, which did not load it)."""
    return getattr(model, "input_example", None)


def raw_model(model: PyFuncModel) -> Any:
    """The library's own model behind the flavor's wrapper."""
    wrapper = model._model_impl
    if hasattr(wrapper, "get_raw_model"):
        return wrapper.get_raw_model()
    return getattr(wrapper, "sklearn_model", wrapper)


def wrapper_module(model: PyFuncModel) -> str:
    """The module of the class that MLflow has wrapped the model with."""
    return type(model._model_impl).__module__


def with_metadata(model: PyFuncModel, metadata: Any) -> PyFuncModel:
    """The same implementation under other metadata."""
    predict_fn = metadata.flavors["python_function"].get("predict_fn", "predict")
    known = inspect.signature(PyFuncModel.__init__).parameters
    more = {"model_id": model.model_id} if "model_id" in known else {}
    return PyFuncModel(metadata, model._model_impl, predict_fn, **more)


def with_exact_names(model: PyFuncModel) -> PyFuncModel:
    """The same model, checking its data by the names that the signature has; MLflow takes 0 and "" for no name."""
    schema = model.metadata.get_input_schema()
    if schema is None or has_exact_names(schema):
        return model
    metadata, signature = copy.copy(model.metadata), copy.copy(model.metadata.signature)
    signature.inputs = ExactSchema(schema.inputs)
    metadata.signature = signature
    return with_metadata(model, metadata)


def with_implementation(model: PyFuncModel, implementation: Any) -> PyFuncModel:
    """Another implementation, with a `predict`, behind the same metadata and checks."""
    return PyFuncModel(model.metadata, implementation, "predict")
