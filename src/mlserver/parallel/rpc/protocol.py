"""Wire protocol between the server's processes: one frame per message; no sockets.

A frame is a fixed prefix, the lengths of its buffers, a head in MessagePack, and the buffers:

    kind u8 | flags u8 | buffers u16 | head length u32 | id u64 | total of the buffers u64      (24
    bytes) length u64, once per buffer head buffers

The head contains small tensors; a tensor of `INLINE_LIMIT` bytes or more is a separate buffer,
which the encoder does not copy. No pickle: see docs/explanation/decisions/frames.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgspec

from ...errors import MLServerError, format_exception, remove_paths
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
    """The kind of a frame. Numbers are part of the protocol."""

    # To a worker.

    INIT = 1
    LOAD = 2
    UNLOAD = 3
    INFER = 4
    STREAM = 5
    ROUTE = 6
    CANCEL = 7
    PING = 8
    ITEM = 9  # both directions: one message of a stream
    PULL = 10  # both directions: the reader requests the next message of a stream
    END = 11  # both directions: the end of a stream

    METADATA = 12
    RESOLVE_SOURCE = 13

    # From a worker.
    READY = 20
    REPLY = 21
    ERROR = 22
    METRICS = 23
    STALLED = 24
    IMPORTED = 25  # names of modules that it has imported
    ABANDONED = 26  # number of a model's functions that run although their callers are gone

    # Between the server's process and an HTTP worker; the last six are sent by the HTTP worker.
    STATE = 30
    START_SERVING = 31
    WAIT_RELEASED = 32
    DRAIN = 33
    COLLECT_STATS = 34
    STOP_SERVING = 35
    LAST_ANSWERS = 36
    COLLECT_ERRORS = 37
    REPOSITORY = 40
    STATISTICS = 41
    REPORT_STUCK = 42
    WORKER_LOST = 43
    METRICS_PAGE = 44
    MONITORING = 45

    # Between the server's process and the agent of a Ray cluster, and from a replica that ends.
    CLUSTER = 50
    CLUSTER_STATE = 51
    LEAVING = 52


class FrameError(ValueError):
    """Invalid bytes from the peer; the connection cannot be used any more."""


@dataclass(slots=True)
class Frame:
    """One message."""

    kind: int
    id: int
    head: Any
    buffers: Sequence[memoryview | bytes] = ()


def plain_value(value: Any) -> Any:
    """Return a MessagePack value: NumPy values as Python values, other objects as text."""
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
    """Return the parts to write, in order. Buffers are not copied.

    Raises:
        MLServerError: a parameter or element is not a plain value, exceeds 64 bits, or is nested
            too deeply.
    """
    try:
        head = _encoder.encode(frame.head)
    except Exception as error:  # a value's own `tolist` or `__str__` may raise anything
        raise MLServerError(f"Message cannot be serialized for another process: {error}") from None
    if not frame.buffers:
        return [PREFIX.pack(frame.kind, 0, 0, len(head), frame.id, 0) + head]
    buffers = [memoryview(buffer).cast("B") for buffer in frame.buffers]
    sizes = [buffer.nbytes for buffer in buffers]
    prefix = PREFIX.pack(frame.kind, 0, len(buffers), len(head), frame.id, sum(sizes))
    return [prefix + struct.pack(f"<{len(sizes)}Q", *sizes) + head, *buffers]


def is_encodable(value: Any) -> bool:
    """Whether a value can be part of a frame's head."""
    try:
        _encoder.encode(value)
    except Exception:
        return False
    return True


