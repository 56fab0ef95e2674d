"""Scoring of unread `/invocations` bodies in the worker, by MLflow's own scoring function.

Formats, conversions, statuses and texts are therefore MLflow's. Additions: size limits, no stack
traces in responses, and JSON (`{"error_code", "message"}`) in place of MLflow's plain-text errors.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from io import StringIO
from typing import Any, Protocol

import numpy as np
from mlflow.exceptions import MlflowException

from mlserver.errors import MLServerError, format_exception
from mlserver.logging import get_logger

from ..loading.pyfunc import scoring_server
from . import json_numbers, openapi_trials
from .base64_columns import check_base64, decode_base64
from .limits.tables import check_csv, check_json, check_parquet

logger = get_logger()

JSON = scoring_server.CONTENT_TYPE_JSON
# Characters of an error's text in the log; estimators write several paragraphs.
MAX_LOGGED_CHARS = 300
# MLflow reads Parquet from 3.10 on.
PARQUET = getattr(scoring_server, "CONTENT_TYPE_PARQUET", None)
# Content type -> the check of its limits.
LIMITS = {JSON: check_json, scoring_server.CONTENT_TYPE_CSV: check_csv}
if PARQUET:
    LIMITS[PARQUET] = check_parquet
# MLflow's scoring server uses Flask before 2.21 and FastAPI from then on.
IS_FLASK = hasattr(scoring_server, "catch_mlflow_exception")
UNEXPECTED = (
    "Encountered an unexpected error while evaluating the model. Verify that the serialized input"
    " Dataframe is compatible with the model for inference."
)
# Fields of MLflow's errors about the request, from 3.12 on.
CLIENT_ERROR_FIELDS = (
    {"sqlstate": "KAM00", "error_class": "INVALID_PARAMETER_VALUE"}
    if hasattr(MlflowException(""), "sqlstate")
    else {}
)


class Model(Protocol):
    """The attributes of a model that MLflow's scoring function uses."""

    metadata: Any

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any: ...


class ScoringAdapter:
    """A model as the scoring function calls it.

    MLflow inspects the signature of `predict` to decide whether to pass params; this adapter always
    receives them and passes them by name.

    Args:
        base64_columns: Columns that hold base64 in every form (see `base64_columns`).

    Attributes:
        has_predicted: Whether the model has returned a result.
    """

    def __init__(self, model: Model, base64_columns: frozenset[str]) -> None:
        self.metadata = model.metadata
        self._model = model
        self._base64_columns = base64_columns
        self.has_predicted = False

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        if self._base64_columns:
            data = decode_base64(data, self._base64_columns)
        result = self._model.predict(data, params=params)
        self.has_predicted = True
        return result


def score(
    model: Model, body: bytes | str, content_type: str, base64_columns: frozenset[str] = frozenset()
) -> str:
    """Return the JSON response for a scoring body.

    Args:
        base64_columns: Columns that hold base64 in every form, other than in MLflow itself.

    Raises:
        MLServerError: with MLflow's status and, as `details`, MLflow's fields.
    """
    adapter = ScoringAdapter(model, base64_columns)
    schema = adapter.metadata.get_input_schema()
    _check_body(body, content_type, schema, base64_columns)
    data = _to_input(body)
    try:
        result = scoring_server.invocations(data, content_type, adapter, schema)
    except MlflowException as error:
        raise from_mlflow_error(error) from None
    except RecursionError as error:
        if adapter.has_predicted:
            raise serialization_error(error) from error
        raise _client_error("Invalid input. The body is nested too deeply.") from None
    except Exception as error:
        # MLflow converts errors of reading and predicting, so writing the result raised this one.
        raise serialization_error(error) from error
    if result.status != 200:
        raise _client_error(result.response, result.status)
    return str(result.response)


def _check_body(
    body: bytes | str, content_type: str, schema: Any, base64_columns: frozenset[str]
) -> None:
    """Raise `MLServerError` for invalid base64, a table over the limits or an unknown format."""
    check_limits = LIMITS.get(content_type.partition(";")[0].strip().lower())
    try:
        if base64_columns and content_type.startswith(JSON):
            check_base64(body, base64_columns)
        if check_limits is not None:
            check_limits(body, _count_columns(schema))
    except ValueError as error:
        raise _client_error(str(error)) from None
    if message := _describe_unsupported(content_type):
        raise _client_error(message, 415)


def _to_input(body: bytes | str) -> bytes | str:
    """Return a body as MLflow's scoring function expects it: text before 2.21, else unchanged.

    Raises:
        MLServerError: text is expected and the body is not UTF-8.
    """
    if isinstance(body, str) or not IS_FLASK:
        return body
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise _client_error(f"Invalid input. The body is not UTF-8: {error}") from None


def _describe_unsupported(content_type: str) -> str | None:
    """Return MLflow's text for an unsupported content type; None if MLflow's code decides.

    Before 2.21 MLflow reads the content type from Flask's current request, which is absent here.
    """
    mime_type, *parameters = (part.strip() for part in content_type.split(";"))
    if mime_type in scoring_server.CONTENT_TYPES:
        return None
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name != "charset" or value.lower() != "utf-8":
            return None
    supported = f"Types: {scoring_server.CONTENT_TYPES}. Got '{content_type}'."
    return f"This predictor only supports the following content types: {supported}"


