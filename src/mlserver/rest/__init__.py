"""REST front end: HTTP/1.1 connections, routes and formats in front of the data plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .front_end import RESTServer

__all__ = ["RESTServer"]


def __getattr__(name: str) -> Any:
    # Imported on access: a model may import `rest.responses` in a worker, which loads no front end.
    if name == "RESTServer":
        from .front_end import RESTServer

        return RESTServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
