"""Execution plan of a model, decided at load: which fast path it has, and how requests are joined.

Every decision rests on trial predictions, compared bit for bit. An estimator gets arrays in place
of frames only if sample rows give the results of MLflow's own predict. Rows of several requests are
predicted in one call only if each row gives its result alone; BLAS may differ in the last bit
between one row and several, and custom code may do anything. Otherwise joined requests are
predicted one after the other within one call (`per_request`). A model for which a check fails or
cannot be made takes the slow path.

`make bench-micro` has the time of a request on both paths.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from mlflow.types.schema import Schema, TensorSpec
from numpy.typing import NDArray

from mlserver.errors import format_exception
from mlserver.logging import get_logger

from ..loading.pyfunc import PyFuncModel, input_example, is_from_type_hint, raw_model, with_metadata
from ..metadata import TENSOR_DATATYPES, DefaultInputPrefix, is_number
from ..v2.signature_inputs import has_exact_names, has_text_names, input_labels, input_names
from . import sklearn_arrays
from .predictors import ColumnsPredictor, FastPath, Predict, TensorsPredictor
from .result_equality import has_row, is_same_result
from .sample_inputs import SampleInputs

logger = get_logger()

# Flavors whose predict treats rows independently; each model is still checked.
ROW_WISE_FLAVORS = frozenset(
    (
        "mlflow.sklearn",
        "mlflow.xgboost",
        "mlflow.lightgbm",
        "mlflow.catboost",
        "mlflow.onnx",
        "mlflow.keras",
        "mlflow.tensorflow",
        "mlflow.pytorch",
    )
)
# (row count, first row) of the samples on which arrays and frames are compared. One row, the size
# of most requests, has one memory layout, so that few samples of it tell; each costs a prediction
# from a frame. The last one is compared with MLflow's own predict, too, whose enforcement costs
# more than the prediction: it copies a frame of the signature's dtypes.
CHECKED_SAMPLES = (*((1, start) for start in range(4)), (2, 0), (3, 1), (17, 100), (1025, 0))
# Row counts at which joined and single predictions are compared: BLAS has kernels by size. All rows
# are compared, because the last bit differs in about one row of thirty.
JOINED_ROW_COUNTS = (2, 3, 8, 37, 256)
# Models that add leaves row by row are exact by construction and need fewer rows.
TREE_ROW_COUNTS = (2, 3, 11)
MAX_CHECK_SECONDS = 0.5  # processor time for the comparison of joined and single predictions
MAX_FAST_PREDICT_SECONDS = 0.05  # slower models gain nothing from arrays


@dataclass(frozen=True)
class ExecutionPlan:
    """Decisions for one model.

    Attributes:
        row_wise: Whether rows of several requests may be joined.
        per_request: Joined requests are predicted one by one within a call, because a joint
            prediction differs in the last bits.
        path: The fast path of plain numeric requests, or None.
        in_thread: Predict runs in a thread, because its code is unknown and may block.
        json_config: Config for `json_formats`: bodies of `/invocations` that need no MLflow code.
        route_config: The same for the front end, if it may read such bodies to join them.
        has_fixed_types: Dtypes of results do not depend on values (see `joined_results`).
        is_estimator: Predicting request by request costs little. False for networks, whose
            `max_batch_size` requests joint predictions although the last bits differ.
    """

    row_wise: bool = False
    per_request: bool = False
    path: FastPath | None = None
    in_thread: bool = True
    json_config: dict[str, Any] = field(default_factory=dict)
    route_config: dict[str, Any] = field(default_factory=dict)
    has_fixed_types: bool = False
    is_estimator: bool = False


def make_plan(model: PyFuncModel, known: Mapping[str, Any] | None = None) -> ExecutionPlan:
    """Return the plan of a loaded model, after trial predictions.

    Args:
        known: `describe_plan` of the same model in another worker, in place of trials.
    """
    is_estimator = model.loader_module not in sklearn_arrays.TENSOR_FLAVORS
    return replace(
        _make_path_plan(model, known),
        has_fixed_types=sklearn_arrays.has_fixed_types(model),
        is_estimator=is_estimator,
    )


def describe_plan(plan: ExecutionPlan) -> dict[str, Any]:
    """Return what trial predictions have decided, as plain values."""
    path = plan.path
    return {
        "has_path": path is not None,
        "row_wise": plan.row_wise,
        "per_request": plan.per_request,
        "route_config": plan.route_config,
        "array_variant": getattr(path, "array_variant", None),
        "max_rows": getattr(path, "max_rows", 0),
    }


def _apply_known(
    model: PyFuncModel,
    plan: ExecutionPlan,
    path: ColumnsPredictor | TensorsPredictor,
    known: Mapping[str, Any],
) -> ExecutionPlan:
    """Return the plan that trials have decided in another worker."""
    if not known["has_path"]:
        return ExecutionPlan(in_thread=False)
    variant = known["array_variant"]
    if variant is not None and isinstance(path, ColumnsPredictor):
        predictors = list(sklearn_arrays.array_predictors(raw_model(model), _predict_name(model)))
        path = _with_arrays(path, predictors[variant], variant, known["max_rows"])
    return replace(
        plan,
        path=path,
        row_wise=known["row_wise"],
        per_request=known["per_request"],
        route_config=dict(known["route_config"]),
    )


def _make_path_plan(model: PyFuncModel, known: Mapping[str, Any] | None) -> ExecutionPlan:
    is_row_wise_flavor = model.loader_module in ROW_WISE_FLAVORS
    schema = model.metadata.get_input_schema()
    if schema is None or is_from_type_hint(model):
        return ExecutionPlan(in_thread=not is_row_wise_flavor)
    predict = _get_predict(model) if is_row_wise_flavor else without_enforcement(model)
    path = _make_path(schema, predict)
    json_config = _make_json_config(path, schema)
    plan = ExecutionPlan(path=path, in_thread=not is_row_wise_flavor, json_config=json_config)
    if not is_row_wise_flavor or path is None:
        return plan
    samples = SampleInputs.from_schema(schema, input_example(model))
    if samples is None:
        return plan
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path.run(samples.rows(1))  # many libraries initialize at the first call
            if known is not None:
                return _apply_known(model, plan, path, known)
            return _check_plan(model, plan, path, samples)
    except BaseException as error:  # panics of native code are not always an `Exception`
        logger.debug(
            "Trial prediction failed, requests are not joined: %s", format_exception(error)
        )
        return plan


def without_enforcement(model: PyFuncModel) -> Predict:
    """Return the model's predict without schema enforcement, with params and tracing."""
    metadata = copy.copy(model.metadata)
    signature = copy.copy(metadata.signature)
    signature.inputs = None
    metadata.signature = signature
    unenforced = with_metadata(model, metadata)
    return lambda data: unenforced.predict(data, params=None)


