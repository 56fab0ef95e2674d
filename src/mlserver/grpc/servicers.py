"""Implementations of the inference service and of the deprecated repository service."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import lru_cache

import grpc
from google.protobuf.message import DecodeError

from ..cloudevents import (
    CLOUDEVENTS_HEADER_ID,
    CLOUDEVENTS_HEADER_REQUEST_ID,
    CloudEvents,
)
from ..errors import MLServerError, serialization_error
from ..handlers import DataPlane
from ..handlers.model_repository import RepositoryControl, check_load
from ..log_context import REQUEST_ID, variable
from ..pipeline import RequestContext
from ..types import InferenceRequest, InferenceResponse
from ..wire.headers import server_timing
from ..wire.pb import dataplane_pb2 as pb
from ..wire.pb import model_repository_pb2 as repository_pb
from ..wire.proto import messages as proto
from ..wire.proto import metadata as proto_metadata
from ..wire.proto import model_infer
from .messages import StreamWriter
from .rpc import (
    Context,
    Metadata,
    create_request_context,
    logger,
    to_metadata,
    to_metadata_value,
    to_server_error,
)
from .streams import ModelStream, serve_by_model, serve_in_order

# Names of spans.
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
MODEL_STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"

_COMPRESSIONS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
STREAM_FORM = "mlserver-stream-form"
# `wire.proto.model_infer` reads and writes the bytes of the most frequent method.
SERIALIZED_METHODS = ("ModelInfer",)
Model = tuple[str, str]


class InferenceServicer:
    """Implementation of `inference.GRPCInferenceService`."""

    def __init__(
        self, data_plane: DataPlane, repository: RepositoryControl, events: CloudEvents
    ) -> None:
        self._data_plane = data_plane
        self._repository = repository
        self._events = events

    # -- health and metadata --

    async def server_live(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=await self._data_plane.live())

    async def server_ready(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=await self._data_plane.ready())

    async def model_ready(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        ready = await self._data_plane.model_ready(request.name, request.version or None)
        return pb.ModelReadyResponse(ready=ready)

    async def server_metadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return proto_metadata.write_server_metadata(await self._data_plane.metadata())

    async def model_metadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        metadata = await self._data_plane.model_metadata(request.name, request.version or None)
        return proto_metadata.write_model_metadata(metadata)

    async def model_config(
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        return proto_metadata.write_model_config(
            self._data_plane.model_config(request.name, request.version or None)
        )

    async def model_statistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        return proto_metadata.write_statistics(
            await self._data_plane.statistics(request.name or None, request.version or None)
        )

    # -- inference --

    async def model_infer(self, data: bytes, context: Context) -> bytes:
        started = time.perf_counter_ns()
        try:
            received = model_infer.read_request(data)
        except MLServerError:
            self._check_model(data)
            raise
        request_context = create_request_context(context, MODEL_INFER)
        parsed = time.perf_counter_ns()
        model, version = received.model_name, received.model_version
        _set_empty_id(received.request)
        response = await self._data_plane.infer(
            received.request, model, version or None, request_context
        )
        inferred = time.perf_counter_ns()
        try:
            message = model_infer.write_response(response, received.raw)
        except MLServerError:
            raise
        except Exception as error:
            raise serialization_error(model, error) from error
        _compress(context, request_context)
        codec_ns = parsed - started + time.perf_counter_ns() - inferred
        context.set_trailing_metadata(self._trailing(response, request_context, codec_ns))
        return message

    def _check_model(self, data: bytes) -> None:
        """Raise the error of the model's name or version, which precedes other errors."""
        try:
            message = pb.ModelInferRequest.FromString(data)
        except DecodeError:
            return
        self._data_plane.check_usable(message.model_name, message.model_version or None)

    async def model_stream_infer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context, write: StreamWriter
    ) -> None:
        """Serve a stream in the form of MLServer or of Triton, as the first request specifies."""
        first = await anext(aiter(requests), None)
        if first is None:
            return
        _compress(context, create_request_context(context))
        stream = _InferStream(self._data_plane, context, write, proto.uses_raw(first))
        try:
            if requests_triton_form(first, context):
                await serve_in_order(_prepend(first, requests), stream.respond_in_triton_form)
            else:
                await serve_by_model(_prepend(first, requests), _get_model, stream.serve_model)
        except BaseExceptionGroup as group:
            raise to_server_error(group) from None
        if stream.last is not None:
            context.set_trailing_metadata(self._trailing(*stream.last, 0))

    def _trailing(
        self, response: InferenceResponse, request_context: RequestContext, codec_ns: int
    ) -> Metadata:
        fixed = _shared_metadata(self._events, response.model_name)
        ids: Metadata = ()
        if response.id:
            text = to_metadata_value(CLOUDEVENTS_HEADER_ID, response.id)
            ids = (
                (CLOUDEVENTS_HEADER_ID.lower(), text),
                (CLOUDEVENTS_HEADER_REQUEST_ID.lower(), text),
            )
        metadata: Metadata = (
            *fixed,
            *ids,
            *_list_request_id(),
            ("server-timing", server_timing(request_context.timings, codec_ns)),
        )
        if not request_context.response_headers:
            return metadata
        model_metadata = to_metadata(request_context.response_headers.items())
        names = {name for name, _ in model_metadata}
        return (*(pair for pair in metadata if pair[0] not in names), *model_metadata)

    # -- repository --

    async def repository_index(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        message = pb.RepositoryIndexResponse()
        proto_metadata.write_index(
            await self._repository.index(proto_metadata.read_index_request(request)), message
        )
        return message

    async def repository_model_load(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        check_load(request.parameters)
        await self._repository.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        await self._repository.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()


class _InferStream:
    """Responses of one `ModelStreamInfer` call."""

    def __init__(
        self, data_plane: DataPlane, context: Context, write: StreamWriter, raw: bool
    ) -> None:
        self._data_plane = data_plane
        self._context = context
        self._write = write
        self._raw = raw
        # The last response sent, whose headers become the trailing metadata.
        self.last: tuple[InferenceResponse, RequestContext] | None = None

    async def serve_model(self, model: Model, stream: ModelStream[pb.ModelInferRequest]) -> None:
        """Serve all requests for one model in MLServer's form, until the client ends its side.

        If the model stops reading earlier, the next request starts another stream of the model.
        """
        while (first := await stream.next()) is not None:
            async with aclosing(
                self._responses(_read(stream.iterate_from(first)), model)
            ) as responses:
                async for response, request_context in responses:
                    await self._write(_write_response(response, self._raw))
                    self.last = response, request_context

    async def respond_in_triton_form(
        self, message: pb.ModelInferRequest, wait_for_turn: Callable[[], Awaitable[None]]
    ) -> None:
        """Serve one request in Triton's form: errors are messages, the last response may be marked.

        With that flag, the responses of a streaming model are followed by an empty last response.
        """
        model = _get_model(message)
        final = message.parameters.get("triton_enable_empty_final_response")
        sends_final = final is not None and final.bool_param
        try:
            streams = self._data_plane.has_streams(model[0], model[1] or None)
            async with aclosing(self._responses(_read(_only(message)), model)) as responses:
                async for response, request_context in responses:
                    await wait_for_turn()
                    await self._write_in_triton_form(response, not streams if sends_final else None)
                    self.last = response, request_context
        except Exception as error:
            await wait_for_turn()
            failed = pb.ModelStreamInferResponse(error_message=to_server_error(error).message)
            failed.infer_response.id = message.id
            await self._write(failed)
            return
        if sends_final and streams:
            await wait_for_turn()
            end = InferenceResponse(model_name=message.model_name, id=message.id, outputs=[])
            await self._write_in_triton_form(end, True)

    async def _write_in_triton_form(self, response: InferenceResponse, final: bool | None) -> None:
        message = pb.ModelStreamInferResponse(infer_response=_write_response(response, True))
        if final is not None:
            message.infer_response.parameters["triton_final_response"].bool_param = final
        await self._write(message)

    async def _responses(
        self, payloads: AsyncIterator[InferenceRequest], model: Model
    ) -> AsyncGenerator[tuple[InferenceResponse, RequestContext], None]:
        """Yield the responses to a stream; a model without streaming gets single requests."""
        name, version = model[0], model[1] or None
        if not self._data_plane.has_streams(name, version):
            async for payload in payloads:
                request_context = create_request_context(self._context, MODEL_STREAM_INFER)
                response = await self._data_plane.infer(payload, name, version, request_context)
                yield response, request_context
            return
        request_context = create_request_context(self._context, MODEL_STREAM_INFER)
        responses = self._data_plane.infer_stream(payloads, name, version, request_context)
        async with aclosing(responses):  # type: ignore[type-var]
            async for response in responses:
                yield response, request_context


class RepositoryServicer:
    """Implementation of `ModelRepositoryService`, for clients of MLServer 1.x."""

    def __init__(self, repository: RepositoryControl) -> None:
        self._repository = repository
        self._has_warned = False

    async def repository_index(
        self, request: repository_pb.RepositoryIndexRequest, context: Context
    ) -> repository_pb.RepositoryIndexResponse:
        self._warn()
        message = repository_pb.RepositoryIndexResponse()
        proto_metadata.write_index(
            await self._repository.index(proto_metadata.read_index_request(request)), message
        )
        return message

    async def repository_model_load(
        self, request: repository_pb.RepositoryModelLoadRequest, context: Context
    ) -> repository_pb.RepositoryModelLoadResponse:
        self._warn()
        await self._repository.load(request.model_name)
        return repository_pb.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, request: repository_pb.RepositoryModelUnloadRequest, context: Context
    ) -> repository_pb.RepositoryModelUnloadResponse:
        self._warn()
        await self._repository.unload(request.model_name)
        return repository_pb.RepositoryModelUnloadResponse()

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "A client uses the deprecated ModelRepositoryService; use the same methods of"
                " GRPCInferenceService"
            )


