"""Array-based predict functions of scikit-learn estimators, candidates that `selection` verifies.

scikit-learn converts a frame to an array and checks its column names in every call; an array skips
both.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..loading.pyfunc import PyFuncModel, raw_model
from .predictors import Predict

# Classes that select columns by name, or pass the data to code that may.
NAME_AWARE_CLASSES = frozenset(("ColumnTransformer", "FunctionTransformer", "FeatureUnion"))
# Their predict is `X @ coef_ + intercept_`; validation of X takes 20 times as long.
LINEAR_CLASSES = frozenset(
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
# Trees look up and add leaves row by row, so that other rows in the same call change no bit.
TREE_FLAVORS = frozenset(("mlflow.xgboost", "mlflow.lightgbm", "mlflow.catboost"))
TREE_MODULES = (
    "sklearn.tree.",
    "sklearn.ensemble._forest",
    "sklearn.ensemble._gb",
    "sklearn.ensemble._hist_gradient",
)
# Results have the dtype that the trained model fixes.
TENSOR_FLAVORS = frozenset(("mlflow.onnx", "mlflow.keras", "mlflow.tensorflow", "mlflow.pytorch"))


def ignore_feature_name_warnings() -> None:
    """Silence scikit-learn's warnings about feature names, which it would emit for every request.

    The signature decides whether a model gets a frame or an array, whatever it was fitted with.
    Missing and reordered columns are errors in scikit-learn, not warnings.
    """
    warnings.filterwarnings("ignore", r"X (has|does not have valid) feature names", UserWarning)


def is_tree_model(model: PyFuncModel) -> bool:
    """Whether a model consists of decision trees only."""
    if model.loader_module in TREE_FLAVORS:
        return True
    if model.loader_module != "mlflow.sklearn":
        return False
    return type(raw_model(model)).__module__.startswith(TREE_MODULES)


def has_fixed_types(model: PyFuncModel) -> bool:
    """Whether the dtypes of a model's results are independent of values (no user code)."""
    if model.loader_module in TREE_FLAVORS or model.loader_module in TENSOR_FLAVORS:
        return True
    if model.loader_module != "mlflow.sklearn":
        return False
    return _is_name_free(_find_last_step(raw_model(model)))


def _find_last_step(estimator: Any) -> Any:
    """Return the last step of a pipeline, nested ones included; another estimator itself."""
    while type(estimator).__name__ == "Pipeline" and estimator.steps:
        estimator = estimator.steps[-1][1]
    return estimator


def find_deciding_functions(
    model: PyFuncModel, predict_fn: str, as_frame: bool
) -> list[Predict] | None:
    """Return functions whose numbers decide the results of `predict_fn`, which may hide last bits.

    They are the scores of labels, and the steps of a pipeline before its last one, which may be a
    tree or look for neighbours. None if labels have no scores.

    Args:
        as_frame: Whether they receive frames; else arrays.
    """
    if model.loader_module != "mlflow.sklearn":
        return []
    estimator = raw_model(model)
    functions: list[Predict] = []
    has_labels = _predicts_labels(estimator, predict_fn)
    if not as_frame:
        estimator = without_feature_names(estimator)
    if has_labels:
        scores = getattr(estimator, "decision_function", None)
        scores = scores or getattr(estimator, "predict_proba", None)
        if scores is None:
            return None
        functions.append(scores)
    if steps := _list_steps(estimator)[:-1]:
        functions.append(_make_transform(steps))
    return functions


def _list_steps(estimator: Any) -> list[Any]:
    """Return the estimators of a pipeline, nested ones included; another one alone."""
    if type(estimator).__name__ != "Pipeline":
        return [estimator]
    steps = [step for _, step in estimator.steps if step not in (None, "passthrough")]
    return [part for step in steps for part in _list_steps(step)]


def _make_transform(steps: list[Any]) -> Predict:
    """Return the function that applies fitted transformers in turn, with a dense result."""

    def transform(data: Any) -> Any:
        for step in steps:
            data = step.transform(data)
        return data.toarray() if hasattr(data, "toarray") else data

    return transform


def _predicts_labels(estimator: Any, predict_fn: str) -> bool:
    if predict_fn != "predict":
        return False
    from sklearn.base import ClusterMixin, is_classifier, is_outlier_detector

    is_labelling = is_classifier(estimator) or is_outlier_detector(estimator)
    return is_labelling or isinstance(_find_last_step(estimator), ClusterMixin)


def array_predictors(estimator: Any, predict_fn: str) -> Iterator[Predict]:
    """Yield array functions that may replace the estimator's `predict_fn`, the fastest first."""
    stripped = without_feature_names(estimator)
    if stripped is None:
        return
    predict: Predict = getattr(stripped, predict_fn)
    if type(estimator).__name__ in LINEAR_CLASSES and predict_fn == "predict":
        yield make_linear_predictor(stripped.coef_, stripped.intercept_, predict)
    yield predict


def make_linear_predictor(coefficients: Any, intercept: Any, predict: Predict) -> Predict:
    """Return the formula of a linear model, with `predict` for data that the estimator refuses."""
    weights = np.asarray(coefficients).T
    width = weights.shape[0]

    def predict_linear(data: Any) -> Any:
        if data.shape[0] and data.shape[1] == width and np.isfinite(data).all():
            return data @ weights + intercept
        return predict(data)

    return predict_linear


def without_feature_names(estimator: Any) -> Any | None:
    """Return a copy without `feature_names_in_`, which accepts arrays without a warning.

    None if the estimator may select columns by name.
    """
    if not _is_name_free(estimator):
        return None
    stripped = copy.copy(estimator)
    if type(estimator).__name__ == "Pipeline":
        stripped.steps = []
        for name, step in estimator.steps:
            is_estimator = step not in (None, "passthrough")
            stripped_step = without_feature_names(step) if is_estimator else step
            if stripped_step is None:
                return None
            stripped.steps.append((name, stripped_step))
        return stripped
    vars(stripped).pop("feature_names_in_", None)
    return stripped


def _is_name_free(estimator: Any) -> bool:
    """Whether an estimator of scikit-learn has no access to columns by name."""
    kind = type(estimator)
    return kind.__module__.startswith("sklearn.") and kind.__name__ not in NAME_AWARE_CLASSES
