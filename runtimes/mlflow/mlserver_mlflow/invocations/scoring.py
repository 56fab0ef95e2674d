"""The worker's side of `/invocations`: bodies that travelled as they came, read, predicted and answered by MLflow's own code.

MLflow's scoring function does the work, so forms, coercions, statuses and texts are its own. What is added: a stack trace
never reaches a caller, and every answer is JSON, so that MLflow's bare texts come as `{"error_code", "message"}`.
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
from .base64_columns import check, decoded
from .limits.tables import check_csv, check_json, check_parquet

logger = get_logger()

JSON = scoring_server.CONTENT_TYPE_JSON
# Characters of a refusal's text in the log; estimators write whole manuals.
MAX_LOGGED = 300
# MLflow reads Parquet from 3.10 on and has no such name before.
PARQUET = getattr(scoring_server, "CONTENT_TYPE_PARQUET", None)
BOUNDS = {
    JSON: check_json,
    scoring_server.CONTENT_TYPE_CSV: check_csv,
    **({PARQUET: check_parquet} if PARQUET else {}),
}
# MLflow's scoring server was Flask's before 2.21, FastAPI's since.
IS_FLASK = hasattr(scoring_server, "catch_mlflow_exception")
UNEXPECTED = (
    "Encountered an unexpected error while evaluating the model. Verify that the serialized input Dataframe is compatible"
    " with the model for inference."
)
# MLflow's errors have these fields from 3.12 on.
CLIENT = (
    {"sqlstate": "KAM00", "error_class": "INVALID_PARAMETER_VALUE"}
    if hasattr(MlflowException(""), "sqlstate")
    else {}
)


class Model(Protocol):
    """What MLflow's scoring function needs of a model."""

    metadata: Any

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any: ...


class ScoringAdapter:
    """A model as the scoring function sees it.

    MLflow looks at the signature of `predict` to decide whether params are passed on; here they always are, by name.

    Args:
        binaries: Columns that hold base64 in every form (see `binaries`).
    """

    def __init__(self, model: Model, binaries: frozenset[str]) -> None:
        self.metadata = model.metadata
        self._model = model
        self._binaries = binaries
        self.has_answered = False

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        if self._binaries:
            data = decoded(data, self._binaries)
        answer = self._model.predict(data, params=params)
        self.has_answered = True
        return answer


def score(
    model: Model, body: bytes | str, content_type: str, binaries: frozenset[str] = frozenset()
) -> str:
    """The JSON text that answers a scoring body.

    Args:
        binaries: Columns that hold base64 in every form, unlike MLflow's.

    Raises:
        MLServerError: with MLflow's status and, as `details`, MLflow's fields.
    """
    if binaries and content_type.startswith(JSON):
        try:
            check(body, binaries)
        except ValueError as error:
            raise failure(str(error), 400, "BAD_REQUEST", **CLIENT) from None
    scored = ScoringAdapter(model, binaries)
    schema = scored.metadata.get_input_schema()
    try:
        if check_bounds := BOUNDS.get(content_type.partition(";")[0].strip().lower()):
            check_bounds(body, _columns(schema))
    except ValueError as error:
        raise failure(str(error), 400, "BAD_REQUEST", **CLIENT) from None
    if unsupported := _unsupported(content_type):
        raise failure(unsupported, 415, "BAD_REQUEST", **CLIENT)
    data = _as_data(body)
    try:
        result = scoring_server.invocations(data, content_type, scored, schema)
    except MlflowException as error:
        raise refusal(error) from None
    except RecursionError as error:
        if scored.has_answered:
            raise serialization_error(error) from error
        raise failure(
            "Invalid input. The body is nested too deeply.", 400, "BAD_REQUEST", **CLIENT
        ) from None
    except Exception as error:
        # The model has answered by now, and its answer cannot be written.
        raise serialization_error(error) from error
    if result.status != 200:
        raise failure(result.response, result.status, "BAD_REQUEST", **CLIENT)
    return str(result.response)


def _as_data(body: bytes | str) -> bytes | str:
    """A body as MLflow's scoring function takes it: as text before 2.21, as it came from then on.

    Raises:
        MLServerError: it has to be text and is not UTF-8.
    """
    if isinstance(body, str) or not IS_FLASK:
        return body
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise failure(
            f"Invalid input. The body is not UTF-8: {error}", 400, "BAD_REQUEST", **CLIENT
        ) from None


