"""What is decided once per model, at load: which short path its requests take and whether its rows may be joined.

Nothing is taken on trust. An estimator gets arrays instead of frames only if drawn rows give the same results, bit for
bit, as MLflow's own predict; rows are declared independent only if predicting three rows equals predicting them one by
one (floats but for their last bits). Where a check fails or cannot be made, the model simply takes the longer way.
"""

from __future__ import annotations

import copy
import time
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types.schema import Schema, TensorSpec
from numpy.typing import NDArray

from mlserver.logging import get_logger

from . import estimators
from .draws import Draws
from .fastpath import Columns, Path, Predict, Tensors
from .metadata import TENSORS, is_number
from .pyfunc import PyFuncModel, from_type_hint, input_example, raw_model, with_metadata

logger = get_logger()

# Flavors whose predict treats rows one by one, as far as anybody can promise; each model is still checked.
ROW_WISE = frozenset(
    f"mlflow.{flavor}"
    for flavor in ("sklearn", "xgboost", "lightgbm", "catboost", "onnx", "keras", "tensorflow", "pytorch")
)
CHECKED_ROWS = (1, 2, 3, 17, 1025)
JOINED = 3
SLOW = 0.05
TOO_SLOW = 0.3


@dataclass(frozen=True)
class Plan:
    """The decisions for one model.

    Attributes:
        row_wise: Rows of several requests may be predicted together.
        path: The short way of plain numeric requests, or None.
        in_thread: Predict runs in a thread of its own: code of unknown kind, which may wait for something.
        forms: Which bodies of `/invocations` need none of MLflow's leniency (see `forms`).
        config: `forms`, if the front end may read them too, for they join the batches of other requests.
    """

    row_wise: bool = False
    path: Path | None = None
    in_thread: bool = True
    forms: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def make(model: PyFuncModel) -> Plan:
    """Decide for a loaded model."""
    known = model.loader_module in ROW_WISE
    schema = model.metadata.get_input_schema()
    if schema is None or from_type_hint(model):
        return Plan(in_thread=not known)
    path = _path(schema, _implementation(model) if known else without_enforcement(model))
    plan = Plan(path=path, in_thread=not known, forms=_forms(path, schema))
    draws = Draws.of(schema, input_example(model)) if known and path is not None else None
    if path is None or draws is None:
        return plan
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _checked(model, plan, path, draws)
    except Exception as problem:
        logger.debug("A trial prediction failed, so requests are not joined: %s", problem)
        return plan


def without_enforcement(model: PyFuncModel) -> Predict:
    """The model's own predict, params and tracing included, for frames that already are what the signature says."""
    metadata = copy.copy(model.metadata)
    signature = copy.copy(metadata.signature)
    signature.inputs = None
    metadata.signature = signature
    twin = with_metadata(model, metadata)
    return lambda data: twin.predict(data, params=None)


def _implementation(model: PyFuncModel) -> Predict:
    """The predict function behind pyfunc's checks; those of the known flavors ignore params."""
    predict_fn = model.metadata.flavors["python_function"].get("predict_fn", "predict")
    predict: Predict = getattr(model._model_impl, predict_fn)
    return predict


def _path(schema: Schema, predict: Predict) -> Columns | Tensors | None:
    if schema.is_tensor_spec():
        specs: list[TensorSpec] = schema.inputs
        if not all(spec.shape and (spec.type.kind, spec.type.itemsize) in TENSORS for spec in specs):
            return None
        named = schema.has_input_names()
        names = [str(spec.name) for spec in specs] if named else ["input-0"]
        return Tensors(names, [spec.type for spec in specs], [list(spec.shape) for spec in specs], named, predict)
    if not schema.has_input_names() or not all(is_number(spec) and spec.required for spec in schema.inputs):
        return None
    return Columns(
        [str(name) for name in schema.input_names()], [spec.type.to_numpy() for spec in schema.inputs], predict
    )


def _checked(model: PyFuncModel, plan: Plan, path: Columns | Tensors, draws: Draws) -> Plan:
    """The plan of a model of a known flavor, after trial predictions."""
    began = time.perf_counter()
    first = path.run(draws.rows(1))
    seconds = time.perf_counter() - began
    if not _same(first, model.predict(draws.rows(1))):
        logger.warning(
            "The model's predict does not repeat itself on a drawn row; requests are neither joined nor shortened"
        )
        return Plan(in_thread=False)
    if seconds < SLOW and isinstance(path, Columns):
        path = _with_arrays(model, path, draws)
    row_wise = seconds < TOO_SLOW and _rows_are_independent(path, draws)
    output = _output(first)
    config = {**plan.forms, **output} if row_wise and output and plan.forms else {}
    return replace(plan, row_wise=row_wise, path=path, config=config)


