"""Health, metadata, repository, reflection, and the port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from typing import Any

import grpc
import pytest

from mlserver import ModelSettings
from mlserver.errors import MLServerError
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc import model_repository_pb2 as repository_pb
from mlserver.grpc.connections import PortConnections
from mlserver.grpc.converters import (
    ModelMetadataResponseConverter,
    RepositoryIndexRequestConverter,
    RepositoryIndexResponseConverter,
    ServerMetadataResponseConverter,
)
from mlserver.grpc.model_repository_pb2_grpc import ModelRepositoryServiceStub
from mlserver.types import MetadataTensor, Parameters, RepositoryIndexRequest
from mlserver.wire.pb import health_pb2, reflection_pb2


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details()


async def test_health(start: Any, sad: ModelSettings) -> None:
    serving = await start([sad])
    stub = serving.stub

    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
    assert not (await stub.ModelReady(pb.ModelReadyRequest(name="sad"))).ready
    assert await failure(stub.ModelReady(pb.ModelReadyRequest(name="nope"))) == (
        grpc.StatusCode.NOT_FOUND,
        "Model nope not found",
    )
    code, _ = await failure(stub.ModelInfer(pb.ModelInferRequest(model_name="sad")))
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_ready(serving: Any) -> None:
    assert (await serving.stub.ServerReady(pb.ServerReadyRequest())).ready
    assert (await serving.stub.ModelReady(pb.ModelReadyRequest(name="echo", version="v1"))).ready


async def test_metadata(start: Any) -> None:
    tensor = MetadataTensor(
        name="x", datatype="FP32", shape=[-1, 4], parameters=Parameters(content_type="np", low=0.5)
    )
    from mlserver import MLModel

    described = ModelSettings(
        name="described",
        implementation=MLModel,
        platform="p",
        versions=["a"],
        inputs=[tensor],
        max_batch_size=8,
        max_batch_time=0.1,
    )
    serving = await start([described], server_name="here", extensions=["mine"])
    server = ServerMetadataResponseConverter.to_types(
        await serving.stub.ServerMetadata(pb.ServerMetadataRequest())
    )
    model = ModelMetadataResponseConverter.to_types(
        await serving.stub.ModelMetadata(pb.ModelMetadataRequest(name="described"))
    )
    config = (await serving.stub.ModelConfig(pb.ModelConfigRequest(name="described"))).config

    assert server.name == "here"
    assert "mine" in server.extensions
    assert (model.name, model.platform, model.versions, model.inputs) == (
        "described",
        "p",
        ["a"],
        [tensor],
    )
    assert config.input[0].name == "x"
    assert (
        config.input[0].data_type
        == dict(pb.DESCRIPTOR.dependencies[0].enum_types_by_name["DataType"].values_by_name)[
            "TYPE_FP32"
        ].number
    )


async def test_statistics(serving: Any) -> None:
    tensor = {
        "name": "x",
        "datatype": "INT8",
        "shape": [3],
        "contents": {"int_contents": [1, 2, 3]},
    }
    for _ in range(2):
        await serving.stub.ModelInfer(pb.ModelInferRequest(model_name="echo", inputs=[tensor]))
    (model,) = (
        await serving.stub.ModelStatistics(pb.ModelStatisticsRequest(name="echo"))
    ).model_stats
    everything = await serving.stub.ModelStatistics(pb.ModelStatisticsRequest())

    assert (model.name, model.version, model.execution_count) == ("echo", "v1", 2)
    assert model.inference_stats.success.count == 2
    assert model.inference_stats.compute_infer.ns > 0
    assert len(everything.model_stats) > 1


# -- repository --


async def test_repository(start: Any, serving: Any, sad: ModelSettings) -> None:
    stub = serving.stub
    await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="other"))
    states = {
        item.name: item.state
        for item in (
            await stub.RepositoryIndex(
                RepositoryIndexRequestConverter.from_types(RepositoryIndexRequest())
            )
        ).models
    }
    assert (states["echo"], states["other"]) == ("READY", "UNAVAILABLE")

    await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="other"))
    index = RepositoryIndexResponseConverter.to_types(
        await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    )
    assert "other" in {item.name for item in index}

    code, text = await failure(
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="nope"))
    )
    assert (code, text) == (grpc.StatusCode.NOT_FOUND, "Model nope not found")

    other = pb.RepositoryModelLoadRequest(model_name="other")
    other.parameters["config"].string_param = "{}"
    code, text = await failure(stub.RepositoryModelLoad(other))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "parameter 'config'" in text


async def test_failed_load_has_a_reason(start: Any, sad: ModelSettings) -> None:
    serving = await start([sad])
    code, text = await failure(
        serving.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="sad"))
    )
    assert code is grpc.StatusCode.INTERNAL
    assert "no file" in text

    (item,) = (await serving.stub.RepositoryIndex(pb.RepositoryIndexRequest())).models
    assert item.state == "UNAVAILABLE"
    assert "no file" in item.reason


async def test_deprecated_repository_service(serving: Any) -> None:
    stub = ModelRepositoryServiceStub(serving.channel)
    await stub.RepositoryModelUnload(repository_pb.RepositoryModelUnloadRequest(model_name="other"))
    await stub.RepositoryModelLoad(repository_pb.RepositoryModelLoadRequest(model_name="other"))
    index = await stub.RepositoryIndex(repository_pb.RepositoryIndexRequest(ready=True))

    assert "other" in {item.name for item in index.models}


# -- grpc.health.v1 and reflection --


def health(serving: Any, method: str, kind: str = "unary_unary") -> Any:
    return getattr(serving.channel, kind)(
        f"/grpc.health.v1.Health/{method}",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )


async def test_health_check(serving: Any) -> None:
    check = health(serving, "Check")
    for service in ("", "inference.GRPCInferenceService"):
        response = await check(health_pb2.HealthCheckRequest(service=service))
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    serving.pipeline.data_plane.accepting = False
    response = await check(health_pb2.HealthCheckRequest())
    assert response.status == health_pb2.HealthCheckResponse.NOT_SERVING
    code, _ = await failure(check(health_pb2.HealthCheckRequest(service="nope")))
    assert code is grpc.StatusCode.NOT_FOUND


async def test_health_watch(serving: Any) -> None:
    call = health(serving, "Watch", "unary_stream")(health_pb2.HealthCheckRequest(), timeout=20)
    assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
    serving.pipeline.data_plane.accepting = False
    assert (await call.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    call.cancel()

    unknown = health(serving, "Watch", "unary_stream")(
        health_pb2.HealthCheckRequest(service="nope"), timeout=20
    )
    assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()


async def test_health_watches_share_their_checks(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many idle watches, which need no credential, cost as much as one; each gets the change."""
    monkeypatch.setattr("mlserver.grpc.health.POLL_SECONDS", 0.01)
    watch = health(serving, "Watch", "unary_stream")
    calls = [watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(20)]
    for call in calls:
        assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
    checking, checks = 0, 0

    async def ready() -> bool:
        nonlocal checking, checks
        checking += 1
        await asyncio.sleep(0.01)
        assert checking == 1
        checking -= 1
        checks += 1
        return checks < 10

    monkeypatch.setattr(serving.pipeline.data_plane, "ready", ready)
    for call in calls:
        assert (await call.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    calls[0].cancel()  # another one checks then
    monkeypatch.undo()
    for call in calls[1:]:
        assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
        call.cancel()


@pytest.mark.parametrize("service", ["", "nope"])
async def test_health_watch_ends_with_a_drain(serving: Any, service: str) -> None:
    """An open call without a request of a model would delay it until `drain_timeout`."""
    statuses = health_pb2.HealthCheckResponse
    call = health(serving, "Watch", "unary_stream")(
        health_pb2.HealthCheckRequest(service=service), timeout=60
    )
    responses = aiter(call)
    first = (await anext(responses)).status
    draining = asyncio.create_task(serving.server.drain())
    rest = [response.status async for response in responses]
    async with asyncio.timeout(30):
        await draining
    if service:
        assert (first, rest) == (statuses.SERVICE_UNKNOWN, [])
    else:
        assert (first, rest) == (statuses.SERVING, [statuses.NOT_SERVING])


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection(serving: Any, version: str) -> None:
    ask = reflection_pb2.ServerReflectionRequest
    requests = [
        ask(list_services=""),
        ask(file_containing_symbol="inference.GRPCInferenceService"),
        ask(file_by_filename="model_repository.proto"),
        ask(file_containing_symbol="no.such.Thing"),
        ask(all_extension_numbers_of_type="inference.InferParameter"),
        ask(),
    ]
    call = serving.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    listed, symbol, file, missing, extensions, empty = [
        r async for r in call(iter(requests), timeout=20)
    ]

    assert {service.name for service in listed.list_services_response.service} >= {
        "inference.GRPCInferenceService",
        "inference.model_repository.ModelRepositoryService",
        "grpc.health.v1.Health",
    }
    assert len(symbol.file_descriptor_response.file_descriptor_proto) == 2  # with its import
    assert len(file.file_descriptor_response.file_descriptor_proto) == 1
    assert missing.error_response.error_code == empty.error_response.error_code == 5
    assert extensions.all_extension_numbers_response.base_type_name == "inference.InferParameter"


# -- the server --


async def test_unknown_methods_are_unimplemented(serving: Any) -> None:
    call = serving.channel.unary_unary("/inference.GRPCInferenceService/TraceSetting")

    assert (await failure(call(b"")))[0] is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "path, kind",
    [
        ("inference.GRPCInferenceService/ModelInfer", "unary_unary"),
        ("inference.GRPCInferenceService/ModelStreamInfer", "stream_stream"),
        ("grpc.health.v1.Health/Watch", "unary_stream"),
    ],
)
async def test_invalid_messages(serving: Any, path: str, kind: str, caplog: Any) -> None:
    call = getattr(serving.channel, kind)(f"/{path}")(
        iter([b"\xff"]) if kind[:6] == "stream" else b"\xff", timeout=20
    )

    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Invalid message" in await call.details()
    assert not caplog.records


