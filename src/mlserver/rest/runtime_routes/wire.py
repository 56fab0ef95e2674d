"""Routes whose body is a wire format of a runtime: unary responses, or events if the format has
streams.

A wire module has `read_request`, `write_response` and `write_error` (see `custom_routes.Route`),
and optionally
- `named_model(body, config) -> str | None`: the model that a body names, where several models
  declare the path,
- `open_stream(body, config)`: None, or the writer of a stream with `event(response)` and
  `end(error)`, which return bytes.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any

from ...errors import MLServerError
from ...handlers import DataPlane
from ...handlers.dataplane import ModelRoute
from ...pipeline import RequestContext
from ...types import InferenceRequest, InferenceResponse
from ...wire.headers import server_timing
from ..messages import EVENT_STREAM, RawHeaders, Reply, Request, create_context, header_value


def get_wire(model_route: ModelRoute) -> Any:
    """Return the wire module of a route."""
    return _import_wire(model_route.route.wire)


@lru_cache(maxsize=256)
def _import_wire(name: str) -> Any:
    return importlib.import_module(name)


async def respond(data_plane: DataPlane, model_route: ModelRoute, request: Request) -> Reply:
    """Run inference; the wire module writes the response and every error."""
    context = create_context(request)
    name, version = model_route.name, model_route.version
    route = data_plane.select_route(model_route, context)
    wire, config = _import_wire(route.wire), route.config
    content_type = (request.header(b"content-type") or b"").decode("latin-1")
    started = time.perf_counter_ns()
    try:
        payload = wire.read_request(request.body, content_type, config)
        writer = wire.open_stream(request.body, config) if hasattr(wire, "open_stream") else None
        codec_ns = time.perf_counter_ns() - started
        if writer is not None:
            stream = data_plane.infer_stream(_iterate_once(payload), name, version, context)
            reply = await _stream(stream, writer)
            reply.headers.append(_timing_header(context, codec_ns))
            return reply
        response = await data_plane.infer(payload, name, version, context)
        started = time.perf_counter_ns()
        status, body, media_type = wire.write_response(response, config)
        codec_ns += time.perf_counter_ns() - started
    except MLServerError as error:
        status, body, media_type = wire.write_error(error, config)
        return Reply(status, body, media_type, retry_after(error), error=error)
    headers = [_timing_header(context, codec_ns), *_version_headers(response)]
    return Reply(status, body, media_type, headers)


async def _stream(responses: AsyncIterator[InferenceResponse], writer: Any) -> Reply:
    """Return a reply of events. An error before the first response is raised."""
    try:
        first = await anext(responses, None)
    except BaseException:
        await responses.aclose()  # type: ignore[attr-defined]
        raise
    headers: RawHeaders = [(b"cache-control", b"no-cache"), *_version_headers(first)]
    return Reply(200, _write_events(first, responses, writer), EVENT_STREAM, headers)


async def _write_events(
    first: InferenceResponse | None, responses: AsyncIterator[InferenceResponse], writer: Any
) -> AsyncIterator[bytes]:
    try:
        if first is not None and (event := writer.event(first)):
            yield event
        async for response in responses:
            if event := writer.event(response):
                yield event
        yield writer.end(None)
    except MLServerError as error:
        yield writer.end(error)
    finally:
        await responses.aclose()  # type: ignore[attr-defined]


async def _iterate_once(payload: InferenceRequest) -> AsyncIterator[InferenceRequest]:
    yield payload


def _version_headers(response: InferenceResponse | None) -> RawHeaders:
    if response is None or not response.model_version:
        return []
    return [(b"x-mlserver-model-version", header_value(response.model_version))]


def _timing_header(context: RequestContext, codec_ns: int) -> tuple[bytes, bytes]:
    return b"server-timing", server_timing(context.timings, codec_ns).encode()


def retry_after(error: MLServerError) -> RawHeaders:
    """Return the header `Retry-After` of an error that has a delay."""
    seconds = error.retry_after
    return [] if seconds is None else [(b"retry-after", b"%d" % max(1, round(seconds)))]
