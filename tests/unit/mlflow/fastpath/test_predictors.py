"""Fast paths read the requests that fit a signature, and leave all others to the slow path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlserver.errors import CannotBatch
from mlserver.types import InferenceRequest, TensorData
from mlserver.types.row_block import RowBlock, RowBlockRequest
from mlserver_mlflow.fastpath.predictors import (
    ColumnsPredictor,
    TensorsPredictor,
    concatenate,
    matches_shape,
    run_per_request,
)

FP64 = np.dtype("f8")


def tensor(name: str, values: Any, datatype: str = "FP64", **fields: Any) -> dict[str, Any]:
    dtypes = {"FP64": "f8", "FP32": "f4", "INT64": "i8", "INT32": "i4", "UINT8": "u1"}
    array = np.array(values, dtype=dtypes[datatype])
    entry = {"name": name, "datatype": datatype, "shape": list(array.shape)}
    return entry | {"data": TensorData.from_array(array)} | fields


def request(*inputs: dict[str, Any], **fields: Any) -> InferenceRequest:
    return InferenceRequest.model_validate({"inputs": list(inputs), **fields})


def columns(*dtypes: str, **fields: Any) -> ColumnsPredictor:
    """Return a predictor for the columns a, b ...; its model returns the argument."""
    names = [chr(ord("a") + index) for index in range(len(dtypes))]
    return ColumnsPredictor(names, list(map(np.dtype, dtypes)), lambda data: data, **fields)


def tensors(**fields: Any) -> TensorsPredictor:
    values: dict[str, Any] = {"names": ["x"], "dtypes": [FP64], "shapes": [[-1, 2]], "named": False}
    return TensorsPredictor(**(values | {"predict": lambda data: data} | fields))


# -- columns --


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_columns_are_sorted_by_the_signature(shape: list[int]) -> None:
    a, b = tensor("a", [1.5, 2.5], shape=shape), tensor("b", [3.5, 4.5], shape=shape)
    for inputs in ((a, b), (b, a)):
        data = columns("f8", "f8").read(request(*inputs))
        assert isinstance(data, pd.DataFrame)
        assert data.to_dict("list") == {"a": [1.5, 2.5], "b": [3.5, 4.5]}


def test_arrays_have_the_order_of_a_frame() -> None:
    data = columns("f8", "f8", as_frame=False).read(
        request(tensor("b", [3, 4]), tensor("a", [1, 2]))
    )
    assert isinstance(data, np.ndarray)
    assert data.tolist() == [[1, 3], [2, 4]]
    assert data.flags.f_contiguous
    assert data.flags.writeable


def test_labels_replace_names() -> None:
    data = columns("f8", "f8", labels=[0, 1]).read(request(tensor("a", [1]), tensor("b", [2])))
    assert data is not None
    assert list(data.columns) == [0, 1]


def test_columns_of_several_dtypes_are_a_frame() -> None:
    path = columns("f8", "i8")
    data = path.read(request(tensor("b", [1, 2], "INT32"), tensor("a", [0.5, 1], "FP32")))
    assert data is not None
    assert [str(dtype) for dtype in data.dtypes] == ["float64", "int64"]
    assert data.to_dict("list") == {"a": [0.5, 1.0], "b": [1, 2]}


def test_smaller_datatypes_are_widened() -> None:
    path = columns("f8", "f8", as_frame=False)
    mixed = path.read(request(tensor("a", [1.5], "FP32"), tensor("b", [200], "UINT8")))
    same = path.read(request(tensor("a", [1.5], "FP32"), tensor("b", [2.5], "FP32")))
    assert mixed is not None
    assert same is not None
    assert (mixed.dtype, mixed.tolist()) == (FP64, [[1.5, 200.0]])
    assert (same.dtype, same.tolist()) == (FP64, [[1.5, 2.5]])


A, B = tensor("a", [1.0, 2.0]), tensor("b", [3.0, 4.0])
SLOW: dict[str, InferenceRequest] = {
    "a missing column": request(A),
    "an additional column": request(A, B, tensor("c", [1.0, 2.0])),
    "another name": request(A, tensor("c", [3.0, 4.0])),
    "the same name twice": request(A, A),
    "other numbers of rows": request(A, tensor("b", [3.0])),
    "no rows": request(tensor("a", []), tensor("b", [])),
    "no dimension": request(tensor("a", 1.0), tensor("b", 2.0)),
    "two columns in one": request(tensor("a", [[1, 2]]), tensor("b", [[1, 2]])),
    "three dimensions": request(tensor("a", [[[1]]]), tensor("b", [[[1]]])),
    "a datatype with loss": request(A, tensor("b", [3, 4], "INT64")),
    "requested outputs": request(A, B, outputs=[{"name": "predict_proba"}]),
    "params": request(A, B, parameters={"temperature": 1}),
    "another content type": request(A, B, parameters={"content_type": "np"}),
    "another content type of a column": request(
        A, B | {"parameters": {"content_type": "datetime"}}
    ),
}


@pytest.mark.parametrize("case", SLOW)
def test_columns_on_the_slow_path(case: str) -> None:
    assert columns("f8", "f8").read(SLOW[case]) is None


def test_content_types_of_the_signature_are_fast() -> None:
    typed = B | {"parameters": {"content_type": "np"}}
    assert (
        columns("f8", "f8").read(request(A, typed, parameters={"content_type": "pd"})) is not None
    )
    assert columns("f8", "f8").read(request(A, B, outputs=[], parameters={})) is not None


@pytest.mark.parametrize("rows, is_fast", [(2, True), (3, False)])
def test_arrays_of_more_rows_than_verified_take_the_slow_path(rows: int, is_fast: bool) -> None:
    path = columns("f8", "f8", max_rows=2)
    values = [1.0] * rows
    block = np.ones((rows, 2)).tobytes()
    as_block = RowBlockRequest.from_rows(RowBlock(("a", "b"), "FP64", (), rows, block))
    assert (path.read(request(tensor("a", values), tensor("b", values))) is not None) is is_fast
    assert (path.read(as_block) is not None) is is_fast


# -- row blocks --


def block_request(names: tuple[str, ...], datatype: str, rows: Any) -> InferenceRequest:
    dtypes = {"FP64": "<f8", "FP32": "<f4", "INT64": "<i8"}
    array = np.array(rows, dtype=dtypes[datatype])
    block = RowBlock(names, datatype, (), len(array), array.tobytes())
    return RowBlockRequest.from_rows(block)


@pytest.mark.parametrize("names, rows", [("ab", [[1, 2], [3, 4]]), ("ba", [[2, 1], [4, 3]])])
@pytest.mark.parametrize("datatype", ["FP64", "FP32"])
def test_row_blocks_equal_tensors(names: str, rows: list[list[float]], datatype: str) -> None:
    for as_frame in (True, False):
        data = columns("f8", "f8", as_frame=as_frame).read(
            block_request(tuple(names), datatype, rows)
        )
        assert data is not None
        assert isinstance(data, pd.DataFrame) is as_frame
        array = data.to_numpy() if isinstance(data, pd.DataFrame) else data
        assert array.dtype == FP64
        assert array.tolist() == [[1, 2], [3, 4]]
        assert array.flags.f_contiguous


@pytest.mark.parametrize(
    "names, datatype", [("abc", "FP64"), ("a", "FP64"), ("ac", "FP64"), ("ab", "INT64")]
)
def test_row_blocks_on_the_slow_path(names: str, datatype: str) -> None:
    rows = [[1] * len(names)]
    assert columns("f8", "f8").read(block_request(tuple(names), datatype, rows)) is None


def test_a_row_block_for_columns_of_several_dtypes_is_read_as_tensors() -> None:
    data = columns("f8", "f4").read(block_request(("a", "b"), "FP32", [[1.5, 2.5]]))
    assert data is not None
    assert [str(dtype) for dtype in data.dtypes] == ["float64", "float32"]


# -- tensors --


def test_tensors_without_names_are_read_by_position() -> None:
    data = tensors().read(request(tensor("any", [[1.0, 2.0]])))
    assert isinstance(data, np.ndarray)
    assert data.tolist() == [[1.0, 2.0]]


def test_named_tensors_are_a_dictionary_of_labels() -> None:
    path = tensors(
        names=["x", "y"], dtypes=[FP64, FP64], shapes=[[-1], [-1]], named=True, labels=["X", "Y"]
    )
    data = path.read(request(tensor("y", [2.0]), tensor("x", [1.0])))
    assert isinstance(data, dict)
    assert {label: array.tolist() for label, array in data.items()} == {"X": [1.0], "Y": [2.0]}
    part = path.part(data, slice(0, 1))
    part["X"][0] = 9
    assert data["X"].tolist() == [1.0]


X = tensor("x", [[1.0, 2.0]])
SLOW_TENSORS: dict[str, InferenceRequest] = {
    "two tensors": request(X, X | {"name": "y"}),
    "another datatype": request(tensor("x", [[1.0, 2.0]], "FP32")),
    "another shape": request(tensor("x", [[1.0, 2.0, 3.0]])),
    "no rows": request(tensor("x", np.empty((0, 2)))),
    "params": request(X, parameters={"temperature": 1}),
    "another content type": request(X, parameters={"content_type": "pd"}),
    "another content type of a tensor": request(X | {"parameters": {"content_type": "str"}}),
}


@pytest.mark.parametrize("case", SLOW_TENSORS)
def test_tensors_on_the_slow_path(case: str) -> None:
    assert tensors().read(SLOW_TENSORS[case]) is None


def test_another_name_of_a_named_tensor_takes_the_slow_path() -> None:
    path = tensors(named=True)
    assert path.read(request(X)) is not None
    assert path.read(request(X | {"name": "y"})) is None
    assert path.read(request(X, parameters={"content_type": "dict"})) is not None
    assert path.read(request(X, parameters={"content_type": "np"})) is None


@pytest.mark.parametrize(
    "shape, spec, matches",
    [
        ([3, 2], [-1, 2], True),
        ([3, 2], [-1, 3], False),
        ([3], [-1, 2], False),
        ([3, 2], [3, 2], True),
        ([4, 2], [3, 2], False),
        ([], [], True),
    ],
)
def test_shapes(shape: list[int], spec: list[int], matches: bool) -> None:
    assert matches_shape(shape, spec) is matches


# -- request by request --


def test_each_request_is_predicted_alone() -> None:
    path = columns("f8", as_frame=False)
    path.predict = lambda data: data.sum(axis=1) + len(data)
    data = np.array([[1.0], [2.0], [3.0]])
    assert run_per_request(path, data, [1, 2]).tolist() == [2.0, 4.0, 5.0]


@pytest.mark.parametrize(
    "result", [[1.0, 2.0], np.array(1.0), np.array([1.0]), np.array([1.0, 2.0, 3.0])]
)
def test_results_that_cannot_be_concatenated(result: Any) -> None:
    path = columns("f8", as_frame=False)
    path.predict = lambda data: result
    with pytest.raises(CannotBatch):
        run_per_request(path, np.ones((2, 1)), [2])


def test_arrays_of_one_dtype_are_concatenated() -> None:
    assert concatenate([np.array(["a"]), np.array(["bcd"])]).tolist() == ["a", "bcd"]
    assert concatenate([np.array([1.5]), np.array([2.5])]).tolist() == [1.5, 2.5]
    for other in (np.array([1]), np.array(["a"]), np.array([1.5], dtype="f4")):
        with pytest.raises(CannotBatch):
            concatenate([np.array([1.5]), other])
        with pytest.raises(CannotBatch):
            concatenate([other, np.array([1.5])])


def test_a_part_is_a_copy() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    part = columns("f8").part(frame, slice(1, 3))
    part.iloc[0, 0] = 9.0
    assert frame["a"].tolist() == [1.0, 2.0, 3.0]
    assert part["a"].tolist() == [9.0, 3.0]
    array = columns("f8", as_frame=False).part(np.ones((3, 2)), slice(0, 2))
    assert (array.shape, bool(array.flags.f_contiguous)) == ((2, 2), True)
