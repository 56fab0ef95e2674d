"""Metadata, repository, configuration and statistics messages <-> `mlserver.types`. Pure.

Configuration and statistics are dictionaries in the form of the JSON of Triton's REST routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from google.protobuf import json_format

from ...types import (
    Datatype,
    MetadataModelResponse,
    MetadataServerResponse,
    MetadataTensor,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryIndexResponseItem,
    State,
)
from ..pb import POOL
from ..pb import dataplane_pb2 as pb
from ..pb import model_repository_pb2 as repository_pb
from .messages import read_parameters, write_parameters

TensorMetadata = pb.ModelMetadataResponse.TensorMetadata
AnyIndexRequest = pb.RepositoryIndexRequest | repository_pb.RepositoryIndexRequest
ParsedMessage = TypeVar("ParsedMessage", pb.ModelConfigResponse, pb.ModelStatisticsResponse)
AnyIndexResponse = pb.RepositoryIndexResponse | repository_pb.RepositoryIndexResponse


# -- server and model --


def write_server_metadata(metadata: MetadataServerResponse) -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(
        name=metadata.name, version=metadata.version, extensions=metadata.extensions
    )


def read_server_metadata(message: pb.ServerMetadataResponse) -> MetadataServerResponse:
    return MetadataServerResponse(
        name=message.name, version=message.version, extensions=list(message.extensions)
    )


def write_model_metadata(metadata: MetadataModelResponse) -> pb.ModelMetadataResponse:
    message = pb.ModelMetadataResponse(
        name=metadata.name, versions=metadata.versions or (), platform=metadata.platform
    )
    write_parameters(message.parameters, metadata.parameters)
    for tensor in metadata.inputs or ():
        _write_tensor(message.inputs.add(), tensor)
    for tensor in metadata.outputs or ():
        _write_tensor(message.outputs.add(), tensor)
    return message


def read_model_metadata(message: pb.ModelMetadataResponse) -> MetadataModelResponse:
    return MetadataModelResponse(
        name=message.name,
        versions=list(message.versions),
        platform=message.platform,
        inputs=_read_tensors(message.inputs),
        outputs=_read_tensors(message.outputs),
        parameters=read_parameters(message.parameters),
    )


def _write_tensor(message: TensorMetadata, tensor: MetadataTensor) -> None:
    message.name, message.datatype = tensor.name, str(tensor.datatype)
    message.shape.extend(tensor.shape)
    write_parameters(message.parameters, tensor.parameters)


def _read_tensors(messages: Iterable[TensorMetadata]) -> list[MetadataTensor]:
    return [
        MetadataTensor(
            name=message.name,
            datatype=Datatype(message.datatype),
            shape=list(message.shape),
            parameters=read_parameters(message.parameters),
        )
        for message in messages
    ]


# -- repository --


def read_index_request(message: AnyIndexRequest) -> RepositoryIndexRequest:
    return RepositoryIndexRequest(ready=message.ready)


def write_index_request(
    request: RepositoryIndexRequest, repository_name: str = ""
) -> pb.RepositoryIndexRequest:
    return pb.RepositoryIndexRequest(repository_name=repository_name, ready=bool(request.ready))


def write_index(index: RepositoryIndexResponse, message: AnyIndexResponse) -> None:
    """Add the models of an index to a message of either service."""
    for item in index:
        state = item.state.value if isinstance(item.state, State) else str(item.state)
        message.models.add(
            name=item.name, version=item.version or "", state=state, reason=item.reason
        )


def read_index(message: AnyIndexResponse) -> RepositoryIndexResponse:
    items = [
        RepositoryIndexResponseItem(
            name=item.name,
            version=item.version or None,
            state=State(item.state),
            reason=item.reason,
        )
        for item in message.models
    ]
    return RepositoryIndexResponse(root=items)


# -- configuration and statistics --


def write_model_config(config: Mapping[str, Any]) -> pb.ModelConfigResponse:
    """Return the message of a configuration; fields that `ModelConfig` lacks are ignored."""
    return _parse({"config": dict(config)}, pb.ModelConfigResponse())


def write_statistics(statistics: Mapping[str, Any]) -> pb.ModelStatisticsResponse:
    """Return the message of statistics in the form `{"model_stats": [...]}`."""
    return _parse(dict(statistics), pb.ModelStatisticsResponse())


def _parse(values: dict[str, Any], message: ParsedMessage) -> ParsedMessage:
    json_format.ParseDict(values, message, ignore_unknown_fields=True, descriptor_pool=POOL)
    return message
