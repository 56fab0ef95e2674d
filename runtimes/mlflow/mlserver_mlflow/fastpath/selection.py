"""What is decided once per model, at load: which short path its requests take and whether its rows may be joined.

Nothing is taken on trust. An estimator gets arrays instead of frames only if drawn rows give the same results, bit for
bit, as MLflow's own predict; rows are predicted together only if that gives, bit for bit, what each gives alone. Where it
does not (BLAS differs in the last bit between one row and several, and a model may do what it likes), joined requests are
predicted one after the other (`per_request`): they share the way to the model, not its arithmetic. Where a check fails or
cannot be made, the model simply takes the longer way.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types.schema import Schema, TensorSpec
from numpy.typing import NDArray

from mlserver.errors import format_exception
from mlserver.logging import get_logger

from ..loading.pyfunc import PyFuncModel, from_type_hint, input_example, raw_model, with_metadata
from ..metadata import TENSORS, DefaultInputPrefix, is_number
from ..v2.signature_inputs import has_exact_names, has_text_names, input_labels, input_names
from . import sklearn_arrays
from .predictors import ColumnsPredictor, FastPath, Predict, TensorsPredictor
from .sample_inputs import SampleInputs

logger = get_logger()

# Flavors whose predict treats rows one by one, as far as anybody can promise; each model is still checked.
ROW_WISE = frozenset(
    f"mlflow.{flavor}"
    for flavor in (
        "sklearn",
        "xgboost",
        "lightgbm",
        "catboost",
        "onnx",
        "keras",
        "tensorflow",
        "pytorch",
    )
)
# How many rows from which on: mostly one, for that is what most requests hold.
CHECKED_ROWS = (*((1, start) for start in range(8)), (2, 0), (3, 1), (17, 100), (1025, 0))
# Rows predicted together to see whether that makes a difference: BLAS has other kernels for other sizes.
# Every row is compared, for the last bit differs in one row of thirty or so.
JOINED_ROW_COUNTS = (2, 3, 8, 37, 256)
# Models that add up leaves row by row are exact by construction; a few rows are compared all the same.
TREE_ROW_COUNTS = (2, 3, 11)
PATIENCE = 0.5  # seconds of computing that the question may take
SLOW = 0.05


@dataclass(frozen=True)
class ExecutionPlan:
    """The decisions for one model.

    Attributes:
        row_wise: Rows of several requests may travel together.
        by_member: They are then predicted request by request, for together the last bits would differ.
        path: The short way of plain numeric requests, or None.
        in_thread: Predict runs in a thread of its own: code of unknown kind, which may wait for something.
        forms: Which bodies of `/invocations` need none of MLflow's leniency (see `forms`).
        has_fixed_types: The dtypes of the model's results do not depend on values (see `joined_results`).
        is_estimator: Predicting request by request costs little: not a network, of which `max_batch_size` asks for batches
            although the last bits differ.
        config: `forms`, if the front end may read them too, for they join the batches of other requests.
    """

    row_wise: bool = False
    per_request: bool = False
    path: FastPath | None = None
    in_thread: bool = True
    forms: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    has_fixed_types: bool = False
    is_estimator: bool = False


def make(model: PyFuncModel) -> ExecutionPlan:
    """Decide for a loaded model."""
    is_estimator = model.loader_module not in sklearn_arrays.TENSOR_FLAVORS
    return replace(
        _make(model),
        has_fixed_types=sklearn_arrays.has_fixed_types(model),
        is_estimator=is_estimator,
    )


def _make(model: PyFuncModel) -> ExecutionPlan:
    known = model.loader_module in ROW_WISE
    schema = model.metadata.get_input_schema()
    if schema is None or from_type_hint(model):
        return ExecutionPlan(in_thread=not known)
    path = _path(schema, _implementation(model) if known else without_enforcement(model))
    plan = ExecutionPlan(path=path, in_thread=not known, forms=_forms(path, schema))
    draws = SampleInputs.of(schema, input_example(model)) if known and path is not None else None
    if path is None or draws is None:
        return plan
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _checked(model, plan, path, draws)
    except BaseException as error:  # native code panics with what is no `Exception`
        logger.debug(
            "A trial prediction failed, so requests are not joined: %s", format_exception(error)
        )
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


def _path(schema: Schema, predict: Predict) -> ColumnsPredictor | TensorsPredictor | None:
    if schema.is_tensor_spec():
        specs: list[TensorSpec] = schema.inputs
        if not all(
            spec.shape and (spec.type.kind, spec.type.itemsize) in TENSORS for spec in specs
        ):
            return None
        named = schema.has_input_names()
        names = input_names(schema, DefaultInputPrefix)
        dtypes, shapes = [spec.type for spec in specs], [list(spec.shape) for spec in specs]
        return TensorsPredictor(names, dtypes, shapes, named, predict, input_labels(schema))
    if not schema.has_input_names() or not all(
        is_number(spec) and spec.required for spec in schema.inputs
    ):
        return None
    names, dtypes = (
        input_names(schema, DefaultInputPrefix),
        [spec.type.to_numpy() for spec in schema.inputs],
    )
    return ColumnsPredictor(names, dtypes, predict, labels=input_labels(schema))


def _checked(
    model: PyFuncModel,
    plan: ExecutionPlan,
    path: ColumnsPredictor | TensorsPredictor,
    draws: SampleInputs,
) -> ExecutionPlan:
    """The plan of a model of a known flavor, after trial predictions."""
    path.run(draws.rows(1))  # the first call of many a library sets it up
    began = time.thread_time()
    first = path.run(draws.rows(1))
    seconds = time.thread_time() - began
    if not _same(first, model.predict(draws.rows(1))):
        logger.warning(
            "The model's predict does not repeat itself on a drawn row; requests are neither joined nor shortened"
        )
        return ExecutionPlan(in_thread=False)
    if seconds < SLOW and isinstance(path, ColumnsPredictor):
        path = _with_arrays(model, path, draws)
    exactly = rows_are_independent(
        path, draws, TREE_ROW_COUNTS if sklearn_arrays.is_tree_model(model) else JOINED_ROW_COUNTS
    )
    row_wise = exactly or (isinstance(first, np.ndarray) and first.ndim > 0 and len(first) == 1)
    output = _output(first)
    config = {**plan.forms, **output} if row_wise and output and plan.forms else {}
    return replace(plan, row_wise=row_wise, per_request=not exactly, path=path, config=config)


def _with_arrays(
    model: PyFuncModel, path: ColumnsPredictor, draws: SampleInputs
) -> ColumnsPredictor:
    """The path that hands arrays to the estimator, if that is proven to make no difference."""
    one_type = len(set(path.dtypes)) == 1 and path.dtypes[0].kind in "fi"
    if not one_type or model.loader_module != "mlflow.sklearn":
        return path
    predict_fn = model.metadata.flavors["python_function"].get("predict_fn", "predict")
    for predict in sklearn_arrays.array_predictors(raw_model(model), predict_fn):
        rows = _proven_rows(model, predict, draws)
        if rows:
            limit = 0 if rows == CHECKED_ROWS[-1][0] else rows
            return replace(path, predict=predict, as_frame=False, max_rows=limit)
    return path


def _proven_rows(model: PyFuncModel, predict: Predict, draws: SampleInputs) -> int:
    """The number of rows up to which `predict` on arrays gave pyfunc's results on frames; 0 = it did not."""
    proven = 0
    for count, start in CHECKED_ROWS:
        frame = draws.rows(count, start)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = predict(np.asfortranarray(frame.to_numpy()))
            except BaseException:
                return 0
        # A part of the estimator that remembers names would warn with every request.
        if any("feature names" in str(item.message) for item in caught) or not isinstance(
            result, np.ndarray
        ):
            return 0
        if not _same(result, model.predict(frame)):
            break
        proven = count
    return proven


