"""Stub and servicer of `ModelRepositoryService`, named as protoc names them."""

from __future__ import annotations

from typing import Any

from . import model_repository_pb2
from .services import Servicer, Stub, create_generic_handler

SERVICE = model_repository_pb2.DESCRIPTOR.services_by_name["ModelRepositoryService"]


class ModelRepositoryServiceStub(Stub):
    """Client stub with one attribute per method, for sync and async channels."""

    service = SERVICE


class ModelRepositoryServiceServicer(Servicer):
    """Base class of implementations. Methods that are not defined return UNIMPLEMENTED."""


def add_ModelRepositoryServiceServicer_to_server(  # noqa: N802
    servicer: Any, server: Any
) -> None:
    """Register the methods of `servicer` with `server`."""
    server.add_generic_rpc_handlers((create_generic_handler(SERVICE, servicer),))
