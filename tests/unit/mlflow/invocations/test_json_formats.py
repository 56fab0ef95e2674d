"""Bodies that `json_formats` reads have the values that MLflow reads, compared on random bodies.

Where `json_formats` returns None, MLflow's own code reads the body and nothing can differ.
"""

from __future__ import annotations

import json
from typing import Any

import mlflow.types
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.types import ColSpec, Schema, TensorSpec

from mlserver.types import RequestInput
from mlserver_mlflow.invocations import json_formats
from mlserver_mlflow.loading.pyfunc import scoring_server
from support.slow import slow

pytestmark = pytest.mark.filterwarnings("ignore")

TYPES = ["double", "float", "long", "integer", "boolean"]
TENSOR_SCHEMA = Schema(
    [TensorSpec(np.dtype("float32"), (-1, 2), "x"), TensorSpec(np.dtype("int16"), (-1,), "y")]
)
TENSOR_CONFIG = {
    "kind": "tensors",
    "tensors": [["x", "FP32", [-1, 2]], ["y", "INT16", [-1]]],
    "named": True,
}

PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "double": st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**70), 2**70)
    | st.booleans(),
    "float": st.floats(-1e40, 1e40, allow_nan=False)
    | st.integers(-(2**54), 2**54)
    | st.sampled_from([0.1, 1e-46, 16777217]),
    "long": st.integers(-(2**63), 2**63) | st.booleans(),
    "integer": st.integers(-(2**31), 2**31),
    "boolean": st.booleans(),
}
ODD = st.sampled_from([None, "1", "x", 1.5, [1], True, 2**64, {"k": 1}, ""])


def names_of(kinds: list[str]) -> list[str]:
    return [f"{kind[0]}{at}" for at, kind in enumerate(kinds)]


def schema_of(kinds: list[str]) -> Schema:
    return Schema([ColSpec(kind, name) for kind, name in zip(kinds, names_of(kinds), strict=True)])


def config_of(kinds: list[str]) -> dict[str, Any]:
    columns = [list(pair) for pair in zip(names_of(kinds), kinds, strict=True)]
    return {"kind": "columns", "columns": columns}


def cell(kind: str) -> st.SearchStrategy[Any]:
    return st.one_of(PLAIN[kind], PLAIN[kind], PLAIN[kind], PLAIN[kind], ODD)


def plain_rows(kinds: list[str]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.tuples(*(PLAIN[kind] for kind in kinds)).map(list), min_size=1, max_size=4)


def odd_rows(kinds: list[str]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.tuples(*(cell(kind) for kind in kinds)).map(list), max_size=4)


@st.composite
def bodies(draw: st.DrawFn, kinds: list[str]) -> dict[str, Any]:
    rows = draw(plain_rows(kinds) | odd_rows(kinds))
    names = names_of(kinds)
    order = draw(st.permutations(range(len(names))) | st.just(list(range(len(names)))))
    shuffled = [[row[at] for at in order] for row in rows]
    labels = [names[at] for at in order]
    records = [dict(zip(labels, row, strict=True)) for row in shuffled]
    columns = {name: [row[at] for row in shuffled] for at, name in enumerate(labels)}
    form = draw(st.sampled_from(["dataframe_split", "dataframe_records", "inputs", "instances"]))
    if form == "dataframe_split":
        return {form: {"columns": labels, "data": shuffled}}
    if form == "dataframe_records":
        return {form: records}
    return {form: draw(st.sampled_from([records, columns]))}


# Columns of one type are read into a row block, others column by column.
@pytest.mark.parametrize(
    "kinds", [TYPES, *(slow([kind] * 3, id=kind) for kind in TYPES), ["double"]], ids="-".join
)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_columns(kinds: list[str], data: st.DataObject) -> None:
    text = json.dumps(data.draw(bodies(kinds)))
    request = json_formats.read_request(text.encode(), config_of(kinds))
    if request is not None:
        expected = enforced(text, schema_of(kinds))
        actual = pd.DataFrame(
            {tensor.name: array_of(tensor).reshape(-1) for tensor in request.inputs}
        )
        pd.testing.assert_frame_equal(actual, expected, check_exact=True)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.one_of(PLAIN["float"], PLAIN["float"], ODD), min_size=2, max_size=2),
            st.one_of(st.integers(-40000, 40000), ODD),
        ),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_tensors(rows: list[tuple[Any, Any]], as_instances: bool) -> None:
    body: dict[str, Any] = {"inputs": {"x": [x for x, _ in rows], "y": [y for _, y in rows]}}
    if as_instances:
        body = {"instances": [{"x": x, "y": y} for x, y in rows]}
    text = json.dumps(body)
    request = json_formats.read_request(text.encode(), TENSOR_CONFIG)
    if request is not None:
        expected = enforced(text, TENSOR_SCHEMA)
        for tensor in request.inputs:
            actual = array_of(tensor)
            assert actual.dtype == expected[tensor.name].dtype
            assert actual.shape == expected[tensor.name].shape
            assert actual.tobytes() == expected[tensor.name].tobytes()


@pytest.mark.parametrize("rows", [1, 2, 300])
def test_plain_bodies_are_read_here(rows: int) -> None:
    data = [[0.5, 1.5, 3, 4, True]] * rows
    names = names_of(TYPES)
    for body in (
        {"dataframe_split": {"columns": names, "data": data}},
        {"dataframe_records": [dict(zip(names, row, strict=True)) for row in data]},
        {"inputs": {name: [row[at] for row in data] for at, name in enumerate(names)}},
        {"instances": [dict(zip(names, row, strict=True)) for row in data]},
    ):
        request = json_formats.read_request(json.dumps(body).encode(), config_of(TYPES))
        assert request is not None
        assert [(tensor.name, str(tensor.datatype), tensor.shape) for tensor in request.inputs] == [
            (name, datatype, [rows, 1])
            for name, datatype in zip(
                names, ["FP64", "FP32", "INT64", "INT32", "BOOL"], strict=True
            )
        ]


def enforced(text: str, schema: mlflow.types.Schema) -> Any:
    """MLflow's own reading: parsed by the scoring server, then enforced as predict does."""
    from mlflow.models.utils import _enforce_schema

    data, _ = scoring_server._split_data_and_params(text)
    return _enforce_schema(scoring_server.infer_and_parse_data(data, schema), schema)


def array_of(tensor: RequestInput) -> Any:
    return tensor.data.to_array(str(tensor.datatype), tensor.shape)
