"""Fast paths give the results of MLflow's own predict, bit for bit."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model
from sklearn.linear_model import LinearRegression

from mlserver.types import InferenceRequest, TensorData
from mlserver_mlflow.fastpath import selection
from mlserver_mlflow.fastpath.predictors import ColumnsPredictor, run_per_request
from mlserver_mlflow.loading.pyfunc import PyFuncModel
from support.flavor_models import FRAME, MIXED
from support.sklearn_models import wrap
from unit.mlflow.conftest import MLflowModels

pytestmark = pytest.mark.filterwarnings("ignore")

DATATYPES = {
    "float64": "FP64",
    "float32": "FP32",
    "int64": "INT64",
    "int32": "INT32",
    "bool": "BOOL",
}


def request_of(frame: pd.DataFrame, datatype: str = "") -> InferenceRequest:
    inputs = [
        {
            "name": name,
            "datatype": datatype or DATATYPES[str(frame[name].dtype)],
            "shape": [len(frame)],
            "data": TensorData.from_array(frame[name].to_numpy()),
        }
        for name in frame.columns
    ]
    request = InferenceRequest.model_validate({"inputs": inputs})
    for tensor in request.inputs:
        tensor.data.normalize(str(tensor.datatype), tensor.shape)
    return request


@pytest.mark.parametrize(
    "model", ["linear", "net", "wide", "labels", "proba", "scaled", "mixed", "no_outputs"]
)
@pytest.mark.parametrize("rows", [1, 2, 5, 33, 400, 3000])
async def test_results_equal_those_of_pyfunc_bit_for_bit(
    mlflow_models: MLflowModels, model: str, rows: int
) -> None:
    served = await mlflow_models(model)
    source = MIXED if model == "mixed" else FRAME
    frame = source.sample(rows, replace=True, random_state=rows).reset_index(drop=True)
    for name in frame.columns:
        if frame[name].dtype.kind == "f":
            frame[name] = frame[name].to_numpy() * np.float32(1.5)
    request = request_of(frame)
    path = selection.make_plan(served.loaded).path
    assert path is not None
    data = path.read(request)
    assert data is not None, "this request needs the fast path"
    expected = served.loaded.predict(frame)
    assert_same(path.run(data), expected)
    assert_same(
        np.asarray(await first_output(served.runtime, request)).reshape(expected.shape), expected
    )


async def first_output(runtime: Any, request: InferenceRequest) -> Any:
    output = (await runtime.predict(request)).outputs[0]
    if output.datatype == "BYTES":
        return np.array([item.decode() for item in output.data.root], dtype=object)
    return output.data.array


def assert_same(actual: Any, expected: Any) -> None:
    if expected.dtype.kind in "OU":
        assert actual.tolist() == expected.tolist()
    else:
        assert actual.dtype == expected.dtype
        assert actual.tobytes() == expected.tobytes()


# model -> joined rows?, arrays instead of frames?, predict in a thread?
DECISIONS: dict[str, tuple[bool, bool | None, bool]] = {
    "linear": (True, True, False),
    "labels": (True, True, False),
    "proba": (True, True, False),
    "scaled": (True, True, False),
    "mixed": (True, False, False),
    "words": (False, None, False),
    "no_signature": (False, None, False),
    "unnamed_tensor": (True, None, False),
    "tensors": (False, None, True),
    "echo_double": (False, False, True),
    "echo_all": (False, None, True),
    "people": (False, None, True),
}


@pytest.mark.parametrize("model", DECISIONS)
async def test_decisions(mlflow_models: MLflowModels, model: str) -> None:
    served = await mlflow_models(model)
    decided = selection.make_plan(served.loaded)
    arrays = not decided.path.as_frame if isinstance(decided.path, ColumnsPredictor) else None
    assert (decided.row_wise, arrays, decided.in_thread) == DECISIONS[model]
    assert served.runtime.row_wise == decided.row_wise
    assert bool(decided.route_config) == decided.row_wise


async def test_enforcement_is_compared_on_the_smallest_and_the_largest_sample(
    mlflow_models: MLflowModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs more than a prediction, and copies a frame of the signature's dtypes."""
    served = await mlflow_models("linear")
    predict, row_counts = PyFuncModel.predict, []

    def record(model: PyFuncModel, data: pd.DataFrame, *args: Any, **kwargs: Any) -> Any:
        row_counts.append(len(data))
        return predict(model, data, *args, **kwargs)

    monkeypatch.setattr(PyFuncModel, "predict", record)
    plan = selection.make_plan(served.loaded)
    assert row_counts == [1, selection.CHECKED_SAMPLES[-1][0]]
    assert isinstance(plan.path, ColumnsPredictor)
    assert not plan.path.as_frame


