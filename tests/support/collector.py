"""OpenTelemetry collectors on free ports, which store the spans received over gRPC or HTTP."""

from __future__ import annotations

import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
        self.store(request)
        return pb.ExportTraceServiceResponse()

    def store(self, request: Any) -> None:
        with self._lock:
            for each in request.resource_spans:
                self._resources.append(each.resource)
                self._spans += [span for scope in each.scope_spans for span in scope.spans]

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


class HTTPCollector(Collector):
    """The same over HTTP, at `/v1/traces`. `headers` are those of the last request."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: dict[str, str] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                is_known = self.path == "/v1/traces"
                if is_known:
                    collector.headers = {name.lower(): text for name, text in self.headers.items()}
                    if collector.headers.get("content-encoding") == "gzip":
                        body = gzip.decompress(body)
                    collector.store(pb.ExportTraceServiceRequest.FromString(body))
                self.send_response(200 if is_known else 404)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Print nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self.address = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()
