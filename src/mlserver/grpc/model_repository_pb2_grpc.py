"""Stub and servicer of `inference.model_repository.ModelRepositoryService`, under the names that protoc would give them."""

from __future__ import annotations

from typing import Any

from . import model_repository_pb2
from .services import Servicer, Stub, generic_handler

SERVICE = model_repository_pb2.DESCRIPTOR.services_by_name["ModelRepositoryService"]


class ModelRepositoryServiceStub(Stub):
    """The service's calls, as attributes by the protocol's names; for channels of both kinds."""

    service = SERVICE


class ModelRepositoryServiceServicer(Servicer):
    """Base of an implementation: a method per call. What it leaves out is answered with UNIMPLEMENTED."""


def add_ModelRepositoryServiceServicer_to_server(servicer: Any, server: Any) -> None:  # noqa: N802 - protoc's name
    """Let `server` answer with the methods of `servicer`."""
    server.add_generic_rpc_handlers((generic_handler(SERVICE, servicer),))