async def test_arrays_are_limited_to_the_rows_that_mlflow_confirms(
    mlflow_models: MLflowModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await mlflow_models("linear")
    predict, largest = PyFuncModel.predict, selection.CHECKED_SAMPLES[-1][0]

    def differ(model: PyFuncModel, data: pd.DataFrame, *args: Any, **kwargs: Any) -> Any:
        result = predict(model, data, *args, **kwargs)
        return result if len(data) < largest else np.nextafter(result, np.inf)

    monkeypatch.setattr(PyFuncModel, "predict", differ)
    path = selection.make_plan(served.loaded).path
    assert isinstance(path, ColumnsPredictor)
    assert path.max_rows == selection.CHECKED_SAMPLES[-2][0]


def test_bodies_with_names_that_are_no_text_are_read_by_mlflow() -> None:
    """Keys of JSON are text, which MLflow maps to the labels of columns."""
    model = wrap(LinearRegression().fit(FRAME, FRAME["a"]), pd.DataFrame(FRAME.to_numpy()))
    plan = selection.make_plan(model)
    assert plan.row_wise
    assert (plan.json_config, plan.route_config) == ({}, {})


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (np.zeros(2), {"output": "array", "rank": 1}),
        (np.zeros((2, 3)), {"output": "array", "rank": 2}),
        (np.array(["a", "b"]), {"output": "array", "rank": 1}),
        (np.array(["a", "b"], dtype=object), {"output": "array", "rank": 1}),
        (np.array(["a", None], dtype=object), None),
        (np.array([1.0, "a"], dtype=object), None),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), None),
        (np.float64(1.0), None),
        ({"a": np.zeros(2)}, {"output": "dict"}),
        ({"a": np.zeros(2), "b": np.array(["a", "b"])}, None),
        ({1: np.zeros(2)}, None),
        ({}, None),
        ([1.0], None),
        (pd.DataFrame({"a": [1.0]}), None),
    ],
    ids=str,
)
def test_results_that_the_front_end_may_write(result: Any, expected: dict[str, Any] | None) -> None:
    assert selection._describe_output(result) == expected


class Sums:
    """A model whose rows are not independent: every prediction contains the sum of all rows."""

    def predict(self, data: Any, params: Any = None) -> Any:
        return np.full(len(data), float(np.asarray(data).sum()))


class Counts:
    """A model that does not repeat itself."""

    calls = 0

    def predict(self, data: Any, params: Any = None) -> Any:
        self.calls += 1
        return np.full(len(data), float(self.calls))


async def test_a_model_that_does_not_repeat_itself_takes_the_slow_path(
    mlflow_models: MLflowModels,
) -> None:
    model = PyFuncModel(Model.load(str(mlflow_models.path("linear"))), Counts())
    decided = selection.make_plan(model)
    assert not decided.row_wise
    assert not decided.route_config
    assert decided.path is None
    assert not decided.in_thread
    assert selection.make_plan(model, selection.describe_plan(decided)) == decided


@pytest.mark.parametrize(
    ("flavor", "is_estimator"), [("mlflow.sklearn", True), ("mlflow.pytorch", False)]
)
def test_networks_are_no_estimators(flavor: str, is_estimator: bool) -> None:
    """`max_batch_size` requests joint predictions of them although the last bits differ."""
    model = wrap(LinearRegression().fit(FRAME, FRAME["a"]), FRAME.to_numpy(), flavor)
    assert selection.make_plan(model).is_estimator is is_estimator


async def test_rows_that_depend_on_each_other_are_predicted_request_by_request(
    mlflow_models: MLflowModels,
) -> None:
    decided = selection.make_plan(
        PyFuncModel(Model.load(str(mlflow_models.path("linear"))), Sums())
    )
    assert decided.row_wise
    assert decided.per_request
    assert decided.path is not None
    columns = [
        str(spec.name)
        for spec in Model.load(str(mlflow_models.path("linear"))).get_input_schema().inputs
    ]
    data = pd.DataFrame({name: [1.0, 2.0, 3.0] for name in columns})
    together = run_per_request(decided.path, data, [1, 2])
    assert together.tolist() == [len(columns), 5 * len(columns), 5 * len(columns)]


