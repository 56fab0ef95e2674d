"""Methods of an estimator as requested outputs, alone, together and in batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.tree import DecisionTreeClassifier

from mlserver.batching.batch import join, split
from mlserver.context import model_context
from mlserver.errors import MLServerError
from mlserver.settings import ModelParameters, ModelSettings
from mlserver.types import InferenceRequest, TensorData
from mlserver_mlflow import MLflowRuntime
from support.flavor_models import FRAME, LABELS, TARGET

pytestmark = pytest.mark.filterwarnings("ignore")

TWO = np.column_stack([TARGET > 3, TARGET > 0]).astype(int)
UNEVEN = np.column_stack([(TARGET > 3).astype(int), np.digitize(TARGET, [0, 3])])
ESTIMATORS: dict[str, Callable[[], Any]] = {
    "classifier": lambda: LogisticRegression().fit(FRAME, LABELS),
    "regressor": lambda: LinearRegression().fit(FRAME, TARGET),
    "discriminant": lambda: LinearDiscriminantAnalysis().fit(FRAME, LABELS),
    "clusters": lambda: KMeans(3, random_state=0, n_init=1).fit(FRAME),
    "two_targets": lambda: MultiOutputClassifier(LogisticRegression()).fit(FRAME, TWO),
    "uneven_targets": lambda: DecisionTreeClassifier(max_depth=2, random_state=0).fit(
        FRAME, UNEVEN
    ),
}
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")


class FittedModels:
    """Estimators, fitted and saved once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._estimators: dict[str, Any] = {}

    def settings(self, name: str) -> ModelSettings:
        estimator = self.estimator(name)
        folder = self._folder / name
        if not folder.exists():
            signature = infer_signature(
                FRAME, pd.DataFrame({"quality": estimator.predict(FRAME).reshape(60, -1)[:, 0]})
            )
            # Given requirements spare MLflow the search for them, which takes it seconds.
            options = {"serialization_format": "cloudpickle", "pip_requirements": ["scikit-learn"]}
            mlflow.sklearn.save_model(estimator, folder, signature=signature, **options)
        return ModelSettings(
            name=name, implementation=MLflowRuntime, parameters=ModelParameters(uri=str(folder))
        )

    def estimator(self, name: str) -> Any:
        if name not in self._estimators:
            self._estimators[name] = ESTIMATORS[name]()
        return self._estimators[name]

    async def runtime(self, name: str) -> MLflowRuntime:
        runtime = MLflowRuntime(self.settings(name))
        await runtime.load()
        return runtime


@pytest.fixture(scope="module")
def fitted_models(tmp_path_factory: pytest.TempPathFactory) -> FittedModels:
    return FittedModels(tmp_path_factory.mktemp("methods"))


def build_request(frame: pd.DataFrame, *outputs: str, **fields: Any) -> InferenceRequest:
    inputs = [
        {
            "name": name,
            "datatype": "FP64",
            "shape": [len(frame)],
            "data": TensorData.from_array(frame[name].to_numpy()),
        }
        for name in frame.columns
    ]
    return InferenceRequest.model_validate(
        {"inputs": inputs, "outputs": [{"name": name} for name in outputs], **fields}
    )


def by_name(response: Any) -> dict[str, Any]:
    return {
        output.name: output.data.to_array(output.datatype, output.shape)
        for output in response.outputs
        if output.datatype != "BYTES"
    }


@pytest.mark.parametrize(
    "name, methods",
    [
        ("classifier", ["predict_proba", "predict_log_proba", "decision_function"]),
        ("discriminant", ["transform", "predict_proba"]),
        ("clusters", ["predict", "transform"]),
        ("regressor", ["predict"]),
    ],
)
@pytest.mark.parametrize("general", [False, True], ids=["fast", "slow"])
async def test_methods_give_what_the_estimator_gives(
    fitted_models: FittedModels, name: str, methods: list[str], general: bool
) -> None:
    runtime, estimator = await fitted_models.runtime(name), fitted_models.estimator(name)
    frame = FRAME.head(5)
    request = build_request(frame, *methods)
    if general:
        request.inputs[0].parameters = InferenceRequest.model_validate(
            {"inputs": [], "parameters": {"content_type": "pd"}}
        ).parameters
    outputs = by_name(await runtime.predict(request))
    assert list(outputs) == [method for method in METHODS if method in methods]
    for method in methods:
        expected = getattr(estimator, method)(frame)
        np.testing.assert_array_equal(outputs[method].reshape(expected.shape), expected)


