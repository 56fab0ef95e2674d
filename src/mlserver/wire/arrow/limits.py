"""How much memory an Arrow stream would take, told before it is taken. Pure.

Three things in a small stream can become large: compressed buffers, texts that are referred to again and again, and
columns of nothing. The first is read from the messages' heads (FlatBuffers), so that nothing is decompressed to find out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from ...errors import InvalidPayload, PayloadTooLarge

_CONTINUATION = 0xFFFFFFFF
_DICTIONARY, _RECORDS = 2, 3  # kinds of messages that have buffers
_EACH = 8  # bytes that an element is counted as, beside its own


def check(body: bytes | memoryview, limit: int) -> None:
    """Refuse a stream whose buffers are larger than `limit` once decompressed.

    Raises:
        PayloadTooLarge: they are.
        InvalidPayload: the bytes are no stream.
    """
    view = memoryview(body)
    total = 0
    try:
        for message, start in _messages(view):
            total += sum(_sizes(message, view, start))
            if total > limit:
                raise PayloadTooLarge(limit)
    except (struct.error, IndexError):
        raise InvalidPayload(
            "Invalid body: expected an Arrow stream, received a broken message"
        ) from None


def _messages(view: memoryview) -> Iterator[tuple[_Table, int]]:
    """Each message's head, and where its buffers begin."""
    at = 0
    while at < view.nbytes:
        (size,) = struct.unpack_from("<I", view, at)
        at += 4
        if size == _CONTINUATION:
            (size,) = struct.unpack_from("<I", view, at)
            at += 4
        if not size:
            return
        message = _Table.root(view[at : at + size])
        at += size
        yield message, at
        at += max(0, message.number(3, "<q"))


def _sizes(message: _Table, view: memoryview, start: int) -> Iterator[int]:
    kind = message.number(1, "<B")
    records = message.table(2) if kind in (_DICTIONARY, _RECORDS) else None
    if records is not None and kind == _DICTIONARY:
        records = records.table(1)
    if records is None:
        return
    compressed = records.table(3) is not None
    for offset, length in records.pairs(2):
        if not compressed or length < 8:
            yield max(0, length)
            continue
        (size,) = struct.unpack_from("<q", view, start + offset)
        if size < -1 or offset < 0:
            raise struct.error
        yield length - 8 if size == -1 else size


class _Table:
    """One table of FlatBuffers: fields found through a table of offsets."""

    def __init__(self, view: memoryview, at: int) -> None:
        self._view = view
        self._at = at
        (back,) = struct.unpack_from("<i", view, at)
        self._fields = at - back
        if self._fields < 0:
            raise struct.error
        (self._size,) = struct.unpack_from("<H", view, self._fields)

    @classmethod
    def root(cls, view: memoryview) -> _Table:
        return cls(view, struct.unpack_from("<I", view)[0])

    def _place(self, field: int) -> int:
        """Where a field is; 0 = it is not there."""
        slot = 4 + 2 * field
        if slot >= self._size:
            return 0
        (offset,) = struct.unpack_from("<H", self._view, self._fields + slot)
        return self._at + offset if offset else 0

    def number(self, field: int, code: str) -> int:
        place = self._place(field)
        return int(struct.unpack_from(code, self._view, place)[0]) if place else 0

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return (
            _Table(self._view, place + struct.unpack_from("<I", self._view, place)[0])
            if place
            else None
        )

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """A vector of structs of two 64-bit numbers."""
        place = self._place(field)
        if not place:
            return
        start = place + struct.unpack_from("<I", self._view, place)[0]
        (count,) = struct.unpack_from("<I", self._view, start)
        for position in range(count):
            yield struct.unpack_from("<qq", self._view, start + 4 + 16 * position)


def check_table(table: Any, limit: int) -> None:
    """Refuse a table, whose arrays are valid, that would not fit once each element is written out.

    Raises:
        PayloadTooLarge: it would not.
    """
    total = 0
    for column in table.columns:
        for chunk in column.chunks:
            total += _written_out(chunk)
            if total > limit:
                raise PayloadTooLarge(limit)


def _written_out(array: Any) -> int:
    """Bytes of an array of a type that `arrow_columns` reads; with eight more for every element that is no number."""
    import pyarrow.types as kinds

    kind, count = array.type, len(array)
    if (kinds.is_integer(kind) or kinds.is_floating(kind)) and not array.null_count:
        return int(array.nbytes)
    if kinds.is_dictionary(kind):
        sizes = _text_sizes(array.dictionary)
        each = (
            sizes[array.indices.drop_null().to_numpy(zero_copy_only=False)].sum()
            if len(sizes)
            else 0
        )
        return int(each) + _EACH * count
    if kinds.is_string_view(kind) or kinds.is_binary_view(kind):
        return int(_text_sizes(array).sum()) + _EACH * count
    if kinds.is_struct(kind):
        children = [array.field(position) for position in range(kind.num_fields)]
    elif kinds.is_nested(kind):
        children = [array.values]
    else:
        children = []
    return int(array.nbytes) + _EACH * count + sum(map(_written_out, children))


def _text_sizes(array: Any) -> Any:
    """Bytes of each element, for arrays of text or bytes; a fixed number for those of anything else."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.types as kinds

    kind, start, count = array.type, array.offset, len(array)
    if not count:
        return np.zeros(0, "i8")
    if kinds.is_string_view(kind) or kinds.is_binary_view(kind):
        views = np.frombuffer(array.buffers()[1], "<i4")
        return views[4 * start : 4 * (start + count) : 4].astype("i8")
    if kind in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary()):
        code = "<i4" if kind in (pa.string(), pa.binary()) else "<i8"
        return np.diff(np.frombuffer(array.buffers()[1], code)[start : start + count + 1]).astype(
            "i8"
        )
    return np.full(count, _EACH, "i8")
