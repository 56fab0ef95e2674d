"""Methods of an estimator as requested outputs: `predict_proba` and others in `outputs[].name`.

MLflow fixes one method when a model is saved; here each request may select one or several. The data
are read and enforced as for predict.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd

from mlserver.errors import CannotBatch, MLServerError
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput, RowBlockRequest

from ..fastpath.predictors import ColumnsPredictor, FastPath, concatenate
from ..loading.pyfunc import PyFuncModel, raw_model, with_implementation
from .declared_outputs import DeclaredOutputs
from .output_values import encode_array, encode_list, encode_value

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")
FLAVORS = frozenset(("mlflow.sklearn", "mlflow.xgboost", "mlflow.lightgbm", "mlflow.catboost"))

Method = Callable[[Any], Any]


class PredictMethods:
    """The methods of one estimator.

    Args:
        methods: Methods by name.
        model: The model that enforces the signature on their data.
        path: The model's fast path, or None.
        outputs: Names of the signature's outputs, which precede methods of the same name.
    """

    def __init__(
        self,
        methods: dict[str, Method],
        model: PyFuncModel,
        path: FastPath | None,
        outputs: Iterable[str],
    ) -> None:
        self._methods = methods
        self._model = model
        # Arrays were verified for `predict` only; the estimator was fitted with a frame.
        if isinstance(path, ColumnsPredictor):
            path = dataclasses.replace(path, as_frame=True, max_rows=0)
        self._path = path
        self._outputs = frozenset(outputs)

    @classmethod
    def from_model(cls, model: PyFuncModel, path: FastPath | None) -> PredictMethods | None:
        """Return the methods of a loaded model; None if its flavor has no estimator."""
        if model.loader_module not in FLAVORS:
            return None
        estimator = raw_model(model)
        methods: dict[str, Method] = {}
        for name in METHODS:
            method = getattr(estimator, name, None)
            if callable(method):
                methods[name] = method
        if model.loader_module != "mlflow.sklearn":
            # The wrapper converts data to the types of the library's own boosters.
            methods = {"predict": model._model_impl.predict} | {
                name: method for name, method in methods.items() if name != "predict"
            }
        schema = model.metadata.get_output_schema()
        return cls(methods, model, path, DeclaredOutputs(schema).names)

    def select(self, payload: InferenceRequest) -> list[str]:
        """Return the methods that a request names in its outputs.

        Raises:
            MLServerError: the model does not have one of them.
        """
        requested = {output.name for output in payload.outputs or ()} - self._outputs
        for name in METHODS:
            if name in requested and name not in self._methods:
                available = ", ".join(f"'{method}'" for method in self._methods) or "none"
                raise MLServerError(
                    f"Invalid outputs: the model has no method '{name}'; its methods are"
                    f" {available}"
                )
        return [name for name in METHODS if name in requested]

    def read(self, payload: InferenceRequest) -> Any | None:
        """Return the data of a plain request for `run`; None if it needs the slow path."""
        return self._path.read(payload) if self._path is not None else None

    def run(
        self, data: Any, names: list[str], rows_per_request: Sequence[int] = ()
    ) -> dict[str, Any]:
        """Return {method: result} for data that match the signature.

        Args:
            rows_per_request: Rows of each joined request, which are predicted one by one; () for
                one request.

        Raises:
            CannotBatch: the results are not arrays that can be concatenated.
        """
        if len(rows_per_request) < 2 or self._path is None:
            return {name: self._methods[name](data) for name in names}
        ranges = zip(accumulate(rows_per_request), rows_per_request, strict=True)
        parts = [self._path.part(data, slice(end - rows, end)) for end, rows in ranges]
        return {name: self._run_parts(self._methods[name], parts) for name in names}

    def _run_parts(self, method: Method, parts: list[Any]) -> Any:
        results = [_put_rows_first(method(part)) for part in parts]
        if not all(type(result) is np.ndarray and result.ndim for result in results):
            raise CannotBatch
        return concatenate(results)

    def run_enforced(
        self, data: Any, params: dict[str, Any] | None, names: list[str]
    ) -> dict[str, Any]:
        """Return {method: result} for data that MLflow's enforcement checks and converts first."""
        implementation = _MethodsModel(partial(self.run, names=names))
        model = with_implementation(self._model, implementation)
        results: dict[str, Any] = model.predict(data, params=params)
        return results


class _MethodsModel:
    """Implementation for pyfunc that calls methods of the estimator in place of predict."""

    def __init__(self, run: Callable[[Any], dict[str, Any]]) -> None:
        self._run = run

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._run(data)


def without_outputs(payload: InferenceRequest) -> InferenceRequest:
    """Return the same request for all outputs; the server selects the requested ones later."""
    if payload.rows is not None:
        return RowBlockRequest.from_rows(payload.rows, payload.id, payload.parameters)
    values = {
        "id": payload.id,
        "parameters": payload.parameters,
        "inputs": payload.inputs,
        "outputs": None,
    }
    return InferenceRequest.build(values)


def add_outputs(response: InferenceResponse, results: dict[str, Any]) -> InferenceResponse:
    """Add one output per method to a response, replacing outputs of the same name."""
    others = [output for output in response.outputs if output.name not in results]
    response.outputs = others + [encode_result(name, result) for name, result in results.items()]
    return response


def encode_result(name: str, result: Any) -> ResponseOutput:
    """Encode the result of a method, as an array if possible, with rows as first dimension."""
    rows = _put_rows_first(result)
    if isinstance(rows, np.ndarray):
        return encode_array(name, rows)
    return encode_list(name, rows) if isinstance(rows, list) else encode_value(name, rows)


def _put_rows_first(result: Any) -> Any:
    """Return a result with rows as first dimension, as an array if its parts have one shape."""
    if isinstance(result, pd.DataFrame):
        return result.to_numpy()
    if hasattr(result, "toarray") and hasattr(result, "nnz"):
        return result.toarray()
    if not isinstance(result, list) or not result:
        return result
    if not all(isinstance(part, np.ndarray) and part.ndim for part in result):
        return result
    # scikit-learn returns one array of probabilities per target.
    if len({part.shape for part in result}) == 1:
        return np.stack(result, axis=1)
    columns = [part.tolist() for part in result]
    return [list(row) for row in zip(*columns, strict=True)]
