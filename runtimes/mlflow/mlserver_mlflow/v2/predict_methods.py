"""Requested outputs that are methods of an estimator: `predict_proba` and its like, asked for as `outputs[].name`.

MLflow fixes one method when a model is saved; here a request chooses, and may ask for several at once. The data take the
model's ordinary way, MLflow's enforcement included; only what is called at its end differs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd

from mlserver.errors import CannotBatch, MLServerError
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput, RowBlockRequest

from ..fastpath.predictors import ColumnsPredictor, FastPath, concatenated
from ..loading.pyfunc import PyFuncModel, raw_model, with_implementation
from .response_encoder import of_array, of_list, of_value

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")
FLAVORS = frozenset(("mlflow.sklearn", "mlflow.xgboost", "mlflow.lightgbm", "mlflow.catboost"))

Method = Callable[[Any], Any]


class Methods:
    """The methods of one estimator.

    Args:
        methods: By name.
        model: Whose enforcement their data go through.
        path: The short way of the model's plain requests, or None.
        outputs: The names of the signature's outputs, which go before methods of the same name.
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
        # Only `predict` was proven on arrays; a frame is what the estimator was fitted with.
        self._path = (
            dataclasses.replace(path, as_frame=True, max_rows=0)
            if isinstance(path, ColumnsPredictor)
            else path
        )
        self._outputs = frozenset(outputs)

    @property
    def names(self) -> list[str]:
        return list(self._methods)

    def asked(self, payload: InferenceRequest) -> list[str]:
        """The methods that a request asks for. Raises `MLServerError` for one that the model lacks."""
        wanted = {output.name for output in payload.outputs or ()} - self._outputs
        for name in METHODS:
            if name in wanted and name not in self._methods:
                there = ", ".join(f"'{known}'" for known in self._methods) or "none"
                raise MLServerError(
                    f"Invalid outputs: the model has no method '{name}'; its methods are {there}"
                )
        return [name for name in METHODS if name in wanted]

    def read(self, payload: InferenceRequest) -> Any | None:
        """The data of a plain request, for `run`; None if it needs the general way."""
        return self._path.read(payload) if self._path is not None else None

    def run(self, data: Any, names: list[str], members: Sequence[int] = ()) -> dict[str, Any]:
        """The results of methods on data that are what the signature says.

        Args:
            members: Rows of each request in the data: each is predicted as if it had come alone. () = one request.

        Raises:
            NotTogether: the results are no arrays that could be put together.
        """
        if len(members) < 2 or self._path is None:
            return {name: self._methods[name](data) for name in names}
        ends = list(accumulate(members))
        parts = [
            self._path.part(data, slice(end - rows, end))
            for end, rows in zip(ends, members, strict=True)
        ]
        return {
            name: _joined([_rows_first(self._methods[name](part)) for part in parts])
            for name in names
        }

    def run_enforced(
        self, data: Any, params: dict[str, Any] | None, names: list[str]
    ) -> dict[str, Any]:
        """The results of methods on data that MLflow checks and converts first."""
        results: dict[str, Any] = with_implementation(self._model, _Several(self, names)).predict(
            data, params=params
        )
        return results


class _Several:
    """What pyfunc calls when a request asks for methods."""

    def __init__(self, methods: Methods, names: list[str]) -> None:
        self._methods = methods
        self._names = names

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._methods.run(data, self._names)


def of(model: PyFuncModel, path: FastPath | None) -> Methods | None:
    """The methods of a loaded model; None if it is not one of an estimator flavor."""
    if model.loader_module not in FLAVORS:
        return None
    estimator, wrapper = raw_model(model), model._model_impl
    methods = {
        name: getattr(estimator, name)
        for name in METHODS
        if callable(getattr(estimator, name, None))
    }
    if model.loader_module != "mlflow.sklearn":
        # The wrappers make of the data what their library's own boosters take.
        methods = {
            "predict": wrapper.predict,
            **{name: call for name, call in methods.items() if name != "predict"},
        }
    schema = model.metadata.get_output_schema()
    names = schema.input_names() if schema is not None and schema.has_input_names() else []
    return Methods(methods, model, path, map(str, names))


def without_outputs(payload: InferenceRequest) -> InferenceRequest:
    """The same request for everything that the model gives: the server itself picks from that what was wanted."""
    if payload.rows is not None:
        return RowBlockRequest.from_rows(payload.rows, payload.id, payload.parameters)
    values = {
        "id": payload.id,
        "parameters": payload.parameters,
        "inputs": payload.inputs,
        "outputs": None,
    }
    return InferenceRequest.build(values)


def added(response: InferenceResponse, results: dict[str, Any]) -> InferenceResponse:
    """The response with one more output per method; methods go before outputs of the same name."""
    others = [output for output in response.outputs if output.name not in results]
    response.outputs = [*others, *(encoded(name, result) for name, result in results.items())]
    return response


def encoded(name: str, result: Any) -> ResponseOutput:
    """The output of a method: an array wherever it can be one, and the rows first in any case."""
    plain = _rows_first(result)
    if isinstance(plain, np.ndarray):
        return of_array(name, plain)
    return of_list(name, plain) if isinstance(plain, list) else of_value(name, plain)


def _joined(results: list[Any]) -> Any:
    if not all(type(result) is np.ndarray and result.ndim for result in results):
        raise CannotBatch
    return concatenated(results)


def _rows_first(result: Any) -> Any:
    if isinstance(result, pd.DataFrame):
        return result.to_numpy()
    if hasattr(result, "toarray") and hasattr(result, "nnz"):
        return result.toarray()
    if (
        isinstance(result, list)
        and result
        and all(isinstance(part, np.ndarray) and part.ndim for part in result)
    ):
        # One array of probabilities per target: by rows they are split and read like everything else.
        if len({part.shape for part in result}) == 1:
            return np.stack(result, axis=1)
        return [[part.tolist() for part in row] for row in zip(*result, strict=True)]
    return result
