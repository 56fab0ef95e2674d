"""Endpoints of the V2 protocol: health, metadata, inference and the model repository.

`negotiation` chooses the format of a body by its headers; `mlserver.wire` reads and writes it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from ..cloudevents import CloudEvents
from ..errors import InvalidPayload, MLServerError, serialization_error
from ..handlers import DataPlane
from ..handlers.model_repository import RepositoryControl, check_load
from ..settings import Settings
from ..types import InferenceRequest, InferenceResponse, RepositoryIndexRequest
from ..wire import json
from ..wire.headers import server_timing
from . import negotiation
from .bounded_cache import BoundedCache
from .messages import (
    EVENT_STREAM,
    RawHeaders,
    Reply,
    Request,
    create_context,
    header_value,
    model_headers,
    raw_headers,
    split_content_type,
)
from .negotiation import Writer
from .routing import Router

_MODEL_PATHS = ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{model_version}")


class Endpoints:
    """Endpoints bound to the data plane and the model repository."""

    def __init__(
        self,
        settings: Settings,
        data_plane: DataPlane,
        repository: RepositoryControl,
        events: CloudEvents,
    ) -> None:
        self._settings = settings
        self._data_plane = data_plane
        self._repository = repository
        self._events = events
        self._event_headers_by_model: BoundedCache[str, RawHeaders] = BoundedCache()

    def register(self, router: Router) -> None:
        """Add the routes to a router."""
        router.add("GET", "/v2", self.server_metadata)
        router.add("GET", "/v2/health/live", self.live)
        router.add("GET", "/v2/health/ready", self.ready)
        router.add("GET", "/v2/models", self.models)
        router.add("GET", "/v2/models/stats", self.statistics)
        for model in _MODEL_PATHS:
            router.add("GET", model, self.model_metadata)
            router.add("GET", f"{model}/ready", self.model_ready)
            router.add("GET", f"{model}/config", self.model_config)
            router.add("GET", f"{model}/stats", self.statistics)
            for name in ("infer", "generate"):
                router.add("POST", f"{model}/{name}", self.infer)
            for name in ("infer_stream", "generate_stream"):
                router.add("POST", f"{model}/{name}", self.infer_stream)
        for repository in ("/v2/repository", "/v2/repository/{repository}"):
            router.add("POST", f"{repository}/index", self.index)
            router.add("POST", f"{repository}/models/{{model_name}}/load", self.load)
            router.add("POST", f"{repository}/models/{{model_name}}/unload", self.unload)

    # -- health and metadata --

    async def live(self, request: Request) -> Reply:
        return _state_reply({"live": await self._data_plane.live()})

    async def ready(self, request: Request) -> Reply:
        return _state_reply({"ready": await self._data_plane.ready()})

    async def model_ready(self, request: Request) -> Reply:
        name, version = _read_model(request)
        is_ready = await self._data_plane.model_ready(name, version)
        return _state_reply({"name": name, "ready": is_ready})

    async def server_metadata(self, request: Request) -> Reply:
        return _document_reply(json.write_message(await self._data_plane.metadata()))

    async def models(self, request: Request) -> Reply:
        names = self._data_plane.model_names()
        return _document_reply(json.write_document({"models": names}))

    async def model_metadata(self, request: Request) -> Reply:
        metadata = await self._data_plane.model_metadata(*_read_model(request))
        return _document_reply(json.write_message(metadata))

    async def model_config(self, request: Request) -> Reply:
        config = self._data_plane.model_config(*_read_model(request))
        return _document_reply(json.write_document(config))

    async def statistics(self, request: Request) -> Reply:
        name = request.segments.get("model_name")
        statistics = await self._data_plane.statistics(name, request.segments.get("model_version"))
        return _document_reply(json.write_document(statistics))

    # -- inference --

    async def infer(self, request: Request) -> Reply:
        name, version = _read_model(request)
        started = time.perf_counter_ns()
        payload, write = await self._read(request, name, version)
        context = create_context(request)
        codec_ns = time.perf_counter_ns() - started
        response = await self._data_plane.infer(payload, name, version, context)
        started = time.perf_counter_ns()
        try:
            reply = write(response)
        except MLServerError:
            raise
        except Exception as error:
            raise serialization_error(name, error) from error
        codec_ns += time.perf_counter_ns() - started
        reply.headers += self._event_headers(response.model_name, response.id)
        reply.headers.append((b"server-timing", server_timing(context.timings, codec_ns).encode()))
        if context.response_headers:
            _set_model_headers(reply, context.response_headers)
        return reply

    async def _read(
        self, request: Request, name: str, version: str | None
    ) -> tuple[InferenceRequest, Writer]:
        """Return the parsed body and the writer of the response."""
        source = negotiation.from_request(request, self._settings.max_body_bytes)
        if negotiation.needs_arrow(source):  # a large import, in a thread: other requests go on
            await asyncio.to_thread(negotiation.load_arrow)
        metadata = None
        if source.json_length is not None and negotiation.is_raw_tensor(source):
            metadata = self._data_plane.loaded_metadata(name, version)
        payload = negotiation.read(source, metadata)
        return payload, negotiation.select_writer(source, payload)

    def _event_headers(self, model_name: str, response_id: str | None) -> RawHeaders:
        """Return the CloudEvents headers of a response; only the ids differ between a model's
        responses.
        """
        headers = self._event_headers_by_model.get(model_name)
        if headers is None:
            pairs = self._events.build_response_headers(model_name, None).items()
            headers = self._event_headers_by_model.store(model_name, raw_headers(pairs))
        if not response_id:
            return headers
        raw_id = header_value(response_id)
        return [*headers, (b"ce-id", raw_id), (b"ce-requestid", raw_id)]

    async def infer_stream(self, request: Request) -> Reply:
        """Respond with server-sent events, one per response of the model.

        An error before the first one is an ordinary error response. The headers are those of the
        first response: `Server-Timing` has the time until then.
        """
        name, version = _read_model(request)
        started = time.perf_counter_ns()
        payload, _ = await self._read(request, name, version)  # events are always JSON
        codec_ns = time.perf_counter_ns() - started
        context = create_context(request)
        responses = self._data_plane.infer_stream(_iterate_once(payload), name, version, context)
        try:
            first = await anext(responses, None)
        except BaseException:
            await responses.aclose()  # type: ignore[attr-defined]
            raise
        timing = server_timing(context.timings, codec_ns).encode()
        headers = [(b"server-timing", timing), (b"cache-control", b"no-cache")]
        if first is not None:
            headers += self._event_headers(first.model_name, first.id)
        return Reply(200, _write_events(first, responses), EVENT_STREAM, headers)

    # -- repository --

    async def index(self, request: Request) -> Reply:
        document = json.read_json(request.body) if request.body.strip() else {}
        ready = document.get("ready") if isinstance(document, dict) else ""
        if not isinstance(ready, bool | None):
            raise InvalidPayload(
                'Invalid body: expected an object like {"ready": true}, or no body'
            )
        index = await self._repository.index(RepositoryIndexRequest(ready=ready))
        items = [item.model_dump(mode="json") for item in index]
        return _document_reply(json.write_document(items))

    async def load(self, request: Request) -> Reply:
        _check_load_body(request.body)
        await self._repository.load(request.segments["model_name"])
        return Reply()

    async def unload(self, request: Request) -> Reply:
        await self._repository.unload(request.segments["model_name"])
        return Reply()


def _set_model_headers(reply: Reply, response_headers: dict[str, Any]) -> None:
    """Add the headers that the model has set; they replace those of the server."""
    content_type, added = split_content_type(model_headers(response_headers.items()))
    names = {name for name, _ in added}
    reply.headers = [header for header in reply.headers if header[0] not in names] + added
    if content_type is not None:
        reply.content_type = content_type


def _state_reply(state: dict[str, str | bool]) -> Reply:
    """Return 200 for true and 400 for false; some clients read the body instead."""
    return Reply(200 if all(state.values()) else 400, json.write_document(state))


def _document_reply(body: bytes) -> Reply:
    return Reply(body=body, compress=False)


def _read_model(request: Request) -> tuple[str, str | None]:
    """Return model name and version; the version may be a query parameter, as in MLServer 1.x."""
    version = request.segments.get("model_version")
    if version is None and b"model_version=" in request.query:
        from urllib.parse import parse_qs

        version = parse_qs(request.query.decode("latin-1")).get("model_version", [None])[0]
    return request.segments["model_name"], version


def _check_load_body(body: bytes) -> None:
    """Check the parameters in the body of a load; the rest is ignored, as in MLServer 1.x."""
    if b"parameters" not in body:
        return
    document = json.read_json(body)
    parameters = document.get("parameters") if isinstance(document, dict) else None
    check_load(parameters if isinstance(parameters, dict) else ())


async def _iterate_once(payload: InferenceRequest) -> AsyncIterator[InferenceRequest]:
    yield payload


async def _write_events(
    first: InferenceResponse | None, responses: AsyncIterator[InferenceResponse]
) -> AsyncIterator[bytes]:
    """Yield responses as events. An error is an event with `error`, and ends the stream."""
    try:
        if first is not None:
            yield _write_event(_write_response(first))
        async for response in responses:
            yield _write_event(_write_response(response))
    except MLServerError as error:
        yield _write_event(json.write_error(error))
    finally:
        await responses.aclose()  # type: ignore[attr-defined]


def _write_response(response: InferenceResponse) -> bytes:
    try:
        return json.write_response(response)
    except MLServerError:
        raise
    except Exception as error:
        raise serialization_error(response.model_name, error) from error


def _write_event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
