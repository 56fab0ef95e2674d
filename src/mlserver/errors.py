"""Every error a caller can see, as one small tree with protocol-neutral codes.

A front end turns an error into its own form by reading `status_code` (HTTP) or `code` (gRPC's names, which the road uses
as its neutral vocabulary). Nothing here knows a protocol, a framework or a process. Texts name the field, what was
expected and what came; they never name a path or an internal of the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# HTTP status -> neutral code. What is not listed is UNKNOWN, as the protocol's published servers answer.
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


# Characters of a text. Models and their libraries quote whole requests; the reason stands at the end.
LONGEST = 4000


_PATH = re.compile(r"(?<![\w/.:~-])~?/(?:[^\s/'\"<>|:,;()\[\]{}]+/)+([^\s/'\"<>|:,;()\[\]{}]*)")


def without_paths(text: str) -> str:
    """A text for callers: of absolute paths only the last part stays. Where things lie is told to the log alone."""
    return _PATH.sub(r"\1", text) if "/" in text else text


# Characters of an exception's text that are searched for paths: more than an error may have, and quickly done.
_SEARCHED = 4 * LONGEST


def describe(error: BaseException) -> str:
    """Type and message of any exception, as text that can be encoded and is not too long."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException as second:
        return f"{name} (its message cannot be read: {type(second).__name__})"
    text = f"{name}: {text}" if text else name
    if len(text) > _SEARCHED:
        text = f"{text[: _SEARCHED // 2]} ... {text[-_SEARCHED // 2 :]}"
    return text.encode("utf-8", "backslashreplace").decode()


class MLServerError(Exception):
    """An error with a status that reaches the caller as `{"error": message}`.

    Args:
        msg: What went wrong, in words the caller can act on.
        status_code: HTTP status; the gRPC code follows from it unless `code` is given.
        code: Neutral code, one of `CODES`' values or "UNKNOWN".
        details: Plain data for a wire format whose error body has more fields than a message.
    """

    def __init__(
        self,
        msg: str,
        status_code: int = 400,
        *,
        code: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        if len(msg) > LONGEST:
            msg = f"{msg[: LONGEST - 1000]} ... {msg[-900:]}"
        super().__init__(msg)
        self.status_code = status_code
        self.code = code or CODES.get(status_code, "UNKNOWN")
        self.details = details

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidModelURI(MLServerError):
    """The `uri` of a model is missing or leads nowhere.

    Args:
        name: The model's name.
        uri: As its settings have it.
        path: The file or folder that was looked for, and is not there.
    """

    def __init__(self, name: str, uri: str | None = None, path: str | None = None) -> None:
        text = f"Invalid URI specified for model {name}"
        text += f" ({uri})" if uri else ": 'parameters.uri' is not set"
        super().__init__(f"{text}: there is no file or folder {path}" if path else text, 422)


class ModelNotFound(MLServerError):
    """No model of that name, or not in that version."""

    def __init__(self, name: str, version: str | None = None) -> None:
        text = (
            f"Model {name} with version {version} not found"
            if version
            else f"Model {name} not found"
        )
        super().__init__(text, 404)


class ModelLoadError(MLServerError):
    """A runtime could not load its model. For runtimes' own use; the server raises `ModelFailed`."""

    def __init__(self, msg: str, status_code: int = 500) -> None:
        super().__init__(msg, status_code)


class ModelUnloadError(MLServerError):
    """A runtime could not unload its model."""

    def __init__(self, msg: str, status_code: int = 500) -> None:
        super().__init__(msg, status_code)


class ModelNotReady(MLServerError):
    """The model is known, but cannot answer now: it is still loading, or its load has failed.

    Args:
        name: The model's name.
        version: The version that was asked for, if one was.
        reason: Why its load failed.
        retry_after: Seconds after which a retry has a chance; None = only another load helps.
    """

    def __init__(
        self,
        name: str,
        version: str | None = None,
        reason: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        text = (
            f"Model {name} with version {version} is not ready yet."
            if version
            else f"Model {name} is not ready yet."
        )
        super().__init__(f"{text} {reason}" if reason else text, 503)
        self.retry_after = retry_after


class InferenceError(MLServerError):
    """The model did not produce a usable prediction."""


class ModelParametersMissing(MLServerError):
    """A runtime needs `parameters` in the model's settings and there are none."""

    def __init__(self, model_name: str, reason: str | None = None) -> None:
        text = f"Parameters missing for model {model_name}"
        super().__init__(f"{text}: {reason}" if reason else text, 400)


class InvalidInput(MLServerError):
    """A field of a request is not what it must be.

    Args:
        field: Where, e.g. `inputs[0].data` or `input 'x'`.
        expected: What belongs there.
        received: What came.
    """

    def __init__(self, field: str, expected: str, received: str) -> None:
        super().__init__(f"Invalid {field}: expected {expected}, received {received}")


class InvalidPayload(MLServerError):
    """A body that is not a message of the protocol.

    Args:
        msg: The first fault, in one line that names the field.
        faults: All faults as `{"type", "loc", "msg"}`, for callers that read the form of MLServer 1.x.
    """

    def __init__(self, msg: str, faults: list[dict[str, Any]] | None = None) -> None:
        super().__init__(msg)
        self.faults = faults or []


class UnsupportedMediaType(MLServerError):
    """The body's content type or encoding is not one this route reads."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg, 415)


class PayloadTooLarge(MLServerError):
    """A body or message is over its limit; the text names the setting that raises it."""

    def __init__(self, limit: int, setting: str = "max_body_bytes") -> None:
        super().__init__(f"Request is larger than {limit} bytes (setting '{setting}')", 413)


class Overloaded(MLServerError):
    """The model's queue is full: refused at once, to be retried later.

    Args:
        retry_after: Seconds after which a retry has a chance.
    """

    def __init__(self, msg: str, retry_after: float = 1.0) -> None:
        super().__init__(msg, 429)
        self.retry_after = retry_after


class DeadlineExceeded(MLServerError):
    """The request's time was over, in the queue or in the model."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg, 504)


class Unavailable(MLServerError):
    """The server cannot take the request now, through no fault of the caller.

    Args:
        retry_after: Seconds after which a retry has a chance.
    """

    def __init__(self, msg: str, retry_after: float = 1.0) -> None:
        super().__init__(msg, 503)
        self.retry_after = retry_after


class ModelFailed(MLServerError):
    """The model's own code raised; the text carries that exception's type and message, never its traceback."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg, 500)


def serialization_error(model_name: str, error: Exception) -> ModelFailed:
    """Return the error for a model's answer that has no form in which it could be sent."""
    text = str(error) or type(error).__name__
    return ModelFailed(f"Model {model_name} returned an answer that cannot be sent: {text}")


class CannotBatch(MLServerError):
    """Joined requests would not each get what they get alone: the scheduler then runs them one by one."""

    def __init__(self) -> None:
        super().__init__("These requests cannot be predicted together", 500)


class SettingsError(MLServerError, ValueError):
    """A setting is wrong. The message is one line that says where, which field, what was expected and what came.

    Attributes:
        fields: The names of the fields that are wrong, where that is known.
    """

    def __init__(self, msg: str, fields: Iterable[str] = ()) -> None:
        super().__init__(msg, 400)
        self.fields = frozenset(fields)
