"""Content negotiation of the V2 routes: the reader of a request by Content-Type, the writer of its
response by `Accept` and the request's parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..errors import UnsupportedMediaType
from ..types import InferenceRequest, InferenceResponse, MetadataModelResponse
from ..wire import binary, json
from .messages import JSON, Reply, Request

OCTETS = "application/octet-stream"
ARROW = "application/vnd.apache.arrow.stream"
SUPPORTED = (JSON, OCTETS, ARROW)
BINARY_HEADER = binary.HEADER.lower().encode()
_ARROW = ARROW.encode()
_is_arrow_loaded = False


@dataclass(slots=True)
class RequestFormat:
    """A request's body, and the headers that say how it is written.

    Attributes:
        content_type: Without parameters, in lower case.
        json_length: Header of the binary tensor data extension; None = it is absent.
        limit: Bytes that the body may have after decompression.
        prefers_arrow: Whether the response is written in Arrow's format.
    """

    body: bytes
    content_type: bytes
    json_length: bytes | None
    limit: int
    prefers_arrow: bool = False


Reader = Callable[[RequestFormat, MetadataModelResponse | None], InferenceRequest]
Writer = Callable[[InferenceResponse], Reply]


def from_request(request: Request, limit: int) -> RequestFormat:
    """Return the format that a request's headers declare."""
    headers = dict(request.raw_headers)
    content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    accept = headers.get(b"accept", b"")
    is_arrow_preferred = b"arrow" in accept and prefers_arrow(accept)
    json_length = headers.get(BINARY_HEADER)
    return RequestFormat(request.body, content_type, json_length, limit, is_arrow_preferred)


def is_raw_tensor(source: RequestFormat) -> bool:
    """Return whether the body is one tensor without JSON, which only the metadata describe."""
    return source.json_length is not None and source.json_length.strip() == b"0"


def needs_arrow(source: RequestFormat) -> bool:
    """Return whether `load_arrow` has to precede reading and writing."""
    return not _is_arrow_loaded and (source.prefers_arrow or source.content_type == _ARROW)


def load_arrow() -> None:
    """Import pyarrow, which few requests need. Raises `UnsupportedMediaType` if it is not
    installed.
    """
    global _is_arrow_loaded
    from ..wire.arrow import stream

    stream.library()
    _is_arrow_loaded = True


# -- reading --


def read(source: RequestFormat, metadata: MetadataModelResponse | None = None) -> InferenceRequest:
    """Parse a body.

    Args:
        metadata: The model's; required for a raw tensor.

    Raises:
        UnsupportedMediaType: no reader has the content type.
        MLServerError: the body is not a valid request.
    """
    reader = _READERS.get(source.content_type)
    if reader is None:
        reader = _get_json_reader(source.content_type)
    return reader(source, metadata)


def _get_json_reader(content_type: bytes) -> Reader:
    """Return the reader of `application/*+json`."""
    if content_type.startswith(b"application/") and content_type.endswith(b"+json"):
        return _read_json
    shown = content_type.decode("latin-1")
    raise UnsupportedMediaType(
        f"Content-Type '{shown}' is not supported; supported: {', '.join(SUPPORTED)}"
    )


def _read_json(source: RequestFormat, metadata: MetadataModelResponse | None) -> InferenceRequest:
    if source.json_length is None:
        return json.read_request(source.body)
    json_length = binary.read_header(source.json_length.decode("latin-1"), len(source.body))
    return binary.read_request(source.body, json_length, metadata)


def _read_arrow(source: RequestFormat, metadata: MetadataModelResponse | None) -> InferenceRequest:
    from ..wire.arrow import stream

    return stream.read_request(source.body, source.limit)


_READERS: dict[bytes, Reader] = {
    JSON.encode(): _read_json,
    # The header `Inference-Header-Content-Length` marks a binary body: published clients send it
    # without a content type.
    b"": _read_json,
    OCTETS.encode(): _read_json,
    b"application/x-www-form-urlencoded": _read_json,  # the default of `curl -d`
    _ARROW: _read_arrow,
}


# -- writing --


def select_writer(source: RequestFormat, request: InferenceRequest) -> Writer:
    """Return the writer of the response: Arrow if `Accept` prefers it, else binary or JSON by the
    request's parameters.

    Raises:
        MLServerError: the request's parameters of the binary extension are not valid.
    """
    has_options = request.parameters is not None or request.outputs is not None
    binary_outputs = binary.pop_binary_outputs(request) if has_options else None
    if source.prefers_arrow:
        return _write_arrow
    if binary_outputs is None:
        return _write_json
    return partial(_write_binary, outputs=binary_outputs)


def _write_json(response: InferenceResponse) -> Reply:
    return Reply(200, json.write_response(response))


def _write_arrow(response: InferenceResponse) -> Reply:
    from ..wire.arrow import stream

    return Reply(200, [stream.write_response(response)], ARROW)


def _write_binary(response: InferenceResponse, outputs: binary.BinaryOutputs) -> Reply:
    parts, json_length = binary.write_response(response, outputs)
    if json_length is None:
        return Reply(200, parts)
    return Reply(200, parts, OCTETS, [(BINARY_HEADER, b"%d" % json_length)])


def prefers_arrow(accept: bytes) -> bool:
    """Return whether `Accept` has Arrow's stream with a weight above zero and not below that of
    JSON.
    """
    media_ranges = accept.decode("latin-1").lower().split(",")
    weights = dict(map(_parse_media_range, media_ranges))
    return weights.get(ARROW, 0.0) > 0 and weights[ARROW] >= weights.get(JSON, 0.0)


def _parse_media_range(text: str) -> tuple[str, float]:
    """Return a media type and its weight (`q`, RFC 9110 12.4.2)."""
    name, *options = [option.strip() for option in text.split(";")]
    weights = [option[2:] for option in options if option.startswith("q=")]
    try:
        return name, float(weights[0]) if weights else 1.0
    except ValueError:
        return name, 1.0
