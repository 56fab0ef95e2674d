"""A request's parameters -> the params of a model's signature.

gRPC has no lists and objects among its parameters: there, and wherever a client likes, the value of such a param is JSON text.
"""

from __future__ import annotations

import json
from typing import Any

from mlflow.types import DataType
from mlflow.types.schema import ParamSchema

from mlserver.types import Parameters


def read_params(parameters: Parameters | None, schema: ParamSchema | None) -> dict[str, Any] | None:
    """The params that a request carries; None if it carries none, or the signature has none."""
    if parameters is None or schema is None or not parameters.model_extra:
        return None
    values = dict(parameters.model_extra)
    for spec in schema.params:
        is_structured = spec.shape is not None or not isinstance(spec.dtype, DataType)
        if is_structured and isinstance(values.get(spec.name), str):
            values[spec.name] = _from_json(values[spec.name])
    return values


def _from_json(text: str) -> Any:
    """The list or object of a JSON text. Other text stays as it is: MLflow says what it expected."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, list | dict) else text
