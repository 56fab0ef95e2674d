"""The protocol's JSON: bytes -> request and response -> bytes. Pure; no sockets, no framework.

Numbers of an answer go from their raw bytes straight into the text. FP16 and FP32 are written as the double that equals
them; NaN and infinities are null, which JSON has no number for, and an output's parameters name those that are infinite.
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
from ..tensor import FORMATS, brief, flat_elements, split_bytes_block
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
_ONE = ([1], [1, 1])
_STRINGS, _LISTS = frozenset((str,)), frozenset((list,))
_FIELDS, _OUTPUT_FIELDS = (
    frozenset(("id", "inputs", "outputs", "parameters")),
    frozenset(("name", "parameters")),
)
_Rest = tuple[Parameters | None, list[RequestOutput] | None]
# Literals that Python's and other writers put into JSON, which has no form for them.
_LITERAL = re.compile(r"(NaN|Infinity|inf|None|True|False)\b", re.IGNORECASE)
_SAID_OF = {
    "nan": "which is no JSON: use null for a missing number",
    "infinity": "which is no JSON: send infinities as binary data or over gRPC",
    "inf": "which is no JSON: send infinities as binary data or over gRPC",
    "none": "which is no JSON: use null",
    "true": "which is no JSON: use true",
    "false": "which is no JSON: use false",
}
_MLFLOW_KEYS = ("dataframe_split", "dataframe_records", "instances")
_SMALL = 64  # elements up to which a list is cheaper to print than an array
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def read_json(body: bytes | memoryview) -> Any:
    """A JSON body. Raises `InvalidPayload`: it is none (NaN and Infinity literals are not JSON)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not len(body):
            raise _not_json("an empty body", 0) from None
        where = f"at line {error.lineno} column {error.colno}"
        literal = _LITERAL.match(error.doc, error.pos)
        if literal is not None and literal[0] not in ("true", "false"):
            raise _not_json(
                f"{literal[0]} {where}, {_SAID_OF[literal[0].lower()]}", error.pos
            ) from None
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
    """Raises `InvalidPayload`, which names the field, what was expected and what came."""
    large = large_json.read_document(body) if len(body) >= large_json.LARGE else None
    document = read_json(body) if large is None else large
    return one_row(document) or request_of(document)


def one_row(document: Any) -> RowBlockRequest | None:
    """A request of one row of numbers, packed; None for any other, which the validator reads.

    That is one tensor of one element per column, all of one datatype: the form of most requests. What is accepted here
    the validator would accept, with the same values.
    """
    rest: _Rest | None = (None, None)
    try:
        inputs, request_id = document["inputs"], document.get("id")
        if len(document) != 1 + (request_id is not None):
            rest = _rest_of(document)
        width = len(inputs)
        names = [tensor["name"] for tensor in inputs]
        shapes = [tensor["shape"] for tensor in inputs]
        data = [tensor["data"] for tensor in inputs]
        datatype = inputs[0]["datatype"]
        if (
            rest is None
            or sum(map(len, inputs)) != 4 * width
            or [tensor["datatype"] for tensor in inputs] != [datatype] * width
            or shapes.count(shapes[0]) != width
            or shapes[0] not in _ONE
            or not _STRINGS.issuperset(map(type, names))
            or not _LISTS.issuperset(map(type, data))
            or (request_id is not None and type(request_id) is not str)
        ):
            return None
        block = _row_of(width, datatype).pack(*[element for (element,) in data])
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        OverflowError,
        struct.error,
    ):
        return None
    shape = (1,) if len(shapes[0]) == 2 else ()
    rows = RowBlock(tuple(names), datatype, shape, 1, block)
    return RowBlockRequest.from_rows(rows, request_id, *rest)


