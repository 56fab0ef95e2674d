"""Requests backed by one block of rows, and responses backed by a slice of a batch's outputs.

Most requests hold one table of one datatype. Twelve tensors of one number each cost more to build,
check, join and send than all other stages together, so such a request stays one `RowBlock` from the
wire format to the model:

- `request.rows` is the block, or None for a request that holds tensors.
- `request.inputs` is computed from the block when it is first read, and cached. The tensors may
  then be changed by the caller, so from that moment `request.rows` is None.

`response.output_slice` and `response.outputs` of a response to one request of a batch behave the
same. Measured (docs/explanation/decisions/row-block.md, `make bench-micro`): frames 4.3 times,
batch keys 5.7 times, joins of 16 requests 11 times and validation 3 times as fast as with tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

from ..tensor import FORMATS, item_size
from .base import BaseModel
from .dataplane import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    RequestOutput,
    ResponseOutput,
    TensorData,
)

# Datatype of a block -> `struct` code: fixed widths that `memoryview.cast` supports, without BOOL
# and FP16.
ROW_CODES = {name: code for name, code in FORMATS.items() if code not in "?e"}
_REQUEST_FIELDS = tuple(InferenceRequest.model_fields)
_RESPONSE_FIELDS = tuple(InferenceResponse.model_fields)


class RowBlock(NamedTuple):
    """Rows of a table whose columns are inputs of one datatype.

    Attributes:
        names: The columns' names.
        datatype: The columns' datatype, one of `ROW_CODES`.
        shape: The shape of each column without its first dimension: () or (1,).
        row_count: Number of rows.
        block: The elements in row-major order, in the binary encoding.
    """

    names: tuple[str, ...]
    datatype: str
    shape: tuple[int, ...]
    row_count: int
    block: bytes | memoryview

    def to_inputs(self) -> list[RequestInput]:
        """Return one tensor per column."""
        return [self._to_input(index, name) for index, name in enumerate(self.names)]

    def _to_input(self, index: int, name: str) -> RequestInput:
        shape = [self.row_count, *self.shape]
        data = TensorData.from_trusted_raw(self._read_column(index), self.datatype, shape)
        return RequestInput.build(
            {
                "name": name,
                "shape": shape.copy(),
                "datatype": self.datatype,
                "parameters": None,
                "data": data,
            }
        )

    def _read_column(self, index: int) -> bytes | memoryview:
        block = memoryview(self.block).cast("B")
        if self.row_count == 1:
            size = item_size(self.datatype)
            return block[index * size : (index + 1) * size]
        code: Any = FORMATS[self.datatype]
        return block.cast(code)[index :: len(self.names)].tobytes()


def join_rows(parts: Sequence[RowBlock]) -> RowBlock:
    """Concatenate blocks of the same columns, datatype and shape."""
    names, datatype, shape, _, _ = parts[0]
    row_count = sum([part.row_count for part in parts])
    return RowBlock(names, datatype, shape, row_count, b"".join([part.block for part in parts]))


class BatchedOutputs:
    """The outputs of one response to several requests: fixed-width numbers, row after row.

    Args:
        outputs: The outputs, with `row_count` rows each.
        row_count: Rows of all requests.

    Attributes:
        blocks: The elements of each output, in the binary encoding.
        row_sizes: Bytes of one row of each output.
        json_heads: Rows of a slice -> the JSON before the data of each output (filled by
            `wire.json`).
    """

    __slots__ = ("blocks", "json_heads", "outputs", "row_sizes")

    def __init__(self, outputs: list[ResponseOutput], row_count: int) -> None:
        self.outputs = outputs
        self.blocks = [
            memoryview(output.data.to_raw(str(output.datatype), output.shape)).cast("B")
            for output in outputs
        ]
        self.row_sizes = [block.nbytes // row_count for block in self.blocks]
        self.json_heads: dict[int, list[bytes]] = {}


class OutputSlice(NamedTuple):
    """Consecutive rows of batched outputs: the outputs of one request of the batch."""

    batch: BatchedOutputs
    start: int
    row_count: int

    def read_block(self, index: int) -> memoryview:
        """Return the elements of one output."""
        size = self.batch.row_sizes[index]
        return self.batch.blocks[index][self.start * size : (self.start + self.row_count) * size]

    def block_shape(self, index: int) -> list[int]:
        """Return the shape in which the model returned one output.

        `ResponseOutput.shape` may add a dimension.
        """
        output = self.batch.outputs[index]
        shape = output.data.block_shape
        return [self.row_count, *(output.shape if shape is None else shape)[1:]]

    def to_outputs(self) -> list[ResponseOutput]:
        """Return one tensor per output."""
        return [self._to_output(index) for index in range(len(self.batch.outputs))]

    def _to_output(self, index: int) -> ResponseOutput:
        output = self.batch.outputs[index]
        data = TensorData.from_trusted_raw(
            self.read_block(index), str(output.datatype), self.block_shape(index)
        )
        return ResponseOutput.build(
            {
                "name": output.name,
                "shape": [self.row_count, *output.shape[1:]],
                "datatype": output.datatype,
                "parameters": output.parameters,
                "data": data,
            }
        )


class _BlockMessage(BaseModel):
    """A message whose tensors are computed from a block.

    The block is in the instance's dictionary under `_block_key` until the tensors are in it under
    `_tensors_key`.
    """

    _block_key: ClassVar[str]
    _tensors_key: ClassVar[str]

    def read_tensors(self) -> list[Any]:
        """Return the tensors; the block is released."""
        tensors: list[Any] = getattr(self, self._tensors_key)
        self.__dict__.pop(self._block_key, None)
        return tensors

    def model_dump(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self.read_tensors()
        return super().model_dump(*args, **kwargs)

    def model_dump_json(self, *args: Any, **kwargs: Any) -> str:
        self.read_tensors()
        return super().model_dump_json(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        """Compare the tensors, whichever of the two messages is backed by a block."""
        for message in (self, other):
            if isinstance(message, _BlockMessage):
                message.read_tensors()
        return isinstance(other, BaseModel) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


class RowBlockRequest(_BlockMessage, InferenceRequest):
    """A request backed by a `RowBlock`."""

    _block_key = "rows"
    _tensors_key = "inputs"

    @classmethod
    def from_rows(
        cls,
        rows: RowBlock,
        request_id: str | None = None,
        parameters: Parameters | None = None,
        outputs: list[RequestOutput] | None = None,
    ) -> Self:
        """Return a request whose inputs are the columns of `rows`."""
        values = {"id": request_id, "parameters": parameters, "outputs": outputs, "rows": rows}
        return cls.build(values, _REQUEST_FIELDS)


class OutputSliceResponse(_BlockMessage, InferenceResponse):
    """A response backed by an `OutputSlice`."""

    _block_key = "output_slice"
    _tensors_key = "outputs"

    @classmethod
    def from_slice(
        cls, batched: InferenceResponse, parameters: Parameters | None, output_slice: OutputSlice
    ) -> Self:
        """Return the response to one request of a batch.

        Args:
            batched: The response to the batch.
            parameters: The parameters of the new response.
            output_slice: The rows of the request.
        """
        values = {
            "model_name": batched.model_name,
            "model_version": batched.model_version,
            "id": None,
            "parameters": parameters,
            "output_slice": output_slice,
        }
        return cls.build(values, _RESPONSE_FIELDS)


def _compute_field(message_class: type[_BlockMessage], compute: Callable[[Any], Any]) -> None:
    """Make a class's tensors a cached property.

    Assigned to the finished class: pydantic takes a property in the class body for the field's
    default value.
    """
    field = cached_property(compute)
    field.__set_name__(message_class, message_class._tensors_key)
    setattr(message_class, message_class._tensors_key, field)


_compute_field(RowBlockRequest, lambda request: request.__dict__.pop("rows").to_inputs())
_compute_field(
    OutputSliceResponse, lambda response: response.__dict__.pop("output_slice").to_outputs()
)
