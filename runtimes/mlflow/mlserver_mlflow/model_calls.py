"""Calls of a model's code, in the event loop or in a thread, with its exceptions converted."""

from __future__ import annotations

import os
from typing import Any

from mlflow.exceptions import MlflowException

from mlserver.errors import MLServerError, format_exception
from mlserver.model import MLModel

from .invocations import openapi_trials, scoring

# Loader modules whose predict computes, at last in native code: more calls at a time than this
# machine has processors would only share them. All others may wait for a service.
COMPUTING_FLAVORS = frozenset(
    (
        "mlflow.catboost",
        "mlflow.diviner",
        "mlflow.fastai",
        "mlflow.h2o",
        "mlflow.johnsnowlabs",
        "mlflow.keras",
        "mlflow.lightgbm",
        "mlflow.onnx",
        "mlflow.paddle",
        "mlflow.pmdarima",
        "mlflow.prophet",
        "mlflow.pytorch",
        "mlflow.sentence_transformers",
        "mlflow.sklearn",
        "mlflow.spacy",
        "mlflow.spark",
        "mlflow.statsmodels",
        "mlflow.tensorflow",
        "mlflow.transformers",
        "mlflow.xgboost",
    )
)
WAITING_CONCURRENCY = 64


def choose_max_concurrency(loader_module: str) -> int:
    """Return how many calls of a flavor's models run at a time in one worker."""
    if loader_module not in COMPUTING_FLAVORS:
        return WAITING_CONCURRENCY
    has_affinity = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
    return min(32, (processors or 1) + 4)


class ModelCaller:
    """Calls functions of one model.

    Args:
        model: The model, whose threads run the calls.
        in_thread: Whether calls run in a thread by default, because the model's code may block.
        is_estimator: Whether its ValueErrors are those of an estimator that refuses data.
    """

    def __init__(self, model: MLModel, in_thread: bool, is_estimator: bool) -> None:
        self._model = model
        self._name = model.name
        self._in_thread = in_thread
        self._is_estimator = is_estimator

    async def call(self, function: Any, *arguments: Any, in_thread: bool | None = None) -> Any:
        """Return the function's result.

        Raises:
            MLServerError: the function raised; for MLflow's exceptions with their status.
        """
        try:
            if self._in_thread if in_thread is None else in_thread:
                return await self._model.call_in_thread(function, *arguments)
            return function(*arguments)
        except MLServerError:
            raise
        except MlflowException as error:
            raise scoring.from_mlflow_error(error) from None
        except Exception as error:
            raise self._convert(error) from error

    def _convert(self, error: Exception) -> MLServerError:
        """Log an exception of the model's own code and return the error for the client.

        Estimators raise ValueError for data that they refuse, such as NaN: that is a 400.
        """
        is_input_error = isinstance(error, ValueError) and self._is_estimator
        scoring.log_failure(self._name, error, is_input_error or openapi_trials.is_running())
        status = 400 if is_input_error else 500
        text = f"Model {self._name} failed to predict: {format_exception(error)}"
        return scoring.model_error(text, status)
