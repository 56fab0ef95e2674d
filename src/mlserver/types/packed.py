"""Requests that hold their inputs packed: one block of rows instead of a tensor per column, made into tensors when looked at.

A table of one datatype is what most requests hold, and a dozen tensors of one number each cost more than everything else
on the road. What is packed says the same as the tensors it stands for; whoever asks for `inputs` gets those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from ..tensor import FORMATS, item_size
from .base import BaseModel
from .dataplane import InferenceRequest, Parameters, RequestInput, TensorData


class Rows(NamedTuple):
    """Rows of a table whose columns are inputs of one datatype.

    Attributes:
        names: Of the columns.
        datatype: Of all columns: one with a fixed width that `memoryview` knows.
        shape: The shape of each column without its first dimension: () or (1,).
        rows: How many there are.
        block: The elements row by row, in the binary encoding.
    """

    names: tuple[str, ...]
    datatype: str
    shape: tuple[int, ...]
    rows: int
    block: bytes | memoryview

    def inputs(self) -> list[RequestInput]:
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
            values = {"name": name, "shape": shape.copy(), "datatype": self.datatype, "parameters": None, "data": data}
            made.append(RequestInput.build(values))
        return made


class PackedRequest(InferenceRequest):
    """A request whose inputs are `Rows` until somebody looks at them."""

    @classmethod
    def of(cls, request_id: str | None, rows: Rows, parameters: Parameters | None = None) -> Self:
        made = cls.build({"id": request_id, "parameters": parameters, "outputs": None})
        made.__dict__["packed"] = rows
        made.__pydantic_fields_set__.add("inputs")
        return made

    def __getattr__(self, name: str) -> Any:
        # Called only for what is not there: `inputs`, until they were asked for.
        rows = self.__dict__.get("packed")
        if name != "inputs" or rows is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        del self.__dict__["packed"]
        self.__dict__["inputs"] = rows.inputs()
        return self.__dict__["inputs"]

    def model_dump(self, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        self.unpack()
        return super().model_dump(*arguments, **keywords)

    def model_dump_json(self, *arguments: Any, **keywords: Any) -> str:
        self.unpack()
        return super().model_dump_json(*arguments, **keywords)

    def __eq__(self, other: object) -> bool:
        # As messages, packed and unpacked are the same.
        for each in (self, other):
            if isinstance(each, PackedRequest):
                each.unpack()
        return isinstance(other, BaseModel) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def unpack(self) -> list[RequestInput]:
        """The inputs as tensors, from now on."""
        return self.inputs


def packed(request: InferenceRequest) -> Rows | None:
    """The rows of a request that is packed still, else None."""
    return request.__dict__.get("packed")


def join_rows(parts: Sequence[Rows]) -> Rows:
    """Rows of the same layout, one after the other."""
    first = parts[0]
    block = b"".join([part.block for part in parts])
    return Rows(first.names, first.datatype, first.shape, sum([part.rows for part in parts]), block)
