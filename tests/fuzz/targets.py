"""Fuzz targets, one function per format: it raises only if a server would have answered with a 5xx.

Each reads a body like its front end, validates it like the data plane, runs an echo model, and
writes the response in every format.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from mlserver.errors import MLServerError
from mlserver.handlers.validation import check_id, check_request, parse_priority, parse_timeout
from mlserver.rest import negotiation
from mlserver.rest.negotiation import ARROW, RequestFormat
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from mlserver.wire import binary, json
from mlserver.wire.pb import dataplane_pb2 as pb
from mlserver.wire.proto import messages, model_infer

LIMIT = 1024 * 1024  # bytes after decompression, as `max_body_bytes`


def _run_request(incoming: RequestFormat) -> None:
    try:
        request = negotiation.read(incoming)
        negotiation.select_writer(incoming, request)
        _run_echo(request)
    except MLServerError as error:
        _assert_client_error(error)


def _run_echo(request: InferenceRequest) -> None:
    """Validate the request and write an echo model's response in every format."""
    check_request(request)
    check_id(request)
    extra = (request.parameters.model_extra if request.parameters else None) or {}
    parse_timeout(extra.get("timeout"))
    parse_priority(extra.get("priority"))
    outputs = [
        ResponseOutput(
            name=tensor.name,
            shape=tensor.shape,
            datatype=tensor.datatype,
            data=tensor.data,
        )
        for tensor in request.inputs
    ]
    response = InferenceResponse(model_name="echo", id=request.id, outputs=outputs)
    written = pb.ModelInferResponse.FromString(model_infer.write_response(response, True))
    assert written == messages.write_response(response, True)
    binary.write_response(response, binary.BinaryOutputs(True, {}))
    json.write_response(response)


def _assert_client_error(error: MLServerError) -> None:
    assert 400 <= error.status_code < 500, error
    assert len(error.message) < 4096, f"a text of {len(error.message)} characters"
    json.write_error(error)


def read_json(data: bytes) -> None:
    _run_request(RequestFormat(data, b"application/json", None, LIMIT))


def read_binary(data: bytes) -> None:
    """The first line is the value of the header `Inference-Header-Content-Length`."""
    head, _, body = data.partition(b"\n")
    _run_request(RequestFormat(body, b"application/octet-stream", head, LIMIT))


def read_grpc(data: bytes) -> None:
    try:
        _run_echo(model_infer.read_request(data).request)
    except MLServerError as error:
        _assert_client_error(error)


def read_arrow(data: bytes) -> None:
    _run_request(RequestFormat(data, ARROW.encode(), None, LIMIT))


@cache
def _scoring_model() -> Any:
    """An echo model for MLflow's scoring bodies, with three typed columns."""
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
        scoring.score(_scoring_model(), *invocations.unwrap_body(request))
    except MLServerError as error:
        _assert_client_error(error)


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
