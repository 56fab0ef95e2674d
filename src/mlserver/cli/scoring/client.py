"""Asks a server over REST or gRPC, one request at a time per thread, and says of each refusal whether to try again."""

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
from .client_tls import Trust

# HTTP statuses after which the same request may be answered later.
_LATER = frozenset((408, 429, 502, 503, 504))


@dataclass(frozen=True)
class Target:
    """Whom to ask, and how."""

    url: str
    model: str
    binary: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    timeout: float = 60.0
    tls: bool = False
    trust: Trust = field(default_factory=Trust)


class Refusal(Exception):
    """No answer.

    Attributes:
        again: Whether the same request may be answered later.
        after: Seconds after which the server wants it again; None = it did not say.
        unreachable: Nobody is there.
    """

    def __init__(
        self,
        message: str,
        again: bool = False,
        after: float | None = None,
        unreachable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.again = again
        self.after = after
        self.unreachable = unreachable


class Client(Protocol):
    """One server, for many threads."""

    def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Raises `Refusal`."""
        ...

    def metadata(self) -> MetadataModelResponse:
        """The model's. Raises `Refusal`."""
        ...

    def close(self) -> None:
        """Break off whatever is under way."""
        ...


def trace_headers(target: Target, request: InferenceRequest) -> dict[str, str]:
    """The headers of one request: those the user gave, and the id under the names that logs look for."""
    request_id = request.id or ""
    return {"seldon-puid": request_id, "x-request-id": request_id, **target.headers}


class RESTClient:
    """Over HTTP, with a connection for each thread that is kept open."""

    def __init__(self, target: Target) -> None:
        split = urlsplit(target.url if "://" in target.url else f"//{target.url}")
        if split.scheme not in ("", "http", "https") or not split.hostname:
            raise CommandError(
                f"--url: expected HOST:PORT or http(s)://HOST:PORT, received '{target.url}'"
            )
        self._target = target
        self._context = target.trust.context() if target.tls or split.scheme == "https" else None
        self._host, self._port = (
            split.hostname,
            split.port or (80 if self._context is None else 443),
        )
        self._path = f"{split.path.rstrip('/')}/v2/models/{quote(target.model, safe='')}"
        self._own = threading.local()
        self._open: set[http.client.HTTPConnection] = set()
        self._closed = False

    def metadata(self) -> MetadataModelResponse:
        _, body = self._ask("GET", self._path, None, {})
        try:
            return wire.read_metadata(body)
        except MLServerError as error:
            raise Refusal(f"the server's metadata of the model: {error.message}") from None

    def infer(self, request: InferenceRequest) -> InferenceResponse:
        headers = {"content-type": "application/json", **trace_headers(self._target, request)}
        try:
            if self._target.binary:
                body, length = wire.write_binary(request)
                headers |= {"content-type": "application/octet-stream", HEADER: str(length)}
            else:
                body = wire.write_json(request)
        except MLServerError as error:
            raise Refusal(error.message) from None
        length_of_head, answer = self._ask("POST", f"{self._path}/infer", body, headers)
        try:
            return wire.read_response(answer, length_of_head)
        except MLServerError as error:
            raise Refusal(f"the server's answer is no response: {error.message}") from None

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int | None, bytes]:
        try:
            answer, content = self._exchange(method, path, body, headers)
        except TimeoutError:
            self._drop()
            raise Refusal(f"no answer within {self._target.timeout:g} s", again=True) from None
        except ssl.SSLError as error:
            self._drop()
            raise Refusal(f"TLS: {error.reason or error}", unreachable=True) from None
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            where = f"{self._host}:{self._port}"
            raise Refusal(
                f"{where} cannot be reached: {_words(error)}", again=True, unreachable=True
            ) from None
        if answer.status != 200:
            raise _refusal(answer, content)
        length = answer.getheader(HEADER)
        return (int(length) if length and length.isdigit() else None), content

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One request; a kept connection that the server has closed meanwhile is opened anew."""
        connection = self._connection()
        fresh = connection.sock is None
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):
            if fresh or self._closed:
                raise
            connection.close()
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
        return answer, answer.read()

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if found is None:
            timeout = self._target.timeout
            if self._context is not None:
                found = http.client.HTTPSConnection(
                    self._host, self._port, timeout=timeout, context=self._context
                )
            else:
                found = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
            self._own.connection = found
            self._open.add(found)
        return found

    def _drop(self) -> None:
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is not None:
            connection.close()
            self._open.discard(connection)
            self._own.connection = None

    def close(self) -> None:
        self._closed = True
        for connection in list(self._open):
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _refusal(answer: http.client.HTTPResponse, content: bytes) -> Refusal:
    text = content.decode("utf-8", "replace").strip()
    try:
        from ...wire import json

        document = json.read_json(content)
        text = (
            str(document["error"]) if isinstance(document, dict) and "error" in document else text
        )
    except MLServerError:
        pass
    after = answer.getheader("retry-after") or ""
    seconds = float(after) if after.isdigit() else None
    return Refusal(text[:2000] or f"status {answer.status}", answer.status in _LATER, seconds)


class GRPCClient:
    """Over gRPC, with one channel for all threads."""

    def __init__(self, target: Target) -> None:
        os.environ.setdefault(
            "GRPC_VERBOSITY", "NONE"
        )  # its own log lines; what went wrong is said in ours
        import grpc

        from ...grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        scheme, _, address = target.url.rpartition("://")
        self._target = target
        self._channel: Any = (
            grpc.secure_channel(address, target.trust.credentials(), options=options)
            if target.tls or scheme == "https"
            else grpc.insecure_channel(address, options=options)
        )
        self._stub = GRPCInferenceServiceStub(self._channel)

    def metadata(self) -> MetadataModelResponse:
        from ...wire.pb import dataplane_pb2 as pb
        from ...wire.proto.metadata import read_model_metadata

        return read_model_metadata(
            self._call("ModelMetadata", pb.ModelMetadataRequest(name=self._target.model), {})
        )

    def infer(self, request: InferenceRequest) -> InferenceResponse:
        from ...wire.proto import messages

        try:
            message = messages.write_request(request, self._target.model, raw=self._target.binary)
            answer = self._call("ModelInfer", message, trace_headers(self._target, request))
            return messages.read_response(answer)
        except MLServerError as error:
            raise Refusal(error.message) from None

    def _call(self, method: str, message: Any, headers: dict[str, str]) -> Any:
        import grpc

        metadata = [(name.lower(), value) for name, value in headers.items()]
        try:
            return getattr(self._stub, method)(
                message, timeout=self._target.timeout, metadata=metadata
            )
        except grpc.RpcError as error:
            failed: Any = error
            code = failed.code().name
            after = dict(failed.trailing_metadata() or ()).get("retry-after")
            # A server's own UNAVAILABLE comes with metadata of ours; the channel's own has none.
            nobody = (
                code == "UNAVAILABLE" and "failed to connect" in (failed.details() or "").lower()
            )
            later = code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
            raise Refusal(
                failed.details() or code, later, float(after) if after else None, nobody
            ) from None
        except ValueError as error:  # the channel was closed under it
            raise Refusal(str(error), unreachable=True) from None

    def close(self) -> None:
        self._channel.close()
