"""MLflow's traces: disabled without a destination; trace ids in the responses of agents.

Like MLflow's agent server, the paths of agents return the id of a request's trace if it has the
header `x-mlflow-return-trace-id: true`. Without a trace the id is MLflow's placeholder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import mlflow

from mlserver.types import InferenceRequest

HEADER = "x-mlflow-return-trace-id"
TRACE_ID = "trace_id"
# Variables that set a destination of traces, beside the tracking server.
DESTINATIONS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACING_DESTINATION",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "DATABRICKS_RUNTIME_VERSION",
)
_is_disabled = False


def disable_by_default() -> None:
    """Disable traces unless settings or a model's code have set a destination.

    MLflow would otherwise create a database in the server's working directory for its agents.
    """
    global _is_disabled  # MLflow has one switch per process; a later model may set a destination
    if not mlflow.is_tracking_uri_set() and not any(map(os.environ.get, DESTINATIONS)):
        mlflow.tracing.disable()
        _is_disabled = True
    elif _is_disabled:
        mlflow.tracing.enable()
        _is_disabled = False


def is_requested(request: InferenceRequest) -> bool:
    """Whether the client requests the id of the trace."""
    headers = (request.parameters.headers if request.parameters is not None else None) or {}
    return str(headers.get(HEADER, "")).lower() == "true"


def score_with_trace_id(score: Callable[[], str]) -> str:
    """Return an agent's response with the id of its trace in `metadata`.

    A response with the key `predictions` has no field for the id.
    """
    with mlflow.start_span(name="predict") as span:
        text = score()
        document = json.loads(text)
        if not isinstance(document, dict) or "predictions" in document:
            return text
        span.set_outputs(document)
        metadata = {**(document.get("metadata") or {}), TRACE_ID: span.trace_id}
        return json.dumps({**document, "metadata": metadata})


def append_trace_id(chunks: Iterator[Any]) -> Iterator[Any]:
    """Yield the chunks of a stream, then the id of its trace; iterate in one context."""
    with mlflow.start_span(name="predict_stream") as span:
        yield from chunks
        yield {TRACE_ID: span.trace_id}
