"""Statuses of errors over HTTP and gRPC, from `mlserver.errors`."""

from __future__ import annotations

import inspect

from mlserver import errors

from .markdown import clean_docstring, code, start_page, table

# Cause, and what a client does.
MEANINGS: dict[int, tuple[str, str]] = {
    400: (
        "invalid request, or the model rejects it",
        "correct the request; the text names the field",
    ),
    401: ("missing or invalid credential", "send an API key or token"),
    403: ("permission denied; the text names the scope or the setting", "use another credential"),
    404: ("unknown path, model or version; the text suggests the closest path", "correct the path"),
    405: ("the path exists, the method does not", "use a method of the header `allow`"),
    406: (
        "the response cannot be represented in the accepted format: bytes that are not text in "
        "JSON, outputs of different lengths as a table",
        "accept another format",
    ),
    408: ("timeout while reading headers or body; the connection is closed", "send faster"),
    409: ("conflict; used by custom code only", "see the text"),
    413: (
        "the body is larger than `max_body_bytes`, counted after decompression",
        "send less, or raise the setting",
    ),
    415: ("unsupported content type or encoding", "see [content types](content-types.md)"),
    422: (
        "a valid body whose request cannot be run; with `validation_status: 422`, also bodies that "
        "are JSON but no request, as in MLServer 1.x",
        "correct the request",
    ),
    429: ("the model's queue is full", "retry after the seconds in `retry-after`"),
    499: ("the client has disconnected; in metrics and logs only", ""),
    500: (
        "the model's code failed, or its response cannot be encoded; the text has the reason",
        "correct the model; a retry gives the same",
    ),
    501: ("the model or server does not support the operation", "use another operation"),
    503: (
        "the model is loading (with `retry-after`) or could not be loaded (with the reason), or no "
        "worker is available",
        "retry; for a failed load, see the log",
    ),
    504: (
        "request timeout, in the queue or in the model",
        "retry later, or raise `request_timeout`",
    ),
}
FURTHER = (
    ("431", "headers or trailers larger than 64 KiB, or more than 256 of them"),
    ("505", "HTTP/2 without negotiation on the REST port: gRPC has a port of its own"),
)


def page() -> str:
    lines = start_page(
        "Error codes",
        "`mlserver.errors`",
        'Every route returns an error as `{"error": "..."}` in JSON. `/invocations` and the other '
        'paths of MLflow models use MLflow\'s form, `{"error_code": "...", "message": "..."}`. '
        "Over "
        "gRPC an error is a status with the same text. The text names the field, the expected "
        "value "
        "and the received one; it never contains a traceback or a path of the server.",
    )
    headings = ("HTTP", "gRPC", "cause", "what to do")
    rows = [(str(status), code(errors.CODES[status]), *MEANINGS[status]) for status in errors.CODES]
    lines += table(headings, rows)
    lines += ["Statuses of the HTTP connection itself, without a gRPC code:", ""]
    lines += table(("HTTP", "cause"), FURTHER)
    lines += [
        "Errors by their text, with the cure: [troubleshooting](../how-to/troubleshooting.md).",
        "",
        "## Exceptions for custom code",
        "",
        "A runtime may raise these (`mlserver.errors`); `MLServerError(text, status)` covers all "
        "others. Any other exception of a model is a 500 with its type and text.",
        "",
    ]
    lines += table(("exception", "meaning"), _exceptions())
    return "\n".join(lines).rstrip() + "\n"


def _exceptions() -> list[tuple[str, str]]:
    rows = []
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.MLServerError):
            rows.append((code(name), clean_docstring(value.__doc__)))
    return rows
