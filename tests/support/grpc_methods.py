"""The gRPC methods of a server, and calls of them with an API key."""

from __future__ import annotations

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from mlserver.grpc.services import get_kind, serialize
from mlserver.wire.pb import dataplane_pb2, health_pb2, model_repository_pb2, reflection_pb2

SERVICES = [
    file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (dataplane_pb2, "GRPCInferenceService"),
        (model_repository_pb2, "ModelRepositoryService"),
        (health_pb2, "Health"),
        (reflection_pb2, "ServerReflection"),
    )
]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]


def call(channel: grpc.Channel, method: MethodDescriptor, key: str | None) -> grpc.StatusCode:
    """The status code of a call with an empty message."""
    name = f"/{method.containing_service.full_name}/{method.name}"
    kind = get_kind(method)
    invoke = getattr(channel, kind)(name, request_serializer=serialize, response_deserializer=bytes)
    message = GetMessageClass(method.input_type)()
    metadata = (("x-api-key", key),) if key is not None else ()
    try:
        answer = invoke(
            iter([message]) if kind.startswith("stream") else message, metadata=metadata, timeout=20
        )
        if kind.endswith("stream"):
            next(iter(answer), None)
            answer.cancel()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK
