"""Signatures as V2 metadata."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property, SparkMLVector

from mlserver.types import MetadataTensor, Parameters
from mlserver_mlflow.metadata import (
    _get_content_type,
    _get_shape,
    to_metadata_tensors,
    to_model_content_type,
)
from unit.mlflow.conftest import MLflowModels

OBJECT = Object([Property("x", DataType.long)])
SPECS: list[tuple[ColSpec | TensorSpec, tuple[str, str], list[int]]] = [
    (ColSpec(DataType.boolean, "x"), ("BOOL", "np"), [-1, 1]),
    (ColSpec(DataType.integer, "x"), ("INT32", "np"), [-1, 1]),
    (ColSpec(DataType.long, "x"), ("INT64", "np"), [-1, 1]),
    (ColSpec(DataType.float, "x"), ("FP32", "np"), [-1, 1]),
    (ColSpec(DataType.double, "x"), ("FP64", "np"), [-1, 1]),
    (ColSpec(DataType.string, "x"), ("BYTES", "str"), [-1, 1]),
    (ColSpec(DataType.binary, "x"), ("BYTES", "base64"), [-1, 1]),
    (ColSpec(DataType.datetime, "x"), ("BYTES", "datetime"), [-1, 1]),
    *(
        (ColSpec(kind, "x"), ("BYTES", "pd_json"), [-1, 1])
        for kind in (Array(DataType.double), OBJECT, Map(DataType.long), AnyType(), SparkMLVector())
    ),
    (TensorSpec(np.dtype("float16"), (-1, 3), "x"), ("FP16", "np"), [-1, 3]),
    (TensorSpec(np.dtype("float32"), (-1, 28, 28), "x"), ("FP32", "np"), [-1, 28, 28]),
    (TensorSpec(np.dtype("uint8"), (-1,), "x"), ("UINT8", "np"), [-1]),
    (TensorSpec(np.dtype("int64"), (-1,), "x"), ("INT64", "np"), [-1]),
    (TensorSpec(np.dtype("bool"), (-1,), "x"), ("BOOL", "np"), [-1]),
    (TensorSpec(np.dtype("str"), (-1,), "x"), ("BYTES", "np"), [-1]),
    (TensorSpec(np.dtype("S"), (-1,), "x"), ("BYTES", "np"), [-1]),
    (TensorSpec(np.dtype("O"), (-1,), "x"), ("BYTES", "np"), [-1]),
    (TensorSpec(np.dtype("datetime64[ns]"), (-1,), "x"), ("BYTES", "datetime"), [-1]),
    (TensorSpec(np.dtype("complex128"), (-1,), "x"), ("BYTES", "str"), [-1]),
]


@pytest.mark.parametrize("spec, content_type, shape", SPECS, ids=str)
def test_types_and_shapes(
    spec: ColSpec | TensorSpec, content_type: tuple[str, str], shape: list[int]
) -> None:
    assert _get_content_type(spec) == content_type
    assert _get_shape(spec) == shape


def test_names_come_from_the_signature_or_from_positions() -> None:
    named = to_metadata_tensors(Schema([ColSpec("double", "d"), ColSpec("string", "s")]))
    assert named == [
        MetadataTensor(
            name="d", datatype="FP64", shape=[-1, 1], parameters=Parameters(content_type="np")
        ),
        MetadataTensor(
            name="s", datatype="BYTES", shape=[-1, 1], parameters=Parameters(content_type="str")
        ),
    ]
    unnamed = to_metadata_tensors(Schema([ColSpec("double"), ColSpec("string")]), prefix="output-")
    assert [tensor.name for tensor in unnamed] == ["output-0", "output-1"]


def test_what_v2_has_no_field_for_is_in_the_parameters() -> None:
    (tensor,) = to_metadata_tensors(
        Schema([ColSpec(Array(DataType.double), "arr", required=False)])
    )
    assert tensor.parameters is not None
    assert tensor.parameters.model_extra == {
        "required": False,
        "mlflow_type": {"type": "array", "items": {"type": "double"}},
    }


@pytest.mark.parametrize(
    "schema, expected",
    [
        (Schema([ColSpec("double", "d")]), "pd"),
        (Schema([ColSpec("double"), ColSpec("long")]), "pd"),
        (Schema([TensorSpec(np.dtype("float32"), (-1, 2))]), "np"),
        (Schema([TensorSpec(np.dtype("float32"), (-1, 2), "x")]), "dict"),
    ],
)
def test_the_requests_content_type(schema: Any, expected: str) -> None:
    assert to_model_content_type(schema) == expected


async def test_a_models_metadata_tells_the_whole_signature(mlflow_models: MLflowModels) -> None:
    runtime = (await mlflow_models("echo_params")).runtime
    metadata = await runtime.metadata()
    assert metadata.inputs is not None
    assert [tensor.name for tensor in metadata.inputs] == ["d"]
    assert metadata.outputs == []
    assert metadata.parameters is not None
    assert metadata.parameters.content_type == "pd"
    params = (metadata.parameters.model_extra or {})["params"]
    assert params[0] == {"name": "temp", "default": 0.5, "shape": None, "type": "double"}
    assert [param["name"] for param in params] == ["temp", "n", "stop", "flag"]


async def test_without_a_signature_the_settings_stay(mlflow_models: MLflowModels) -> None:
    metadata = await (await mlflow_models("no_signature")).runtime.metadata()
    assert metadata.inputs == []
    assert metadata.outputs == []
    assert metadata.parameters == Parameters(content_type=None)
