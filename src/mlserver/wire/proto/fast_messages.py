"""ModelInfer's two messages in bytes: what `wire.proto` does, without a protobuf object for each tensor where that can be.

Clients repeat themselves. In requests of one row, one element per column, only the elements differ from one request to
the next, so the bytes around the elements are looked up, and what they say is known from the first time. Answers are put
together from pieces of which most were written before. Whatever is of another form is read and written by `wire.proto`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.message import DecodeError

from ...errors import InvalidPayload
from ...tensor import ITEM_SIZES, TensorError
from ...types import InferenceRequest, InferenceResponse, Parameters, RequestInput, ResponseOutput
from ...types.row_block import ROW_CODES, RowBlock, RowBlockRequest
from ..pb import dataplane_pb2 as pb
from ..pb import parts_pb2
from . import messages
from .contents import PACKED_TAGS, serialized_contents, varint, write_contents

_ONE = ([1], [1, 1])
# What stands before the one element of typed contents (field 5): its field in them, packed, and its size.
_TYPED = {b"\x2a\x06\x32\x04": 4, b"\x2a\x0a\x3a\x08": 8}
_MAX_LAYOUTS = 1024
_MAX_LAYOUT = 64 * 1024  # bytes of a request whose layout is looked up
_MAX_FIELDS = 1000  # fields of a larger message that are looked at one by one
_RAW = 7 << 3 | 2  # what stands before each of the raw contents

Parts = parts_pb2.ModelInferRequestParts
Key = tuple[bytes, ...]


class ParsedRequest(NamedTuple):
    """A request, whom it is for, and whether its contents are raw (then the answer's are, too)."""

    request: InferenceRequest
    model_name: str
    model_version: str
    raw: bool


class _Layout(NamedTuple):
    """What the bytes around the elements of one row say: see `RowBlock`. `size` is an element's."""

    names: tuple[str, ...]
    datatype: str
    shape: tuple[int, ...]
    size: int


# By the bytes of the inputs: all of them (raw contents follow), or all but the element at the end of each.
_raw_layouts: dict[Key, _Layout] = {}
_typed_layouts: dict[Key, _Layout] = {}


# -- requests --


def read_request(data: bytes) -> ParsedRequest:
    """A serialized ModelInferRequest.

    Raises:
        InvalidPayload: the bytes are no such message.
        InvalidInput: it is no valid request; the text names the input.
    """
    try:
        if len(data) > _MAX_LAYOUT:
            return _read_large(data)
        parts = Parts.FromString(data)
        inputs, raws = parts.inputs[:], parts.raw_input_contents[:]
        rows = _known_row(inputs, raws)
        if rows is not None:
            request = _packed_request(parts, rows)
        else:
            request = messages.read_request(pb.ModelInferRequest.FromString(data))
            _learn(request.inputs, inputs, raws)
    except (
        DecodeError,
        UnicodeDecodeError,
    ) as error:  # the latter from protobuf's pure Python implementation
        raise InvalidPayload(f"Invalid message: {error}") from None
    return ParsedRequest(request, parts.model_name, parts.model_version, bool(raws))


def _packed_request(parts: Parts, rows: RowBlock) -> InferenceRequest:
    """A request whose inputs are these rows."""
    if not parts.parameters and not parts.outputs:
        return RowBlockRequest.from_rows(rows, parts.id or None)
    for field in ("inputs", "raw_input_contents"):
        parts.ClearField(field)
    rest = messages.read_request(pb.ModelInferRequest.FromString(parts.SerializeToString()))
    return RowBlockRequest.from_rows(rows, rest.id, rest.parameters, rest.outputs)


def _known_row(inputs: list[bytes], raws: list[bytes]) -> RowBlock | None:
    """The row of a request whose layout was seen before."""
    if raws:
        layout = _raw_layouts.get(tuple(inputs))
        if layout is None or list(map(len, raws)) != [layout.size] * len(inputs):
            return None
        elements = raws
    else:
        size = _typed_size(inputs)
        if not size:
            return None
        layout = _typed_layouts.get(tuple([each[:-size] for each in inputs]))
        if layout is None:
            return None
        elements = [each[-size:] for each in inputs]
    return RowBlock(layout.names, layout.datatype, layout.shape, 1, b"".join(elements))


def _typed_size(inputs: list[bytes]) -> int:
    """The size of the element at the end of each input, if the first looks as if there was one; else 0."""
    if not inputs:
        return 0
    first = inputs[0]
    return _TYPED.get(first[-8:-4], 0) or _TYPED.get(first[-12:-8], 0)


def _learn(tensors: Sequence[RequestInput], inputs: list[bytes], raws: list[bytes]) -> None:
    """Remember the layout of a request of one row. `tensors` is what its inputs say."""
    layout = _layout_of(tensors)
    if layout is None:
        return
    if raws:
        _remember(_raw_layouts, tuple(inputs), layout)
    elif PACKED_TAGS.get(layout.datatype) and inputs == [_canonical(tensor) for tensor in tensors]:
        # Written like this the element is at the end, whichever it is.
        _remember(_typed_layouts, tuple([each[: -layout.size] for each in inputs]), layout)


def _layout_of(tensors: Sequence[RequestInput]) -> _Layout | None:
    if not tensors:
        return None
    shape, datatype = tensors[0].shape, str(tensors[0].datatype)
    if shape not in _ONE or datatype not in ROW_CODES:
        return None
    if any(
        one.shape != shape or str(one.datatype) != datatype or one.parameters is not None
        for one in tensors
    ):
        return None
    names = tuple([tensor.name for tensor in tensors])
    return _Layout(names, datatype, tuple(shape[1:]), ITEM_SIZES[datatype])


def _canonical(tensor: RequestInput) -> bytes:
    """An input without parameters as protobuf libraries write it: fields in the order of their numbers, numbers packed."""
    datatype = str(tensor.datatype)
    message = pb.ModelInferRequest.InferInputTensor(
        name=tensor.name, datatype=datatype, shape=tensor.shape
    )
    write_contents(message.contents, tensor.data, datatype, tensor.shape)
    return message.SerializeToString(deterministic=True)


def _remember(layouts: dict[Key, _Layout], key: Key, layout: _Layout) -> None:
    if len(layouts) >= _MAX_LAYOUTS:
        layouts.clear()
    layouts[key] = layout


# -- large requests --


def _read_large(data: bytes) -> ParsedRequest:
    """Raw contents stay where they are: protobuf would copy them into its message, and from there into bytes."""
    rest, raws = _set_apart(data)
    message = pb.ModelInferRequest.FromString(rest)
    request = messages.read_request(message, raws)
    raw = bool(raws) or messages.uses_raw(message)
    return ParsedRequest(request, message.model_name, message.model_version, raw)


def _set_apart(data: bytes) -> tuple[bytes, list[memoryview] | None]:
    """The message without its raw contents, and these; None = they are in the message, as whatever is strange is."""
    view, at, end = memoryview(data), 0, len(data)
    rest: list[memoryview] = []
    raws: list[memoryview] = []
    for _ in range(_MAX_FIELDS):
        if at == end:
            return b"".join(rest), raws
        start = at
        tag, at = _read_varint(data, at)
        size, at = _read_varint(data, at)
        if tag & 7 != 2 or at + size > end:
            break  # all fields of the message have a length
        at += size
        if tag == _RAW:
            raws.append(view[at - size : at])
        else:
            rest.append(view[start:at])
    return data, None


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends. What is cut off or too long ends after the data."""
    number = 0
    for place, byte in enumerate(data[at : at + 5]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    return number, len(data) + 1


# -- responses --


def write_response(response: InferenceResponse, raw: bool = False) -> bytes:
    """A serialized ModelInferResponse; raw contents if asked for, or if an output has no typed form.

    Raises:
        MLServerError: (500) an output does not fit its own datatype and shape.
    """
    outputs = response.outputs
    raw = raw or messages.needs_raw(outputs)
    pieces: list[bytes | memoryview] = [_head(response.model_name, response.model_version)]
    raws: list[bytes | memoryview] = []
    try:
        if response.id:
            text = response.id.encode()
            pieces += (b"\x1a", varint(len(text)), text)
        if response.parameters is not None:
            pieces.append(_parameters(_content_type(response.parameters)))
        for output in outputs:
            _write_output(output, pieces, raws if raw else None)
    except (TensorError, NeedsGeneralWriter):
        return messages.write_response(response, raw).SerializeToString()
    return b"".join(pieces + raws)


def _write_output(
    output: ResponseOutput, pieces: list[bytes | memoryview], raws: list[bytes | memoryview] | None
) -> None:
    """Add an output (field 5) and, if wanted, its raw contents (field 6)."""
    datatype, shape = str(output.datatype), output.shape
    content_type = None if output.parameters is None else _content_type(output.parameters)
    head = _output_head(output.name, datatype, tuple(shape), content_type)
    if raws is not None:
        block = output.data.to_raw(datatype, shape)
        pieces += (b"\x2a", varint(len(head)), head)
        raws += (b"\x32", varint(_size(block)), block)
        return
    before, block = serialized_contents(output.data, datatype, shape)
    size = len(before) + _size(block)
    contents = b"\x2a" + varint(size) + before if size else b""
    pieces += (b"\x2a", varint(len(head) + len(contents) + _size(block)), head, contents, block)


def _size(block: bytes | memoryview) -> int:
    return len(block) if type(block) is bytes else memoryview(block).nbytes


class NeedsGeneralWriter(Exception):
    """A response that `wire.proto` has to write."""


def _content_type(parameters: Parameters) -> str | None:
    """The only parameter that most responses have."""
    if parameters.__pydantic_extra__:
        raise NeedsGeneralWriter
    return parameters.content_type


@lru_cache(maxsize=1024)
def _head(model_name: str, model_version: str | None) -> bytes:
    return pb.ModelInferResponse(
        model_name=model_name, model_version=model_version or ""
    ).SerializeToString()


@lru_cache(maxsize=1024)
def _parameters(content_type: str | None) -> bytes:
    message = pb.ModelInferResponse()
    if content_type is not None:
        message.parameters["content_type"].string_param = content_type
    return message.SerializeToString()


@lru_cache(maxsize=1024)
def _output_head(
    name: str, datatype: str, shape: tuple[int, ...], content_type: str | None
) -> bytes:
    message = pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=shape)
    if content_type is not None:
        message.parameters["content_type"].string_param = content_type
    return message.SerializeToString()
