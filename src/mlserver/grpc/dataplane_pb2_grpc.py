"""Stub and servicer of `inference.GRPCInferenceService`, named as protoc names them."""

from __future__ import annotations

from typing import Any

from . import dataplane_pb2
from .services import Servicer, Stub, create_generic_handler

SERVICE = dataplane_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class GRPCInferenceServiceStub(Stub):
    """Client stub with one attribute per method (`ModelInfer`), for sync and async channels."""

    service = SERVICE


class GRPCInferenceServiceServicer(Servicer):
    """Base class of implementations. Methods that are not defined return UNIMPLEMENTED."""


def add_GRPCInferenceServiceServicer_to_server(servicer: Any, server: Any) -> None:  # noqa: N802
    """Register the methods of `servicer` with `server`."""
    server.add_generic_rpc_handlers((create_generic_handler(SERVICE, servicer),))
