"""One function per format: bytes in, and an exception only if a server would have answered with a 5xx.

Each reads a body as its front end does, checks it as the data plane does, answers with what it read, and writes that answer
in every format.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from mlserver.errors import MLServerError
from mlserver.handlers.validation import check_id, check_request, priority_of, seconds_of_timeout
from mlserver.rest import negotiation
from mlserver.rest.negotiation import ARROW, RequestFormat
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from mlserver.wire import binary, json
from mlserver.wire.pb import dataplane_pb2 as pb
from mlserver.wire.proto import fast_messages, messages

LIMIT = 1024 * 1024  # bytes after decompression, as `max_body_bytes`


def _travel(incoming: RequestFormat) -> None:
    try:
        request = negotiation.read(incoming)
        negotiation.writer(incoming, request)
        _answer(request)
    except MLServerError as error:
        _only_refused(error)


def _answer(request: InferenceRequest) -> None:
    """As an echo model would, in every format that could be asked for."""
    check_request(request)
    check_id(request)
    extra = (request.parameters.model_extra if request.parameters else None) or {}
    seconds_of_timeout(extra.get("timeout"))
    priority_of(extra.get("priority"))
    outputs = [
        ResponseOutput(name=one.name, shape=one.shape, datatype=one.datatype, data=one.data)
        for one in request.inputs
    ]
    response = InferenceResponse(model_name="echo", id=request.id, outputs=outputs)
    written = pb.ModelInferResponse.FromString(fast_messages.write_response(response, True))
    assert written == messages.write_response(response, True)
    binary.write_response(response, binary.BinaryOutputs(True, {}))
    json.write_response(response)


def _only_refused(error: MLServerError) -> None:
    assert 400 <= error.status_code < 500, error
    assert len(error.message) < 4096, f"a text of {len(error.message)} characters"
    json.write_error(error)


def read_json(data: bytes) -> None:
    _travel(RequestFormat(data, b"application/json", None, b"", LIMIT))


def read_binary(data: bytes) -> None:
    """The first line is the value of the header `Inference-Header-Content-Length`."""
    head, _, body = data.partition(b"\n")
    _travel(RequestFormat(body, b"application/octet-stream", head, b"", LIMIT))


def read_grpc(data: bytes) -> None:
    try:
        _answer(fast_messages.read_request(data).request)
    except MLServerError as error:
        _only_refused(error)


def read_arrow(data: bytes) -> None:
    _travel(RequestFormat(data, ARROW.encode(), None, b"", LIMIT))


@cache
def _scored() -> Any:
    """A model for MLflow's scoring bodies, with three typed columns; it answers with what it got."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    columns = [
        ColSpec(DataType.double, "a"),
        ColSpec(DataType.long, "b"),
        ColSpec(DataType.string, "c"),
    ]

    class Metadata:
        signature = ModelSignature(inputs=Schema(columns))

        def get_input_schema(self) -> Schema:
            return self.signature.inputs

        def get_params_schema(self) -> None:
            return None

    class Model:
        metadata = Metadata()

        def predict(self, data: Any, params: Any = None) -> Any:
            return data

    return Model()


def _score(data: bytes, content_type: str) -> None:
    from mlserver_mlflow import invocations
    from mlserver_mlflow.invocations import scoring

    try:
        request = invocations.read_request(data, content_type, {})
        check_request(request)
        scoring.score(_scored(), *invocations.unwrap_body(request))
    except MLServerError as error:
        _only_refused(error)


def read_csv(data: bytes) -> None:
    _score(data, "text/csv")


def read_invocations(data: bytes) -> None:
    _score(data, "application/json")


def read_parquet(data: bytes) -> None:
    _score(data, "application/vnd.apache.parquet")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "json": read_json,
    "binary": read_binary,
    "grpc": read_grpc,
    "arrow": read_arrow,
    "csv": read_csv,
    "invocations": read_invocations,
    "parquet": read_parquet,
}
