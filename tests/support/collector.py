"""An OpenTelemetry collector on a free port that receives OTLP over gRPC and stores the spans."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


class Collector(TraceServiceServicer):
    """`with Collector() as collector:`; `collector.address` is the value for `tracing_server`."""

    def __init__(self) -> None:
        self._spans: list[Any] = []
        self._resources: list[Any] = []
        self._lock = threading.Lock()
        self._server: Any = grpc.server(ThreadPoolExecutor(2))
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.address = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        with self._lock:
            for each in request.resource_spans:
                self._resources.append(each.resource)
                self._spans += [span for scope in each.scope_spans for span in scope.spans]
        return pb.ExportTraceServiceResponse()

    def spans(self) -> dict[str, Any]:
        """The spans by name, the last one of each."""
        with self._lock:
            return {span.name: span for span in self._spans}

    def resources(self) -> list[dict[str, str]]:
        with self._lock:
            return [
                {attribute.key: attribute.value.string_value for attribute in resource.attributes}
                for resource in self._resources
            ]

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.stop(1.0).wait()
