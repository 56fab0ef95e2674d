"""An MLflow signature as V2 metadata: names, datatypes, shapes and content types of inputs and outputs.

What a signature knows beyond V2's fields (optional columns, nested types, the params schema) goes into `parameters`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mlflow.types import DataType
from mlflow.types.schema import ColSpec, ParamSchema, Schema, TensorSpec

from mlserver.logging import get_logger
from mlserver.types import MetadataTensor, Parameters

from .v2.signature_inputs import MAX_NAME, input_names, renamed_inputs

if TYPE_CHECKING:
    import numpy as np

logger = get_logger()

DefaultInputPrefix = "input-"
DefaultOutputPrefix = "output-"

# MLflow's scalar column type -> V2 datatype and content type.
SCALARS: dict[DataType, tuple[str, str]] = {
    DataType.boolean: ("BOOL", "np"),
    DataType.integer: ("INT32", "np"),
    DataType.long: ("INT64", "np"),
    DataType.float: ("FP32", "np"),
    DataType.double: ("FP64", "np"),
    DataType.string: ("BYTES", "str"),
    DataType.binary: ("BYTES", "base64"),
    DataType.datetime: ("BYTES", "datetime"),
}
NUMBERS = frozenset(
    (DataType.boolean, DataType.integer, DataType.long, DataType.float, DataType.double)
)
# NumPy's kind and item size -> V2 datatype, for tensors.
TENSORS: dict[tuple[str, int], str] = {
    ("b", 1): "BOOL",
    **{("u", size): f"UINT{size * 8}" for size in (1, 2, 4, 8)},
    **{("i", size): f"INT{size * 8}" for size in (1, 2, 4, 8)},
    **{("f", size): f"FP{size * 8}" for size in (2, 4, 8)},
}


def to_metadata_tensors(schema: Schema, prefix: str = DefaultInputPrefix) -> list[MetadataTensor]:
    """One tensor per column or tensor of the schema; what has no name is called by `prefix` and its position.

    So is an input whose name no request can carry. Outputs keep theirs: answers carry any text.
    """
    if prefix == DefaultInputPrefix:
        names = input_names(schema, prefix)
        renamed = renamed_inputs(schema, names)
    else:
        # One output without a name is answered as output-1, as by MLServer 1.x.
        first = 1 if len(schema.inputs) == 1 else 0
        names = [
            f"{prefix}{at}" if spec.name is None else str(spec.name)
            for at, spec in enumerate(schema.inputs, first)
        ]
        renamed = {}
    return [
        MetadataTensor(
            name=name,
            datatype=_get_content_type(spec)[0],
            shape=_get_shape(spec) if prefix == DefaultInputPrefix else _get_output_shape(spec),
            parameters=_get_parameters(spec, renamed.get(name)),
        )
        for name, spec in zip(names, schema.inputs, strict=True)
    ]


def warn_of_renamed_inputs(model: str, schema: Schema, tensors: Iterable[MetadataTensor]) -> None:
    """Log which inputs of a model have another name in V2 than in the signature."""
    for name, label in renamed_inputs(schema, [tensor.name for tensor in tensors]).items():
        logger.warning(
            "Model '%s': input %r of the signature is named '%s' in V2 requests: expected names of at most %d characters,"
            " without control characters, each used once",
            model,
            label[:80],
            name,
            MAX_NAME,
        )


def to_model_content_type(schema: Schema) -> str:
    """The request-level content type: `dict` for named tensors, `np` for one unnamed tensor, `pd` for columns."""
    if not schema.is_tensor_spec():
        return "pd"
    return "dict" if schema.has_input_names() else "np"


def is_number(spec: ColSpec) -> bool:
    """Whether a column holds one number or boolean per row."""
    return isinstance(spec.type, DataType) and spec.type in NUMBERS


def to_params(schema: ParamSchema | None) -> list[dict[str, Any]]:
    """The params schema as plain values."""
    return [] if schema is None else [dict(spec) for spec in schema.to_dict()]


def _get_content_type(spec: ColSpec | TensorSpec) -> tuple[str, str]:
    """V2 datatype and content type of one column or tensor."""
    if isinstance(spec, TensorSpec):
        return _tensor_type(spec.type)
    return SCALARS[spec.type] if isinstance(spec.type, DataType) else ("BYTES", "pd_json")


def _tensor_type(dtype: np.dtype[Any]) -> tuple[str, str]:
    datatype = TENSORS.get((dtype.kind, dtype.itemsize))
    if datatype is not None:
        return datatype, "np"
    # V2 has no datatype for these: their elements travel as text.
    return "BYTES", {"M": "datetime", "m": "str", "c": "str"}.get(dtype.kind, "np")


def _get_shape(spec: ColSpec | TensorSpec) -> list[int]:
    return [int(size) for size in spec.shape] if isinstance(spec, TensorSpec) else [-1, 1]


def _get_output_shape(spec: ColSpec | TensorSpec) -> list[int]:
    """The shape of the answer, in which an array [n] is sent as [n, 1]."""
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