async def test_methods_and_the_models_own_outputs_together(fitted_models: FittedModels) -> None:
    runtime, estimator = (
        await fitted_models.runtime("clusters"),
        fitted_models.estimator("clusters"),
    )
    outputs = by_name(await runtime.predict(build_request(FRAME.head(3), "quality", "transform")))
    assert outputs.keys() == {"quality", "transform"}
    np.testing.assert_array_equal(outputs["quality"].ravel(), estimator.predict(FRAME.head(3)))


async def test_outputs_of_the_signature_still_work(fitted_models: FittedModels) -> None:
    runtime = await fitted_models.runtime("clusters")
    (output,) = (await runtime.predict(build_request(FRAME.head(3), "quality"))).outputs
    assert output.name == "quality"


async def test_a_method_that_is_lacking_lists_those_that_are_there(
    fitted_models: FittedModels,
) -> None:
    runtime = await fitted_models.runtime("classifier")
    with pytest.raises(MLServerError) as caught:
        await runtime.predict(build_request(FRAME.head(1), "transform"))
    assert caught.value.status_code == 400
    assert caught.value.message == (
        "Invalid outputs: the model has no method 'transform'; its methods are"
        " 'predict', 'predict_proba', 'predict_log_proba', 'decision_function'"
    )


async def test_several_targets_have_their_rows_first(fitted_models: FittedModels) -> None:
    runtime, estimator = (
        await fitted_models.runtime("two_targets"),
        fitted_models.estimator("two_targets"),
    )
    outputs = by_name(await runtime.predict(build_request(FRAME.head(4), "predict_proba")))
    expected = np.stack(estimator.predict_proba(FRAME.head(4)), axis=1)
    np.testing.assert_array_equal(outputs["predict_proba"], expected)
    uneven = await fitted_models.runtime("uneven_targets")
    (output,) = (await uneven.predict(build_request(FRAME.head(4), "predict_proba"))).outputs
    assert output.shape == [4, 1]
    assert output.parameters is not None
    assert output.parameters.content_type == "pd_json"


@pytest.mark.parametrize("name", ["classifier", "two_targets"])
async def test_joined_requests_give_each_what_it_gets_alone(
    fitted_models: FittedModels, name: str
) -> None:
    runtime = await fitted_models.runtime(name)
    assert runtime.row_wise
    rows = [1, 3, 2, 1]
    frames = [FRAME.iloc[sum(rows[:at]) :].head(count) for at, count in enumerate(rows)]
    requests = [build_request(frame, "predict_proba", "predict") for frame in frames]
    alone = [await runtime.predict(request) for request in requests]
    with model_context(runtime.settings, rows):
        together = split(await runtime.predict(join(requests)), rows)
    for first, other in zip(alone, together, strict=True):
        assert [output.name for output in first.outputs] == [
            output.name for output in other.outputs
        ]
        for mine, its in zip(first.outputs, other.outputs, strict=True):
            assert mine.shape == its.shape
            assert list(mine.data) == list(its.data)


async def test_results_that_cannot_be_put_together_are_made_one_by_one(
    fitted_models: FittedModels,
) -> None:
    runtime = await fitted_models.runtime("uneven_targets")
    requests = [
        build_request(FRAME.head(2), "predict_proba"),
        build_request(FRAME.tail(1), "predict_proba"),
    ]
    with (
        model_context(runtime.settings, [2, 1]),
        pytest.raises(MLServerError, match="predicted together"),
    ):
        await runtime.predict(join(requests))


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
async def test_boosters(library: str, tmp_path: Path) -> None:
    module = pytest.importorskip(library)
    classes = {
        "xgboost": "XGBClassifier",
        "lightgbm": "LGBMClassifier",
        "catboost": "CatBoostClassifier",
    }
    options = {"catboost": {"iterations": 3, "verbose": False}}.get(library, {"n_estimators": 3})
    estimator = getattr(module, classes[library])(**options).fit(FRAME, (TARGET > 3).astype(int))
    signature = infer_signature(FRAME, estimator.predict(FRAME))
    getattr(mlflow, library).save_model(
        estimator, tmp_path / "model", signature=signature, pip_requirements=[library]
    )
    settings = ModelSettings(
        name="boosted",
        implementation=MLflowRuntime,
        parameters=ModelParameters(uri=str(tmp_path / "model")),
    )
    runtime = MLflowRuntime(settings)
    await runtime.load()
    outputs = by_name(
        await runtime.predict(build_request(FRAME.head(4), "predict", "predict_proba"))
    )
    np.testing.assert_array_equal(
        outputs["predict"].ravel(), estimator.predict(FRAME.head(4)).ravel()
    )
    np.testing.assert_allclose(
        outputs["predict_proba"], estimator.predict_proba(FRAME.head(4)), rtol=1e-6
    )
    with pytest.raises(MLServerError, match="no method 'transform'"):
        await runtime.predict(build_request(FRAME.head(1), "transform"))
