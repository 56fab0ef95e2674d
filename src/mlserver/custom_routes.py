"""Declaration of a model's own HTTP routes; front ends serve them.

`@custom_handler("/path")` declares a method as the handler of a path. A model may also return
routes of other kinds (`Route`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__custom_handlers__"


class CustomHandler(BaseModel):
    """Path, HTTP method and access of a handler method."""

    rest_path: str
    rest_method: str = "POST"
    public: bool = False


@dataclass(frozen=True)
class Route:
    """A route of one model, as plain data that a worker sends to the server process.

    - With `static`, the front end responds with a fixed text while the model is ready.
    - With `wire`, the named module reads and writes the body (`read_request`, `write_response`,
      `write_error`) and the request passes through the model's pipeline. The module may also stream
      responses and read the model's name from the body, see `rest.runtime_routes.wire`. If its
      requests may hold unread bodies, `UNREAD_CONTENT_TYPE` is their content type, and
      `read_columns(parameters, body)` returns their columns by name, or None, for the payload log.
    - Otherwise the model's method `handler` receives the HTTP request.

    Attributes:
        path: The path, e.g. "/explain".
        method: The HTTP method.
        handler: Name of the model's method.
        wire: Name of the module of the wire format.
        config: Plain data passed to the wire module with every call. Static JSON documents of
            several models are merged if `joined` names the key of their lists. The OpenAPI document
            shows `example` as a body of this path, and `v2_example` as a V2 request to the model.
        static: Text of a fixed response.
        content_type: Content type of a fixed response.
        public: Whether the path needs no credential with the setting `auth`.
    """

    path: str
    method: str = "POST"
    handler: str = ""
    wire: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    static: str | None = None
    content_type: str = "application/json"
    public: bool = False


def custom_handler(
    rest_path: str, rest_method: str = "POST", public: bool = False
) -> Callable[[F], F]:
    """Declare a model's method as the handler of an HTTP path; may be stacked.

    Parameters and result follow FastAPI's rules.

    Args:
        public: Whether the path needs no credential with the setting `auth`.
    """

    def decorate(method: F) -> F:
        return register_custom_handler(
            CustomHandler(rest_path=rest_path, rest_method=rest_method, public=public), method
        )

    return decorate


def register_custom_handler(handler: CustomHandler, method: F) -> F:
    """Attach a handler declaration to a function and return the function."""
    setattr(method, _ATTRIBUTE, [*getattr(method, _ATTRIBUTE, []), handler])
    return method


def get_custom_handlers(obj: Any) -> list[tuple[CustomHandler, Callable[..., Any]]]:
    """Return an object's handlers with their bound methods, sorted by the methods' names."""
    return [(handler, method) for _, handler, method in _find_handlers(obj)]


def get_handler_routes(obj: Any) -> list[Route]:
    """Return one route per custom handler."""
    return [
        Route(handler.rest_path, handler.rest_method, handler=name, public=handler.public)
        for name, handler, _ in _find_handlers(obj)
    ]


def _find_handlers(obj: Any) -> Iterator[tuple[str, CustomHandler, Callable[..., Any]]]:
    for name in dir(obj):  # sorted
        # Static lookup: properties must not run.
        attribute = inspect.getattr_static(obj, name, None)
        for handler in getattr(attribute, _ATTRIBUTE, ()):
            yield name, handler, getattr(obj, name)
