"""MLflow models of fitted scikit-learn estimators, without files."""

from __future__ import annotations

from typing import Any

from mlflow.models import Model, infer_signature
from mlflow.sklearn import _SklearnModelWrapper

from mlserver_mlflow.loading.pyfunc import PyFuncModel


def wrap(estimator: Any, data: Any, flavor: str = "mlflow.sklearn") -> PyFuncModel:
    """A model of scikit-learn as MLflow loads it, without a file."""
    metadata = Model(signature=infer_signature(data))
    metadata.add_flavor("python_function", loader_module=flavor, predict_fn="predict")
    return PyFuncModel(metadata, _SklearnModelWrapper(estimator))