def _rest_of(document: dict[str, Any]) -> _Rest | None:
    """Parameters and requested outputs; None = the validator has to look. What is no dictionary or list raises."""
    if not _FIELDS.issuperset(document):
        return None
    parameters, outputs = document.get("parameters"), document.get("outputs")
    if not _are_plain(parameters):
        return None
    own = None if parameters is None else Parameters.of(parameters)
    if outputs is None:
        return own, None
    wanted = []
    for output in outputs:
        name, free = output["name"], output.get("parameters")
        if type(name) is not str or not _OUTPUT_FIELDS.issuperset(output) or not _are_plain(free):
            return None
        wanted.append(
            RequestOutput.build(
                {"name": name, "parameters": None if free is None else Parameters.of(free)}
            )
        )
    return own, wanted


def _are_plain(parameters: Any) -> bool:
    """Whether the validator would take these parameters as they are."""
    if parameters is None:
        return True
    if type(parameters) is not dict or "headers" in parameters:
        return False
    return isinstance(parameters.get("content_type"), str | None)


@lru_cache(maxsize=1024)
def _row_of(width: int, datatype: str) -> struct.Struct:
    return struct.Struct(f"<{width}{ROW_CODES[datatype]}")


def request_of(document: Any) -> InferenceRequest:
    """A parsed document -> request. Raises `InvalidPayload`."""
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
    except ValidationError as exc:
        error = describe(exc)
        hint = _hint_of(document)
        raise InvalidPayload(error.message + hint, error.faults) if hint else error from None


def _hint_of(document: dict[str, Any]) -> str:
    """Return where a body that is none of this protocol belongs, to stand behind what is wrong with it."""
    key = next((key for key in _MLFLOW_KEYS if key in document), None)
    if key is not None:
        return f"; a body with '{key}' is MLflow's: MLflow models take it at /invocations"
    inputs = document.get("inputs")
    tensors = inputs if isinstance(inputs, list) else []
    if inputs is not None and not any(
        isinstance(tensor, dict) and "name" in tensor for tensor in tensors
    ):
        return "; if 'inputs' is meant in MLflow's form, MLflow models take it at /invocations"
    return ""


def describe(error: ValidationError) -> InvalidPayload:
    """pydantic's findings as one error: the first in words, all as faults."""
    faults = error.errors(include_url=False, include_context=False)
    first = faults[0]
    field = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
    ).lstrip(".")
    if first["type"] == "missing":
        text = f"Invalid {field}: this field is required and missing"
    else:
        text = f"Invalid {field}: {first['msg'].replace('Input should', 'it should')}, received {brief(first['input'])}"
    plain = [{"type": f["type"], "loc": ["body", *f["loc"]], "msg": f["msg"]} for f in faults]
    return InvalidPayload(text, plain)


def write_response(response: InferenceResponse) -> bytes:
    """Raises `MLServerError`: an output holds bytes that are no text."""
    if response.output_slice is not None:
        return _write_slice(response, response.output_slice)
    body = orjson.dumps(document_of(response), default=_default, option=_OPTIONS)
    if b"null" not in body:  # far quicker than to look at each number
        return body
    document = document_of(response)
    name_infinities(document["outputs"], response.outputs)
    return orjson.dumps(document, default=_default, option=_OPTIONS)


def name_infinities(shown: list[dict[str, Any]], outputs: Sequence[ResponseOutput]) -> None:
    """Add the parameters that tell infinities from NaN to outputs as their JSON shows them."""
    for head, output in zip(shown, outputs, strict=True):
        positions = infinities(str(output.datatype), output.data, output.shape)
        if positions:
            head["parameters"] = {**head.get("parameters", {}), **positions}
            head["data"] = head.pop("data")  # last, as everywhere


