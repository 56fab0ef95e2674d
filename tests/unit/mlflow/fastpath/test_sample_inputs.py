"""Samples for trial predictions fit the signature and lie around the input example."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from mlserver_mlflow.fastpath.sample_inputs import MAX_SAMPLE_ROWS, SampleInputs

TYPES = {
    "boolean": DataType.boolean,
    "integer": DataType.integer,
    "long": DataType.long,
    "float": DataType.float,
    "double": DataType.double,
}
COLUMNS = Schema([ColSpec(kind, name) for name, kind in TYPES.items()])


def sample(schema: Schema, example: Any = None) -> Any:
    samples = SampleInputs.from_schema(schema, example)
    assert samples is not None
    return samples.rows(samples.row_count)


def tensors(*specs: TensorSpec) -> Schema:
    return Schema(list(specs))


def test_columns_have_the_types_of_the_signature() -> None:
    data = sample(COLUMNS)
    assert len(data) == MAX_SAMPLE_ROWS
    for name, kind in TYPES.items():
        assert data[name].dtype == kind.to_numpy()
        assert data[name].nunique() > 1
    assert set(data["long"]) == set(range(10))
    assert data["double"].abs().max() > 5


def test_samples_are_the_same_in_each_load() -> None:
    pd.testing.assert_frame_equal(sample(COLUMNS), sample(COLUMNS))


def test_samples_are_drawn_around_the_example() -> None:
    example = pd.DataFrame(
        {"integer": [500, 700], "long": [3, 4], "double": [1000.0, np.nan], "float": [np.inf] * 2}
    )
    data = sample(COLUMNS, example)
    assert set(data["integer"]) == {500, 700}
    assert set(data["long"]) == {3, 4}
    assert data["double"].between(400, 1600).all()
    assert data["double"].nunique() > MAX_SAMPLE_ROWS / 2
    assert (data["float"] == 0).all()


@pytest.mark.parametrize(
    "example",
    [
        None,
        {"double": [1000.0]},
        pd.DataFrame({"other": [1000.0]}),
        pd.DataFrame({"double": ["x"]}),
        pd.DataFrame({"double": np.empty(0)}),
    ],
    ids=["none", "a dictionary", "another column", "text", "no rows"],
)
def test_examples_without_numbers_are_ignored(example: Any) -> None:
    pd.testing.assert_frame_equal(sample(COLUMNS, example), sample(COLUMNS))


@pytest.mark.parametrize(
    "schema",
    [
        Schema([ColSpec(DataType.string, "a")]),
        Schema([ColSpec(DataType.double, "a"), ColSpec(DataType.datetime, "b")]),
        Schema([ColSpec(DataType.double)]),
        tensors(TensorSpec(np.dtype("f8"), (3, 2))),
        tensors(TensorSpec(np.dtype("f8"), ())),
        tensors(TensorSpec(np.dtype("str"), (-1, 2))),
    ],
    ids=["text", "one datetime", "no names", "fixed rows", "no dimension", "a tensor of text"],
)
def test_signatures_without_samples(schema: Schema) -> None:
    assert SampleInputs.from_schema(schema) is None


def test_tensors() -> None:
    array = sample(tensors(TensorSpec(np.dtype("f4"), (-1, 2, -1))))
    assert (array.shape, array.dtype) == ((MAX_SAMPLE_ROWS, 2, 4), np.dtype("f4"))
    named = sample(
        tensors(
            TensorSpec(np.dtype("f8"), (-1, 2), "x"),
            TensorSpec(np.dtype("i8"), (-1,), "y"),
        )
    )
    assert {name: values.shape for name, values in named.items()} == {
        "x": (MAX_SAMPLE_ROWS, 2),
        "y": (MAX_SAMPLE_ROWS,),
    }
    assert set(named["y"]) == {0, 1}


@pytest.mark.parametrize("size, rows", [(1000, 200), (200_000, 3)])
def test_large_tensors_have_fewer_rows(size: int, rows: int) -> None:
    assert sample(tensors(TensorSpec(np.dtype("f4"), (-1, size)))).shape == (rows, size)


@pytest.mark.parametrize(
    "schema",
    [
        COLUMNS,
        tensors(TensorSpec(np.dtype("f8"), (-1, 2))),
        tensors(TensorSpec(np.dtype("f8"), (-1, 2), "x")),
    ],
    ids=["columns", "a tensor", "named tensors"],
)
def test_rows_are_a_copy_from_a_position_on(schema: Schema) -> None:
    samples = SampleInputs.from_schema(schema)
    assert samples is not None

    def read(count: int, start: int) -> Any:
        data = samples.rows(count, start)
        data = data["x"] if isinstance(data, dict) else data
        return data.to_numpy() if isinstance(data, pd.DataFrame) else data

    part = read(2, 3)
    assert np.array_equal(part, read(5, 0)[3:])
    part[:] = 9
    assert not np.array_equal(part, read(2, 3))
