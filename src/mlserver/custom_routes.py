"""How a model declares HTTP paths of its own, and nothing of how a front end serves them.

A method becomes a path with `@custom_handler("/path")`; a model may also list routes of other kinds (`Route`).
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
    """A path that a method answers."""

    rest_path: str
    rest_method: str = "POST"
    public: bool = False


@dataclass(frozen=True)
class Route:
    """A path of one model, as plain data that a worker can send to its parent.

    One of three kinds. `static`: the front end itself answers with this text while the model is ready. `wire`: the body
    is one more wire format, read and written by this module (`read_request`, `write_response`, `write_error`), and the
    request travels the model's ordinary road; such a module may also stream its answers, and find the model's name in the
    body (`rest.wire_routes`). Otherwise the raw HTTP request goes to the model's `handler`.

    Attributes:
        path: The path, e.g. "/explain".
        method: The HTTP method.
        handler: Name of the model's method.
        wire: Name of the module of the wire format.
        config: Plain data that the wire module gets with every call. Fixed JSON documents of several models are one
            document if `joined` names the key of their lists. The OpenAPI document shows `example` as a body of this path,
            and `v2_example` as a V2 request to the model.
        static: The text of a fixed answer.
        content_type: Content type of a fixed answer.
        public: Whether the setting `auth` does not apply: the path answers without a credential.
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
    """Let a model's method answer an HTTP path. Parameters and result follow FastAPI's rules; may be stacked.

    With `public`, the path answers without a credential while the setting `auth` is set.
    """

    def decorate(method: F) -> F:
        return register_custom_handler(
            CustomHandler(rest_path=rest_path, rest_method=rest_method, public=public), method
        )

    return decorate


def register_custom_handler(handler: CustomHandler, method: F) -> F:
    """Note on a function that it answers `handler`'s path; returns the function."""
    setattr(method, _ATTRIBUTE, [*getattr(method, _ATTRIBUTE, []), handler])
    return method


def get_custom_handlers(obj: Any) -> list[tuple[CustomHandler, Callable[..., Any]]]:
    """The custom handlers of an object with their bound methods, sorted by the methods' names."""
    return [(handler, method) for _, handler, method in _named_handlers(obj)]


def handler_routes(obj: Any) -> list[Route]:
    """One route per custom handler."""
    return [
        Route(handler.rest_path, handler.rest_method, handler=name, public=handler.public)
        for name, handler, _ in _named_handlers(obj)
    ]


def _named_handlers(obj: Any) -> Iterator[tuple[str, CustomHandler, Callable[..., Any]]]:
    for name in dir(obj):  # sorted
        # Looked up without running properties: a handler is a function of the class or of the instance.
        found = inspect.getattr_static(obj, name, None)
        for handler in getattr(found, _ATTRIBUTE, ()):
            yield name, handler, getattr(obj, name)
