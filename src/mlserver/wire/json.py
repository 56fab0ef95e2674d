"""The protocol's JSON: bytes -> request, response -> bytes. Pure.

Numbers of a response are written from their raw bytes, without a Python object each if there are
many. FP16 and FP32 are written as the equal double. JSON has no NaN and no infinities: both are
null, and an output's parameters list the positions of infinities.

A request of one row is read into a `RowBlock` (`read_row`); every other request is read by
pydantic's validator.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import orjson
from pydantic import ValidationError

from ..errors import InvalidPayload, MLServerError
from ..runtime_hooks import list_hooks
from ..tensor import FORMATS, brief, flat_elements, split_bytes_block
from ..tensor.conversion import raw_to_array
from ..types import (
    InferenceRequest,
    InferenceResponse,
    OutputSlice,
    Parameters,
    RequestOutput,
    ResponseOutput,
    RowBlock,
    RowBlockRequest,
    TensorData,
)
from ..types.row_block import ROW_CODES
from . import large_json
from .missing import infinities

_validate_request: Callable[[Any], InferenceRequest] = (
    InferenceRequest.__pydantic_validator__.validate_python
)
_ONE_ROW = ([1], [1, 1])
_FIELDS = frozenset(("id", "inputs", "outputs", "parameters"))
_OUTPUT_FIELDS = frozenset(("name", "parameters"))
# What a document that is not one row of numbers raises in `read_row`.
_NOT_ONE_ROW = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    OverflowError,
    struct.error,
)
_Rest = tuple[Parameters | None, list[RequestOutput] | None]
# Literals of other writers (Python, JavaScript) that JSON does not have -> the end of the error's
# text.
_LITERAL = re.compile(r"(NaN|Infinity|inf|None|True|False)\b", re.IGNORECASE)
_LITERAL_HINTS = {
    "nan": "which is not JSON: use null for a missing number",
    "infinity": "which is not JSON: send infinities as binary data or over gRPC",
    "inf": "which is not JSON: send infinities as binary data or over gRPC",
    "none": "which is not JSON: use null",
    "true": "which is not JSON: use true",
    "false": "which is not JSON: use false",
}
_MAX_LIST_BYTES = 64  # up to here a list is printed faster than an array
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_MIN_LETTER_SEARCH = 4096  # size of a document from which letters are sought before words
_MAX_SEARCHES = 20  # of letters, before the word is sought in the rest


# -- requests --


def read_json(body: bytes | memoryview) -> Any:
    """Parse a JSON body.

    Raises:
        InvalidPayload: the body is not JSON; NaN and Infinity literals are not.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not len(body):
            raise _not_json("an empty body", 0) from None
        where = f"at line {error.lineno} column {error.colno}"
        literal = _LITERAL.match(error.doc, error.pos)
        if literal is not None and literal[0] not in ("true", "false"):
            hint = _LITERAL_HINTS[literal[0].lower()]
            raise _not_json(f"{literal[0]} {where}, {hint}", error.pos) from None
        raise _not_json(f"{error.msg} {where}", error.pos) from None
    except RecursionError:
        raise _not_json("a body nested too deep", 0) from None


def _not_json(received: str, position: int) -> InvalidPayload:
    fault = {
        "type": "json_invalid",
        "loc": ["body", position],
        "msg": f"JSON decode error: {received}",
    }
    return InvalidPayload(f"Invalid body: expected a JSON document, received {received}", [fault])


def read_request(body: bytes | memoryview) -> InferenceRequest:
    """Parse a request.

    Raises:
        InvalidPayload: the body is not a request; the text names the field.
    """
    document = large_json.read_document(body) if len(body) >= large_json.MIN_BYTES else None
    if document is None:
        document = read_json(body)
    return read_row(document) or validate_document(document)


def read_row(document: Any) -> RowBlockRequest | None:
    """Return a document of one row of numbers as a request; None for any other document.

    One row means: every input has one element and no parameters, and all have the same fixed-width
    datatype and shape. What is accepted here, the validator accepts with the same values.
    """
    rest: _Rest | None = (None, None)
    names, elements = [], []
    try:
        inputs, request_id = document["inputs"], document.get("id")
        shape, datatype = inputs[0]["shape"], inputs[0]["datatype"]
        if shape not in _ONE_ROW or (request_id is not None and type(request_id) is not str):
            return None
        for tensor in inputs:
            name, data = tensor["name"], tensor["data"]
            if tensor["datatype"] != datatype or tensor["shape"] != shape or len(tensor) != 4:
                return None
            if type(name) is not str or type(data) is not list:
                return None
            names.append(name)
            (element,) = data
            elements.append(element)
        block = _row_struct(len(names), datatype).pack(*elements)
        if len(document) != 1 + (request_id is not None):
            rest = _read_rest(document)
    except _NOT_ONE_ROW:
        return None
    if rest is None:
        return None
    rows = RowBlock(tuple(names), datatype, (1,) if len(shape) == 2 else (), 1, block)
    return RowBlockRequest.from_rows(rows, request_id, *rest)


