"""Calls of a model's code, in the event loop or in a thread, with its exceptions converted."""

from __future__ import annotations

import asyncio
from typing import Any

from mlflow.exceptions import MlflowException

from mlserver.errors import MLServerError, format_exception

from .invocations import openapi_trials, scoring


class ModelCaller:
    """Calls functions of one model.

    Args:
        name: The model's name, for errors.
        in_thread: Whether calls run in a thread by default, because the model's code may block.
    """

    def __init__(self, name: str, in_thread: bool) -> None:
        self._name = name
        self._in_thread = in_thread

    async def call(self, function: Any, *arguments: Any, in_thread: bool | None = None) -> Any:
        """Return the function's result.

        Raises:
            MLServerError: the function raised; for MLflow's exceptions with their status.
        """
        try:
            if self._in_thread if in_thread is None else in_thread:
                return await asyncio.to_thread(function, *arguments)
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
        is_input_error = isinstance(error, ValueError) and not self._in_thread
        scoring.log_failure(self._name, error, is_input_error or openapi_trials.is_running())
        status = 400 if is_input_error else 500
        text = f"Model {self._name} failed to predict: {format_exception(error)}"
        return scoring.model_error(text, status)
