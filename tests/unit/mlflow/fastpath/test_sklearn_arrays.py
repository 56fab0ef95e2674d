"""Array functions of scikit-learn's estimators, and the classes of models without user code."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import AdaBoostClassifier, IsolationForest
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from mlserver_mlflow.fastpath import sklearn_arrays

FRAME = pd.DataFrame({"a": [0.0, 1.0, 2.0, 4.0], "b": [1.0, 0.0, 3.0, 5.0]})
LABELS = [0, 1, 1, 0]
TARGET = np.array([1.0, 2.0, 3.0, 6.0])
DATA = np.array([[0.5, 1.5], [2.5, -3.5]])


def load(estimator: Any, loader_module: str = "mlflow.sklearn") -> Any:
    """A loaded model, as far as `sklearn_arrays` reads it."""
    return SimpleNamespace(
        loader_module=loader_module, _model_impl=SimpleNamespace(sklearn_model=estimator)
    )


class Custom(LinearRegression):  # type: ignore[misc]
    """An estimator of another package: it may use names of columns."""


def select_columns() -> ColumnTransformer:
    return ColumnTransformer([("a", StandardScaler(), ["a"])])


# -- array functions --


def test_a_linear_model_has_a_formula_and_its_own_predict() -> None:
    estimator = Ridge().fit(FRAME, TARGET)
    formula, predict = sklearn_arrays.array_predictors(estimator, "predict")
    expected = estimator.predict(pd.DataFrame(DATA, columns=["a", "b"])).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert formula(DATA).tolist() == expected
        assert predict(DATA).tolist() == expected
    assert len(list(sklearn_arrays.array_predictors(estimator, "score"))) == 1


def test_other_models_have_their_own_function_only() -> None:
    classifier = LogisticRegression().fit(FRAME, [0, 1, 1, 1])
    (predict,) = sklearn_arrays.array_predictors(classifier, "predict_proba")
    assert predict(DATA).shape == (2, 2)
    assert not list(sklearn_arrays.array_predictors(select_columns(), "predict"))


@pytest.mark.parametrize(
    "data",
    [
        np.empty((0, 2)),
        np.ones((1, 3)),
        np.ones((1, 1)),
        np.array([[1.0, np.nan]]),
        np.array([[np.inf, 1.0]]),
    ],
    ids=["no rows", "more columns", "fewer columns", "NaN", "infinity"],
)
def test_the_formula_passes_on_what_the_estimator_refuses(data: Any) -> None:
    calls: list[Any] = []
    predict = sklearn_arrays.make_linear_predictor(np.array([1.0, 2.0]), 0.5, calls.append)
    assert predict(data) is None
    assert calls == [data]


def test_the_formula_of_one_and_of_several_targets() -> None:
    def fail(data: Any) -> Any:
        raise AssertionError

    predict = sklearn_arrays.make_linear_predictor(np.array([1.0, 2.0]), 0.5, fail)
    assert predict(DATA).tolist() == [4.0, -4.0]
    weights = np.array([[1.0, 2.0], [0.0, 1.0]])
    predict = sklearn_arrays.make_linear_predictor(weights, np.array([0.5, 1.0]), fail)
    assert predict(DATA).tolist() == [[4.0, 2.5], [-4.0, -2.5]]


# -- copies without names --


def test_the_estimator_keeps_its_names() -> None:
    estimator = LinearRegression().fit(FRAME, TARGET)
    stripped = sklearn_arrays.without_feature_names(estimator)
    assert stripped is not None
    assert not hasattr(stripped, "feature_names_in_")
    assert estimator.feature_names_in_.tolist() == ["a", "b"]


def test_each_step_of_a_pipeline_is_copied() -> None:
    pipeline = make_pipeline(StandardScaler(), "passthrough", LinearRegression()).fit(FRAME, TARGET)
    stripped = sklearn_arrays.without_feature_names(pipeline)
    assert stripped is not None
    assert [name for name, _ in stripped.steps] == [name for name, _ in pipeline.steps]
    assert stripped.steps[1][1] == "passthrough"
    for (_, step), (_, original) in zip(stripped.steps[::2], pipeline.steps[::2], strict=True):
        assert not hasattr(step, "feature_names_in_")
        assert type(step) is type(original)
    assert pipeline.steps[0][1].feature_names_in_.tolist() == ["a", "b"]
    assert (
        stripped.predict(DATA).tolist()
        == pipeline.predict(pd.DataFrame(DATA, columns=["a", "b"])).tolist()
    )


@pytest.mark.parametrize(
    "estimator",
    [
        select_columns(),
        FunctionTransformer(),
        make_pipeline(select_columns(), LinearRegression()),
        Custom(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_estimators_that_may_use_names_get_frames(estimator: Any) -> None:
    assert sklearn_arrays.without_feature_names(estimator) is None


# -- classes of models --


@pytest.mark.parametrize(
    "model, is_tree, is_fixed",
    [
        (load(DecisionTreeRegressor()), True, True),
        (load(LinearRegression()), False, True),
        (load(make_pipeline(StandardScaler(), LinearRegression())), False, True),
        (load(make_pipeline(select_columns(), LinearRegression())), False, True),
        (load(make_pipeline(StandardScaler(), select_columns())), False, False),
        (load(Custom()), False, False),
        (load(None, "mlflow.xgboost"), True, True),
        (load(None, "mlflow.onnx"), False, True),
        (load(DecisionTreeRegressor(), "mlflow.pyfunc.model"), False, False),
    ],
)
def test_trees_and_fixed_types(model: Any, is_tree: bool, is_fixed: bool) -> None:
    assert sklearn_arrays.is_tree_model(model) is is_tree
    assert sklearn_arrays.has_fixed_types(model) is is_fixed


@pytest.mark.parametrize("text", ["X has feature names", "X does not have valid feature names"])
def test_warnings_about_names_are_ignored(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sklearn_arrays.ignore_feature_name_warnings()
        warnings.warn(f"{text}, but ...", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="other"):
            warnings.warn("other", UserWarning, stacklevel=1)


# -- what decides a result --


@pytest.mark.parametrize(
    ("estimator", "predict_fn", "has_scores"),
    [
        (LogisticRegression(), "predict", True),
        (LogisticRegression(), "predict_proba", False),
        (LinearRegression(), "predict", False),
        (IsolationForest(), "predict", True),
        (GaussianNB(), "predict", True),
        (AdaBoostClassifier(DecisionTreeClassifier()), "predict", True),
    ],
    ids=str,
)
def test_which_functions_predict_labels(estimator: Any, predict_fn: str, has_scores: bool) -> None:
    estimator.fit(FRAME, LABELS)
    functions = find(estimator, predict_fn)
    assert functions is not None
    assert len(functions) == has_scores
    model = load(estimator, "mlflow.xgboost")
    assert sklearn_arrays.find_deciding_functions(model, predict_fn, True) == []


@pytest.mark.parametrize("estimator", [KMeans(), make_pipeline(StandardScaler(), KMeans())])
def test_labels_without_scores(estimator: Any) -> None:
    assert find(estimator) is None


@pytest.mark.parametrize("as_frame", [True, False])
def test_the_numbers_that_decide_the_label_of_a_pipeline(as_frame: bool) -> None:
    inner = make_pipeline("passthrough", PCA(1), LogisticRegression())
    pipeline = make_pipeline(StandardScaler(), inner).fit(FRAME, LABELS)
    functions = find(pipeline, as_frame=as_frame)
    assert functions is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores, values = (function(as_data(as_frame)) for function in functions)
        assert scores.tolist() == pipeline.decision_function(FRAME).tolist()
        scaled = pipeline[0].transform(FRAME)
        assert values.tolist() == inner[1].transform(scaled).tolist()


def test_sparse_values_before_the_last_step() -> None:
    pipeline = make_pipeline(OneHotEncoder(), Ridge()).fit(FRAME, TARGET)
    functions = find(pipeline)
    assert functions is not None
    (transform,) = functions
    assert transform(FRAME).tolist() == pipeline[0].transform(FRAME).toarray().tolist()


def find(estimator: Any, predict_fn: str = "predict", as_frame: bool = True) -> Any:
    return sklearn_arrays.find_deciding_functions(load(estimator), predict_fn, as_frame)


def as_data(as_frame: bool) -> Any:
    return FRAME if as_frame else FRAME.to_numpy()
