"""Clients for REST and gRPC, used by several threads; a failure states whether a retry may help."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from ...errors import MLServerError
from ...types import InferenceRequest, InferenceResponse, MetadataModelResponse
from ...wire import json_client as wire
from ...wire.binary import HEADER
from ..terminal import CommandError
from .client_tls import ClientTLS

# HTTP statuses after which a retry may succeed.
_RETRYABLE_STATUSES = frozenset((408, 429, 502, 503, 504))
_RETRYABLE_CODES = frozenset(("UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"))
_MAX_ERROR_LENGTH = 2000


@dataclass(frozen=True)
class Target:
    """Address of the server, name of the model, and options of the requests."""

    url: str
    model: str
    binary: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    timeout: float = 60.0
    use_tls: bool = False
    tls: ClientTLS = field(default_factory=ClientTLS)


class RequestFailed(Exception):
    """A request got no response, or an error response.

    Attributes:
        is_retryable: The same request may succeed later.
        retry_after: Seconds of the server's `Retry-After`; None = the server sent none.
        is_unreachable: No connection to the server could be opened.
    """

    def __init__(
        self,
        message: str,
        is_retryable: bool = False,
        retry_after: float | None = None,
        is_unreachable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.is_retryable = is_retryable
        self.retry_after = retry_after
        self.is_unreachable = is_unreachable


class Client(Protocol):
    """A client of one model on one server; safe for use by several threads."""

    def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Run inference. Raises `RequestFailed`."""
        ...

    def metadata(self) -> MetadataModelResponse:
        """Return the model's metadata. Raises `RequestFailed`."""
        ...

    def close(self) -> None:
        """Close all connections; requests in flight fail."""
        ...


def request_headers(target: Target, request: InferenceRequest) -> dict[str, str]:
    """Return the user's headers, and the request id under the names that servers log."""
    request_id = request.id or ""
    return {"seldon-puid": request_id, "x-request-id": request_id, **target.headers}


