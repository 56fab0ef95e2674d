"""From a path to an endpoint: a tree of path segments, some of which are variable. Pure.

A segment may hold a slash, as in the name of a model: `%2F` in a path does not end a segment. So paths are decoded but for the
slashes and percent signs of their segments, until a segment is taken out (`decode_segment`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

from ..errors import MLServerError
from .bounded_cache import BoundedCache
from .messages import Reply, Request

Endpoint = Callable[[Request], Awaitable[Reply]]


def decode_path(path: str) -> str:
    """A path as it came -> text whose slashes are those between segments; `%2F` and `%25` stand for the others."""
    if "%" not in path:
        return path
    return "/".join(
        unquote(part).replace("%", "%25").replace("/", "%2F") for part in path.split("/")
    )


def decode_segment(part: str) -> str:
    """The text that one segment of such a path (or several, for a file's path) stands for."""
    return part.replace("%2F", "/").replace("%25", "%") if "%" in part else part


class MethodNotAllowed(MLServerError):
    """The path exists, but not with this method."""

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        self.allowed = sorted({*allowed, "OPTIONS", *(["HEAD"] if "GET" in allowed else [])})
        super().__init__(
            f"Method {method} is not allowed on {path}; allowed: {', '.join(self.allowed)}", 405
        )


@dataclass
class _Node:
    fixed: dict[str, _Node] = field(default_factory=dict)
    variable: tuple[str, _Node] | None = None
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    template: str = ""


class Router:
    """Fixed paths. Variable segments are written `{name}`; a fixed segment goes before a variable one."""

    def __init__(self) -> None:
        self._root = _Node()
        self._known: BoundedCache[str, tuple[_Node, dict[str, str]]] = BoundedCache()

    def add(self, method: str, template: str, endpoint: Endpoint) -> None:
        node = self._root
        for part in template.strip("/").split("/"):
            if part.startswith("{"):
                if node.variable is None:
                    node.variable = (part.strip("{}"), _Node())
                node = node.variable[1]
            else:
                node = node.fixed.setdefault(part, _Node())
        node.endpoints[method] = endpoint
        node.template = template

    def match(self, method: str, path: str) -> tuple[Endpoint, dict[str, str], str] | None:
        """The endpoint, the variable segments and the template of a path; None if no path matches.

        Raises:
            MethodNotAllowed: the path matches with other methods only.
        """
        found = self._known.get(path)
        if found is None:
            segments: dict[str, str] = {}
            node = self._find(self._root, path.strip("/").split("/"), 0, segments)
            if node is None:
                return None
            found = self._known.keep(path, (node, segments))
        node, segments = found
        endpoint = node.endpoints.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            raise MethodNotAllowed(method, path, sorted(node.endpoints))
        return endpoint, segments, node.template

    def _find(
        self, node: _Node, parts: list[str], at: int, segments: dict[str, str]
    ) -> _Node | None:
        if at == len(parts):
            return node if node.endpoints else None
        fixed = node.fixed.get(parts[at])
        if fixed is not None:
            found = self._find(fixed, parts, at + 1, segments)
            if found is not None:
                return found
        if node.variable is None or not parts[at]:
            return None
        name, child = node.variable
        found = self._find(child, parts, at + 1, segments)
        if found is not None:
            segments[name] = decode_segment(parts[at])
        return found