def _read_rest(document: dict[str, Any]) -> _Rest | None:
    """Return parameters and requested outputs; None if the validator has to check them.

    Raises:
        Exception: one of `_NOT_ONE_ROW`, if they are not dictionaries and lists.
    """
    if not _FIELDS.issuperset(document):
        return None
    parameters, outputs = document.get("parameters"), document.get("outputs")
    if not _are_plain(parameters):
        return None
    request_parameters = None if parameters is None else Parameters.from_values(parameters)
    if outputs is None:
        return request_parameters, None
    requested = []
    for output in outputs:
        name, values = output["name"], output.get("parameters")
        is_plain = type(name) is str and _OUTPUT_FIELDS.issuperset(output) and _are_plain(values)
        if not is_plain:
            return None
        output_parameters = None if values is None else Parameters.from_values(values)
        requested.append(RequestOutput.build({"name": name, "parameters": output_parameters}))
    return request_parameters, requested


def _are_plain(parameters: Any) -> bool:
    """Return whether the validator accepts these parameters unchanged."""
    if parameters is None:
        return True
    if type(parameters) is not dict or "headers" in parameters:
        return False
    return isinstance(parameters.get("content_type"), str | None)


@lru_cache(maxsize=1024)
def _row_struct(width: int, datatype: str) -> struct.Struct:
    return struct.Struct(f"<{width}{ROW_CODES[datatype]}")


def validate_document(document: Any) -> InferenceRequest:
    """Return the request of a parsed document.

    Raises:
        InvalidPayload: the document is not a request; the text names the field.
    """
    if not isinstance(document, dict):
        fault = {
            "type": "model_attributes_type",
            "loc": ["body"],
            "msg": "Input should be an object",
        }
        raise InvalidPayload(
            f"Invalid body: expected an object with 'inputs', received {brief(document)}", [fault]
        )
    try:
        return _validate_request(document)
    except ValidationError as exception:
        error = describe_validation_error(exception)
        hint = "".join(hooks.get_body_hint(document) for hooks in list_hooks())
        raise InvalidPayload(error.message + hint, error.faults) from None


def describe_validation_error(error: ValidationError) -> InvalidPayload:
    """Return pydantic's errors as one: the first as text, all as faults."""
    faults = error.errors(include_url=False, include_context=False)
    first = faults[0]
    path = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]]
    field = "".join(path).lstrip(".")
    if first["type"] == "missing":
        text = f"Invalid {field}: this field is required and missing"
    else:
        message = first["msg"].replace("Input should", "it should")
        text = f"Invalid {field}: {message}, received {brief(first['input'])}"
    plain = [{"type": f["type"], "loc": ["body", *f["loc"]], "msg": f["msg"]} for f in faults]
    return InvalidPayload(text, plain)


# -- responses --


def write_response(response: InferenceResponse) -> bytes:
    """Serialize a response.

    Raises:
        MLServerError: an output holds bytes that are not UTF-8 text.
    """
    if response.output_slice is not None:
        return _write_slice(response, response.output_slice)
    body = orjson.dumps(build_document(response), default=_to_plain, option=_OPTIONS)
    if not _has_null(body):  # faster than a check of each number
        return body
    document = build_document(response)
    add_infinities(document["outputs"], response.outputs)
    return _dump(document)


def _has_null(body: bytes) -> bool:
    """Whether a document may have a null; texts that contain the word count, too.

    Numbers have no `u`, and in a large document a search for one byte is 20 times as fast as one
    for four: 0.05 instead of 1.2 ms in 1.9 MB.
    """
    if len(body) < _MIN_LETTER_SEARCH:
        return b"null" in body
    start = 0
    for _ in range(_MAX_SEARCHES):
        index = body.find(b"u", start)
        if index < 0:
            return False
        start = index + 1
        if body.startswith(b"null", max(0, index - 1)):
            return True
    return body.find(b"null", start) >= 0


def _dump(value: Any) -> bytes:
    return orjson.dumps(value, default=_to_plain, option=_OPTIONS)


