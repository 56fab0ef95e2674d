"""What all tables share: columns become input tensors, as the model's metadata wants them, and rows become items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...types import (
    InferenceRequest,
    MetadataModelResponse,
    MetadataTensor,
    Parameters,
    RequestInput,
    TensorData,
)
from ...utils import generate_uuid
from ..terminal import CommandError
from .items import ItemFailure, WorkItem


@dataclass(frozen=True)
class Column:
    """A column of the table and the input it becomes.

    Attributes:
        flat: The model wants [rows], not [rows, 1].
    """

    name: str
    datatype: str
    content_type: str | None = None
    flat: bool = False


@dataclass(frozen=True)
class Layout:
    """How rows become a request.

    Attributes:
        matrix: Name of the one input that all columns together are, side by side; None = an input per column.
        content_type: The request's.
    """

    columns: Sequence[Column]
    matrix: str | None = None
    content_type: str | None = None


def layout(
    names: Sequence[str], metadata: MetadataModelResponse | None, kinds: Mapping[str, str]
) -> Layout:
    """Match the columns with the inputs that the model names.

    A model that names its inputs gets those columns only. A model with one input as wide as the table gets all of them as
    its rows. Else each column is an input of the datatype that its values show.

    Args:
        kinds: Datatype of each column, by its values; read only where the model does not say.

    Raises:
        Failed: columns that the model needs are missing.
    """
    described = {tensor.name: tensor for tensor in (metadata.inputs if metadata else None) or []}
    own = metadata.parameters.content_type if metadata and metadata.parameters else None
    if not described:
        return Layout([Column(name, kinds[name]) for name in names], content_type=own or "pd")
    wanted = [name for name in names if name in described]
    if not wanted and len(described) == 1:
        [tensor] = described.values()
        if len(tensor.shape) == 2 and tensor.shape[1] in (-1, len(names)):
            return Layout([Column(name, str(tensor.datatype)) for name in names], tensor.name, own)
    missing = [
        name for name, tensor in described.items() if name not in wanted and _required(tensor)
    ]
    if missing:
        raise CommandError(
            f"the table has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, names))}"
        )
    return Layout([_column(described[name]) for name in wanted], content_type=own or "pd")


def _required(tensor: MetadataTensor) -> bool:
    extra = (tensor.parameters.model_extra or {}) if tensor.parameters else {}
    return extra.get("required") is not False


def _column(tensor: MetadataTensor) -> Column:
    content_type = tensor.parameters.content_type if tensor.parameters else None
    return Column(tensor.name, str(tensor.datatype), content_type, flat=len(tensor.shape) == 1)


@dataclass
class Rows:
    """Some rows of a table, column by column.

    Attributes:
        items: The numbers of the rows.
        values: For each column of the layout, its values for these rows; `None` is a missing number.
        failed: Rows that could not be read; they are not among `items`.
    """

    items: list[int]
    values: list[list[Any]]
    failed: dict[int, ItemFailure]

    def work(self, shape: Layout) -> WorkItem:
        """The request of these rows."""
        everything = sorted([*self.items, *self.failed])
        if not self.items:
            return WorkItem(
                everything, [0] * len(everything), [None] * len(everything), None, self.failed
            )
        request = InferenceRequest(
            id=generate_uuid(),
            inputs=list(self._inputs(shape)),
            parameters=Parameters(content_type=shape.content_type) if shape.content_type else None,
        )
        ones = [1] * len(self.items)
        halves = (
            None
            if len(self.items) == 1
            else lambda: (self._part(0).work(shape), self._part(1).work(shape))
        )
        return WorkItem(self.items, ones, [None] * len(self.items), request, self.failed, halves)

    def _part(self, which: int) -> Rows:
        middle = len(self.items) // 2
        part = slice(middle, None) if which else slice(0, middle)
        return Rows(self.items[part], [values[part] for values in self.values], {})

    def _inputs(self, shape: Layout) -> Iterator[RequestInput]:
        count = len(self.items)
        if shape.matrix is not None:
            flat = [value for row in zip(*self.values, strict=True) for value in row]
            yield _input(
                shape.matrix, [count, len(self.values)], shape.columns[0].datatype, None, flat
            )
            return
        for column, values in zip(shape.columns, self.values, strict=True):
            width = len(values[0]) if isinstance(values[0], list) else 0
            tail = [width] if width else [] if column.flat else [1]
            flat = [value for row in values for value in row] if width else values
            yield _input(column.name, [count, *tail], column.datatype, column.content_type, flat)


def _input(
    name: str, shape: list[int], datatype: str, content_type: str | None, values: list[Any]
) -> RequestInput:
    parameters = Parameters(content_type=content_type) if content_type else None
    tensor = RequestInput(
        name=name, shape=shape, datatype=datatype, data=TensorData(values), parameters=parameters
    )
    tensor.data.normalize(datatype, shape)
    return tensor
