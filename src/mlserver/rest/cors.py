"""Cross-origin requests: which origins may read answers. Off unless `cors_settings` is set."""

from __future__ import annotations

import re

from ..settings import CORSSettings
from .messages import RawHeaders, Reply, Request, raw_headers

SAFE_HEADERS = frozenset(("accept", "accept-language", "content-language", "content-type"))


class Cors:
    """The rules of one `CORSSettings`."""

    def __init__(self, settings: CORSSettings) -> None:
        self._settings = settings
        self._pattern = (
            re.compile(settings.allow_origin_regex) if settings.allow_origin_regex else None
        )

    def is_preflight(self, request: Request) -> bool:
        return (
            request.method == "OPTIONS"
            and request.header(b"access-control-request-method") is not None
        )

    def allows(self, origin: str) -> bool:
        settings = self._settings
        if "*" in settings.allow_origins or origin in settings.allow_origins:
            return True
        return self._pattern is not None and self._pattern.fullmatch(origin) is not None

    def headers(self, request: Request) -> RawHeaders:
        """Headers of the answer to an ordinary request."""
        raw = request.header(b"origin")
        if raw is None:
            return []
        origin = raw.decode("latin-1")
        if not self.allows(origin):
            return []
        settings = self._settings
        everyone = "*" in settings.allow_origins and not settings.allow_credentials
        headers = [("access-control-allow-origin", "*" if everyone else origin)]
        if not everyone:
            headers.append(("vary", "Origin"))
        if settings.allow_credentials:
            headers.append(("access-control-allow-credentials", "true"))
        if settings.expose_headers:
            headers.append(("access-control-expose-headers", ", ".join(settings.expose_headers)))
        return raw_headers(headers)

    def preflight(self, request: Request) -> Reply:
        """The answer to the question whether a request of another origin would be allowed."""
        settings = self._settings
        method = (request.header(b"access-control-request-method") or b"").decode("latin-1")
        asked = (request.header(b"access-control-request-headers") or b"").decode("latin-1")
        wanted = {name.strip().lower() for name in asked.split(",") if name.strip()}
        allowed = {name.lower() for name in settings.allow_headers} | SAFE_HEADERS
        faults = []
        if not self.allows((request.header(b"origin") or b"").decode("latin-1")):
            faults.append("origin")
        if method not in settings.allow_methods and "*" not in settings.allow_methods:
            faults.append("method")
        if not wanted <= allowed and "*" not in settings.allow_headers:
            faults.append("headers")
        if faults:
            return Reply(
                400, f"Disallowed CORS {', '.join(faults)}".encode(), "text/plain; charset=utf-8"
            )
        methods = (
            settings.allow_methods
            if "*" not in settings.allow_methods
            else ["GET", "POST", "OPTIONS"]
        )
        headers = [
            ("access-control-allow-methods", ", ".join(methods)),
            ("access-control-max-age", str(settings.max_age)),
            (
                "access-control-allow-headers",
                asked if "*" in settings.allow_headers else ", ".join(sorted(allowed)),
            ),
        ]
        return Reply(
            200, b"OK", "text/plain; charset=utf-8", raw_headers(headers) + self.headers(request)
        )
