"""The protocol's REST routes: each turns a request into a question to the data plane or the repository."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from ..cloudevents import CloudEvents
from ..errors import InvalidPayload, MLServerError, serialization_error
from ..handlers import DataPlane
from ..handlers.model_repository import RepositoryControl, check_load
from ..pipeline import RequestContext
from ..settings import Settings
from ..types import InferenceRequest, InferenceResponse, RepositoryIndexRequest
from ..wire import json
from ..wire.headers import server_timing
from . import negotiation
from .bounded_cache import BoundedCache
from .messages import (
    EVENT_STREAM,
    JSON,
    RawHeaders,
    Reply,
    Request,
    header_value,
    model_headers,
    raw_headers,
)
from .negotiation import EncodedBody
from .routing import Router


class Endpoints:
    """The routes, bound to what they ask."""

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
        self._events_of: BoundedCache[str, RawHeaders] = BoundedCache()

    def register(self, router: Router) -> None:
        """Add every route to the router."""
        router.add("GET", "/v2", self.server_metadata)
        router.add("GET", "/v2/health/live", self.live)
        router.add("GET", "/v2/health/ready", self.ready)
        router.add("GET", "/v2/models", self.models)
        router.add("GET", "/v2/models/stats", self.statistics)
        for model in (
            "/v2/models/{model_name}",
            "/v2/models/{model_name}/versions/{model_version}",
        ):
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
        return _state({"live": await self._data_plane.live()})

    async def ready(self, request: Request) -> Reply:
        return _state({"ready": await self._data_plane.ready()})

    async def model_ready(self, request: Request) -> Reply:
        name, version = _model(request)
        return _state({"name": name, "ready": await self._data_plane.model_ready(name, version)})

    async def server_metadata(self, request: Request) -> Reply:
        return _document(json.write_message(await self._data_plane.metadata()))

    async def models(self, request: Request) -> Reply:
        return _document(json.write_document({"models": self._data_plane.model_names()}))

    async def model_metadata(self, request: Request) -> Reply:
        return _document(
            json.write_message(await self._data_plane.model_metadata(*_model(request)))
        )

    async def model_config(self, request: Request) -> Reply:
        return _document(json.write_document(self._data_plane.model_config(*_model(request))))

    async def statistics(self, request: Request) -> Reply:
        name = request.segments.get("model_name")
        statistics = await self._data_plane.statistics(name, request.segments.get("model_version"))
        return _document(json.write_document(statistics))

    # -- inference --

    async def infer(self, request: Request) -> Reply:
        name, version = _model(request)
        started = time.perf_counter_ns()
        incoming = negotiation.arrived(request, self._settings.max_body_bytes)
        payload = await self._read(incoming, name, version)
        write = negotiation.writer(incoming, payload)
        call = RequestContext(headers=request.headers, operation=request.operation)
        codec_ns = time.perf_counter_ns() - started
        response = await self._data_plane.infer(payload, name, version, call)
        started = time.perf_counter_ns()
        try:
            written = (
                EncodedBody(json.write_response(response), JSON)
                if write is None
                else write(response)
            )
        except MLServerError:
            raise
        except Exception as error:
            raise serialization_error(name, error) from error
        codec_ns += time.perf_counter_ns() - started
        return self._inference_reply(written, response, call, codec_ns)

    async def _read(
        self, incoming: negotiation.RequestFormat, name: str, version: str | None
    ) -> InferenceRequest:
        if not negotiation.is_prepared(incoming):  # others are not to wait for a large import
            await asyncio.to_thread(negotiation.prepare)
        if not incoming.is_raw:
            return negotiation.read(incoming)
        return negotiation.read(incoming, self._data_plane.loaded_metadata(name, version))

    def _inference_reply(
        self, written: EncodedBody, response: InferenceResponse, call: RequestContext, codec_ns: int
    ) -> Reply:
        headers = self._event_headers(response.model_name, response.id)
        headers.append((b"server-timing", server_timing(call.timings, codec_ns).encode()))
        headers += written.headers
        content_type = written.content_type
        if call.response_headers:
            given = model_headers(call.response_headers.items())
            content_type = dict(given).pop(b"content-type", content_type.encode()).decode("latin-1")
            given = [pair for pair in given if pair[0] != b"content-type"]
            names = {name for name, _ in given}
            headers = [(name, value) for name, value in headers if name not in names] + given
        return Reply(200, written.body, content_type, headers)

    def _event_headers(self, model: str, response_id: str | None) -> RawHeaders:
        """CloudEvents headers; all but the ids are the same for every answer of a model."""
        headers = self._events_of.get(model)
        if headers is None:
            headers = self._events_of.keep(
                model, raw_headers(self._events.build_response_headers(model, None).items())
            )
        if not response_id:
            return headers.copy()
        raw_id = header_value(response_id)
        return [*headers, (b"ce-id", raw_id), (b"ce-requestid", raw_id)]

    async def infer_stream(self, request: Request) -> Reply:
        """Server-sent events, one per response. What fails before the first one is an ordinary error.

        The headers tell of the first response: `Server-Timing` says where the time until then went.
        """
        name, version = _model(request)
        started = time.perf_counter_ns()
        incoming = negotiation.arrived(request, self._settings.max_body_bytes)
        payload = await self._read(incoming, name, version)
        negotiation.writer(incoming, payload)  # events are JSON, whatever is asked for
        codec_ns = time.perf_counter_ns() - started
        call = RequestContext(headers=request.headers, operation=request.operation)
        responses = self._data_plane.infer_stream(_one(payload), name, version, call)
        try:
            first = await anext(responses, None)
        except BaseException:
            await responses.aclose()  # type: ignore[attr-defined]
            raise
        headers = [] if first is None else self._event_headers(first.model_name, first.id)
        headers += [
            (b"server-timing", server_timing(call.timings, codec_ns).encode()),
            (b"cache-control", b"no-cache"),
        ]
        return Reply(200, _events(first, responses), EVENT_STREAM, headers)

    # -- repository --

    async def index(self, request: Request) -> Reply:
        document = json.read_json(request.body) if request.body.strip() else {}
        if not isinstance(document, dict) or not isinstance(
            document.get("ready"), (bool, type(None))
        ):
            raise InvalidPayload(
                'Invalid body: expected an object like {"ready": true}, or no body'
            )
        index = await self._repository.index(RepositoryIndexRequest(ready=document.get("ready")))
        return _document(json.write_document([item.model_dump(mode="json") for item in index]))

    async def load(self, request: Request) -> Reply:
        _check_load(request.body)
        await self._repository.load(request.segments["model_name"])
        return Reply()

    async def unload(self, request: Request) -> Reply:
        await self._repository.unload(request.segments["model_name"])
        return Reply()


def _state(state: dict[str, str | bool]) -> Reply:
    """Yes is 200, no is 400; the protocol also has it in the body, which some clients read."""
    return Reply(200 if all(state.values()) else 400, json.write_document(state))


def _document(body: bytes) -> Reply:
    return Reply(body=body, compress=False)


def _model(request: Request) -> tuple[str, str | None]:
    """Name and version that a path asks for; the version may also be a query parameter, as in MLServer 1.x."""
    version = request.segments.get("model_version")
    if version is None and b"model_version=" in request.query:
        from urllib.parse import parse_qs

        version = parse_qs(request.query.decode("latin-1")).get("model_version", [None])[0]
    return request.segments["model_name"], version


def _check_load(body: bytes) -> None:
    """Look for parameters in the body of a load; anything else in it is passed over, as in MLServer 1.x."""
    if b"parameters" not in body:
        return
    document = json.read_json(body)
    given = document.get("parameters") if isinstance(document, dict) else None
    check_load(given if isinstance(given, dict) else ())


async def _one(payload: InferenceRequest) -> AsyncIterator[InferenceRequest]:
    yield payload


async def _events(
    first: InferenceResponse | None, responses: AsyncIterator[InferenceResponse]
) -> AsyncIterator[bytes]:
    """Responses as events. An error in the middle is an event with `error`, then the stream ends."""
    try:
        if first is not None:
            yield _event(_written(first))
        async for response in responses:
            yield _event(_written(response))
    except MLServerError as error:
        yield _event(json.write_error(error))
    finally:
        await responses.aclose()  # type: ignore[attr-defined]


def _written(response: InferenceResponse) -> bytes:
    try:
        return json.write_response(response)
    except MLServerError:
        raise
    except Exception as error:
        raise serialization_error(response.model_name, error) from error


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
