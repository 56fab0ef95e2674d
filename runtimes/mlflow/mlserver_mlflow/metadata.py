"""V2 metadata of an MLflow signature: names, datatypes, shapes and content types.

Properties without a V2 field (optional columns, nested types, the params schema) are in
`parameters`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mlflow.types import DataType
from mlflow.types.schema import ColSpec, ParamSchema, Schema, TensorSpec

from mlserver.logging import get_logger
from mlserver.model import MLModel
from mlserver.settings import ModelParameters, ModelSettings
from mlserver.types import MetadataModelResponse, MetadataTensor, Parameters

from .v2.signature_inputs import MAX_NAME_LENGTH, input_names, renamed_inputs

if TYPE_CHECKING:
    import numpy as np

logger = get_logger()

DefaultInputPrefix = "input-"
DefaultOutputPrefix = "output-"

# MLflow's scalar column type -> V2 datatype and content type.
SCALAR_TYPES: dict[DataType, tuple[str, str]] = {
    DataType.boolean: ("BOOL", "np"),
    DataType.integer: ("INT32", "np"),
    DataType.long: ("INT64", "np"),
    DataType.float: ("FP32", "np"),
    DataType.double: ("FP64", "np"),
    DataType.string: ("BYTES", "str"),
    DataType.binary: ("BYTES", "base64"),
    DataType.datetime: ("BYTES", "datetime"),
}
NUMERIC_TYPES = frozenset(
    (DataType.boolean, DataType.integer, DataType.long, DataType.float, DataType.double)
)
# NumPy's kind and item size -> V2 datatype, for tensors.
TENSOR_DATATYPES: dict[tuple[str, int], str] = {
    ("b", 1): "BOOL",
    ("u", 1): "UINT8",
    ("u", 2): "UINT16",
    ("u", 4): "UINT32",
    ("u", 8): "UINT64",
    ("i", 1): "INT8",
    ("i", 2): "INT16",
    ("i", 4): "INT32",
    ("i", 8): "INT64",
    ("f", 2): "FP16",
    ("f", 4): "FP32",
    ("f", 8): "FP64",
}


def apply_signature(model: MLModel, settings: ModelSettings, signature: Any) -> None:
    """Set a model's inputs, outputs and content type; without a signature the settings' stay."""
    if signature is None:
        return
    if signature.inputs is not None:
        model.inputs = inputs = to_metadata_tensors(signature.inputs)
        log_renamed_inputs(model.name, signature.inputs, inputs)
        _set_content_type(settings, to_model_content_type(signature.inputs))
    if signature.outputs is not None:
        model.outputs = to_metadata_tensors(signature.outputs, DefaultOutputPrefix)


def _set_content_type(settings: ModelSettings, content_type: str) -> None:
    if settings.parameters is None:
        settings.parameters = ModelParameters()
    configured = settings.parameters.content_type
    if configured and configured != content_type:
        logger.warning(
            "Model '%s': content type '%s' of the settings is replaced by '%s' of the signature",
            settings.name,
            configured,
            content_type,
        )
    settings.parameters.content_type = content_type


def add_model_details(
    response: MetadataModelResponse, version: str | None, signature: Any, source: str | None
) -> MetadataModelResponse:
    """Add version, params schema and source address to a model's metadata."""
    if not response.versions and version:
        response.versions = [version]
    details: dict[str, Any] = {}
    params = to_params(signature.params if signature is not None else None)
    if params:
        details["params"] = params
    if source is not None:
        details["source"] = source
    if details:
        values = response.parameters.to_dict() if response.parameters is not None else {}
        response.parameters = Parameters(**values, **details)
    return response


def to_metadata_tensors(schema: Schema, prefix: str = DefaultInputPrefix) -> list[MetadataTensor]:
    """Return one tensor per column or tensor of the schema.

    Inputs and outputs without a name are named by `prefix` and their position, and so are inputs
    whose names no request may contain (see `signature_inputs`).
    """
    if prefix == DefaultInputPrefix:
        names = input_names(schema, prefix)
        renamed, get_shape = renamed_inputs(schema, names), _get_shape
    else:
        # A single output without a name is output-1, as in MLServer 1.x.
        first = 1 if len(schema.inputs) == 1 else 0
        names = [
            f"{prefix}{position}" if spec.name is None else str(spec.name)
            for position, spec in enumerate(schema.inputs, first)
        ]
        renamed, get_shape = {}, _get_output_shape
    return [
        MetadataTensor(
            name=name,
            datatype=_get_content_type(spec)[0],
            shape=get_shape(spec),
            parameters=_get_parameters(spec, renamed.get(name)),
        )
        for name, spec in zip(names, schema.inputs, strict=True)
    ]


def log_renamed_inputs(model: str, schema: Schema, tensors: Iterable[MetadataTensor]) -> None:
    """Log the inputs of a model that have another name in V2 than in the signature."""
    for name, label in renamed_inputs(schema, [tensor.name for tensor in tensors]).items():
        logger.warning(
            "Model '%s': input %r of the signature is named '%s' in V2 requests: expected unique"
            " names of at most %d characters without control characters",
            model,
            label[:80],
            name,
            MAX_NAME_LENGTH,
        )


def to_model_content_type(schema: Schema) -> str:
    """Return the request's content type: `pd` for columns, `dict` or `np` for tensors."""
    if not schema.is_tensor_spec():
        return "pd"
    return "dict" if schema.has_input_names() else "np"


def is_number(spec: ColSpec) -> bool:
    """Whether a column holds one number or boolean per row."""
    return isinstance(spec.type, DataType) and spec.type in NUMERIC_TYPES


def to_params(schema: ParamSchema | None) -> list[dict[str, Any]]:
    """Return the params schema as plain values."""
    return [] if schema is None else [dict(spec) for spec in schema.to_dict()]


def _get_content_type(spec: ColSpec | TensorSpec) -> tuple[str, str]:
    """Return V2 datatype and content type of a column or tensor."""
    if isinstance(spec, TensorSpec):
        return _get_tensor_content_type(spec.type)
    return SCALAR_TYPES[spec.type] if isinstance(spec.type, DataType) else ("BYTES", "pd_json")


def _get_tensor_content_type(dtype: np.dtype[Any]) -> tuple[str, str]:
    datatype = TENSOR_DATATYPES.get((dtype.kind, dtype.itemsize))
    if datatype is not None:
        return datatype, "np"
    # V2 has no datatype for these: their elements are sent as text.
    return "BYTES", {"M": "datetime", "m": "str", "c": "str"}.get(dtype.kind, "np")


def _get_shape(spec: ColSpec | TensorSpec) -> list[int]:
    return [int(size) for size in spec.shape] if isinstance(spec, TensorSpec) else [-1, 1]


def _get_output_shape(spec: ColSpec | TensorSpec) -> list[int]:
    """Return the shape in the response, where an array [n] has shape [n, 1]."""
    shape = _get_shape(spec)
    return shape if len(shape) != 1 else [*shape, 1]


def _get_parameters(spec: ColSpec | TensorSpec, label: str | None = None) -> Parameters:
    values: dict[str, Any] = {"content_type": _get_content_type(spec)[1]}
    if label is not None:
        values["mlflow_name"] = label
    if isinstance(spec, ColSpec):
        if not spec.required:
            values["required"] = False
        if not isinstance(spec.type, DataType):
            values["mlflow_type"] = spec.type.to_dict()
    return Parameters(**values)