def _unsupported(content_type: str) -> str | None:
    """MLflow's text for a content type that its scoring function does not read; None = MLflow's own code decides.

    Before MLflow 2.21 that function asks Flask's current request for the content type, and here there is none.
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


def _columns(schema: Any) -> int:
    """How many columns a signature names; 0: it names none."""
    return 0 if schema is None or schema.is_tensor_spec() else len(schema.inputs)


class RaisingModel:
    """A model that raises again what a prediction raised, so that MLflow words the error with its own view of the data."""

    def __init__(self, model: Model, error: Exception) -> None:
        self.metadata = model.metadata
        self._problem = error

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        raise self._problem


class CapturingModel:
    """A model that keeps what it is asked, and answers with nothing."""

    def __init__(self, model: Model) -> None:
        self.metadata = model.metadata
        self.data: Any = None
        self.params: dict[str, Any] | None = None

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        self.data, self.params = data, params
        return []


def read(
    model: Model, body: bytes | str, content_type: str, binaries: frozenset[str] = frozenset()
) -> CapturingModel:
    """Data and params of a scoring body, as MLflow's scoring function reads them. Raises what `score` raises."""
    found = CapturingModel(model)
    score(found, body, content_type, binaries)
    return found


def unwrapped(result: Any) -> str:
    """The JSON text of a chunk or an answer without `predictions` around it. Raises `MLServerError`."""
    return _printed(scoring_server.unwrapped_predictions_to_json, result)


def written(result: Any) -> str:
    """The JSON text of a prediction, as MLflow writes it.

    Raises:
        MLServerError: it cannot be written.
    """
    if type(result) is np.ndarray and result.dtype.kind in "biuf":
        return f'{{"predictions": {json_numbers.numbers(result)}}}'
    return _printed(scoring_server.predictions_to_json, result)


def _printed(write: Callable[[Any, StringIO], Any], result: Any) -> str:
    text = StringIO()
    try:
        write(result, text)
    except Exception as error:
        raise serialization_error(error) from error
    return text.getvalue()


def serialization_error(error: Exception) -> MLServerError:
    text = f"The model's prediction cannot be written as JSON: {format_exception(error)}"
    return failure(text, 500, "INTERNAL_ERROR")


def refusal(error: MlflowException) -> MLServerError:
    """MLflow's exception as the error that reaches the caller, without the stack trace."""
    fields = {
        "sqlstate": getattr(error, "sqlstate", None),
        "error_class": getattr(error, "error_class", None),
    }
    return failure(error.message, error.get_http_status_code(), error.error_code, **fields)


def failure(message: str, status: int, error_code: str, **fields: str | None) -> MLServerError:
    """An error whose details are the fields of MLflow's error body."""
    error = MLServerError(message, status)
    error.details = {"status": status, "error_code": error_code, "message": error.message, **fields}
    return error


def explain_v2(error: MLServerError, body: bytes, model_name: str) -> MLServerError:
    """Return a refusal that says where a body of the V2 protocol belongs, if the body is one."""
    status = (error.details or {}).get("status", error.status_code)
    if status != 400 or not _is_v2(body):
        return error
    message = (error.details or {}).get("message", error.message)
    text = (
        f"{message} (This body is one of the V2 protocol: POST it to /v2/models/{model_name}/infer)"
    )
    return MLServerError(
        text, error.status_code, details={**(error.details or {}), "message": text}
    )


def _is_v2(body: bytes) -> bool:
    if b'"datatype"' not in body:
        return False
    try:
        inputs = json.loads(body)["inputs"]
        return all({"name", "shape", "datatype"} <= tensor.keys() for tensor in inputs)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def model_error(message: str, status: int) -> MLServerError:
    """The model's own code raised: `message` and `status` for V2, MLflow's fixed text for its protocol."""
    details = {"status": 400, "error_code": "BAD_REQUEST", "message": UNEXPECTED, **CLIENT}
    return MLServerError(message, status, details=details)


def log_failure(name: str, error: Exception, is_refusal: bool) -> None:
    """Log what a model's code raised: with the traceback, or in one line where the request is at fault.

    Args:
        is_refusal: The model refused the data; the traceback, the same for every such request, is for DEBUG only.
    """
    if not is_refusal:
        logger.warning("Model '%s' failed to predict", name, exc_info=error)
        return
    if openapi_trials.is_running():
        logger.debug("Model '%s' refused an example at load", name, exc_info=error)
        return
    words = " ".join(format_exception(error).split())
    text = words if len(words) <= MAX_LOGGED else f"{words[:MAX_LOGGED]}..."
    traceback = error if logger.isEnabledFor(logging.DEBUG) else None
    logger.warning("Model '%s' refused a request: %s", name, text, exc_info=traceback)
