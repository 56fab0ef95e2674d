"""Files of the console, with compressed copies, entity tags and a content security policy.

The files hold no data, and are served without a credential. Their address contains a digest of all
of them, so that browsers may cache them; only the page itself is revalidated. Imported on the
first request of the console.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from ...wire.json import write_document
from ..messages import JSON, RawHeaders, Reply, Request
from ..routing import decode_segment

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"require-trusted-types-for 'script'"
)
_COMMON_HEADERS: RawHeaders = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "md": "text/plain; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}
_PAGE = "index.html"
_DIGEST_MARK = b"{digest}"
_ROUTES = {
    "console": "/console/",
    "documentation": "/v2/docs",
    "openapi": "/v2/docs/dataplane.json",
    "models": "/v2/models",
    "inference": "/v2/models/{model_name}/infer",
    "health": ["/v2/health/live", "/v2/health/ready"],
}


class File(NamedTuple):
    """A file as it is sent.

    Attributes:
        tag: Entity tag, with its quotation marks.
    """

    content: bytes
    compressed: bytes
    content_type: str
    tag: bytes


def is_console_path(path: str) -> bool:
    """Return whether a path is `/`, or that of a file of the console."""
    return path == "/" or path == "/console" or path.startswith("/console/")


def respond(request: Request, metrics_endpoint: str | None) -> Reply | None:
    """Return the reply to GET of a path of the console; None if there is no such file.

    Args:
        metrics_endpoint: The setting, for the list of routes.
    """
    path = decode_segment(request.path)
    if path == "/":
        return _list_routes(request, metrics_endpoint)
    if path == "/console":
        if not request.target.endswith("/"):  # relative addresses start at the folder
            return redirect("console/")
        return _send(request, load_page(), b"no-cache")
    digest, _, name = path.removeprefix("/console/").partition("/")
    file = load_file(name) if digest == compute_digest() and name != _PAGE else None
    return None if file is None else _send(request, file, b"public, max-age=31536000, immutable")


def redirect(location: str) -> Reply:
    """Return a redirection to an address relative to the request's, as behind any proxy."""
    headers = [(b"location", location.encode("latin-1")), (b"cache-control", b"no-cache")]
    return Reply(307, b"", "", headers)


def _list_routes(request: Request, metrics_endpoint: str | None) -> Reply:
    """Send browsers to the console, and programs the most important routes."""
    if b"text/html" in (request.header(b"accept") or b""):
        reply = redirect("console/")
        reply.headers.append((b"vary", b"Accept"))
        return reply
    routes = {**_ROUTES, "metrics": metrics_endpoint or None}
    return Reply(200, write_document(routes), JSON, [(b"vary", b"Accept")])


def _send(request: Request, file: File, cache_control: bytes) -> Reply:
    headers = [
        *_COMMON_HEADERS,
        (b"etag", file.tag),
        (b"cache-control", cache_control),
        (b"vary", b"Accept-Encoding"),
    ]
    known = request.header(b"if-none-match") or b""
    if file.tag in known:
        return Reply(304, b"", "", headers)
    body = file.content
    if b"gzip" in (request.header(b"accept-encoding") or b""):
        body = file.compressed
        headers.append((b"content-encoding", b"gzip"))
    return Reply(200, body, file.content_type, headers, compress=False)


def _folder() -> Traversable:
    return files(__package__).joinpath("static")


def _iterate_names(folder: Traversable, prefix: str = "") -> list[str]:
    names: list[str] = []
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.is_dir():
            names += _iterate_names(entry, f"{prefix}{entry.name}/")
        elif entry.name.rpartition(".")[2] in _TYPES:
            names.append(prefix + entry.name)
    return names


@cache
def list_names() -> tuple[str, ...]:
    """Return the paths of all files of the console."""
    return tuple(_iterate_names(_folder()))


@cache
def compute_digest() -> str:
    """Return a digest of all files, which is part of their addresses."""
    digest = hashlib.sha256()
    for name in list_names():
        content = _folder().joinpath(name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


@lru_cache(maxsize=256)
def load_file(name: str) -> File | None:
    """Return a file by its path below the folder of the console; None if there is none."""
    if name not in list_names():
        return None
    return _create_file(_folder().joinpath(name).read_bytes(), name)


@cache
def load_page() -> File:
    """Return the page, with the digest in the addresses of its scripts and styles."""
    content = _folder().joinpath(_PAGE).read_bytes()
    return _create_file(content.replace(_DIGEST_MARK, compute_digest().encode()), _PAGE)


def _create_file(content: bytes, name: str) -> File:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'.encode()
    compressed = gzip.compress(content, 9, mtime=0)
    return File(content, compressed, _TYPES[name.rpartition(".")[2]], tag)