def add_infinities(documents: list[dict[str, Any]], outputs: Sequence[ResponseOutput]) -> None:
    """Add the positions of infinities to the parameters in the documents of `outputs`."""
    for document, output in zip(documents, outputs, strict=True):
        positions = infinities(str(output.datatype), output.data, output.shape)
        if positions:
            document["parameters"] = {**document.get("parameters", {}), **positions}
            document["data"] = document.pop("data")  # keep `data` the last key


def _write_slice(response: InferenceResponse, output_slice: OutputSlice) -> bytes:
    """Serialize the response to one request of a batch.

    The heads of outputs are shared by the batch.
    """
    batch, row_count = output_slice.batch, output_slice.row_count
    heads = batch.json_heads.get(row_count)
    if heads is None:
        heads = [
            _dump(build_output_head(output))[:-1] + b',"data":'
            for output in output_slice.to_outputs()
        ]
        batch.json_heads[row_count] = heads
    parts = [_dump(_build_head(response))[:-1], b',"outputs":[']
    for index, head in enumerate(heads):
        datatype = str(batch.outputs[index].datatype)
        block = output_slice.read_block(index)
        text = orjson.dumps(_read_block(block, datatype), option=_OPTIONS)
        if b"u" in text:  # null; the parameters of infinities are not in the heads
            tensors = {**response.__dict__, "outputs": output_slice.to_outputs()}
            return write_response(InferenceResponse.build(tensors))
        parts += (head, text, b"},")
    parts[-1] = b"}]}"
    return b"".join(parts)


def build_document(response: InferenceResponse) -> dict[str, Any]:
    """Return the JSON object of a response."""
    document = _build_head(response)
    document["outputs"] = outputs = []
    for output in response.outputs:
        tensor = build_output_head(output)
        tensor["data"] = _read_elements(output)
        outputs.append(tensor)
    return document


def _build_head(response: InferenceResponse) -> dict[str, Any]:
    """Return all fields but the outputs; `parameters` is always present, as in MLServer 1.x."""
    document: dict[str, Any] = {"model_name": response.model_name}
    if response.model_version is not None:
        document["model_version"] = response.model_version
    if response.id is not None:
        document["id"] = response.id
    document["parameters"] = {} if response.parameters is None else response.parameters.to_dict()
    return document


def build_output_head(output: ResponseOutput) -> dict[str, Any]:
    """Return all fields of an output but its data."""
    head = {"name": output.name, "shape": output.shape, "datatype": output.datatype}
    if output.parameters is not None:
        head["parameters"] = output.parameters.to_dict()
    return head


def _read_elements(output: ResponseOutput) -> Any:
    datatype, data = str(output.datatype), output.data
    if datatype in FORMATS or datatype == "BF16":
        return _read_block(data.to_raw(datatype, output.shape), datatype)
    if data.raw is not None:
        elements: list[Any] = split_bytes_block(data.raw)
    else:
        elements = flat_elements(data.root, output.shape)
    return [_decode(element, output.name) for element in elements]


def _read_block(block: memoryview | bytes, datatype: str) -> Any:
    """Return numbers for orjson: few as a list, many as an array."""
    code: Any = FORMATS.get(datatype)
    if len(block) <= _MAX_LIST_BYTES and code is not None and code != "e":
        return memoryview(block).cast("B").cast(code).tolist()
    array = raw_to_array(block, datatype, (-1,))
    return array.astype("f8") if array.dtype.kind == "f" else array


def _decode(element: Any, name: str) -> Any:
    """Return an element of a BYTES output, bytes as text."""
    if isinstance(element, (bytes, bytearray)):
        try:
            return element.decode("utf-8")
        except UnicodeDecodeError:
            raise MLServerError(
                f"Output '{name}' holds bytes that are not UTF-8 text: "
                "request it with the parameter binary_data",
                406,
            ) from None
    return element


def _to_plain(value: Any) -> Any:
    """Return a value of a free parameter that orjson cannot serialize as one that it can."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, Parameters):
        return value.to_dict()
    if isinstance(value, TensorData):
        return value.root
    dump = getattr(value, "model_dump", None) or getattr(value, "tolist", None)
    return str(value) if dump is None else dump()


# -- other documents --


def write_error(error: MLServerError) -> bytes:
    """Serialize an error."""
    return orjson.dumps({"error": error.message})


def write_message(message: Any) -> bytes:
    """Serialize any other message of the protocol (metadata, index)."""
    return _dump(message.model_dump(mode="json"))


def write_document(document: Any) -> bytes:
    """Serialize plain data."""
    return _dump(document)