def first_bytes(connection: socket.socket) -> bytes:
    """What a new connection receives; nothing if the server closes it."""
    try:
        return connection.recv(1000)
    except ConnectionResetError:
        return b""


async def test_connections_are_limited(start: Any) -> None:
    """Also those whose clients send nothing; when they have ended, others are accepted."""
    port = (await start(max_connections=2)).server.port

    def connect(count: int) -> list[bool]:
        """Open connections, and return which of them the server accepts."""
        with contextlib.ExitStack() as stack:
            opened = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
                for _ in range(count)
            ]
            return [first_bytes(connection) != b"" for connection in opened]

    assert sorted(await asyncio.to_thread(connect, 4)) == [False, False, True, True]

    def is_accepted_again() -> bool:
        return any(all(connect(1)) for _ in range(1000))

    assert await asyncio.to_thread(is_accepted_again)


@pytest.mark.skipif(sys.platform != "linux", reason="finds sockets in /proc")
async def test_connections_are_renewed(start: Any) -> None:
    """A client that keeps its connection gets another one, and loses no call."""
    serving = await start(grpc_max_connection_age=0.1)
    connections = PortConnections(serving.server.port)
    await serving.stub.ServerLive(pb.ServerLiveRequest())
    first = connections.list_open()
    assert len(first) == 1
    async with asyncio.timeout(60):
        while first & connections.list_open():
            await serving.stub.ServerLive(pb.ServerLiveRequest())
    await serving.stub.ServerLive(pb.ServerLiveRequest())


