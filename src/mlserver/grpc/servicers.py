"""The inference and repository services: each RPC is a question to the data plane or to the repository."""

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
from ..pipeline import RequestContext
from ..types import InferenceRequest, InferenceResponse
from ..wire.headers import server_timing
from ..wire.pb import dataplane_pb2 as pb
from ..wire.pb import model_repository_pb2 as repository_pb
from ..wire.proto import messages as proto
from ..wire.proto import metadata as proto_metadata
from ..wire.proto import model_infer
from .rpc import (
    Context,
    Metadata,
    StreamWriter,
    call_of,
    failure_of,
    logger,
    metadata_of,
    metadata_value,
)
from .streams import ModelStream, by_model, one_by_one

# Names of spans.
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
MODEL_STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"

_COMPRESSIONS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
STREAM_FORM = "mlserver-stream-form"
# The method that is called most takes and gives serialized messages.
IN_BYTES = ("ModelInfer",)
Model = tuple[str, str]


class InferenceServicer:
    """`inference.GRPCInferenceService`."""

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
        call = call_of(context, MODEL_INFER)
        read = time.perf_counter_ns()
        model, version = received.model_name, received.model_version
        _keep_without_id(received.request)
        response = await self._data_plane.infer(received.request, model, version or None, call)
        answered = time.perf_counter_ns()
        try:
            message = model_infer.write_response(response, received.raw)
        except MLServerError:
            raise
        except Exception as error:
            raise serialization_error(model, error) from error
        _compress(context, call)
        codec_ns = read - started + time.perf_counter_ns() - answered
        context.set_trailing_metadata(self._trailing(response, call, codec_ns))
        return message

    def _check_model(self, data: bytes) -> None:
        """Raise what is wrong with the model's name or version: it is said before other faults."""
        try:
            message = pb.ModelInferRequest.FromString(data)
        except DecodeError:
            return
        self._data_plane.check_usable(message.model_name, message.model_version or None)

    async def model_stream_infer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context, write: StreamWriter
    ) -> None:
        """A stream in MLServer's form or in Triton's, as the first request wants it."""
        first = await anext(aiter(requests), None)
        if first is None:
            return
        _compress(context, call_of(context))
        stream = _Stream(self._data_plane, context, write, proto.uses_raw(first))
        try:
            if wants_triton_form(first, context):
                await one_by_one(_chained(first, requests), stream.answer_in_triton_form)
            else:
                await by_model(_chained(first, requests), _model_of, stream.answer_model)
        except BaseExceptionGroup as group:
            raise failure_of(group) from None
        if stream.last is not None:
            context.set_trailing_metadata(self._trailing(*stream.last, 0))

    def _trailing(
        self, response: InferenceResponse, call: RequestContext, codec_ns: int
    ) -> Metadata:
        fixed = _event(self._events, response.model_name)
        ids: Metadata = ()
        if response.id:
            text = metadata_value(CLOUDEVENTS_HEADER_ID, response.id)
            ids = (
                (CLOUDEVENTS_HEADER_ID.lower(), text),
                (CLOUDEVENTS_HEADER_REQUEST_ID.lower(), text),
            )
        made: Metadata = (*fixed, *ids, ("server-timing", server_timing(call.timings, codec_ns)))
        if not call.response_headers:
            return made
        own = metadata_of(call.response_headers.items())
        names = {name for name, _ in own}
        return (*(pair for pair in made if pair[0] not in names), *own)

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