def _write_slice(response: InferenceResponse, output_slice: OutputSlice) -> bytes:
    """One of several answers to joined requests: all but ids and numbers is written once for all of them."""
    batch, row_count = output_slice.batch, output_slice.row_count
    heads = batch.json_heads.get(row_count)
    if heads is None:
        heads = batch.json_heads[row_count] = [
            orjson.dumps(head_of(output), default=_default, option=_OPTIONS)[:-1] + b',"data":'
            for output in output_slice.to_outputs()
        ]
    parts = [
        orjson.dumps(_head_of_response(response), default=_default, option=_OPTIONS)[:-1],
        b',"outputs":[',
    ]
    for at, head in enumerate(heads):
        datatype = str(batch.outputs[at].datatype)
        shape = output_slice.block_shape(at)
        data = TensorData.trusted(output_slice.read_block(at), datatype, shape)
        text = orjson.dumps(_numbers(data, datatype, shape), option=_OPTIONS)
        if b"null" in text and infinities(datatype, data, shape):
            return write_response(_unpacked(response))
        parts += (head, text, b"},")
    parts[-1] = b"}]}"
    return b"".join(parts)


def _unpacked(response: InferenceResponse) -> InferenceResponse:
    outputs = response.outputs  # from now on it is no share
    return InferenceResponse.build({**response.__dict__, "outputs": outputs})


def document_of(response: InferenceResponse) -> dict[str, Any]:
    """A response as the object that its JSON shows."""
    document = _head_of_response(response)
    document["outputs"] = [_output(output) for output in response.outputs]
    return document


def _head_of_response(response: InferenceResponse) -> dict[str, Any]:
    """All but the outputs; `parameters` is always there, as clients of MLServer 1.x expect."""
    document: dict[str, Any] = {"model_name": response.model_name}
    if response.model_version is not None:
        document["model_version"] = response.model_version
    if response.id is not None:
        document["id"] = response.id
    document["parameters"] = {} if response.parameters is None else response.parameters.plain()
    return document


def _output(output: ResponseOutput) -> dict[str, Any]:
    shown = head_of(output)
    shown["data"] = _elements(output)
    return shown


def head_of(output: ResponseOutput) -> dict[str, Any]:
    """All of an output but its data."""
    head = {"name": output.name, "shape": output.shape, "datatype": output.datatype}
    if output.parameters is not None:
        head["parameters"] = output.parameters.plain()
    return head


def _elements(output: ResponseOutput) -> Any:
    datatype, data = str(output.datatype), output.data
    if datatype in FORMATS or datatype == "BF16":
        return _numbers(data, datatype, output.shape)
    if data.raw is not None:
        return [_text(element, output.name) for element in split_bytes_block(data.raw)]
    return [_text(element, output.name) for element in flat_elements(data.root, output.shape)]


def _numbers(data: TensorData, datatype: str, shape: list[int]) -> Any:
    """Elements as orjson takes them: few as a list, many as an array."""
    code: Any = FORMATS.get(datatype)
    if data.raw is not None and code is not None and code != "e":
        raw = memoryview(data.raw).cast("B")
        if raw.nbytes <= _SMALL:
            return raw.cast(code).tolist()
    array = data.to_array(datatype, shape).reshape(-1)
    return array.astype("f8") if array.dtype.kind == "f" else array


def _text(element: Any, name: str) -> Any:
    if isinstance(element, (bytes, bytearray)):
        try:
            return element.decode("utf-8")
        except UnicodeDecodeError:
            text = f"Output '{name}' holds bytes that are not UTF-8 text: ask for it with the parameter binary_data"
            raise MLServerError(text, 406) from None
    return element


def _default(value: Any) -> Any:
    """Values in free parameters that orjson does not know."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, Parameters):
        return value.plain()
    if isinstance(value, TensorData):
        return value.root
    dump = getattr(value, "model_dump", None) or getattr(value, "tolist", None)
    if dump is not None:
        return dump()
    return str(value)


def write_error(error: MLServerError) -> bytes:
    return orjson.dumps({"error": error.message})


def write_message(message: Any) -> bytes:
    """Any other message of the protocol (metadata, index)."""
    return orjson.dumps(message.model_dump(mode="json"), default=_default, option=_OPTIONS)


def write_document(document: Any) -> bytes:
    """Plain data."""
    return orjson.dumps(document, default=_default, option=_OPTIONS)
