"""MLflow's scoring body as one more wire format: bytes <-> request and response, without MLflow.

The front end imports this module, so nothing here may import MLflow or pandas. A JSON body that needs none of MLflow's
leniency becomes an ordinary V2 request with one input per column or tensor of the signature (`forms`), and so joins the
batches of the model's other requests. Every other body travels to the worker as it came: one BYTES input without a batch
dimension, marked by the content type `CONTENT_TYPE`; there MLflow's own code reads and answers it (`scoring`).
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

CONTENT_TYPE = "mlflow-invocations"
HEADER = "mlflow_content_type"
STATUS = "mlflow_status"
BODY = "body"
JSON = "application/json"
# Content types whose body may be read here. MLflow compares case-sensitively and refuses all other parameters.
PLAIN_JSON = frozenset(
    JSON + suffix
    for suffix in ("", "; charset=utf-8", ";charset=utf-8", "; charset=UTF-8", ";charset=UTF-8")
)
# Status of an error that did not come from MLflow -> MLflow's error code.
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
# Datatype -> code of an element that `memoryview` reads.
CODES = {"BOOL": "?", "INT32": "i", "INT64": "q", "FP32": "f", "FP64": "d"}
ERROR_FIELDS = ("error_code", "message", "sqlstate", "error_class")


def read_request(body: bytes, content_type: str, config: dict[str, Any]) -> InferenceRequest:
    """A scoring body -> the request that travels. Never refuses: what is wrong with a body, MLflow's own code says."""
    if content_type in PLAIN_JSON:
        request = json_formats.read_request(body, config)
        if request is not None:
            return request
    return wrap_body(body, content_type)


def wrap_body(body: bytes, content_type: str) -> InferenceRequest:
    """A request that carries the body as it came."""
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
    """Body and content type of a request that `wrap_body` made."""
    (element,) = request.inputs[0].data.root
    body = element.encode("utf-8") if isinstance(element, str) else bytes(element)
    extra = (request.parameters and request.parameters.model_extra) or {}
    return body, str(extra.get(HEADER, ""))


def answer(
    model_name: str, model_version: str | None, body: bytes | str, status: int = 200
) -> InferenceResponse:
    """The response that carries a finished body back."""
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
    """Status, body and content type of an answer."""
    parameters = response.parameters
    if parameters is not None and parameters.content_type == CONTENT_TYPE:
        (element,) = response.outputs[0].data.root
        status = int((parameters.model_extra or {}).get(STATUS, 200))
        return status, element.encode("utf-8") if isinstance(element, str) else bytes(element), JSON
    output_slice = response.output_slice
    if config.get("output") == "dict":
        parts = [
            f"{json.dumps(output.name)}: {_predictions(output, None)}"
            for output in response.outputs
        ]
        text = f"{{{', '.join(parts)}}}"
    elif output_slice is not None:
        output = output_slice.batch.outputs[0]
        text = _numbers(
            output_slice.read_block(0),
            str(output.datatype),
            output_slice.block_shape(0),
            config.get("rank"),
        )
    else:
        text = _predictions(response.outputs[0], config.get("rank"))
    return 200, f'{{"predictions": {text}}}'.encode(), JSON


def write_error(error: MLServerError, config: dict[str, Any]) -> tuple[int, bytes, str]:
    """An error in MLflow's words and with MLflow's status, never with a stack trace."""
    details = error.details or {}
    if "error_code" in details:
        fields = {name: details[name] for name in ERROR_FIELDS if details.get(name) is not None}
        return int(details.get("status", error.status_code)), json.dumps(fields).encode(), JSON
    code = ERROR_CODES.get(
        error.status_code, "BAD_REQUEST" if error.status_code < 500 else "INTERNAL_ERROR"
    )
    if error.code == "UNAVAILABLE":
        code = "TEMPORARILY_UNAVAILABLE"
    return (
        error.status_code,
        json.dumps({"error_code": code, "message": error.message}).encode(),
        JSON,
    )


def _predictions(output: ResponseOutput, rank: int | None) -> str:
    """The output's elements as JSON in the rank that the model returned; V2 shows [N] as [N, 1]."""
    data, datatype = output.data, str(output.datatype)
    if datatype == "BYTES":
        texts = [item.decode("utf-8") if isinstance(item, bytes) else item for item in data.root]
        return json.dumps(_nested(texts, output.shape if rank != 1 else []))
    shape = list(data.block_shape or output.shape)
    return _numbers(data.to_raw(datatype, output.shape), datatype, shape, rank)


def _numbers(raw: bytes | memoryview, datatype: str, shape: list[int], rank: int | None) -> str:
    code: Any = CODES.get(datatype)
    if code is not None and math.prod(shape) <= json_numbers.SMALL:
        # A few numbers need no NumPy, which this process may not have loaded yet.
        elements = memoryview(raw).cast("B").cast(code).tolist()
        return json.dumps(_nested(elements, shape if rank != 1 else []))
    array = TensorData.from_trusted_raw(raw, datatype, shape).to_array(datatype, shape)
    return json_numbers.numbers(array.reshape(-1) if rank == 1 else array)


def _nested(elements: list[Any], shape: list[int]) -> list[Any]:
    for size in reversed(shape[1:]):
        elements = [elements[at : at + size] for at in range(0, len(elements), size)]
    return elements
