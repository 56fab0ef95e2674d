"""MLflow's scoring protocol: what the front end imports to read and write bodies of `/invocations`, without MLflow."""

from .wire import (
    BODY,
    CODES,
    CONTENT_TYPE,
    ERROR_CODES,
    ERROR_FIELDS,
    HEADER,
    JSON,
    PLAIN_JSON,
    STATUS,
    answer,
    is_passthrough,
    read_request,
    unwrap_body,
    wrap_body,
    write_error,
    write_response,
)

__all__ = [
    "BODY",
    "CODES",
    "CONTENT_TYPE",
    "ERROR_CODES",
    "ERROR_FIELDS",
    "HEADER",
    "JSON",
    "PLAIN_JSON",
    "STATUS",
    "answer",
    "unwrap_body",
    "wrap_body",
    "is_passthrough",
    "read_request",
    "write_error",
    "write_response",
]