def _with_arrays(model: PyFuncModel, path: Columns, draws: Draws) -> Columns:
    """The path that hands arrays to the estimator, if that is proven to make no difference."""
    one_type = len(set(path.dtypes)) == 1 and path.dtypes[0].kind in "fi"
    if not one_type or model.loader_module != "mlflow.sklearn":
        return path
    predict_fn = model.metadata.flavors["python_function"].get("predict_fn", "predict")
    for predict in estimators.on_arrays(raw_model(model), predict_fn):
        rows = _proven_rows(model, predict, draws)
        if rows:
            limit = 0 if rows == CHECKED_ROWS[-1] else rows
            return Columns(path.names, path.dtypes, predict, as_frame=False, max_rows=limit)
    return path


def _proven_rows(model: PyFuncModel, predict: Predict, draws: Draws) -> int:
    """The number of rows up to which `predict` on arrays gave pyfunc's results on frames; 0 = it did not."""
    proven = 0
    for count in CHECKED_ROWS:
        frame = draws.rows(count)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = predict(np.asfortranarray(frame.to_numpy()))
            except Exception:
                return 0
        # A part of the estimator that remembers names would warn with every request.
        if any("feature names" in str(item.message) for item in caught) or not isinstance(result, np.ndarray):
            return 0
        if not _same(result, model.predict(frame)):
            break
        proven = count
    return proven


def _rows_are_independent(path: Path, draws: Draws) -> bool:
    together = path.run(_argument(path, draws.rows(JOINED)))
    parts = [path.run(_argument(path, draws.rows(1, at))) for at in range(JOINED)]
    if isinstance(together, dict):
        keys = together.keys()
        if any(not isinstance(part, dict) or part.keys() != keys for part in parts):
            return False
        return all(_joins(together[key], [part[key] for part in parts]) for key in keys)
    return _joins(together, parts)


def _joins(together: Any, parts: list[Any]) -> bool:
    if any(type(part) is not type(together) for part in parts):
        return False
    if isinstance(together, np.ndarray) and together.ndim:
        return all(part.ndim for part in parts) and _alike(together, np.concatenate(parts))
    if isinstance(together, pd.Series):
        return _alike(together.to_numpy(), np.concatenate([part.to_numpy() for part in parts]))
    if isinstance(together, pd.DataFrame):
        columns = together.columns
        if not columns.is_unique or any(not part.columns.equals(columns) for part in parts):
            return False
        return all(_joins(together[name], [part[name] for part in parts]) for name in columns)
    return False


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Equal; floats but for the last bits, in which BLAS itself makes a difference between one row and several."""
    if one.dtype.kind != "f":
        return _same_arrays(one, other)
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    scale = float(np.max(np.abs(one), initial=0.0, where=np.isfinite(one)))
    tolerance = 2.0**10 * float(np.finfo(one.dtype).eps)
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def _argument(path: Path, data: Any) -> Any:
    if isinstance(path, Columns) and not path.as_frame:
        return np.asfortranarray(data.to_numpy())
    return data


def _same(one: Any, other: Any) -> bool:
    """Equal in type, dtype, shape and every bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return _same_arrays(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, pd.DataFrame | pd.Series):
        return bool(one.equals(other))
    return bool(one == other)


def _same_arrays(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.dtype.kind == "O":
        return one.shape == other.shape and bool(one.tolist() == other.tolist())
    # Text is as wide as its longest element, which joined rows may change.
    same_type = one.dtype == other.dtype or (one.dtype.kind == other.dtype.kind and one.dtype.kind in "US")
    if one.dtype.kind in "US":
        return same_type and one.tolist() == other.tolist()
    return same_type and one.shape == other.shape and one.tobytes() == other.tobytes()


def _forms(path: Columns | Tensors | None, schema: Schema) -> dict[str, Any]:
    """The bodies that `forms` may read for this signature."""
    if isinstance(path, Columns):
        return {"kind": "columns", "columns": [[str(spec.name), spec.type.name] for spec in schema.inputs]}
    if path is None or any(shape[0] != -1 for shape in path.shapes):
        return {}
    datatypes = [TENSORS[dtype.kind, dtype.itemsize] for dtype in path.dtypes]
    tensors = [list(entry) for entry in zip(path.names, datatypes, path.shapes, strict=True)]
    return {"kind": "tensors", "tensors": tensors, "named": path.named}


def _output(result: Any) -> dict[str, Any] | None:
    if isinstance(result, np.ndarray) and result.ndim:
        if (result.dtype.kind, result.dtype.itemsize) in TENSORS:
            return {"output": "array", "rank": result.ndim}
        text = result.dtype.kind == "U" or (result.dtype.kind == "O" and all(type(item) is str for item in result.flat))
        return {"output": "array", "rank": result.ndim} if text else None
    if isinstance(result, dict) and result and all(type(key) is str for key in result):
        parts = result.values()
        numeric = all(
            isinstance(part, np.ndarray) and (part.dtype.kind, part.dtype.itemsize) in TENSORS for part in parts
        )
        return {"output": "dict"} if numeric else None
    return None