def _get_predict(model: PyFuncModel) -> Predict:
    """Return the flavor's predict function, without pyfunc; these flavors ignore params."""
    predict: Predict = getattr(model._model_impl, _predict_name(model))
    return predict


def _predict_name(model: PyFuncModel) -> str:
    return str(model.metadata.flavors["python_function"].get("predict_fn", "predict"))


def _make_path(schema: Schema, predict: Predict) -> ColumnsPredictor | TensorsPredictor | None:
    if schema.is_tensor_spec():
        return _make_tensors_path(schema, predict)
    is_numeric = all(is_number(spec) and spec.required for spec in schema.inputs)
    if not schema.has_input_names() or not is_numeric:
        return None
    names = input_names(schema, DefaultInputPrefix)
    dtypes = [spec.type.to_numpy() for spec in schema.inputs]
    return ColumnsPredictor(names, dtypes, predict, labels=input_labels(schema))


def _make_tensors_path(schema: Schema, predict: Predict) -> TensorsPredictor | None:
    specs: list[TensorSpec] = schema.inputs
    for spec in specs:
        if not spec.shape or (spec.type.kind, spec.type.itemsize) not in TENSOR_DATATYPES:
            return None
    names = input_names(schema, DefaultInputPrefix)
    dtypes = [spec.type for spec in specs]
    shapes = [list(spec.shape) for spec in specs]
    is_named = schema.has_input_names()
    return TensorsPredictor(names, dtypes, shapes, is_named, predict, input_labels(schema))


def _check_plan(
    model: PyFuncModel,
    plan: ExecutionPlan,
    path: ColumnsPredictor | TensorsPredictor,
    samples: SampleInputs,
) -> ExecutionPlan:
    """Return the plan of a row-wise flavor's model, after trial predictions."""
    start = time.thread_time()
    result = path.run(samples.rows(1))
    seconds = time.thread_time() - start
    if not is_same_result(result, model.predict(samples.rows(1))):
        logger.warning(
            "Two predictions of one sample row differ: requests are not joined, and the fast path"
            " is off"
        )
        return ExecutionPlan(in_thread=False)
    if seconds < MAX_FAST_PREDICT_SECONDS and isinstance(path, ColumnsPredictor):
        path = _select_array_path(model, path, samples)
    is_exact = _is_exact(model, path, samples)
    has_rows = isinstance(result, np.ndarray) and result.ndim > 0 and len(result) == 1
    row_wise = is_exact or has_rows
    output = _describe_output(result)
    route_config: dict[str, Any] = {}
    if row_wise and output is not None and plan.json_config:
        route_config = {**plan.json_config, **output}
    return replace(
        plan, row_wise=row_wise, per_request=not is_exact, path=path, route_config=route_config
    )


def _is_exact(
    model: PyFuncModel, path: ColumnsPredictor | TensorsPredictor, samples: SampleInputs
) -> bool:
    """Whether a joint prediction gives every row its result alone.

    A label or a tree hides the last bits of the numbers that decide it at a boundary (24 of 64 such
    rows of a logistic regression got another label in a pair), so these numbers are compared too.
    """
    if sklearn_arrays.is_tree_model(model):
        return rows_are_independent(path, samples, TREE_ROW_COUNTS)
    if not rows_are_independent(path, samples):
        return False
    as_frame = isinstance(path, TensorsPredictor) or path.as_frame
    deciding = sklearn_arrays.find_deciding_functions(model, _predict_name(model), as_frame)
    if deciding is None:
        return False
    paths = [replace(path, predict=function) for function in deciding]
    return all(rows_are_independent(path, samples) for path in paths)


