"""Converters of MLServer 1.x between messages and `mlserver.types`, for clients.

    request = ModelInferRequestConverter.from_types(InferenceRequest(...), "iris", None)
    response = ModelInferResponseConverter.to_types(stub.ModelInfer(request))

The server itself reads and writes messages with `wire.proto.model_infer` and `wire.proto.messages`.
`to_types` reads a message, `from_types` writes one; `use_raw` selects raw tensor contents.
"""

from __future__ import annotations

from ..types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
)
from ..wire.pb import dataplane_pb2 as pb
from ..wire.proto import messages, metadata

__all__ = [
    "ModelInferRequestConverter",
    "ModelInferResponseConverter",
    "ModelMetadataResponseConverter",
    "RepositoryIndexRequestConverter",
    "RepositoryIndexResponseConverter",
    "ServerMetadataResponseConverter",
]


class ModelInferRequestConverter:
    """Converts inference requests. A missing id becomes ""."""

    @classmethod
    def to_types(cls, pb_object: pb.ModelInferRequest) -> InferenceRequest:
        request = messages.read_request(pb_object)
        request.id = pb_object.id
        return request

    @classmethod
    def from_types(
        cls,
        type_object: InferenceRequest,
        model_name: str,
        model_version: str | None = None,
        use_raw: bool = False,
    ) -> pb.ModelInferRequest:
        return messages.write_request(type_object, model_name, model_version, use_raw)


class ModelInferResponseConverter:
    """Converts inference responses. A missing id becomes ""."""

    @classmethod
    def to_types(cls, pb_object: pb.ModelInferResponse) -> InferenceResponse:
        response = messages.read_response(pb_object)
        response.id = pb_object.id
        return response

    @classmethod
    def from_types(
        cls, type_object: InferenceResponse, use_raw: bool = False
    ) -> pb.ModelInferResponse:
        return messages.write_response(type_object, use_raw)


class ServerMetadataResponseConverter:
    """Converts the server's metadata."""

    @classmethod
    def to_types(cls, pb_object: pb.ServerMetadataResponse) -> MetadataServerResponse:
        return metadata.read_server_metadata(pb_object)

    @classmethod
    def from_types(cls, type_object: MetadataServerResponse) -> pb.ServerMetadataResponse:
        return metadata.write_server_metadata(type_object)


class ModelMetadataResponseConverter:
    """Converts a model's metadata."""

    @classmethod
    def to_types(cls, pb_object: pb.ModelMetadataResponse) -> MetadataModelResponse:
        return metadata.read_model_metadata(pb_object)

    @classmethod
    def from_types(cls, type_object: MetadataModelResponse) -> pb.ModelMetadataResponse:
        return metadata.write_model_metadata(type_object)


class RepositoryIndexRequestConverter:
    """Converts requests for the repository index."""

    @classmethod
    def to_types(cls, pb_object: pb.RepositoryIndexRequest) -> RepositoryIndexRequest:
        return metadata.read_index_request(pb_object)

    @classmethod
    def from_types(
        cls, type_object: RepositoryIndexRequest, repository_name: str = ""
    ) -> pb.RepositoryIndexRequest:
        return metadata.write_index_request(type_object, repository_name)


class RepositoryIndexResponseConverter:
    """Converts the repository index."""

    @classmethod
    def to_types(cls, pb_object: pb.RepositoryIndexResponse) -> RepositoryIndexResponse:
        return metadata.read_index(pb_object)

    @classmethod
    def from_types(cls, type_object: RepositoryIndexResponse) -> pb.RepositoryIndexResponse:
        message = pb.RepositoryIndexResponse()
        metadata.write_index(type_object, message)
        return message
