"""The workers' wire: one frame per message, shared by both ends. Pure: bytes in, messages out; no sockets, no pickle.

A frame is a fixed prefix, the lengths of its buffers, a head in MessagePack and the buffers:

    kind u8 | flags u8 | buffers u16 | head length u32 | id u64 | total of the buffers u64      (24 bytes)
    length u64, once per buffer
    head
    buffers

Small tensors travel inside the head; a tensor of `INLINE_LIMIT` bytes or more is a buffer of its own and is never copied
by the encoder.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgspec

from ...errors import MLServerError, describe
from ...tensor import FORMATS, TensorError
from ...types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    RequestOutput,
    ResponseOutput,
    TensorData,
)
from ...types.row_block import RowBlock, RowBlockRequest

PREFIX = struct.Struct("<BBHIQQ")
INLINE_LIMIT = 16 * 1024
MAX_HEAD = 1 << 31
MAX_BODY = 1 << 40


class MessageType(IntEnum):
    """What a frame asks for or tells. The first group goes to a worker, the second comes from it."""

    INIT = 1
    LOAD = 2
    UNLOAD = 3
    INFER = 4
    STREAM = 5
    ROUTE = 6
    CANCEL = 7
    PING = 8
    ITEM = 9  # both ways: one message of a stream
    PULL = 10  # both ways: the reader wants the next message of a stream
    END = 11  # both ways: the stream is over

    METADATA = 12

    READY = 20
    REPLY = 21
    ERROR = 22
    METRICS = 23

    # Between the server's own process and its further front ends: what that tells and asks, and what they ask.
    STATE = 30
    START_SERVING = 31
    WAIT_RELEASED = 32
    DRAIN = 33
    COLLECT_STATS = 34
    STOP_SERVING = 35
    LAST_ANSWERS = 36
    REPOSITORY = 40
    STATISTICS = 41
    REPORT_STUCK = 42
    WORKER_LOST = 43
    METRICS_PAGE = 44


class FrameError(ValueError):
    """Bytes that are no frame: the peer is broken, the connection cannot go on."""


@dataclass(slots=True)
class Frame:
    kind: int
    id: int
    head: Any
    buffers: Sequence[memoryview | bytes] = ()


def plain_value(value: Any) -> Any:
    """Values in free parameters that MessagePack does not know: NumPy scalars and arrays as Python, others as text."""
    if isinstance(value, TensorData):
        return value.root
    as_list = getattr(value, "tolist", None)
    if as_list is not None:
        return as_list()
    dump = getattr(value, "model_dump", None)
    return dump() if dump is not None else str(value)


_encoder = msgspec.msgpack.Encoder(enc_hook=plain_value)
_decoder = msgspec.msgpack.Decoder()


def encode(frame: Frame) -> list[bytes | memoryview]:
    """The parts to write, in order. Large buffers are passed on as they are.

    Raises:
        MLServerError: a parameter or element is no plain value, too large a number, or nested too deep.
    """
    try:
        head = _encoder.encode(frame.head)
    except Exception as error:  # a value's own `tolist` or `__str__` may raise anything
        raise MLServerError(f"A value cannot travel between server and model: {error}") from None
    buffers = [memoryview(buffer).cast("B") for buffer in frame.buffers]
    total = sum(buffer.nbytes for buffer in buffers)
    prefix = PREFIX.pack(frame.kind, 0, len(buffers), len(head), frame.id, total)
    if not buffers:
        return [prefix + head]
    lengths = struct.pack(f"<{len(buffers)}Q", *(buffer.nbytes for buffer in buffers))
    return [prefix + lengths + head, *buffers]


def is_encodable(value: Any) -> bool:
    """Whether a value can be part of a frame's head."""
    try:
        _encoder.encode(value)
    except Exception:
        return False
    return True


class FrameReader:
    """Bytes in any slices -> frames. `get_buffer` and `filled` follow asyncio's buffered protocol.

    Small frames are cut out of one receive buffer; a frame larger than it is received straight into its own memory.
    """

    def __init__(self, buffer_size: int = 256 * 1024) -> None:
        self._buffer = bytearray(buffer_size)
        self._start = self._end = 0
        self._large: bytearray | None = None
        self._large_at = 0

    def get_buffer(self) -> memoryview:
        if self._large is not None:
            return memoryview(self._large)[self._large_at :]
        if self._start:
            self._buffer[: self._end - self._start] = self._buffer[self._start : self._end]
            self._start, self._end = 0, self._end - self._start
        return memoryview(self._buffer)[self._end :]

    def filled(self, count: int) -> list[Frame]:
        """`count` more bytes are in the buffer: the frames that are now whole."""
        if self._large is not None:
            self._large_at += count
            if self._large_at < len(self._large):
                return []
            whole, self._large = self._large, None
            return [_decode(memoryview(whole))]
        self._end += count
        frames: list[Frame] = []
        view = memoryview(self._buffer)
        while self._end - self._start >= PREFIX.size:
            size = frame_size(view[self._start : self._end])
            if size > self._end - self._start:
                self._expect(size)
                break
            # The receive buffer is written again at once, so a frame that holds views gets its own copy.
            frames.append(_decode(memoryview(bytes(view[self._start : self._start + size]))))
            self._start += size
        return frames

    def _expect(self, size: int) -> None:
        if size <= len(self._buffer):
            return
        have = self._end - self._start
        self._large = bytearray(size)
        self._large[:have] = self._buffer[self._start : self._end]
        self._large_at, self._start, self._end = have, 0, 0


