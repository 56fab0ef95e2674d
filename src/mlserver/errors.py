"""Errors that clients can see, with HTTP status and protocol-neutral code.

A front end translates `status_code` (HTTP) or `code` (the names of gRPC, used as neutral
vocabulary). Texts name the field, the expected and the received value, and never a path or an
internal of the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# HTTP status -> neutral code; others are UNKNOWN, as in published servers of the protocol.
CODES: dict[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    406: "FAILED_PRECONDITION",
    408: "CANCELLED",
    409: "ABORTED",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    422: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


# Characters of a message. Models and libraries quote whole requests, with the reason at the end.
MAX_MESSAGE_CHARS = 4000


_PATH = re.compile(
    r"(?:(?<![\w/.:~-])~?|\b(?:file|sqlite):(?://(?:localhost)?)?/?)"
    r"/(?:[^\s/'\"<>|:,;()\[\]{}]+/)+([^\s/'\"<>|:,;()\[\]{}]*)"
)


def remove_paths(text: str) -> str:
    """Reduce absolute paths to their last part: clients must not learn the server's folders."""
    return _PATH.sub(r"\1", text) if "/" in text else text


# Characters of an exception's text that are searched for paths.
_MAX_SEARCHED_CHARS = 4 * MAX_MESSAGE_CHARS


def format_exception(error: BaseException) -> str:
    """Return type and message of an exception, as encodable text of limited length."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException as second:
        return f"{name} (its message cannot be read: {type(second).__name__})"
    text = f"{name}: {text}" if text else name
    if len(text) > _MAX_SEARCHED_CHARS:
        half = _MAX_SEARCHED_CHARS // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()


class MLServerError(Exception):
    """An error with a status, sent to clients as `{"error": message}`.

    Args:
        msg: Cause and, where possible, remedy.
        status_code: HTTP status; also determines the gRPC code if `code` is None.
        code: Neutral code, one of `CODES`' values or "UNKNOWN".
        details: Plain data for wire formats whose error body has more fields than a message.
    """

    def __init__(
        self,
        msg: str,
        status_code: int = 400,
        *,
        code: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        if len(msg) > MAX_MESSAGE_CHARS:
            msg = f"{msg[: MAX_MESSAGE_CHARS - 1000]} ... {msg[-900:]}"
        super().__init__(msg)
        self.status_code = status_code
        self.code = code or CODES.get(status_code, "UNKNOWN")
        self.details = details

    # Whether the list of recent errors has this error with its model and its request.
    is_recorded = False
    # Seconds after which the client should retry; None = a retry may not help.
    retry_after: float | None = None
    # Of the exception in a worker process; for administrators, never part of a response.
    traceback: str | None = None

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidModelURI(MLServerError):
    """The `uri` of a model is missing or names no file or folder.

    Args:
        name: The model's name.
        uri: Value of the setting.
        path: The missing file or folder.
    """

    def __init__(self, name: str, uri: str | None = None, path: str | None = None) -> None:
        text = f"Invalid URI specified for model {name}"
        text += f" ({uri})" if uri else ": 'parameters.uri' is not set"
        super().__init__(f"{text}: there is no file or folder {path}" if path else text, 422)


class ModelNotFound(MLServerError):
    """There is no model of this name, or not in this version.

    Args:
        name: The model's name.
        version: The version, if the request names one.
        scope: Ends the message: the models among which it was looked up.
    """

    def __init__(self, name: str, version: str | None = None, scope: str = "") -> None:
        model = f"Model {name} with version {version}" if version else f"Model {name}"
        super().__init__(f"{model} not found{scope}", 404)


class ModelLoadError(MLServerError):
    """Loading failed. For use by runtimes; the server raises `ModelFailed`."""

    def __init__(self, msg: str, status_code: int = 500) -> None:
        super().__init__(msg, status_code)


class ModelUnloadError(MLServerError):
    """Unloading failed. For use by runtimes."""

    def __init__(self, msg: str, status_code: int = 500) -> None:
        super().__init__(msg, status_code)


class ModelNotReady(MLServerError):
    """The model is loading or failed to load.

    Args:
        name: The model's name.
        version: The requested version, if any.
        reason: Why loading failed.
        retry_after: Seconds after which to retry; None = the model must be loaded again.
    """

    def __init__(
        self,
        name: str,
        version: str | None = None,
        reason: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        model = f"Model {name} with version {version}" if version else f"Model {name}"
        text = f"{model} is not ready yet."
        super().__init__(f"{text} {reason}" if reason else text, 503)
        self.retry_after = retry_after


class InferenceError(MLServerError):
    """The model's prediction is not usable."""


class ModelParametersMissing(MLServerError):
    """The model's settings lack `parameters` that its runtime requires."""

    def __init__(self, model_name: str, reason: str | None = None) -> None:
        text = f"Parameters missing for model {model_name}"
        super().__init__(f"{text}: {reason}" if reason else text, 400)


class InvalidInput(MLServerError):
    """A field of a request is not valid.

    Args:
        field: Location, e.g. `inputs[0].data` or `input 'x'`.
        expected: Expected value.
        received: Received value.
    """

    def __init__(self, field: str, expected: str, received: str) -> None:
        super().__init__(f"Invalid {field}: expected {expected}, received {received}")


class InvalidPayload(MLServerError):
    """The body is not a message of the protocol.

    Args:
        msg: The first fault, in one line with the field's name.
        faults: All faults as `{"type", "loc", "msg"}`, as in MLServer 1.x.
    """

    def __init__(self, msg: str, faults: list[dict[str, Any]] | None = None) -> None:
        super().__init__(msg)
        self.faults = faults or []


class UnsupportedMediaType(MLServerError):
    """The route does not accept the body's content type or encoding."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg, 415)


class PayloadTooLarge(MLServerError):
    """A body or message exceeds its limit; the text names the setting."""

    def __init__(self, limit: int, setting: str = "max_body_bytes") -> None:
        super().__init__(f"Request is larger than {limit} bytes (setting '{setting}')", 413)


class Overloaded(MLServerError):
    """The model's queue is full.

    Args:
        retry_after: Seconds after which to retry.
    """

    def __init__(self, msg: str, retry_after: float = 1.0) -> None:
        super().__init__(msg, 429)
        self.retry_after = retry_after


class DeadlineExceeded(MLServerError):
    """The request's deadline has passed, in the queue or in the model."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg, 504)


class Unavailable(MLServerError):
    """The server cannot serve the request at present.

    Args:
        retry_after: Seconds after which to retry.
    """

    def __init__(self, msg: str, retry_after: float = 1.0) -> None:
        super().__init__(msg, 503)
        self.retry_after = retry_after


class ModelFailed(MLServerError):
    """The model's code raised; the text has the exception's type and message, no traceback."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg, 500)


def serialization_error(model_name: str, error: Exception) -> ModelFailed:
    """Return the error for a response that cannot be serialized."""
    text = remove_paths(str(error)) or type(error).__name__
    return ModelFailed(f"Model {model_name}: the response cannot be serialized: {text}")


class CannotBatch(MLServerError):
    """Joined requests would get other results than single ones; the scheduler runs them singly."""

    def __init__(self) -> None:
        super().__init__("These requests cannot be predicted together", 500)


class SettingsError(MLServerError, ValueError):
    """A setting is not valid; the text is one line with source, field, expected and received value.

    Attributes:
        fields: Names of the invalid fields, where known.
    """

    def __init__(self, msg: str, fields: Iterable[str] = ()) -> None:
        super().__init__(msg, 400)
        self.fields = frozenset(fields)
