"""Endpoints of the console's data, which are as useful to programs: `/v2/console/...`."""

from __future__ import annotations

from typing import Any

from ...handlers.model_repository import ReadMonitoring
from ...security.authorization import ADMIN, INFER, METRICS, Authorizer, Caller
from ...wire.json import write_document
from ..messages import Reply, Request


class ConsoleEndpoints:
    """Monitoring documents, and what a caller is allowed to do.

    Args:
        read_monitoring: Returns a document of `handlers.monitoring` by its name.
        access: Checks credentials and scopes.
    """

    def __init__(self, read_monitoring: ReadMonitoring, access: Authorizer) -> None:
        self._read_monitoring = read_monitoring
        self._access = access

    async def respond(self, request: Request) -> Reply:
        """Return the document that the request's path names."""
        name = request.template.rpartition("/")[2]
        if name == "access":
            document = await self._describe_access(request)
        else:
            document = await self._read_monitoring(name)
        return Reply(body=write_document(document), headers=[(b"cache-control", b"no-store")])

    async def _describe_access(self, request: Request) -> dict[str, Any]:
        """Return for each scope whether this request has it, and why not; to callers with the
        scope `infer` also the port of gRPC.
        """
        caller = Caller(request.client[0] if request.client else "", request.headers)
        scopes: dict[str, Any] = {}
        for scope in (INFER, METRICS, ADMIN):
            refusal = await self._access.find_refusal(scope, caller)
            reason = None if refusal is None else refusal.message
            scopes[scope] = {"allowed": refusal is None, "reason": reason}
        ports = await self._read_monitoring("ports") if scopes[INFER]["allowed"] else {}
        return {
            "requires_credentials": self._access.requires_credentials,
            "scopes": scopes,
            "grpc_port": ports.get("grpc"),
        }
