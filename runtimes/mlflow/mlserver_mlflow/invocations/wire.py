"""Wire format of MLflow's scoring protocol: bytes <-> request and response, without MLflow.

The front end imports this module, so it imports neither MLflow nor pandas. A JSON body that
`json_formats` can read becomes an ordinary V2 request with one input per column or tensor of the
signature, and joins the batches of the model's other requests. Every other body is passed to the
worker unread, as one BYTES input without a batch dimension and with the content type
`CONTENT_TYPE`; MLflow's own code in the worker reads it (`scoring`).
"""

from __future__ import annotations

import json
import math
from typing import Any

from mlserver.errors import MLServerError
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    ResponseOutput,
    TensorData,
)

from . import json_formats, json_numbers
from .logged_columns import read_columns as read_columns

CONTENT_TYPE = "mlflow-invocations"
UNREAD_CONTENT_TYPE = CONTENT_TYPE  # with `read_columns`, for the server's payload log
HEADER = "mlflow_content_type"
STATUS = "mlflow_status"
BODY = "body"
JSON = "application/json"
# Content types of bodies that may be read here. MLflow compares them case-sensitively and refuses
# other parameters.
PLAIN_JSON = frozenset(
    JSON + suffix
    for suffix in ("", "; charset=utf-8", ";charset=utf-8", "; charset=UTF-8", ";charset=UTF-8")
)
# Status of an error raised outside of MLflow -> MLflow's error code.
ERROR_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    429: "REQUEST_LIMIT_EXCEEDED",
    499: "CANCELLED",
    500: "INTERNAL_ERROR",
    501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# Datatype -> format code of `memoryview`.
CODES = {"BOOL": "?", "INT32": "i", "INT64": "q", "FP32": "f", "FP64": "d"}
ERROR_FIELDS = ("error_code", "message", "sqlstate", "error_class")


def read_request(body: bytes, content_type: str, config: dict[str, Any]) -> InferenceRequest:
    """Return the request for a scoring body; MLflow's code in the worker refuses invalid ones."""
    if content_type in PLAIN_JSON:
        request = json_formats.read_request(body, config)
        if request is not None:
            return request
    return wrap_body(body, content_type)


def wrap_body(body: bytes, content_type: str) -> InferenceRequest:
    """Return a request with the unread body as its only input."""
    tensor: dict[str, Any] = {
        "name": BODY,
        "shape": [],
        "datatype": "BYTES",
        "parameters": None,
        "data": TensorData([bytes(body)]),
    }
    return InferenceRequest.build(
        {
            "id": None,
            "parameters": Parameters.from_values(
                {"content_type": CONTENT_TYPE, HEADER: content_type}
            ),
            "inputs": [RequestInput.build(tensor)],
            "outputs": None,
        }
    )


def is_passthrough(request: InferenceRequest) -> bool:
    """Whether the request was made by `wrap_body`."""
    return request.parameters is not None and request.parameters.content_type == CONTENT_TYPE


def unwrap_body(request: InferenceRequest) -> tuple[bytes, str]:
    """Return body and content type of a request made by `wrap_body`."""
    (element,) = request.inputs[0].data.root
    body = element.encode("utf-8") if isinstance(element, str) else bytes(element)
    extra = (request.parameters and request.parameters.model_extra) or {}
    return body, str(extra.get(HEADER, ""))


def wrap_result(
    model_name: str, model_version: str | None, body: bytes | str, status: int = 200
) -> InferenceResponse:
    """Return a response with a complete response body as its only output."""
    data = body.encode("utf-8") if isinstance(body, str) else body
    tensor = {
        "name": BODY,
        "shape": [1],
        "datatype": "BYTES",
        "parameters": None,
        "data": TensorData([data]),
    }
    return InferenceResponse.build(
        {
            "model_name": model_name,
            "model_version": model_version,
            "id": None,
            "parameters": Parameters.from_values({"content_type": CONTENT_TYPE, STATUS: status}),
            "outputs": [ResponseOutput.build(tensor)],
        }
    )


def write_response(response: InferenceResponse, config: dict[str, Any]) -> tuple[int, bytes, str]:
    """Return status, body and content type of a response."""
    parameters = response.parameters
    if parameters is not None and parameters.content_type == CONTENT_TYPE:
        (element,) = response.outputs[0].data.root
        status = int((parameters.model_extra or {}).get(STATUS, 200))
        body = element.encode("utf-8") if isinstance(element, str) else bytes(element)
        return status, body, JSON
    rank, output_slice = config.get("rank"), response.output_slice
    if config.get("output") == "dict":
        parts = [
            f"{json.dumps(output.name)}: {_format_output(output, None)}"
            for output in response.outputs
        ]
        text = f"{{{', '.join(parts)}}}"
    elif output_slice is not None:
        datatype = str(output_slice.batch.outputs[0].datatype)
        text = _format_numbers(
            output_slice.read_block(0), datatype, output_slice.block_shape(0), rank
        )
    else:
        text = _format_output(response.outputs[0], rank)
    return 200, f'{{"predictions": {text}}}'.encode(), JSON


def write_error(error: MLServerError, config: dict[str, Any]) -> tuple[int, bytes, str]:
    """Return an error in MLflow's format and with MLflow's status, without a stack trace."""
    details = error.details or {}
    if "error_code" in details:
        fields = {name: details[name] for name in ERROR_FIELDS if details.get(name) is not None}
        return int(details.get("status", error.status_code)), json.dumps(fields).encode(), JSON
    default = "BAD_REQUEST" if error.status_code < 500 else "INTERNAL_ERROR"
    code = ERROR_CODES.get(error.status_code, default)
    if error.code == "UNAVAILABLE":
        code = "TEMPORARILY_UNAVAILABLE"
    document = {"error_code": code, "message": error.message}
    return error.status_code, json.dumps(document).encode(), JSON


def _format_output(output: ResponseOutput, rank: int | None) -> str:
    """Return an output's elements as JSON in the rank of the result; V2 has [N] as [N, 1]."""
    data, datatype = output.data, str(output.datatype)
    if datatype == "BYTES":
        texts = [item.decode("utf-8") if isinstance(item, bytes) else item for item in data.root]
        return json.dumps(_nest(texts, output.shape if rank != 1 else []))
    shape = list(data.block_shape or output.shape)
    return _format_numbers(data.to_raw(datatype, output.shape), datatype, shape, rank)


def _format_numbers(
    raw: bytes | memoryview, datatype: str, shape: list[int], rank: int | None
) -> str:
    code: Any = CODES.get(datatype)
    if code is not None and math.prod(shape) <= json_numbers.MAX_SMALL_SIZE:
        # NumPy may not be loaded in this process yet, and few numbers do not need it.
        elements = memoryview(raw).cast("B").cast(code).tolist()
        return json.dumps(_nest(elements, shape if rank != 1 else []))
    array = TensorData.from_trusted_raw(raw, datatype, shape).to_array(datatype, shape)
    return json_numbers.format_numbers(array.reshape(-1) if rank == 1 else array)


def _nest(elements: list[Any], shape: list[int]) -> list[Any]:
    for size in reversed(shape[1:]):
        starts = range(0, len(elements), size)
        elements = [elements[start : start + size] for start in starts]
    return elements
