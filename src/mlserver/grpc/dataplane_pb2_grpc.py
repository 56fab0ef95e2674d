"""Stub and servicer of `inference.GRPCInferenceService`, under the names that protoc would give them."""

from __future__ import annotations

from typing import Any

from . import dataplane_pb2
from .services import Servicer, Stub, generic_handler

SERVICE = dataplane_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class GRPCInferenceServiceStub(Stub):
    """The service's calls, as attributes by the protocol's names (`stub.ModelInfer`); for channels of both kinds."""

    service = SERVICE


class GRPCInferenceServiceServicer(Servicer):
    """Base of an implementation: a method per call. What it leaves out is answered with UNIMPLEMENTED."""


def add_GRPCInferenceServiceServicer_to_server(servicer: Any, server: Any) -> None:  # noqa: N802 - protoc's name
    """Let `server` answer with the methods of `servicer`."""
    server.add_generic_rpc_handlers((generic_handler(SERVICE, servicer),))
