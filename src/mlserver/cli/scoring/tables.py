"""Conversion of table rows to requests: columns become input tensors, rows become items."""

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

DEFAULT_CONTENT_TYPE = "pd"


@dataclass(frozen=True)
class Column:
    """A column of the table, and the input tensor it becomes.

    Attributes:
        is_flat: The tensor's shape is [rows]; otherwise [rows, 1].
    """

    name: str
    datatype: str
    content_type: str | None = None
    is_flat: bool = False


@dataclass(frozen=True)
class TableLayout:
    """Columns that are sent, and how they form a request.

    Attributes:
        matrix: Name of the one input [rows, columns] that all columns form; None = an input per
            column.
        content_type: Content type of the request.
    """

    columns: Sequence[Column]
    matrix: str | None = None
    content_type: str | None = None


def match_columns(
    names: Sequence[str], metadata: MetadataModelResponse | None, datatypes: Mapping[str, str]
) -> TableLayout:
    """Match the table's columns with the inputs in the model's metadata.

    A model with named inputs receives those columns only. A model with one input as wide as the
    table receives each row as a row of that input. Without metadata, each column is an input.

    Args:
        datatypes: Datatype of each column, inferred from its values; used without metadata only.

    Raises:
        CommandError: a required column is missing.
    """
    inputs = (metadata.inputs if metadata else None) or []
    content_type = metadata.parameters.content_type if metadata and metadata.parameters else None
    if not inputs:
        columns = [Column(name, datatypes[name]) for name in names]
        return TableLayout(columns, content_type=content_type or DEFAULT_CONTENT_TYPE)

    inputs_by_name = {tensor.name: tensor for tensor in inputs}
    matched = [name for name in names if name in inputs_by_name]
    if not matched and _is_matrix(inputs, len(names)):
        [tensor] = inputs
        columns = [Column(name, str(tensor.datatype)) for name in names]
        return TableLayout(columns, tensor.name, content_type)

    required = [tensor.name for tensor in inputs if _is_required(tensor)]
    missing = [name for name in required if name not in matched]
    if missing:
        raise CommandError(
            f"the table has no column {_quote(missing)}; its columns are {_quote(names)}"
        )
    columns = [_to_column(inputs_by_name[name]) for name in matched]
    return TableLayout(columns, content_type=content_type or DEFAULT_CONTENT_TYPE)


def _is_matrix(inputs: Sequence[MetadataTensor], width: int) -> bool:
    if len(inputs) != 1:
        return False
    shape = inputs[0].shape
    return len(shape) == 2 and shape[1] in (-1, width)


def _is_required(tensor: MetadataTensor) -> bool:
    extra = (tensor.parameters.model_extra or {}) if tensor.parameters else {}
    return extra.get("required") is not False


def _to_column(tensor: MetadataTensor) -> Column:
    content_type = tensor.parameters.content_type if tensor.parameters else None
    return Column(tensor.name, str(tensor.datatype), content_type, is_flat=len(tensor.shape) == 1)


def _quote(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


@dataclass
class TableRows:
    """Rows of a table, stored by column.

    Attributes:
        items: Indices of the rows.
        values: Values of each column of the layout; `None` is a missing number.
        failed: Rows that could not be read; they are not among `items`.
    """

    items: list[int]
    values: list[list[Any]]
    failed: dict[int, ItemFailure]

    @classmethod
    def create_empty(cls, width: int) -> TableRows:
        """Return no rows of `width` columns."""
        return cls([], [[] for _ in range(width)], {})

    def append(self, item: int, row: Sequence[Any]) -> None:
        """Add one row."""
        self.items.append(item)
        for values, value in zip(self.values, row, strict=True):
            values.append(value)

    def to_work_item(self, layout: TableLayout) -> WorkItem:
        """Return the request of these rows."""
        if not self.items:
            items = sorted(self.failed)
            count = len(items)
            return WorkItem(items, [0] * count, [None] * count, None, self.failed)

        def make_halves() -> tuple[WorkItem, WorkItem]:
            middle = len(self.items) // 2
            first, second = self._slice(slice(middle)), self._slice(slice(middle, None))
            return first.to_work_item(layout), second.to_work_item(layout)

        count = len(self.items)
        return WorkItem(
            self.items,
            [1] * count,
            [None] * count,
            self._to_request(layout),
            self.failed,
            make_halves if count > 1 else None,
        )

    def _slice(self, part: slice) -> TableRows:
        return TableRows(self.items[part], [values[part] for values in self.values], {})

    def _to_request(self, layout: TableLayout) -> InferenceRequest:
        content_type = layout.content_type
        return InferenceRequest(
            id=generate_uuid(),
            inputs=list(self._make_inputs(layout)),
            parameters=Parameters(content_type=content_type) if content_type else None,
        )

    def _make_inputs(self, layout: TableLayout) -> Iterator[RequestInput]:
        count = len(self.items)
        if layout.matrix is not None:
            values = [value for row in zip(*self.values, strict=True) for value in row]
            shape = [count, len(self.values)]
            yield _make_input(layout.matrix, shape, layout.columns[0].datatype, None, values)
            return
        for column, values in zip(layout.columns, self.values, strict=True):
            shape = [count] if column.is_flat else [count, 1]
            if isinstance(values[0], list) and values[0]:
                shape = [count, len(values[0])]
                values = [value for row in values for value in row]
            yield _make_input(column.name, shape, column.datatype, column.content_type, values)


def _make_input(
    name: str, shape: list[int], datatype: str, content_type: str | None, values: list[Any]
) -> RequestInput:
    parameters = Parameters(content_type=content_type) if content_type else None
    tensor = RequestInput(
        name=name, shape=shape, datatype=datatype, data=TensorData(values), parameters=parameters
    )
    tensor.data.normalize(datatype, shape)
    return tensor
