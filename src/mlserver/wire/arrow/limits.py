"""Memory limits of Arrow streams, checked before the memory is allocated. Pure.

A small stream can become large by compressed buffers, by texts that are referred to many times, and
by columns of null. The sizes of compressed buffers are read from the messages' FlatBuffers metadata
(Arrow IPC format, "Encapsulated message format"), without decompressing them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from ...errors import InvalidPayload, PayloadTooLarge

_CONTINUATION = 0xFFFFFFFF
_DICTIONARY, _RECORDS = 2, 3  # message types that have buffers
_ELEMENT_OVERHEAD = 8  # bytes counted per element, beside its own


def check(body: bytes | memoryview, limit: int) -> None:
    """Check the size of a stream's decompressed buffers.

    Raises:
        PayloadTooLarge: it is over `limit`.
        InvalidPayload: the bytes are not a stream.
    """
    view = memoryview(body)
    total = 0
    try:
        for message, start in _iter_messages(view):
            total += sum(_iter_sizes(message, view, start))
            if total > limit:
                raise PayloadTooLarge(limit)
    except (struct.error, IndexError):
        raise InvalidPayload(
            "Invalid body: expected an Arrow stream, received a broken message"
        ) from None


def _iter_messages(view: memoryview) -> Iterator[tuple[_Table, int]]:
    """Yield each message's metadata and the offset of its buffers."""
    offset = 0
    while offset < view.nbytes:
        (size,) = struct.unpack_from("<I", view, offset)
        offset += 4
        if size == _CONTINUATION:
            (size,) = struct.unpack_from("<I", view, offset)
            offset += 4
        if not size:
            return
        message = _Table.from_root(view[offset : offset + size])
        offset += size
        yield message, offset
        offset += max(0, message.read_number(3, "<q"))


def _iter_sizes(message: _Table, view: memoryview, start: int) -> Iterator[int]:
    """Yield the decompressed size of each buffer of a message."""
    kind = message.read_number(1, "<B")
    records = message.read_table(2) if kind in (_DICTIONARY, _RECORDS) else None
    if records is not None and kind == _DICTIONARY:
        records = records.read_table(1)
    if records is None:
        return
    compressed = records.read_table(3) is not None
    for offset, length in records.read_pairs(2):
        if not compressed or length < 8:
            yield max(0, length)
            continue
        (size,) = struct.unpack_from("<q", view, start + offset)
        if size < -1 or offset < 0:
            raise struct.error
        yield length - 8 if size == -1 else size


class _Table:
    """One FlatBuffers table, read through its vtable of field offsets."""

    def __init__(self, view: memoryview, offset: int) -> None:
        self._view = view
        self._offset = offset
        (distance,) = struct.unpack_from("<i", view, offset)
        self._fields = offset - distance
        if self._fields < 0:
            raise struct.error
        (self._size,) = struct.unpack_from("<H", view, self._fields)

    @classmethod
    def from_root(cls, view: memoryview) -> _Table:
        return cls(view, struct.unpack_from("<I", view)[0])

    def _find_field(self, field: int) -> int:
        """Return the offset of a field; 0 if it is absent."""
        slot = 4 + 2 * field
        if slot >= self._size:
            return 0
        (offset,) = struct.unpack_from("<H", self._view, self._fields + slot)
        return self._offset + offset if offset else 0

    def read_number(self, field: int, code: str) -> int:
        """Return a scalar field; 0 if it is absent."""
        offset = self._find_field(field)
        return int(struct.unpack_from(code, self._view, offset)[0]) if offset else 0

    def read_table(self, field: int) -> _Table | None:
        """Return a table field; None if it is absent."""
        offset = self._find_field(field)
        if not offset:
            return None
        return _Table(self._view, offset + struct.unpack_from("<I", self._view, offset)[0])

    def read_pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """Yield a vector of structs of two 64-bit numbers."""
        offset = self._find_field(field)
        if not offset:
            return
        start = offset + struct.unpack_from("<I", self._view, offset)[0]
        (count,) = struct.unpack_from("<I", self._view, start)
        for index in range(count):
            yield struct.unpack_from("<qq", self._view, start + 4 + 16 * index)


def check_table(table: Any, limit: int) -> None:
    """Check the size of a valid table's elements, with repeated texts counted each time.

    Raises:
        PayloadTooLarge: it is over `limit`.
    """
    total = 0
    for column in table.columns:
        for chunk in column.chunks:
            total += _expanded_size(chunk)
            if total > limit:
                raise PayloadTooLarge(limit)


def _expanded_size(array: Any) -> int:
    """Return the bytes of an array's elements, with an overhead for each but numbers."""
    import pyarrow.types as kinds

    kind, count = array.type, len(array)
    if (kinds.is_integer(kind) or kinds.is_floating(kind)) and not array.null_count:
        return int(array.nbytes)
    if kinds.is_dictionary(kind):
        sizes = _text_sizes(array.dictionary)
        indices = array.indices.drop_null().to_numpy(zero_copy_only=False)
        text_size = int(sizes[indices].sum()) if len(sizes) else 0
        return text_size + _ELEMENT_OVERHEAD * count
    if kinds.is_string_view(kind) or kinds.is_binary_view(kind):
        return int(_text_sizes(array).sum()) + _ELEMENT_OVERHEAD * count
    if kinds.is_struct(kind):
        children = [array.field(position) for position in range(kind.num_fields)]
    elif kinds.is_nested(kind):
        children = [array.values]
    else:
        children = []
    return int(array.nbytes) + _ELEMENT_OVERHEAD * count + sum(map(_expanded_size, children))


def _text_sizes(array: Any) -> Any:
    """Return the bytes of each element of text or bytes; `_ELEMENT_OVERHEAD` for other types."""
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
        offsets = np.frombuffer(array.buffers()[1], code)[start : start + count + 1]
        return np.diff(offsets).astype("i8")
    return np.full(count, _ELEMENT_OVERHEAD, "i8")