def _count_columns(schema: Any) -> int:
    """Return the number of columns in a signature; 0 if it has none."""
    return 0 if schema is None or schema.is_tensor_spec() else len(schema.inputs)


class RaisingModel:
    """Stub that raises the error of an earlier prediction, so that MLflow writes its text."""

    def __init__(self, model: Model, error: Exception) -> None:
        self.metadata = model.metadata
        self._error = error

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        raise self._error


class CapturingModel:
    """Stub that records the arguments of `predict` and returns []."""

    def __init__(self, model: Model) -> None:
        self.metadata = model.metadata
        self.data: Any = None
        self.params: dict[str, Any] | None = None

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        self.data, self.params = data, params
        return []


def read_body(
    model: Model, body: bytes | str, content_type: str, base64_columns: frozenset[str] = frozenset()
) -> CapturingModel:
    """Return data and params of a scoring body as MLflow reads them. Raises as `score`."""
    captured = CapturingModel(model)
    score(captured, body, content_type, base64_columns)
    return captured


def write_unwrapped(result: Any) -> str:
    """Return a chunk or result as JSON without the key `predictions`. Raises `MLServerError`."""
    return _write_json(scoring_server.unwrapped_predictions_to_json, result)


def write_predictions(result: Any) -> str:
    """Return a result as JSON, as MLflow writes it.

    Raises:
        MLServerError: the result has no JSON form.
    """
    if type(result) is np.ndarray and result.dtype.kind in "biuf":
        return f'{{"predictions": {json_numbers.format_numbers(result)}}}'
    return _write_json(scoring_server.predictions_to_json, result)


def _write_json(write: Callable[[Any, StringIO], Any], result: Any) -> str:
    text = StringIO()
    try:
        write(result, text)
    except Exception as error:
        raise serialization_error(error) from error
    return text.getvalue()


def serialization_error(error: Exception) -> MLServerError:
    """Return the error for a result that has no JSON form."""
    text = f"The model's prediction cannot be written as JSON: {format_exception(error)}"
    return scoring_error(text, 500, "INTERNAL_ERROR")


def from_mlflow_error(error: MlflowException) -> MLServerError:
    """Convert MLflow's exception, without its stack trace."""
    fields = {
        "sqlstate": getattr(error, "sqlstate", None),
        "error_class": getattr(error, "error_class", None),
    }
    return scoring_error(error.message, error.get_http_status_code(), error.error_code, **fields)


def scoring_error(
    message: str, status: int, error_code: str, **fields: str | None
) -> MLServerError:
    """Return an error whose details are the fields of MLflow's error body."""
    error = MLServerError(message, status)
    error.details = {"status": status, "error_code": error_code, "message": error.message, **fields}
    return error


def _client_error(message: str, status: int = 400) -> MLServerError:
    return scoring_error(message, status, "BAD_REQUEST", **CLIENT_ERROR_FIELDS)


def explain_v2(error: MLServerError, body: bytes, model_name: str) -> MLServerError:
    """Return the error with the path of V2 requests added if the body is a V2 request."""
    status = (error.details or {}).get("status", error.status_code)
    if status != 400 or not _is_v2(body):
        return error
    message = (error.details or {}).get("message", error.message)
    text = f"{message} (This is a V2 request: POST it to /v2/models/{model_name}/infer)"
    details = {**(error.details or {}), "message": text}
    return MLServerError(text, error.status_code, details=details)


def _is_v2(body: bytes) -> bool:
    if b'"datatype"' not in body:
        return False
    try:
        inputs = json.loads(body)["inputs"]
        return all({"name", "shape", "datatype"} <= tensor.keys() for tensor in inputs)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def model_error(message: str, status: int) -> MLServerError:
    """Return the error for an exception of the model's own code.

    `message` and `status` are for V2; MLflow's protocol has a fixed text and 400.
    """
    details = {
        "status": 400,
        "error_code": "BAD_REQUEST",
        "message": UNEXPECTED,
        **CLIENT_ERROR_FIELDS,
    }
    return MLServerError(message, status, details=details)


def log_failure(name: str, error: Exception, is_input_error: bool) -> None:
    """Log an exception of the model's own code.

    Args:
        is_input_error: The model refused the data. One line is logged, because the traceback is the
            same for every such request; the level DEBUG has it.
    """
    if not is_input_error:
        logger.warning("Model '%s' failed to predict", name, exc_info=error)
        return
    if openapi_trials.is_running():
        logger.debug("Model '%s' refused an example at load", name, exc_info=error)
        return
    line = " ".join(format_exception(error).split())
    text = line if len(line) <= MAX_LOGGED_CHARS else f"{line[:MAX_LOGGED_CHARS]}..."
    traceback = error if logger.isEnabledFor(logging.DEBUG) else None
    logger.warning("Model '%s' refused a request: %s", name, text, exc_info=traceback)
