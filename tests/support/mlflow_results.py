"""An MLflow model that returns the values it receives, in the form that a request selects."""

from __future__ import annotations

import datetime as dt
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import PythonModel
    from mlflow.types import ColSpec, DataType, Schema

TAGS: dict[str, Callable[[str], Any]] = {
    "date": dt.date.fromisoformat,
    "time": dt.datetime.fromisoformat,
    "bytes": bytes.fromhex,
    "float": float,
}


def value_of(text: str) -> Any:
    """Parse a value.

    `{"date": "2020-01-01"}` and the like are values that JSON cannot represent.
    """
    value = json.loads(text)
    if isinstance(value, dict) and len(value) == 1 and (tag := next(iter(value))) in TAGS:
        return TAGS[tag](value[tag])
    return value


def _objects(values: Sequence[Any]) -> Any:
    array = np.empty(len(values), dtype=object)
    for at, value in enumerate(values):
        array[at] = value
    return array


def _masked(values: list[Any]) -> Any:
    return np.ma.array(
        [0 if value is None else value for value in values],
        mask=[value is None for value in values],
    )


FORMS: dict[str, Callable[[list[Any]], Any]] = {
    "frame": lambda values: pd.DataFrame({"x": values}),
    "object frame": lambda values: pd.DataFrame({"x": pd.Series(values, dtype=object)}),
    "converted": lambda values: pd.DataFrame({"x": values}).convert_dtypes(),
    "category": lambda values: pd.DataFrame({"x": pd.Categorical(values)}),
    "Int64": lambda values: pd.DataFrame({"x": pd.array(values, dtype="Int64")}),
    "Float64": lambda values: pd.DataFrame({"x": pd.array(values, dtype="Float64")}),
    "boolean": lambda values: pd.DataFrame({"x": pd.array(values, dtype="boolean")}),
    "string": lambda values: pd.DataFrame({"x": pd.array(values, dtype="string")}),
    "int64[pyarrow]": lambda values: pd.DataFrame({"x": pd.array(values, dtype="int64[pyarrow]")}),
    "int32[pyarrow]": lambda values: pd.DataFrame({"x": pd.array(values, dtype="int32[pyarrow]")}),
    "bool[pyarrow]": lambda values: pd.DataFrame({"x": pd.array(values, dtype="bool[pyarrow]")}),
    "string[pyarrow]": lambda values: pd.DataFrame(
        {"x": pd.array(values, dtype="string[pyarrow]")}
    ),
    "double[pyarrow]": lambda values: pd.DataFrame(
        {"x": pd.array(values, dtype="double[pyarrow]")}
    ),
    "datetimes": lambda values: pd.DataFrame({"x": pd.to_datetime(values)}),
    "records": lambda values: pd.DataFrame.from_records(
        [{} if v is None else {"x": v} for v in values]
    ).assign(y=1),
    "series": lambda values: pd.Series(values, name="x"),
    "array": np.array,
    "datetime64": lambda values: np.array(values, dtype="datetime64"),
    "objects": _objects,
    "masked": _masked,
    "rows": lambda values: np.array([[value, value] for value in values]),
    "list": list,
    "arrays": lambda values: [np.array([value]) for value in values],
    "numbers": lambda values: [
        np.int64(v) if isinstance(v, int) else np.float32(v) for v in values
    ],
    "dict": lambda values: {"x": list(values), "y": np.array(values)},
    "Nested": lambda values: [{"value": value, "list": [value]} for value in values],
}


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow advises type hints

    class Gives(PythonModel):  # type: ignore[misc]
        """Returns the values of column `value` in the form that column `form` names."""

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            values = [
                value_of(text) if isinstance(text, str) else None for text in model_input["value"]
            ]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return FORMS[model_input["form"].iloc[0]](values)


mlflow.models.set_model(Gives())


def save(path: Path, declared: DataType | None = None, name: str | None = "x") -> Path:
    """Save the model, with a declared output if requested. Returns the folder."""
    inputs = Schema([ColSpec(DataType.string, "value"), ColSpec(DataType.string, "form")])
    outputs = None if declared is None else Schema([ColSpec(declared, name)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            str(path),
            python_model=__file__,
            signature=ModelSignature(inputs, outputs),
            pip_requirements=["mlflow"],
        )
    return path


def inputs_of(texts: list[str], form: str) -> list[dict[str, Any]]:
    """The inputs of a request for these values."""
    shape = [len(texts)]
    return [
        {"name": "value", "shape": shape, "datatype": "BYTES", "data": texts},
        {"name": "form", "shape": shape, "datatype": "BYTES", "data": [form] * len(texts)},
    ]
