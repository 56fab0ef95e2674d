"""CloudEvents headers of requests and responses, and the middleware of MLServer 1.x for them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

from .middleware import InferenceMiddleware
from .settings import ModelSettings, Settings
from .types import InferenceRequest, InferenceResponse, Parameters

__all__ = [
    "CLOUDEVENTS_HEADER_ENDPOINT",
    "CLOUDEVENTS_HEADER_ID",
    "CLOUDEVENTS_HEADER_INFERENCE_SERVICE",
    "CLOUDEVENTS_HEADER_MODEL_ID",
    "CLOUDEVENTS_HEADER_NAMESPACE",
    "CLOUDEVENTS_HEADER_REQUEST_ID",
    "CLOUDEVENTS_HEADER_SOURCE",
    "CLOUDEVENTS_HEADER_SPECVERSION",
    "CLOUDEVENTS_HEADER_SPECVERSION_DEFAULT",
    "CLOUDEVENTS_HEADER_TYPE",
    "CloudEvents",
    "CloudEventsMiddleware",
    "CloudEventsTypes",
    "get_namespace",
]

CLOUDEVENTS_HEADER_SPECVERSION = "Ce-Specversion"
CLOUDEVENTS_HEADER_SPECVERSION_DEFAULT = "0.3"
CLOUDEVENTS_HEADER_SOURCE = "Ce-Source"
CLOUDEVENTS_HEADER_TYPE = "Ce-Type"
CLOUDEVENTS_HEADER_ID = "Ce-Id"
CLOUDEVENTS_HEADER_REQUEST_ID = "Ce-Requestid"
CLOUDEVENTS_HEADER_MODEL_ID = "Ce-Modelid"
CLOUDEVENTS_HEADER_INFERENCE_SERVICE = "Ce-Inferenceservicename"
CLOUDEVENTS_HEADER_NAMESPACE = "Ce-Namespace"
CLOUDEVENTS_HEADER_ENDPOINT = "Ce-Endpoint"

_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class CloudEventsTypes(Enum):
    """The `Ce-Type` of a request and of a response."""

    REQUEST = "io.seldon.serving.inference.request"
    RESPONSE = "io.seldon.serving.inference.response"
    # Their names in MLServer 1.x.
    Request = REQUEST
    Response = RESPONSE


def get_namespace(path: str = _NAMESPACE_FILE) -> str | None:
    """Return the Kubernetes namespace of this process; None outside a cluster."""
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


@dataclass(frozen=True)
class CloudEvents:
    """Builds the CloudEvents headers of one server.

    Attributes:
        server_name: The setting of that name.
        namespace: Kubernetes namespace, see `get_namespace`.
    """

    server_name: str
    namespace: str | None = None

    def build_request_headers(self, model: str, request_id: str | None) -> dict[str, str]:
        """Return the headers to add to a request."""
        return _with_id(_shared_headers(self, model, CloudEventsTypes.REQUEST), request_id)

    def build_response_headers(self, model: str, request_id: str | None) -> dict[str, str]:
        """Return the headers to add to the response to a request."""
        return _with_id(_shared_headers(self, model, CloudEventsTypes.RESPONSE), request_id)


def _with_id(shared: dict[str, str], request_id: str | None) -> dict[str, str]:
    if not request_id:
        return shared.copy()
    return {**shared, CLOUDEVENTS_HEADER_ID: request_id, CLOUDEVENTS_HEADER_REQUEST_ID: request_id}


@lru_cache(maxsize=1024)
def _shared_headers(events: CloudEvents, model: str, kind: CloudEventsTypes) -> dict[str, str]:
    """Return the headers that all events of one kind and model have in common."""
    source = f"io.seldon.serving.deployment.{events.server_name}"
    headers = {
        CLOUDEVENTS_HEADER_SPECVERSION: CLOUDEVENTS_HEADER_SPECVERSION_DEFAULT,
        CLOUDEVENTS_HEADER_SOURCE: f"{source}.{events.namespace}" if events.namespace else source,
        CLOUDEVENTS_HEADER_TYPE: kind.value,
        CLOUDEVENTS_HEADER_MODEL_ID: model,
        CLOUDEVENTS_HEADER_INFERENCE_SERVICE: events.server_name,
        CLOUDEVENTS_HEADER_ENDPOINT: model,
    }
    if events.namespace:
        headers[CLOUDEVENTS_HEADER_NAMESPACE] = events.namespace
    return headers


class CloudEventsMiddleware(InferenceMiddleware):
    """Adds CloudEvents headers to `parameters.headers` of requests and responses."""

    def __init__(self, settings: Settings) -> None:
        self._events = CloudEvents(settings.server_name, get_namespace())

    def request_middleware(
        self, request: InferenceRequest, settings: ModelSettings
    ) -> InferenceRequest:
        headers = self._events.build_request_headers(settings.name, request.id)
        request.parameters = _with_headers(request.parameters, headers)
        return request

    def response_middleware(
        self, response: InferenceResponse, settings: ModelSettings
    ) -> InferenceResponse:
        headers = self._events.build_response_headers(settings.name, response.id)
        response.parameters = _with_headers(response.parameters, headers)
        return response


def _with_headers(parameters: Parameters | None, headers: dict[str, str]) -> Parameters:
    parameters = parameters or Parameters()
    parameters.headers = {**(parameters.headers or {}), **headers}
    return parameters
