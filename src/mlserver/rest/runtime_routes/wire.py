"""Answers the paths whose body is one more wire format: a whole answer, or events where the format knows streams.

A wire module has `read_request`, `write_response` and `write_error` (see `custom_routes.Route`). It may also have
`named_model(body, config) -> str | None`, the model that a body asks for where several answer the path, and
`open_stream(body, config)`, the writer of a stream if the body asks for one: `event(response)` and `end(problem)` give bytes.
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
from ..messages import EVENT_STREAM, RawHeaders, Reply, Request, header_value


def wire_of(found: ModelRoute) -> Any:
    """The wire module of a route."""
    return _module(found.route.wire)


@lru_cache(maxsize=256)
def _module(name: str) -> Any:
    return importlib.import_module(name)


async def answer(data_plane: DataPlane, found: ModelRoute, request: Request) -> Reply:
    """Send the request down the model's ordinary road; every error is written by the wire format."""
    call = RequestContext(headers=request.headers, operation=request.operation)
    route = data_plane.select_route(found, call)
    wire, config = _module(route.wire), route.config
    content_type = request.header(b"content-type")
    started = time.perf_counter_ns()
    try:
        payload = wire.read_request(
            request.body, "" if content_type is None else content_type.decode("latin-1"), config
        )
        writer = wire.open_stream(request.body, config) if hasattr(wire, "open_stream") else None
        codec_ns = time.perf_counter_ns() - started
        if writer is not None:
            responses = data_plane.infer_stream(_one(payload), found.name, found.version, call)
            reply = await _stream(responses, writer)
            reply.headers.append(_timing(call, codec_ns))
            return reply
        response = await data_plane.infer(payload, found.name, found.version, call)
        started = time.perf_counter_ns()
        status, body, media_type = wire.write_response(response, config)
        codec_ns += time.perf_counter_ns() - started
    except MLServerError as error:
        status, body, media_type = wire.write_error(error, config)
        headers = retry_after(error)
    else:
        headers = [_timing(call, codec_ns), *_version(response)]
    return Reply(status, body, media_type, headers)


async def _stream(responses: AsyncIterator[InferenceResponse], writer: Any) -> Reply:
    """Events, one or more per response. What fails before the first one is an ordinary error."""
    try:
        first = await anext(responses, None)
    except BaseException:
        await responses.aclose()  # type: ignore[attr-defined]
        raise
    headers: RawHeaders = [(b"cache-control", b"no-cache"), *_version(first)]
    return Reply(200, _events(first, responses, writer), EVENT_STREAM, headers)


async def _events(
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


async def _one(payload: InferenceRequest) -> AsyncIterator[InferenceRequest]:
    yield payload


def _version(response: InferenceResponse | None) -> RawHeaders:
    if response is None or not response.model_version:
        return []
    return [(b"x-mlserver-model-version", header_value(response.model_version))]


def _timing(call: RequestContext, codec_ns: int) -> tuple[bytes, bytes]:
    return b"server-timing", server_timing(call.timings, codec_ns).encode()


def retry_after(error: MLServerError) -> RawHeaders:
    """The header that says when to come back, if the error knows."""
    seconds = getattr(error, "retry_after", None)
    return [] if seconds is None else [(b"retry-after", b"%d" % max(1, round(seconds)))]
