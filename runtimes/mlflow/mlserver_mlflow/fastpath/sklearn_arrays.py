"""scikit-learn estimators called with arrays: quicker ways to the same result, offered to `plan`, which proves each first."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..loading.pyfunc import PyFuncModel, raw_model
from .predictors import Predict

# These look at columns by name, or hand the data to code that may.
BY_NAME = frozenset(("ColumnTransformer", "FunctionTransformer", "FeatureUnion"))
# Their predict is `X @ coef_ + intercept_` behind twenty times as much checking of X.
LINEAR = frozenset(
    (
        "ElasticNet",
        "ElasticNetCV",
        "Lasso",
        "LassoCV",
        "LinearRegression",
        "Ridge",
        "RidgeCV",
        "LassoLars",
        "Lars",
    )
)


# Their results are looked up and added row by row, so other rows in the same call cannot change a bit.
TREE_FLAVORS = frozenset(("mlflow.xgboost", "mlflow.lightgbm", "mlflow.catboost"))
TREE_MODULES = (
    "sklearn.tree.",
    "sklearn.ensemble._forest",
    "sklearn.ensemble._gb",
    "sklearn.ensemble._hist_gradient",
)


def ignore_feature_name_warnings() -> None:
    """Silence scikit-learn where it says that data has, or lacks, names of columns: it would say so for every request.

    A signature decides whether a model gets a frame or an array, whatever it was fitted with. Columns that are missing or in
    another order than those that the model was fitted with are an error, not a warning.
    """
    warnings.filterwarnings("ignore", r"X (has|does not have valid) feature names", UserWarning)


def is_tree_model(model: PyFuncModel) -> bool:
    """Whether a model is made of decision trees and nothing else."""
    if model.loader_module in TREE_FLAVORS:
        return True
    return model.loader_module == "mlflow.sklearn" and type(raw_model(model)).__module__.startswith(
        TREE_MODULES
    )


# Their results have the dtype that the trained model gives them.
TENSOR_FLAVORS = frozenset(("mlflow.onnx", "mlflow.keras", "mlflow.tensorflow", "mlflow.pytorch"))


def has_fixed_types(model: PyFuncModel) -> bool:
    """Whether the dtypes of a model's numbers do not depend on their values: known libraries, without code of users."""
    if model.loader_module in TREE_FLAVORS or model.loader_module in TENSOR_FLAVORS:
        return True
    if model.loader_module != "mlflow.sklearn":
        return False
    estimator = raw_model(model)
    while type(estimator).__name__ == "Pipeline" and estimator.steps:
        estimator = estimator.steps[-1][1]
    return (
        type(estimator).__module__.startswith("sklearn.")
        and type(estimator).__name__ not in BY_NAME
    )


def array_predictors(estimator: Any, predict_fn: str) -> Iterator[Predict]:
    """Functions of an array that may stand for the estimator's `predict_fn`, the quickest first."""
    twin = without_feature_names(estimator)
    if twin is None:
        return
    predict: Predict = getattr(twin, predict_fn)
    if type(estimator).__name__ in LINEAR and predict_fn == "predict":
        yield linear(twin.coef_, twin.intercept_, predict)
    yield predict


def linear(coefficients: Any, intercept: Any, predict: Predict) -> Predict:
    """A linear model's formula; data that the estimator would refuse still goes to its own predict."""
    weights = np.asarray(coefficients).T
    width = weights.shape[0]

    def formula(data: Any) -> Any:
        if data.shape[0] and data.shape[1] == width and np.isfinite(data).all():
            return data @ weights + intercept
        return predict(data)

    return formula


def without_feature_names(estimator: Any) -> Any | None:
    """A copy that does not remember its columns' names, so that arrays raise no warning; None if names may matter."""
    if not type(estimator).__module__.startswith("sklearn.") or type(estimator).__name__ in BY_NAME:
        return None
    twin = copy.copy(estimator)
    if type(estimator).__name__ == "Pipeline":
        steps = [
            (name, step if step in (None, "passthrough") else without_feature_names(step))
            for name, step in twin.steps
        ]
        twin.steps = steps
        return twin if all(step is not None for _, step in steps) else None
    vars(twin).pop("feature_names_in_", None)
    return twin
