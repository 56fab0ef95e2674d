"""Checks of a request's head beyond those of llhttp, and the response to a request that is
rejected. Pure.
"""

from __future__ import annotations

from operator import itemgetter

import httptools

from ...logging import get_logger
from ...wire.json import write_document
from ..bounded_cache import BoundedCache
from ..messages import RawHeaders
from ..routing import decode_path
from .cycle import STATUS_LINES

logger = get_logger().getChild("http")

MAX_HEAD = 64 * 1024  # bytes of the request line and the headers together
MAX_HEADERS = 256
WRONG_VERSION = (
    "HTTP version not supported: expected 1.0 or 1.1; gRPC (HTTP/2) has its own port "
    "(setting 'grpc_port')"
)
_TOO_LARGE = f"Request headers: expected at most {MAX_HEAD} bytes, received more"
_get_name = itemgetter(0)
_targets: BoundedCache[bytes, tuple[str, bytes, bytes]] = BoundedCache()


class RequestRejected(Exception):
    """The rest of a request is not read: the response is an error, and the connection is closed.

    Args:
        status: HTTP status of the response.
        text: Error text of the response.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def parse_target(target: bytes) -> tuple[str, bytes, bytes]:
    """Return path, undecoded path and query of a request's target."""
    cached = _targets.get(target)
    if cached is not None:
        return cached
    url = httptools.parse_url(target)
    raw_path = url.path or b""
    path = decode_path(raw_path.decode("ascii"))
    return _targets.store(target, (path, raw_path, url.query or b""))


def check_head(version: str, target: bytes, headers: RawHeaders, max_size: int) -> None:
    """Reject what llhttp accepts although a proxy or another server may read it differently.

    Args:
        max_size: Upper bound of the head's bytes; they are counted only if it exceeds `MAX_HEAD`.

    Raises:
        RequestRejected: 400, 431 or 505.
    """
    if version not in ("1.1", "1.0"):
        raise RequestRejected(505, WRONG_VERSION)
    names = list(map(_get_name, headers))
    host_count = names.count(b"host")
    if host_count != 1 and (host_count > 1 or version == "1.1"):
        raise RequestRejected(
            400, f"Invalid HTTP request: expected one Host header, received {host_count}"
        )
    if b"transfer-encoding" in names:
        coding = dict(headers)[b"transfer-encoding"].strip().lower()
        if coding != b"chunked" or version == "1.0":
            raise RequestRejected(
                400,
                "Invalid HTTP request: Transfer-Encoding: expected 'chunked', in HTTP/1.1 only",
            )
    size = 0
    if max_size > MAX_HEAD:
        size = len(target) + sum(len(name) + len(value) + 4 for name, value in headers)
    check_head_size(size, len(names))


def check_head_size(size: int, count: int) -> None:
    """Raise `RequestRejected` (431) if a head, or trailers, exceed `MAX_HEAD` or `MAX_HEADERS`."""
    if count > MAX_HEADERS:
        raise RequestRejected(
            431, f"Request headers: expected at most {MAX_HEADERS}, received {count}"
        )
    if size > MAX_HEAD:
        raise RequestRejected(431, _TOO_LARGE)


def encode_head(method: bytes, target: bytes, version: str, headers: RawHeaders) -> bytes:
    """Return the bytes of a head."""
    lines = [b"%s %s HTTP/%s" % (method, target, version.encode("ascii"))]
    lines += [b"%s: %s" % header for header in headers]
    return b"\r\n".join((*lines, b"", b""))


def time_exceeded(part: str) -> RequestRejected:
    """Return the rejection of a request whose "headers" or "body" exceed their time limit."""
    setting = "header_timeout" if part == "headers" else "body_timeout"
    return RequestRejected(
        408, f"Request timeout: the {part} did not arrive in time (setting '{setting}')"
    )


def from_parser_error(error: httptools.HttpParserError) -> RequestRejected:
    """Return the rejection for an error of the parser, or of a callback that it has called."""
    cause = error.__context__  # raised in a callback
    if isinstance(cause, RequestRejected):
        return cause
    is_callback_error = isinstance(error, httptools.HttpParserCallbackError)
    if is_callback_error and not isinstance(cause, (httptools.HttpParserError, UnicodeError)):
        # Not the client's fault: an incompatible release of httptools, for instance.
        logger.error("Reading a request failed", exc_info=cause)
        return RequestRejected(500, "Internal error; the server's log has the reason")
    reason = "the target is not a valid URL" if is_callback_error else str(error)
    return RequestRejected(400, f"Invalid HTTP request: {reason}")


def encode_rejection(error: RequestRejected) -> bytes:
    """Return the complete response for a rejected request."""
    body = write_document({"error": error.text})
    head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
    return b"".join((STATUS_LINES[error.status], head, b"connection: close\r\n\r\n", body))
