"""Cross-origin resource sharing (CORS): the origins that may read responses. Off unless
`cors_settings` is set.
"""

from __future__ import annotations

import re

from ..settings import CORSSettings
from .messages import RawHeaders, Reply, Request, raw_headers

# Request headers that need no permission (Fetch standard, "CORS-safelisted request-header").
SAFELISTED_HEADERS = frozenset(("accept", "accept-language", "content-language", "content-type"))
_TEXT = "text/plain; charset=utf-8"


class Cors:
    """The policy of one `CORSSettings`."""

    def __init__(self, settings: CORSSettings) -> None:
        self._settings = settings
        pattern = settings.allow_origin_regex
        self._origin_pattern = re.compile(pattern) if pattern else None

    def is_preflight(self, request: Request) -> bool:
        return (
            request.method == "OPTIONS"
            and request.header(b"access-control-request-method") is not None
        )

    def is_allowed(self, origin: str) -> bool:
        """Return whether pages of an origin may read responses."""
        settings = self._settings
        if "*" in settings.allow_origins or origin in settings.allow_origins:
            return True
        pattern = self._origin_pattern
        return pattern is not None and pattern.fullmatch(origin) is not None

    def headers(self, request: Request) -> RawHeaders:
        """Return the CORS headers of the response to a request that is not a preflight."""
        raw = request.header(b"origin")
        if raw is None:
            return []
        origin = raw.decode("latin-1")
        if not self.is_allowed(origin):
            return []
        settings = self._settings
        if "*" in settings.allow_origins and not settings.allow_credentials:
            headers = [("access-control-allow-origin", "*")]
        else:
            headers = [("access-control-allow-origin", origin), ("vary", "Origin")]
        if settings.allow_credentials:
            headers.append(("access-control-allow-credentials", "true"))
        if settings.expose_headers:
            headers.append(("access-control-expose-headers", ", ".join(settings.expose_headers)))
        return raw_headers(headers)

    def preflight(self, request: Request) -> Reply:
        """Return the response to a preflight request."""
        settings = self._settings
        faults = self._find_faults(request)
        if faults:
            return Reply(400, f"Disallowed CORS {', '.join(faults)}".encode(), _TEXT)
        methods = settings.allow_methods
        if "*" in methods:
            methods = ["GET", "POST", "OPTIONS"]
        allowed_headers = ", ".join(sorted(self._allowed_headers()))
        if "*" in settings.allow_headers:
            allowed_headers = _read_text(request, b"access-control-request-headers")
        headers = [
            ("access-control-allow-methods", ", ".join(methods)),
            ("access-control-max-age", str(settings.max_age)),
            ("access-control-allow-headers", allowed_headers),
        ]
        return Reply(200, b"OK", _TEXT, raw_headers(headers) + self.headers(request))

    def _find_faults(self, request: Request) -> list[str]:
        """Return which of origin, method and headers the policy does not allow."""
        settings = self._settings
        method = _read_text(request, b"access-control-request-method")
        requested = _read_text(request, b"access-control-request-headers").split(",")
        header_names = {name.strip().lower() for name in requested if name.strip()}
        faults = []
        if not self.is_allowed(_read_text(request, b"origin")):
            faults.append("origin")
        if method not in settings.allow_methods and "*" not in settings.allow_methods:
            faults.append("method")
        if not header_names <= self._allowed_headers() and "*" not in settings.allow_headers:
            faults.append("headers")
        return faults

    def _allowed_headers(self) -> set[str]:
        return {name.lower() for name in self._settings.allow_headers} | SAFELISTED_HEADERS


def _read_text(request: Request, name: bytes) -> str:
    return (request.header(name) or b"").decode("latin-1")
