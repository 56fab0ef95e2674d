"""MLflow's traces: off unless somebody said where they go, and their ids in the answers of agents whose callers ask for them.

MLflow's agent server answers the header `x-mlflow-return-trace-id: true` with the id of the request's trace; so do the paths
of agents here, in the same places. Where there is no trace, the id is the one that MLflow gives then.
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
# Each of these says where traces go, beside the tracking server itself.
DESTINATIONS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACING_DESTINATION",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "DATABRICKS_RUNTIME_VERSION",
)
_off = False


def normalize() -> None:
    """Switch traces off where nobody, a model's code included, has said where they go.

    MLflow would make a database in the server's working directory for those of its agents.
    """
    global _off  # MLflow has one switch per process, and the code of the next model may say where traces go
    if not mlflow.is_tracking_uri_set() and not any(os.environ.get(name) for name in DESTINATIONS):
        mlflow.tracing.disable()
        _off = True
    elif _off:
        mlflow.tracing.enable()
        _off = False


def is_asked(request: InferenceRequest) -> bool:
    """Whether the caller wants the id of the trace."""
    headers = (request.parameters.headers if request.parameters is not None else None) or {}
    return str(headers.get(HEADER, "")).lower() == "true"


def answered(answer: Callable[[], str]) -> str:
    """An agent's whole answer, the id of its trace in `metadata`. Answers in an envelope have no place for it."""
    with mlflow.start_span(name="predict") as span:
        text = answer()
        document = json.loads(text)
        if not isinstance(document, dict) or "predictions" in document:
            return text
        span.set_outputs(document)
        return json.dumps(
            {**document, "metadata": {**(document.get("metadata") or {}), TRACE_ID: span.trace_id}}
        )


def followed(chunks: Iterator[Any]) -> Iterator[Any]:
    """The chunks of a stream, and after them the id of its trace. All of them are to be asked for in one context."""
    with mlflow.start_span(name="predict_stream") as span:
        yield from chunks
        yield {TRACE_ID: span.trace_id}
