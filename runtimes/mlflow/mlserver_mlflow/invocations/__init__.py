"""MLflow's scoring protocol: `wire` reads and writes `/invocations` in the front end.

`scoring` runs MLflow's own function in the worker, for bodies that `wire` leaves unread. The front
end imports this package, so it loads neither MLflow nor pandas.
"""

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
    UNREAD_CONTENT_TYPE,
    is_passthrough,
    read_columns,
    read_request,
    unwrap_body,
    wrap_body,
    wrap_result,
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
    "UNREAD_CONTENT_TYPE",
    "is_passthrough",
    "read_columns",
    "read_request",
    "unwrap_body",
    "wrap_body",
    "wrap_result",
    "write_error",
    "write_response",
]