def requests_triton_form(message: pb.ModelInferRequest, context: Context) -> bool:
    """Return whether a stream's first request selects `ModelStreamInferResponse`.

    A parameter that begins with `triton_` selects it, and the metadata `mlserver-stream-form:
    triton`.
    """
    if any(name.startswith("triton_") for name in message.parameters):
        return True
    return any(
        name == STREAM_FORM and value == "triton"
        for name, value in context.invocation_metadata() or ()
    )


def _compress(context: Context, request_context: RequestContext) -> None:
    """Compress the response if the metadata has `accept-encoding`."""
    encoding = request_context.headers.get("accept-encoding") if request_context.headers else None
    if encoding in _COMPRESSIONS:
        context.set_compression(_COMPRESSIONS[encoding])


@lru_cache(maxsize=1024)
def _shared_metadata(events: CloudEvents, model: str) -> Metadata:
    """Return the CloudEvents metadata that all responses of a model share."""
    return to_metadata(events.build_response_headers(model, None).items())


def _list_request_id() -> Metadata:
    """Return the metadata that repeats the client's `x-request-id`."""
    log_context = variable.get()
    if log_context is None or not log_context.echoed:
        return ()
    return tuple(pair for pair in log_context.echoed if pair[0] == REQUEST_ID)


def _write_response(response: InferenceResponse, raw: bool) -> pb.ModelInferResponse:
    try:
        return proto.write_response(response, raw)
    except MLServerError:
        raise
    except Exception as error:
        raise serialization_error(response.model_name, error) from error


def _get_model(message: pb.ModelInferRequest) -> Model:
    return message.model_name, message.model_version


async def _prepend(
    first: pb.ModelInferRequest, rest: AsyncIterator[pb.ModelInferRequest]
) -> AsyncIterator[pb.ModelInferRequest]:
    yield first
    async for message in rest:
        yield message


async def _only(message: pb.ModelInferRequest) -> AsyncIterator[pb.ModelInferRequest]:
    yield message


async def _read(messages: AsyncIterator[pb.ModelInferRequest]) -> AsyncIterator[InferenceRequest]:
    async for message in messages:
        request = proto.read_request(message)
        _set_empty_id(request)
        yield request


def _set_empty_id(request: InferenceRequest) -> None:
    """Set a missing id to "", so that none is generated (as MLServer 1.x does over gRPC)."""
    if request.id is None:
        request.put(id="")