def _select_array_path(
    model: PyFuncModel, path: ColumnsPredictor, samples: SampleInputs
) -> ColumnsPredictor:
    """Return a path that passes arrays to the estimator if that gives equal results."""
    has_one_dtype = len(set(path.dtypes)) == 1 and path.dtypes[0].kind in "fi"
    if not has_one_dtype or model.loader_module != "mlflow.sklearn":
        return path
    predictors = sklearn_arrays.array_predictors(raw_model(model), _predict_name(model))
    for variant, predict in enumerate(predictors):
        row_count = _find_max_equal_rows(model, path, predict, samples)
        if row_count:
            limit = 0 if row_count == CHECKED_SAMPLES[-1][0] else row_count
            return _with_arrays(path, predict, variant, limit)
    return path


def _with_arrays(
    path: ColumnsPredictor, predict: Predict, variant: int, max_rows: int
) -> ColumnsPredictor:
    return replace(path, predict=predict, as_frame=False, max_rows=max_rows, array_variant=variant)


def _find_max_equal_rows(
    model: PyFuncModel, path: ColumnsPredictor, predict: Predict, samples: SampleInputs
) -> int:
    """Return the largest row count with equal results for arrays and frames; 0 if none has."""
    max_rows = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for count, start in CHECKED_SAMPLES:
            frame = samples.rows(count, start)
            caught.clear()
            try:
                result = predict(np.asfortranarray(frame.to_numpy()))
            except BaseException:
                return 0
            # A step with feature names would log a warning with every request.
            has_name_warning = any("feature names" in str(item.message) for item in caught)
            if has_name_warning or not isinstance(result, np.ndarray):
                return 0
            is_last = (count, start) == CHECKED_SAMPLES[-1]
            if not is_same_result(result, path.run(frame)):
                break
            if is_last and not is_same_result(result, model.predict(frame)):
                break
            max_rows = count
    return max_rows


def rows_are_independent(
    path: FastPath, samples: SampleInputs, counts: Sequence[int] = JOINED_ROW_COUNTS
) -> bool:
    """Whether a joint prediction gives every row, bit for bit, its result alone.

    Also False if the comparison takes longer than MAX_CHECK_SECONDS.
    """
    start = time.thread_time()
    single_results: list[Any] = []
    for count in [min(count, samples.row_count) for count in counts]:
        data = _to_argument(path, samples.rows(count))
        joint_result = path.run(data)
        while len(single_results) < count:
            if time.thread_time() - start > MAX_CHECK_SECONDS:
                return False
            index = len(single_results)
            single_results.append(path.run(path.part(data, slice(index, index + 1))))
        for index in range(count):
            if not has_row(joint_result, single_results[index], index, count):
                return False
    return True


def _to_argument(path: FastPath, data: Any) -> Any:
    if isinstance(path, ColumnsPredictor) and not path.as_frame:
        return np.asfortranarray(data.to_numpy())
    return data


def _make_json_config(
    path: ColumnsPredictor | TensorsPredictor | None, schema: Schema
) -> dict[str, Any]:
    """Return the config for `json_formats`; {} if only MLflow's code may read the bodies."""
    if schema.has_input_names() and not (has_text_names(schema) and has_exact_names(schema)):
        return {}  # JSON keys are text: MLflow maps them to other labels
    if isinstance(path, ColumnsPredictor):
        columns = [[str(spec.name), spec.type.name] for spec in schema.inputs]
        return {"kind": "columns", "columns": columns}
    if path is None or any(shape[0] != -1 for shape in path.shapes):
        return {}
    datatypes = [TENSOR_DATATYPES[dtype.kind, dtype.itemsize] for dtype in path.dtypes]
    tensors = [list(entry) for entry in zip(path.names, datatypes, path.shapes, strict=True)]
    return {"kind": "tensors", "tensors": tensors, "named": path.named}


def _describe_output(result: Any) -> dict[str, Any] | None:
    """Return how `write_response` writes such a result; None if MLflow's code has to."""
    if isinstance(result, np.ndarray) and result.ndim:
        is_writable = _is_numeric(result) or _is_text(result)
        return {"output": "array", "rank": result.ndim} if is_writable else None
    if isinstance(result, dict) and result and all(type(key) is str for key in result):
        return {"output": "dict"} if all(map(_is_numeric, result.values())) else None
    return None


def _is_numeric(value: Any) -> bool:
    if not isinstance(value, np.ndarray):
        return False
    return (value.dtype.kind, value.dtype.itemsize) in TENSOR_DATATYPES


def _is_text(array: NDArray[Any]) -> bool:
    if array.dtype.kind == "O":
        return all(type(item) is str for item in array.flat)
    return array.dtype.kind == "U"