def rows_are_independent(
    path: FastPath, draws: SampleInputs, counts: Sequence[int] = JOINED_ROW_COUNTS
) -> bool:
    """Whether predicting rows together gives, bit for bit, what predicting each alone gives.

    False as well if that takes longer to find out than a start should.
    """
    began = time.thread_time()
    alone: list[Any] = []
    for count in [min(count, draws.most) for count in counts]:
        data = _argument(path, draws.rows(count))
        together = path.run(data)
        while len(alone) < count:
            if time.thread_time() - began > PATIENCE:
                return False
            alone.append(path.run(path.part(data, slice(len(alone), len(alone) + 1))))
        if not all(_has_row(together, alone[at], at, count) for at in range(count)):
            return False
    return True


def _has_row(together: Any, alone: Any, at: int, count: int) -> bool:
    """Whether row `at` of a joint result of `count` rows is the result of that row alone."""
    if type(together) is not type(alone):
        return False
    if isinstance(together, dict):
        same_keys = together.keys() == alone.keys()
        return same_keys and all(_has_row(together[key], alone[key], at, count) for key in together)
    if isinstance(together, np.ndarray):
        rows = together.ndim and alone.ndim and (len(together), len(alone)) == (count, 1)
        return bool(rows) and _same_arrays(together[at : at + 1], alone)
    if isinstance(together, pd.Series):
        return _has_row(together.to_numpy(), alone.to_numpy(), at, count)
    if isinstance(together, pd.DataFrame):
        if not together.columns.is_unique or not together.columns.equals(alone.columns):
            return False
        return all(_has_row(together[name], alone[name], at, count) for name in together.columns)
    return False


