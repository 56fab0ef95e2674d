"""The wire formats of the V2 routes: which one a request is in, and which one its answer is wanted in.

One row per content type; a format itself is a module of `wire`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import UnsupportedMediaType
from ..types import InferenceRequest, InferenceResponse, MetadataModelResponse
from ..wire import binary, json
from .messages import JSON, Body, RawHeaders, Request

OCTETS = "application/octet-stream"
ARROW = "application/vnd.apache.arrow.stream"
_ARROW = ARROW.encode()
_prepared = False
BINARY_HEADER = binary.HEADER.lower().encode()


@dataclass(slots=True)
class RequestFormat:
    """A request as it arrived.

    Attributes:
        kind: Content type, without its parameters.
        head: The header of the binary extension; None = there is none.
        accept: What the caller reads.
        limit: Bytes that the body may have once whatever is compressed in it is not.
    """

    body: bytes
    kind: bytes
    head: bytes | None
    accept: bytes
    limit: int

    @property
    def is_raw(self) -> bool:
        """Whether the body is one tensor without any JSON, which only the model's metadata can describe."""
        return self.head is not None and self.head.strip() == b"0"


@dataclass(slots=True)
class EncodedBody:
    """An answer in its format."""

    body: Body
    content_type: str
    headers: RawHeaders = field(default_factory=list)


def arrived(request: Request, limit: int) -> RequestFormat:
    kind, head, accept = b"", None, b""
    for name, value in request.raw_headers:
        if name == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
        elif name == BINARY_HEADER:
            head = value
        elif name == b"accept":
            accept = value
    return RequestFormat(request.body, kind, head, accept, limit)


def prepare() -> None:
    """Import what a format needs that few requests have. Raises `UnsupportedMediaType` if it is not installed."""
    global _prepared
    from ..wire.arrow import stream

    stream.library()
    _prepared = True


def is_prepared(incoming: RequestFormat) -> bool:
    """Whether `prepare` would find nothing to do."""
    return _prepared or not (incoming.kind == _ARROW or _wants_table(incoming.accept))


# -- reading --


def read(
    incoming: RequestFormat, metadata: MetadataModelResponse | None = None
) -> InferenceRequest:
    """The request in a body.

    Args:
        metadata: The model's; needed if the body is a raw tensor.

    Raises:
        UnsupportedMediaType: no row of the table has this content type.
        MLServerError: the body is no request.
    """
    reader = _READERS.get(incoming.kind)
    if reader is None:
        if not (incoming.kind.startswith(b"application/") and incoming.kind.endswith(b"+json")):
            shown = incoming.kind.decode("latin-1")
            raise UnsupportedMediaType(
                f"Content-Type '{shown}' is not supported; supported: {', '.join(SUPPORTED)}"
            )
        reader = _read_json
    return reader(incoming, metadata)


def _read_json(incoming: RequestFormat, metadata: MetadataModelResponse | None) -> InferenceRequest:
    if incoming.head is None:
        return json.read_request(incoming.body)
    header_length = binary.read_header(incoming.head.decode("latin-1"), len(incoming.body))
    return binary.read_request(incoming.body, header_length, metadata)


def _read_arrow(
    incoming: RequestFormat, metadata: MetadataModelResponse | None
) -> InferenceRequest:
    from ..wire.arrow import stream

    return stream.read_request(incoming.body, incoming.limit)


# What the binary extension adds is told by its header: its published clients send it without a content type.
_READERS: dict[bytes, Callable[[RequestFormat, MetadataModelResponse | None], InferenceRequest]] = {
    b"": _read_json,
    JSON.encode(): _read_json,
    # What `curl -d` sends unless told otherwise; refusing it would only cost its user a minute.
    b"application/x-www-form-urlencoded": _read_json,
    OCTETS.encode(): _read_json,
    _ARROW: _read_arrow,
}
SUPPORTED = (JSON, OCTETS, ARROW)


# -- writing --

Writer = Callable[[InferenceResponse], EncodedBody]


def writer(incoming: RequestFormat, request: InferenceRequest) -> Writer | None:
    """How the caller wants the answer; None = as JSON.

    Raises:
        MLServerError: what the request asks for is not understood, or cannot be done here.
    """
    wanted = binary.pop_binary_outputs(request)
    if _wants_table(incoming.accept):
        from ..wire.arrow import stream

        stream.library()
        return lambda response: EncodedBody([stream.write_response(response)], ARROW)
    if wanted is None:
        return None
    return lambda response: _write_binary(response, wanted)


def _write_binary(response: InferenceResponse, wanted: binary.BinaryOutputs) -> EncodedBody:
    parts, head = binary.write_response(response, wanted)
    if head is None:
        return EncodedBody(parts, JSON)
    return EncodedBody(parts, OCTETS, [(BINARY_HEADER, b"%d" % head)])


def _wants_table(accept: bytes) -> bool:
    """Whether a caller reads Arrow's stream, and does not like JSON better."""
    if b"arrow" not in accept:
        return False
    liking = dict(map(_liked, accept.decode("latin-1").lower().split(",")))
    return liking.get(ARROW, 0.0) > 0 and liking[ARROW] >= liking.get(JSON, 0.0)


def _liked(part: str) -> tuple[str, float]:
    """A media type and its weight."""
    name, *options = (option.strip() for option in part.split(";"))
    weight = next((option[2:] for option in options if option.startswith("q=")), "1")
    try:
        return name, float(weight)
    except ValueError:
        return name, 1.0
