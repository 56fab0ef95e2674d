"""Endpoints of the console's data, which are as useful to programs: `/v2/console/...`."""

from __future__ import annotations

from ...handlers.model_repository import ReadMonitoring
from ...security.authorization import ADMIN, INFER, METRICS, Authorizer, Caller
from ...wire.json import write_document
from ..messages import Reply, Request
from ..routing import Endpoint, Router

# Document -> what it shows.
DOCUMENTS = {
    "metrics": "Counts, latency histograms, states and processes of all model versions",
    "routing": "Traffic split, shadow version and followed alias of each model",
    "workers": "Worker pools and processes with memory, processor time and restarts",
    "errors": "The last 200 distinct error responses, without payloads",
    "settings": "Effective settings with their origins; secrets are masked",
}


class ConsoleEndpoints:
    """Monitoring documents, and what a caller is allowed to do.

    Args:
        read_monitoring: Returns a document of `DOCUMENTS`.
        access: Checks credentials and scopes.
    """

    def __init__(self, read_monitoring: ReadMonitoring, access: Authorizer) -> None:
        self._read_monitoring = read_monitoring
        self._access = access

    def register(self, router: Router) -> None:
        """Add the routes to a router."""
        for name in DOCUMENTS:
            router.add("GET", f"/v2/console/{name}", self._create_endpoint(name))
        # A browser sends `Origin` with POST only, and `admin` depends on it.
        router.add("GET", "/v2/console/access", self.describe_access)
        router.add("POST", "/v2/console/access", self.describe_access)

    def _create_endpoint(self, name: str) -> Endpoint:
        async def endpoint(request: Request) -> Reply:
            document = await self._read_monitoring(name)
            return Reply(body=write_document(document), headers=[(b"cache-control", b"no-store")])

        return endpoint

    async def describe_access(self, request: Request) -> Reply:
        """Return for each scope whether this request has it, and why not."""
        caller = Caller(request.client[0] if request.client else "", request.headers)
        scopes = {}
        for scope in (INFER, METRICS, ADMIN):
            refusal = await self._access.find_refusal(scope, caller)
            reason = None if refusal is None else refusal.message
            scopes[scope] = {"allowed": refusal is None, "reason": reason}
        document = {"requires_credentials": self._access.requires_credentials, "scopes": scopes}
        return Reply(body=write_document(document), headers=[(b"cache-control", b"no-store")])
