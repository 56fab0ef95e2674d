"""Conversion of a request's parameters to the params of a model's signature.

Parameters of gRPC have no lists and objects, so the value of such a param may be JSON text in every
protocol.
"""

from __future__ import annotations

import json
from typing import Any

from mlflow.types import DataType
from mlflow.types.schema import ParamSchema

from mlserver.types import Parameters


def read_params(parameters: Parameters | None, schema: ParamSchema | None) -> dict[str, Any] | None:
    """Return the params in a request; None if it or the signature has none."""
    if parameters is None or schema is None or not parameters.model_extra:
        return None
    values = dict(parameters.model_extra)
    for spec in schema.params:
        is_structured = spec.shape is not None or not isinstance(spec.dtype, DataType)
        if is_structured and isinstance(values.get(spec.name), str):
            values[spec.name] = _parse_json(values[spec.name])
    return values


def _parse_json(text: str) -> Any:
    """Return the list or object of a JSON text; other text unchanged, which MLflow refuses."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, list | dict) else text