def frame_size(view: memoryview) -> int:
    """Bytes of the whole frame that begins here; `view` holds at least its prefix."""
    kind, _, count, head, _, total = PREFIX.unpack_from(view)
    if not kind or head > MAX_HEAD or total > MAX_BODY:
        raise FrameError(f"no frame begins with {bytes(view[: PREFIX.size])!r}")
    return int(PREFIX.size + 8 * count + head + total)


def _decode(view: memoryview) -> Frame:
    kind, _, count, head_size, frame_id, _ = PREFIX.unpack_from(view)
    lengths = struct.unpack_from(f"<{count}Q", view, PREFIX.size) if count else ()
    at = PREFIX.size + 8 * count
    try:
        head = _decoder.decode(view[at : at + head_size])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from None
    at += head_size
    buffers = []
    for length in lengths:
        buffers.append(view[at : at + length])
        at += length
    if at != view.nbytes:
        raise FrameError("a frame's buffers do not fill it")
    return Frame(kind, frame_id, head, buffers)


# -- messages --


def pack_request(request: InferenceRequest, buffers: list[Any]) -> list[Any]:
    """A request as plain values; the data of large tensors is appended to `buffers`."""
    wanted = request.outputs
    outputs = (
        None
        if wanted is None
        else [[output.name, pack_parameters(output.parameters)] for output in wanted]
    )
    rows = request.rows
    if rows is None:
        inputs: Any = [_pack_tensor(tensor, buffers) for tensor in request.inputs]
    else:
        block: Any = rows.block
        if len(block) >= INLINE_LIMIT:
            buffers.append(block)
            block = len(buffers) - 1
        inputs = {"rows": [*rows[:4], block]}
    return [request.id, pack_parameters(request.parameters), inputs, outputs]


def unpack_request(values: list[Any], buffers: Sequence[Any]) -> InferenceRequest:
    request_id, parameters, inputs, wanted = values
    outputs = None if wanted is None else [_unpack_requested(*output) for output in wanted]
    if isinstance(inputs, dict):
        names, datatype, shape, count, block = inputs["rows"]
        block = buffers[block] if isinstance(block, int) else block
        rows = RowBlock(tuple(names), datatype, tuple(shape), count, block)
        return RowBlockRequest.from_rows(rows, request_id, unpack_parameters(parameters), outputs)
    return InferenceRequest.build(
        {
            "id": request_id,
            "parameters": unpack_parameters(parameters),
            "inputs": [RequestInput.build(_unpack_tensor(tensor, buffers)) for tensor in inputs],
            "outputs": outputs,
        }
    )


def pack_response(response: InferenceResponse, buffers: list[Any]) -> list[Any]:
    """A response as plain values; the data of large tensors is appended to `buffers`.

    Raises:
        MLServerError: an output's data does not fit the datatype and shape that the model gave it.
    """
    return [
        response.model_name,
        response.model_version,
        response.id,
        pack_parameters(response.parameters),
        [_pack_tensor(tensor, buffers) for tensor in response.outputs],
    ]


def unpack_response(values: list[Any], buffers: Sequence[Any]) -> InferenceResponse:
    name, version, response_id, parameters, outputs = values
    return InferenceResponse.build(
        {
            "model_name": name,
            "model_version": version,
            "id": response_id,
            "parameters": unpack_parameters(parameters),
            "outputs": [
                ResponseOutput.build(_unpack_tensor(tensor, buffers)) for tensor in outputs
            ],
        }
    )


def pack_parameters(parameters: Parameters | None) -> dict[str, Any] | None:
    return None if parameters is None else parameters.to_dict()


def unpack_parameters(values: dict[str, Any] | None) -> Parameters | None:
    return None if values is None else Parameters.from_values(values)


def _pack_tensor(tensor: RequestInput | ResponseOutput, buffers: list[Any]) -> list[Any]:
    data, datatype, shape = tensor.data, str(tensor.datatype), list(tensor.shape)
    block_shape = data.block_shape
    if block_shape is not None:
        block_shape = None if list(block_shape) == shape else list(block_shape)
    content: Any
    if datatype in FORMATS or datatype == "BF16" or data.raw is not None:
        try:
            content = data.to_raw(datatype, shape)
        except TensorError as error:
            raise MLServerError(f"Tensor '{tensor.name}': {error}", 500) from None
        if len(content) >= INLINE_LIMIT:
            buffers.append(content)
            content = len(buffers) - 1
    else:
        content = [data.root]
    return [tensor.name, datatype, shape, pack_parameters(tensor.parameters), content, block_shape]


def _unpack_tensor(values: list[Any], buffers: Sequence[Any]) -> dict[str, Any]:
    name, datatype, shape, parameters, content, block_shape = values
    if isinstance(content, list):
        data = TensorData(content[0])
    else:
        raw = buffers[content] if isinstance(content, int) else content
        data = TensorData.from_trusted_raw(
            raw, datatype, shape if block_shape is None else block_shape
        )
    return {
        "name": name,
        "shape": shape,
        "datatype": datatype,
        "parameters": None if parameters is None else Parameters.from_values(parameters),
        "data": data,
    }


def _unpack_requested(name: str, parameters: dict[str, Any] | None) -> RequestOutput:
    return RequestOutput.build({"name": name, "parameters": unpack_parameters(parameters)})


def pack_error(error: BaseException) -> dict[str, Any]:
    """An exception as plain values: what a caller may see, never a traceback."""
    if isinstance(error, MLServerError):
        return {
            "message": error.message,
            "status": error.status_code,
            "code": error.code,
            "details": error.details,
        }
    return {"message": describe(error), "status": 500, "code": "INTERNAL", "details": None}


def unpack_error(values: dict[str, Any]) -> MLServerError:
    return MLServerError(
        values["message"], values["status"], code=values["code"], details=values["details"]
    )
