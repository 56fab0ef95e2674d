"""Messages that hold their tensors packed, and make them when somebody looks: a request of one table, a share of an answer.

A table of one datatype is what most requests hold, and a dozen tensors of one number each cost more than everything else
on the road; the answers of joined requests are rows of one answer. What is packed says the same as the tensors it stands for;
whoever asks for `inputs` or `outputs` gets those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self, overload

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

# Datatypes that rows may have -> `struct` code: those with a fixed width that `memoryview` knows, without BOOL.
ROW_CODES = {name: code for name, code in FORMATS.items() if code not in "?e"}


class LazyTensors(Protocol):
    """What a packed message holds."""

    def tensors(self) -> list[Any]:
        """The tensors that it stands for."""
        ...


class LazyMessage(BaseModel):
    """A message one field of which is `LazyTensors` until somebody looks at it."""

    _lazy: ClassVar[str]

    def __getattr__(self, name: str) -> Any:
        # Called only for what is not there: the tensors, until they were asked for.
        contents: LazyTensors | None = self.__dict__.get("packed")
        if name != self._lazy or contents is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        del self.__dict__["packed"]
        self.__dict__[name] = contents.tensors()
        return self.__dict__[name]

    def model_dump(self, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        self.unpack()
        return super().model_dump(*arguments, **keywords)

    def model_dump_json(self, *arguments: Any, **keywords: Any) -> str:
        self.unpack()
        return super().model_dump_json(*arguments, **keywords)

    def __eq__(self, other: object) -> bool:
        # As messages, packed and unpacked are the same.
        for each in (self, other):
            if isinstance(each, LazyMessage):
                each.unpack()
        return isinstance(other, BaseModel) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def unpack(self) -> list[Any]:
        """The tensors, from now on."""
        tensors: list[Any] = getattr(self, self._lazy)
        return tensors


class RowBlock(NamedTuple):
    """Rows of a table whose columns are inputs of one datatype.

    Attributes:
        names: Of the columns.
        datatype: Of all columns: one of `ROW_CODES`.
        shape: The shape of each column without its first dimension: () or (1,).
        rows: How many there are.
        block: The elements row by row, in the binary encoding.
    """

    names: tuple[str, ...]
    datatype: str
    shape: tuple[int, ...]
    rows: int
    block: bytes | memoryview

    def tensors(self) -> list[RequestInput]:
        """The tensors that the columns stand for."""
        width, size = len(self.names), item_size(self.datatype)
        shape = [self.rows, *self.shape]
        block = memoryview(self.block).cast("B")
        made = []
        for at, name in enumerate(self.names):
            if self.rows == 1:
                raw: bytes | memoryview = block[at * size : (at + 1) * size]
            else:
                code: Any = FORMATS[self.datatype]
                raw = block.cast(code)[at::width].tobytes()
            data = TensorData.trusted(raw, self.datatype, shape)
            values = {
                "name": name,
                "shape": shape.copy(),
                "datatype": self.datatype,
                "parameters": None,
                "data": data,
            }
            made.append(RequestInput.build(values))
        return made


class PackedRequest(LazyMessage, InferenceRequest):
    """A request whose inputs are `RowBlock` until somebody looks at them."""

    _lazy = "inputs"

    @classmethod
    def of(
        cls,
        request_id: str | None,
        rows: RowBlock,
        parameters: Parameters | None = None,
        outputs: list[RequestOutput] | None = None,
    ) -> Self:
        made = cls.build({"id": request_id, "parameters": parameters, "outputs": outputs})
        made.__dict__["packed"] = rows
        made.__pydantic_fields_set__.add("inputs")
        return made


def join_rows(parts: Sequence[RowBlock]) -> RowBlock:
    """Rows of the same layout, one after the other."""
    first = parts[0]
    block = b"".join([part.block for part in parts])
    return RowBlock(
        first.names, first.datatype, first.shape, sum([part.rows for part in parts]), block
    )


class BatchedOutputs:
    """The outputs of one answer to several requests. All hold numbers, in the binary encoding, row after row.

    Args:
        outputs: Each with `total` rows, in its shape and in its block.
        total: Rows of all requests.

    Attributes:
        raws: The elements of each output.
        steps: Bytes of one row of each output.
        shown: For a wire format: what all shares of so many rows have in common.
    """

    __slots__ = ("outputs", "raws", "shown", "steps")

    def __init__(self, outputs: list[ResponseOutput], total: int) -> None:
        self.outputs = outputs
        self.raws = [
            memoryview(output.data.to_raw(str(output.datatype), output.shape)).cast("B")
            for output in outputs
        ]
        self.steps = [raw.nbytes // total for raw in self.raws]
        self.shown: dict[int, Any] = {}


class OutputSlice(NamedTuple):
    """Some rows of a joined answer: the answer to one of its requests."""

    joined: BatchedOutputs
    start: int
    rows: int

    def raw(self, output: int) -> memoryview:
        """The elements of one output."""
        step = self.joined.steps[output]
        return self.joined.raws[output][self.start * step : (self.start + self.rows) * step]

    def block_shape(self, output: int) -> list[int]:
        """The shape that the model gave the elements; an output's own may have one dimension more."""
        whole = self.joined.outputs[output]
        block = whole.data.block_shape
        return [self.rows, *(whole.shape if block is None else block)[1:]]

    def tensors(self) -> list[ResponseOutput]:
        """The outputs that the shares stand for."""
        return [self._tensor(at, output) for at, output in enumerate(self.joined.outputs)]

    def _tensor(self, at: int, whole: ResponseOutput) -> ResponseOutput:
        data = TensorData.trusted(self.raw(at), str(whole.datatype), self.block_shape(at))
        values = {
            "name": whole.name,
            "shape": [self.rows, *whole.shape[1:]],
            "datatype": whole.datatype,
        }
        return ResponseOutput.build({**values, "parameters": whole.parameters, "data": data})


class PackedResponse(LazyMessage, InferenceResponse):
    """A response whose outputs are a `OutputSlice` until somebody looks at them."""

    _lazy = "outputs"

    @classmethod
    def of(
        cls, whole: InferenceResponse, parameters: Parameters | None, share: OutputSlice
    ) -> Self:
        """The share of one request in the answer to several."""
        head = {"model_name": whole.model_name, "model_version": whole.model_version, "id": None}
        made = cls.build({**head, "parameters": parameters})
        made.__dict__["packed"] = share
        made.__pydantic_fields_set__.add("outputs")
        return made


@overload
def packed(message: InferenceRequest) -> RowBlock | None: ...


@overload
def packed(message: InferenceResponse) -> OutputSlice | None: ...


def packed(message: Any) -> Any:
    """What a message holds that is packed still, else None."""
    values = message.__dict__
    contents = values.get("packed")
    return None if contents is None or message._lazy in values else contents
