"""CloudEvents headers under the names of MLServer 1.x; the server's own are made in `wire.headers`."""

from __future__ import annotations

from .middleware import InferenceMiddleware
from .settings import ModelSettings, Settings
from .types import InferenceRequest, InferenceResponse, Parameters
from .wire.headers import (
    CLOUDEVENTS_HEADER_ENDPOINT,
    CLOUDEVENTS_HEADER_ID,
    CLOUDEVENTS_HEADER_INFERENCE_SERVICE,
    CLOUDEVENTS_HEADER_MODEL_ID,
    CLOUDEVENTS_HEADER_NAMESPACE,
    CLOUDEVENTS_HEADER_REQUEST_ID,
    CLOUDEVENTS_HEADER_SOURCE,
    CLOUDEVENTS_HEADER_SPECVERSION,
    CLOUDEVENTS_HEADER_SPECVERSION_DEFAULT,
    CLOUDEVENTS_HEADER_TYPE,
    CloudEvents,
    CloudEventsTypes,
    get_namespace,
)

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
    "CloudEventsMiddleware",
    "CloudEventsTypes",
    "get_namespace",
]


class CloudEventsMiddleware(InferenceMiddleware):
    """Adds CloudEvents headers to the headers of requests and responses."""

    def __init__(self, settings: Settings) -> None:
        self._events = CloudEvents(settings.server_name, get_namespace())

    def request_middleware(
        self, request: InferenceRequest, settings: ModelSettings
    ) -> InferenceRequest:
        request.parameters = _with(
            request.parameters, self._events.request(settings.name, request.id)
        )
        return request

    def response_middleware(
        self, response: InferenceResponse, settings: ModelSettings
    ) -> InferenceResponse:
        response.parameters = _with(
            response.parameters, self._events.response(settings.name, response.id)
        )
        return response


def _with(parameters: Parameters | None, headers: dict[str, str]) -> Parameters:
    parameters = parameters or Parameters()
    parameters.headers = {**(parameters.headers or {}), **headers}
    return parameters
