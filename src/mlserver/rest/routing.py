"""Router: a tree of path segments, from a path to an endpoint. Pure.

A segment may contain a slash, as the name of a model may: `%2F` does not end a segment. Paths are
therefore decoded except for the slashes and percent signs inside of segments; `decode_segment`
decodes those.
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
    """Decode a path except for `%2F` and `%25`, so that its slashes are those between segments."""
    if "%" not in path:
        return path
    segments = [unquote(segment) for segment in path.split("/")]
    return "/".join(segment.replace("%", "%25").replace("/", "%2F") for segment in segments)


def decode_segment(segment: str) -> str:
    """Return the text of one segment (or of several, for a file's path) of a path from
    `decode_path`.
    """
    return segment.replace("%2F", "/").replace("%25", "%") if "%" in segment else segment


class MethodNotAllowed(MLServerError):
    """The path exists with other methods only."""

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        methods = {*allowed, "OPTIONS"}
        if "GET" in allowed:
            methods.add("HEAD")
        self.allowed = sorted(methods)
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
    """The server's own paths. `{name}` is a variable segment; a fixed segment has precedence."""

    def __init__(self) -> None:
        self._root = _Node()
        self._matches: BoundedCache[str, tuple[_Node, dict[str, str]]] = BoundedCache()

    def add(self, method: str, template: str, endpoint: Endpoint) -> None:
        """Add an endpoint. All additions precede the first `match`."""
        node = self._root
        for segment in template.strip("/").split("/"):
            if segment.startswith("{"):
                if node.variable is None:
                    node.variable = (segment.strip("{}"), _Node())
                node = node.variable[1]
            else:
                node = node.fixed.setdefault(segment, _Node())
        node.endpoints[method] = endpoint
        node.template = template

    def match(self, method: str, path: str) -> tuple[Endpoint, dict[str, str], str] | None:
        """Return the endpoint, the variable segments and the template of a path; None if no path
        matches.

        Raises:
            MethodNotAllowed: the path matches with other methods only.
        """
        match = self._matches.get(path)
        if match is None:
            segments: dict[str, str] = {}
            leaf = self._find(self._root, path.strip("/").split("/"), 0, segments)
            if leaf is None:
                return None
            match = self._matches.store(path, (leaf, segments))
        node, segments = match
        endpoint = node.endpoints.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            raise MethodNotAllowed(method, path, sorted(node.endpoints))
        return endpoint, segments, node.template

    def _find(
        self, node: _Node, parts: list[str], index: int, segments: dict[str, str]
    ) -> _Node | None:
        """Return the node of `parts[index:]` below a node, and collect the variable segments."""
        if index == len(parts):
            return node if node.endpoints else None
        fixed = node.fixed.get(parts[index])
        if fixed is not None:
            leaf = self._find(fixed, parts, index + 1, segments)
            if leaf is not None:
                return leaf
        if node.variable is None or not parts[index]:
            return None
        name, child = node.variable
        leaf = self._find(child, parts, index + 1, segments)
        if leaf is not None:
            segments[name] = decode_segment(parts[index])
        return leaf