async def test_joined_requests_get_every_bit_that_they_get_alone(
    mlflow_models: MLflowModels,
) -> None:
    decided = selection.make_plan((await mlflow_models("linear")).loaded)
    assert isinstance(decided.path, ColumnsPredictor)
    random = np.random.default_rng(3)
    rows = [1, 1, 7, 30, 1, 120]
    data = np.asfortranarray(random.standard_normal((sum(rows), len(decided.path.names))) * 10)
    ends = np.cumsum(rows)
    alone = [
        decided.path.run(np.asfortranarray(data[end - count : end]))
        for count, end in zip(rows, ends, strict=True)
    ]
    together = run_per_request(decided.path, data, rows)
    assert together.tobytes() == np.concatenate(alone).tobytes()


async def test_requests_that_are_not_plain_take_the_slow_path(
    mlflow_models: MLflowModels,
) -> None:
    path = selection.make_plan((await mlflow_models("linear")).loaded).path
    assert path is not None

    def changed(**values: Any) -> InferenceRequest:
        request = request_of(FRAME[:2])
        for name, value in values.items():
            setattr(request.inputs[0], name, value)
        return request

    assert path.read(changed()) is not None
    assert path.read(changed(name="z")) is None
    assert path.read(changed(shape=[1, 2])) is None
    assert path.read(changed(shape=[])) is None
    assert path.read(changed(datatype="INT64")) is None
    assert path.read(request_of(FRAME[:2].assign(z=1.0))) is None
    assert path.read(request_of(FRAME[:0])) is None
    shuffled = path.read(request_of(FRAME[:2][["c", "a", "b"]]))
    assert np.asarray(shuffled).tolist() == FRAME[:2].to_numpy().tolist()


@pytest.mark.parametrize("model", ["scale", "scale_named"])
async def test_a_model_may_write_to_its_input(mlflow_models: MLflowModels, model: str) -> None:
    """As with MLflow's own server, although the bytes of a request are read-only."""
    served = await mlflow_models(model)
    assert selection.make_plan(served.loaded).path is not None
    pixels = np.array([[51, 102], [0, 255]], dtype="float32")
    raw = TensorData.from_raw(pixels.tobytes(), "FP32", [2, 2])
    for data in (raw, TensorData(pixels.ravel().tolist()), TensorData.from_array(pixels)):
        sent = InferenceRequest.model_validate(
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": data}]}
        )
        for _ in range(2):
            actual = await first_output(served.runtime, sent)
            expected = np.array([51, 102], dtype="float32") / 255
            assert actual.tolist() == [expected.sum(), 1]


async def test_missing_values_are_refused_as_the_estimator_refuses_them(
    mlflow_models: MLflowModels,
) -> None:
    from mlserver.errors import MLServerError

    frame = FRAME[:2].copy()
    frame.loc[1, "b"] = np.nan
    with pytest.raises(MLServerError, match="NaN") as caught:
        await (await mlflow_models("linear")).runtime.predict(request_of(frame))
    assert caught.value.status_code == 400
    assert (caught.value.details or {})["error_code"] == "BAD_REQUEST"


@pytest.mark.parametrize("model", DECISIONS)
async def test_decisions_of_another_worker_give_the_same_plan(
    mlflow_models: MLflowModels, model: str
) -> None:
    """As plain values, without trials: the same path, with the same results."""
    served = await mlflow_models(model)
    decided = selection.make_plan(served.loaded)
    known = msgspec.msgpack.decode(msgspec.msgpack.encode(selection.describe_plan(decided)))
    again = selection.make_plan(served.loaded, known)

    assert selection.describe_plan(again) == selection.describe_plan(decided)
    assert (again.in_thread, again.json_config) == (decided.in_thread, decided.json_config)
    assert type(again.path) is type(decided.path)
    if isinstance(decided.path, ColumnsPredictor) and isinstance(again.path, ColumnsPredictor):
        assert again.path.as_frame == decided.path.as_frame
        frame = FRAME if list(FRAME.columns) == decided.path.names else None
        data = None if frame is None else again.path.read(request_of(frame.head(7)))
        if data is not None:
            assert_same(again.path.run(data), decided.path.run(data))


async def test_a_load_uses_the_results_of_another_load_of_the_same_files(
    mlflow_models: MLflowModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await mlflow_models("linear")
    results = served.runtime.trial_results
    assert results is not None
    checked: list[Any] = []
    check = selection._check_plan

    def record(*arguments: Any) -> Any:
        checked.append(arguments)
        return check(*arguments)

    monkeypatch.setattr(selection, "_check_plan", record)
    for known, trials in ((results, 0), ({**results, "files": "others"}, 1)):
        checked.clear()
        runtime = type(served.runtime)(served.runtime.settings)
        runtime.trial_results = known
        assert await runtime.load()
        assert len(checked) == trials
        assert runtime.trial_results == results
        assert runtime.row_wise == served.runtime.row_wise
        await runtime.unload()