class FrameReader:
    """Incremental parser: bytes in slices of any size -> frames.

    `get_buffer` and `filled` follow `asyncio.BufferedProtocol`. Small frames are copied from one
    receive buffer; a frame larger than that buffer is received directly into its own memory.
    """

    def __init__(self, buffer_size: int = 256 * 1024) -> None:
        self._buffer = bytearray(buffer_size)
        self._start = self._end = 0
        self._large: bytearray | None = None
        self._large_end = 0

    def get_buffer(self) -> memoryview:
        if self._large is not None:
            return memoryview(self._large)[self._large_end :]
        if self._start:
            self._buffer[: self._end - self._start] = self._buffer[self._start : self._end]
            self._start, self._end = 0, self._end - self._start
        return memoryview(self._buffer)[self._end :]

    def filled(self, count: int) -> list[Frame]:
        """Return the frames that are complete after `count` more bytes in the buffer."""
        if self._large is not None:
            self._large_end += count
            if self._large_end < len(self._large):
                return []
            data, self._large = self._large, None
            return [_decode(memoryview(data))]
        self._end += count
        frames: list[Frame] = []
        view = memoryview(self._buffer)
        while self._end - self._start >= PREFIX.size:
            size = frame_size(view[self._start : self._end])
            if size > self._end - self._start:
                self._expect(size)
                break
            # The receive buffer is overwritten next, so each frame gets a copy for its views.
            frames.append(_decode(memoryview(bytes(view[self._start : self._start + size]))))
            self._start += size
        return frames

    def _expect(self, size: int) -> None:
        if size <= len(self._buffer):
            return
        received = self._end - self._start
        self._large = bytearray(size)
        self._large[:received] = self._buffer[self._start : self._end]
        self._large_end, self._start, self._end = received, 0, 0


def frame_size(view: memoryview) -> int:
    """Return the size of the frame at the start of `view`, which contains at least the prefix."""
    kind, _, count, head, _, total = PREFIX.unpack_from(view)
    if not kind or head > MAX_HEAD or total > MAX_BODY:
        raise FrameError(f"invalid prefix {bytes(view[: PREFIX.size])!r}")
    return int(PREFIX.size + 8 * count + head + total)


def _decode(view: memoryview) -> Frame:
    kind, _, count, head_size, frame_id, _ = PREFIX.unpack_from(view)
    lengths = struct.unpack_from(f"<{count}Q", view, PREFIX.size) if count else ()
    offset = PREFIX.size + 8 * count
    try:
        head = _decoder.decode(view[offset : offset + head_size])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from None
    offset += head_size
    buffers = []
    for length in lengths:
        buffers.append(view[offset : offset + length])
        offset += length
    if offset != view.nbytes:
        raise FrameError("the lengths of a frame do not match its size")
    return Frame(kind, frame_id, head, buffers)


# -- messages --


def pack_request(request: InferenceRequest, buffers: list[Any]) -> list[Any]:
    """Return a request as plain values; the data of large tensors is appended to `buffers`."""
    outputs: list[Any] | None = None
    if request.outputs is not None:
        outputs = [[output.name, pack_parameters(output.parameters)] for output in request.outputs]
    rows = request.rows
    if rows is None:
        inputs: Any = [_pack_tensor(tensor, buffers) for tensor in request.inputs]
    else:
        block: Any = rows.block
        if len(block) >= INLINE_LIMIT:
            buffers.append(block)
            block = len(buffers) - 1
        inputs = {"rows": [*rows[:4], block]}
    parameters = request.parameters
    return [request.id, None if parameters is None else parameters.to_dict(), inputs, outputs]


def unpack_request(values: list[Any], buffers: Sequence[Any]) -> InferenceRequest:
    request_id, parameters, inputs, outputs = values
    if outputs is not None:
        outputs = [_unpack_requested_output(*output) for output in outputs]
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
    """Return a response as plain values; the data of large tensors is appended to `buffers`.

    Raises:
        MLServerError: an output's data does not match its datatype and shape.
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
    tensors = []
    for output in outputs:
        tensors.append(ResponseOutput.build(_unpack_tensor(output, buffers)))
    return InferenceResponse.build(
        {
            "model_name": name,
            "model_version": version,
            "id": response_id,
            "parameters": None if parameters is None else Parameters.from_values(parameters),
            "outputs": tensors,
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


def _unpack_requested_output(name: str, parameters: dict[str, Any] | None) -> RequestOutput:
    return RequestOutput.build({"name": name, "parameters": unpack_parameters(parameters)})


def pack_error(error: BaseException) -> dict[str, Any]:
    """Return an exception as plain values; the traceback of a model's is for administrators."""
    if isinstance(error, MLServerError):
        return {
            "message": error.message,
            "status": error.status_code,
            "code": error.code,
            "details": error.details,
            "retry_after": error.retry_after,
            "traceback": error.traceback,
        }
    message = remove_paths(format_exception(error))
    return {"message": message, "status": 500, "code": "INTERNAL", "details": None}


def unpack_error(values: dict[str, Any]) -> MLServerError:
    error = MLServerError(
        values["message"], values["status"], code=values["code"], details=values["details"]
    )
    error.retry_after = values.get("retry_after")
    error.traceback = values.get("traceback")
    return error
