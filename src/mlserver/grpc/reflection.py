"""Server reflection service, which tools such as grpcurl read descriptors from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc
from google.protobuf.descriptor import FileDescriptor

from ..wire.pb import POOL
from ..wire.pb import reflection_pb2 as pb
from .messages import StreamWriter
from .rpc import Context

# Both versions of the service have the same messages.
NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


class ReflectionServicer:
    """Returns descriptors of the server's own pool."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = sorted(services)

    async def server_reflection_info(
        self,
        requests: AsyncIterator[pb.ServerReflectionRequest],
        context: Context,
        write: StreamWriter,
    ) -> None:
        async for request in requests:
            await write(self._respond(request))

    def _respond(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        response = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        try:
            if kind == "list_services":
                for name in self._services:
                    response.list_services_response.service.add(name=name)
            elif kind == "file_by_filename":
                _add_files(response, POOL.FindFileByName(request.file_by_filename))
            elif kind == "file_containing_symbol":
                _add_files(response, POOL.FindFileContainingSymbol(request.file_containing_symbol))
            elif kind == "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                POOL.FindMessageTypeByName(name)
                response.all_extension_numbers_response.base_type_name = name
            else:
                raise KeyError("extensions: proto3 has none")
        except KeyError:
            code: int = grpc.StatusCode.NOT_FOUND.value[0]
            response.error_response.error_code = code
            response.error_response.error_message = f"{kind or 'request'}: not found"
        return response


def _add_files(response: pb.ServerReflectionResponse, file: FileDescriptor) -> None:
    """Add a file and its imports."""
    pending, seen = [file], set()
    while pending:
        current = pending.pop()
        if current.name not in seen:
            seen.add(current.name)
            response.file_descriptor_response.file_descriptor_proto.append(current.serialized_pb)
            pending.extend(current.dependencies)