def _argument(path: FastPath, data: Any) -> Any:
    if isinstance(path, ColumnsPredictor) and not path.as_frame:
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
    same_type = one.dtype == other.dtype or (
        one.dtype.kind == other.dtype.kind and one.dtype.kind in "US"
    )
    if one.dtype.kind in "US":
        return same_type and one.tolist() == other.tolist()
    return same_type and one.shape == other.shape and one.tobytes() == other.tobytes()


def _forms(path: ColumnsPredictor | TensorsPredictor | None, schema: Schema) -> dict[str, Any]:
    """The bodies that `forms` may read for this signature."""
    if schema.has_input_names() and not (has_text_names(schema) and has_exact_names(schema)):
        return {}  # the keys of JSON are text: MLflow decides what they mean
    if isinstance(path, ColumnsPredictor):
        return {
            "kind": "columns",
            "columns": [[str(spec.name), spec.type.name] for spec in schema.inputs],
        }
    if path is None or any(shape[0] != -1 for shape in path.shapes):
        return {}
    datatypes = [TENSORS[dtype.kind, dtype.itemsize] for dtype in path.dtypes]
    tensors = [list(entry) for entry in zip(path.names, datatypes, path.shapes, strict=True)]
    return {"kind": "tensors", "tensors": tensors, "named": path.named}


def _output(result: Any) -> dict[str, Any] | None:
    if isinstance(result, np.ndarray) and result.ndim:
        if (result.dtype.kind, result.dtype.itemsize) in TENSORS:
            return {"output": "array", "rank": result.ndim}
        text = result.dtype.kind == "U" or (
            result.dtype.kind == "O" and all(type(item) is str for item in result.flat)
        )
        return {"output": "array", "rank": result.ndim} if text else None
    if isinstance(result, dict) and result and all(type(key) is str for key in result):
        parts = result.values()
        numeric = all(
            isinstance(part, np.ndarray) and (part.dtype.kind, part.dtype.itemsize) in TENSORS
            for part in parts
        )
        return {"output": "dict"} if numeric else None
    return None