class RESTClient:
    """Client over HTTP with one keep-alive connection per thread."""

    def __init__(self, target: Target) -> None:
        url = urlsplit(target.url if "://" in target.url else f"//{target.url}")
        if url.scheme not in ("", "http", "https") or not url.hostname:
            raise CommandError(
                f"--url: expected HOST:PORT or http(s)://HOST:PORT, received '{target.url}'"
            )
        use_tls = target.use_tls or url.scheme == "https"
        self._target = target
        self._ssl_context = target.tls.create_ssl_context() if use_tls else None
        self._host = url.hostname
        self._port = url.port or (443 if use_tls else 80)
        self._path = f"{url.path.rstrip('/')}/v2/models/{quote(target.model, safe='')}"
        self._thread = threading.local()
        self._connections: set[http.client.HTTPConnection] = set()
        self._closed = False

    def metadata(self) -> MetadataModelResponse:
        _, body = self._request("GET", self._path, None, {})
        try:
            return wire.read_metadata(body)
        except MLServerError as error:
            raise RequestFailed(f"invalid model metadata: {error.message}") from None

    def infer(self, request: InferenceRequest) -> InferenceResponse:
        headers = {"content-type": "application/json", **request_headers(self._target, request)}
        try:
            if self._target.binary:
                body, json_length = wire.write_binary(request)
                headers["content-type"] = "application/octet-stream"
                headers[HEADER] = str(json_length)
            else:
                body = wire.write_json(request)
        except MLServerError as error:
            raise RequestFailed(error.message) from None
        json_length_of_response, content = self._request(
            "POST", f"{self._path}/infer", body, headers
        )
        try:
            return wire.read_response(content, json_length_of_response)
        except MLServerError as error:
            raise RequestFailed(f"invalid inference response: {error.message}") from None

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int | None, bytes]:
        """Send one request; return the length of the JSON part (binary extension) and the body."""
        try:
            response, content = self._send(method, path, body, headers)
        except TimeoutError:
            self._discard_connection()
            raise RequestFailed(
                f"no response within {self._target.timeout:g} s", is_retryable=True
            ) from None
        except ssl.SSLError as error:
            self._discard_connection()
            raise RequestFailed(f"TLS: {error.reason or error}", is_unreachable=True) from None
        except (OSError, http.client.HTTPException) as error:
            self._discard_connection()
            raise RequestFailed(
                f"{self._host}:{self._port} cannot be reached: {_describe_error(error)}",
                is_retryable=True,
                is_unreachable=True,
            ) from None
        if response.status != 200:
            raise _read_error_response(response, content)
        json_length = response.getheader(HEADER)
        has_length = json_length is not None and json_length.isdigit()
        return (int(json_length or 0) if has_length else None), content

    def _send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send one request; reconnect once if the server has closed the keep-alive connection."""
        connection = self._get_connection()
        is_new = connection.sock is None
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):
            if is_new or self._closed:
                raise
            connection.close()
            connection.request(method, path, body, headers)
            response = connection.getresponse()
        return response, response.read()

    def _get_connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._thread, "connection", None)
        if connection is not None:
            return connection
        timeout = self._target.timeout
        if self._ssl_context is not None:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout, context=self._ssl_context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        self._thread.connection = connection
        self._connections.add(connection)
        return connection

    def _discard_connection(self) -> None:
        connection: http.client.HTTPConnection | None = getattr(self._thread, "connection", None)
        if connection is not None:
            connection.close()
            self._connections.discard(connection)
            self._thread.connection = None

    def close(self) -> None:
        self._closed = True
        for connection in list(self._connections):
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()


def _describe_error(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _read_error_response(response: http.client.HTTPResponse, content: bytes) -> RequestFailed:
    retry_after = response.getheader("retry-after") or ""
    return RequestFailed(
        _read_error_message(content)[:_MAX_ERROR_LENGTH] or f"status {response.status}",
        response.status in _RETRYABLE_STATUSES,
        float(retry_after) if retry_after.isdigit() else None,
    )


def _read_error_message(content: bytes) -> str:
    """Return the field `error` of a JSON body, or the body as text."""
    from ...wire import json

    with suppress(MLServerError):
        document = json.read_json(content)
        if isinstance(document, dict) and "error" in document:
            return str(document["error"])
    return content.decode("utf-8", "replace").strip()


class GRPCClient:
    """Client over gRPC with one channel for all threads."""

    def __init__(self, target: Target) -> None:
        # gRPC's own log lines would repeat the errors that this command prints.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import grpc

        from ...grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        scheme, _, address = target.url.rpartition("://")
        self._target = target
        self._channel: Any = (
            grpc.secure_channel(address, target.tls.create_grpc_credentials(), options=options)
            if target.use_tls or scheme == "https"
            else grpc.insecure_channel(address, options=options)
        )
        self._stub = GRPCInferenceServiceStub(self._channel)

    def metadata(self) -> MetadataModelResponse:
        from ...wire.pb import dataplane_pb2 as pb
        from ...wire.proto.metadata import read_model_metadata

        message = pb.ModelMetadataRequest(name=self._target.model)
        return read_model_metadata(self._call("ModelMetadata", message, {}))

    def infer(self, request: InferenceRequest) -> InferenceResponse:
        from ...wire.proto import messages

        headers = request_headers(self._target, request)
        try:
            message = messages.write_request(request, self._target.model, raw=self._target.binary)
            return messages.read_response(self._call("ModelInfer", message, headers))
        except MLServerError as error:
            raise RequestFailed(error.message) from None

    def _call(self, method: str, message: Any, headers: dict[str, str]) -> Any:
        import grpc

        metadata = [(name.lower(), value) for name, value in headers.items()]
        try:
            return getattr(self._stub, method)(
                message, timeout=self._target.timeout, metadata=metadata
            )
        except grpc.RpcError as error:
            raise _from_rpc_error(error) from None
        except ValueError as error:  # `close` was called in another thread
            raise RequestFailed(str(error), is_unreachable=True) from None

    def close(self) -> None:
        self._channel.close()


def _from_rpc_error(error: Any) -> RequestFailed:
    code = error.code().name
    details = error.details() or ""
    retry_after = dict(error.trailing_metadata() or ()).get("retry-after")
    # The server too answers UNAVAILABLE; only the channel's own error has this text.
    is_unreachable = code == "UNAVAILABLE" and "failed to connect" in details.lower()
    return RequestFailed(
        details or code,
        code in _RETRYABLE_CODES,
        float(retry_after) if retry_after else None,
        is_unreachable,
    )