class _Stream:
    """The answers of one `ModelStreamInfer` call."""

    def __init__(
        self, data_plane: DataPlane, context: Context, write: StreamWriter, raw: bool
    ) -> None:
        self._data_plane = data_plane
        self._context = context
        self._write = write
        self._raw = raw
        # The last response written: its headers end the stream.
        self.last: tuple[InferenceResponse, RequestContext] | None = None

    async def answer_model(self, model: Model, lane: ModelStream[pb.ModelInferRequest]) -> None:
        """MLServer's form: all requests for one model, until the client ends its side.

        A model that stops reading before that is asked anew for the next request.
        """
        while (first := await lane.next()) is not None:
            async with aclosing(
                self._responses(_read(lane.conversation(first)), model)
            ) as responses:
                async for response, call in responses:
                    await self._write(_written(response, self._raw))
                    self.last = response, call

    async def answer_in_triton_form(
        self, message: pb.ModelInferRequest, my_turn: Callable[[], Awaitable[None]]
    ) -> None:
        """Triton's form: an error is a message too, and if the client asked for that, the last response says so.

        Of a model that streams nobody knows which response is the last, so an empty one follows it.
        """
        model = _model_of(message)
        final = message.parameters.get("triton_enable_empty_final_response")
        wants_final = final is not None and final.bool_param
        try:
            streams = self._data_plane.has_streams(model[0], model[1] or None)
            async with aclosing(self._responses(_read(_only(message)), model)) as responses:
                async for response, call in responses:
                    await my_turn()
                    await self._write_in_triton_form(response, not streams if wants_final else None)
                    self.last = response, call
        except Exception as error:
            await my_turn()
            failed = pb.ModelStreamInferResponse(error_message=failure_of(error).message)
            failed.infer_response.id = message.id
            await self._write(failed)
            return
        if wants_final and streams:
            await my_turn()
            end = InferenceResponse(model_name=message.model_name, id=message.id, outputs=[])
            await self._write_in_triton_form(end, True)

    async def _write_in_triton_form(self, response: InferenceResponse, final: bool | None) -> None:
        message = pb.ModelStreamInferResponse(infer_response=_written(response, True))
        if final is not None:
            message.infer_response.parameters["triton_final_response"].bool_param = final
        await self._write(message)

    async def _responses(
        self, payloads: AsyncIterator[InferenceRequest], model: Model
    ) -> AsyncGenerator[tuple[InferenceResponse, RequestContext], None]:
        """The model's answers to a stream; a model without a way of its own gets each request like any other."""
        name, version = model[0], model[1] or None
        if not self._data_plane.has_streams(name, version):
            async for payload in payloads:
                call = call_of(self._context, MODEL_STREAM_INFER)
                yield await self._data_plane.infer(payload, name, version, call), call
            return
        call = call_of(self._context, MODEL_STREAM_INFER)
        responses = self._data_plane.infer_stream(payloads, name, version, call)
        async with aclosing(responses):  # type: ignore[type-var]
            async for response in responses:
                yield response, call


class RepositoryServicer:
    """`inference.model_repository.ModelRepositoryService`, which clients of MLServer 1.x may still call."""

    def __init__(self, repository: RepositoryControl) -> None:
        self._repository = repository
        self._warned = False

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
        if not self._warned:
            self._warned = True
            logger.warning(
                "A client uses ModelRepositoryService, which is deprecated: GRPCInferenceService has its calls"
            )


def wants_triton_form(message: pb.ModelInferRequest, context: Context) -> bool:
    """Whether a stream's first request asks for `ModelStreamInferResponse`.

    It does with any parameter that begins with `triton_`, or with the metadata `mlserver-stream-form: triton`.
    """
    if any(name.startswith("triton_") for name in message.parameters):
        return True
    return any(
        name == STREAM_FORM and value == "triton"
        for name, value in context.invocation_metadata() or ()
    )


def _compress(context: Context, call: RequestContext) -> None:
    """Answer compressed if the metadata `accept-encoding` asks for it."""
    asked = call.headers.get("accept-encoding") if call.headers else None
    if asked in _COMPRESSIONS:
        context.set_compression(_COMPRESSIONS[asked])


@lru_cache(maxsize=1024)
def _event(events: CloudEvents, model: str) -> Metadata:
    """The metadata that all answers of a model share."""
    return metadata_of(events.build_response_headers(model, None).items())


def _written(response: InferenceResponse, raw: bool) -> pb.ModelInferResponse:
    try:
        return proto.write_response(response, raw)
    except MLServerError:
        raise
    except Exception as error:
        raise serialization_error(response.model_name, error) from error


def _model_of(message: pb.ModelInferRequest) -> Model:
    return message.model_name, message.model_version


async def _chained(
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
        _keep_without_id(request)
        yield request


def _keep_without_id(request: InferenceRequest) -> None:
    """Over gRPC, as in MLServer 1.x, no id is made for a request that has none: an empty one stands for that."""
    if request.id is None:
        request.put(id="")