async def test_port_in_use_is_named(start: Any, serving: Any) -> None:
    from mlserver import Settings
    from mlserver.grpc import GRPCServer

    taken = Settings(host="127.0.0.1", grpc_port=serving.server.port)
    with pytest.raises(
        MLServerError, match=f"127.0.0.1:{serving.server.port} .setting 'grpc_port'"
    ):
        GRPCServer(taken, serving.pipeline.data_plane, serving.pipeline.handlers)


async def test_rpcs_are_counted(serving: Any) -> None:
    await serving.stub.ServerLive(pb.ServerLiveRequest())
    await failure(serving.stub.ModelReady(pb.ModelReadyRequest(name="nope")))
    counts = {
        (sample.labels["grpc_method"], sample.labels["grpc_code"]): sample.value
        for family in serving.pipeline.metrics.collect()
        for sample in family.samples
        if sample.name == "grpc_server_handled_total"
    }

    assert counts == {("ServerLive", "OK"): 1, ("ModelReady", "NOT_FOUND"): 1}


def test_other_clients_of_the_protocol_in_one_process() -> None:
    """A second library that registers the same names in the process-wide pool."""
    code = """
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from mlserver.grpc import converters, dataplane_pb2, model_repository_pb2_grpc
theirs = FileDescriptorProto.FromString(dataplane_pb2.DESCRIPTOR.dependencies[0].serialized_pb)
descriptor_pool.Default().AddSerializedFile(theirs.SerializeToString())
theirs = FileDescriptorProto.FromString(dataplane_pb2.DESCRIPTOR.serialized_pb)
del theirs.message_type[-1]
theirs.service[0].method.pop()
descriptor_pool.Default().AddSerializedFile(theirs.SerializeToString())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
