"""Headers of answers, as text: CloudEvents and Server-Timing. Which transport carries them is the front end's business."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

from ..pipeline import Timings

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
    """The Kubernetes namespace that this process runs in; None outside of a cluster."""
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


@dataclass(frozen=True)
class CloudEvents:
    """Makes CloudEvents headers for one server.

    Attributes:
        server_name: The setting of that name.
        namespace: Kubernetes namespace, see `get_namespace`.
    """

    server_name: str
    namespace: str | None = None

    def request(self, model: str, request_id: str | None) -> dict[str, str]:
        """The headers that are added to a request's own."""
        return _with_id(_event(self, model, CloudEventsTypes.REQUEST), request_id)

    def response(self, model: str, request_id: str | None) -> dict[str, str]:
        """The headers of the answer to a request."""
        return _with_id(_event(self, model, CloudEventsTypes.RESPONSE), request_id)


def _with_id(event: dict[str, str], request_id: str | None) -> dict[str, str]:
    if not request_id:
        return event.copy()
    return {**event, CLOUDEVENTS_HEADER_ID: request_id, CLOUDEVENTS_HEADER_REQUEST_ID: request_id}


@lru_cache(maxsize=1024)
def _event(events: CloudEvents, model: str, kind: CloudEventsTypes) -> dict[str, str]:
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


_SERVER_TIMING = 'queue;dur=%.3f, batch;desc="%d requests, %d rows", model;dur=%.3f, transport;dur=%.3f, codec;dur=%.3f'


def server_timing(timings: Timings, codec_ns: int = 0) -> str:
    """The value of `Server-Timing`: milliseconds in the queue, in the model, on the way to it and in the wire format.

    `batch` has no duration: it says how many requests, and rows in all, ran together.
    """
    return _SERVER_TIMING % (
        timings.queue_ns / 1e6,
        timings.batch_requests,
        timings.batch_rows,
        timings.model_ns / 1e6,
        timings.transport_ns / 1e6,
        codec_ns / 1e6,
    )
