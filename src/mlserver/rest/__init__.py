"""The REST front end: HTTP in, the data plane asked, HTTP out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .front_end import RESTServer

__all__ = ["RESTServer"]


def __getattr__(name: str) -> Any:
    # Late: a worker's model may import `rest.responses`, and a worker loads no front end.
    if name == "RESTServer":
        from .front_end import RESTServer

        return RESTServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
