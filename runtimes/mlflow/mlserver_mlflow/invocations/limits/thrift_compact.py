"""Reader of Thrift's compact protocol, in which Parquet writes its footer and page headers.

Structs become dictionaries by field id. Lengths and counts are checked against the body before
anything is allocated for them.
"""

from __future__ import annotations

from typing import Any

# Type codes. In a struct a boolean is its type code; in a list it is one byte.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _MAP, _STRUCT = 1, 2, 3, 7, 8, 11, 12
_INTEGERS = (4, 5, 6)
_LISTS = (9, 10)
_MAX_DEPTH = 64
_MAX_VARINT_BITS = 70  # ten bytes with 7 bits each
BROKEN = "invalid Thrift structure in the file"


class CompactReader:
    """Reads structs from a body. Texts, doubles, bytes and maps are skipped and read as None.

    Attributes:
        offset: Position of the next byte.
    """

    def __init__(self, body: bytes, offset: int) -> None:
        self._body = body
        self.offset = offset

    def read_struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the struct at `offset` as {field id: value}.

        Raises:
            ValueError: the bytes are not a struct.
        """
        fields: dict[int, Any] = {}
        field_id = 0
        while head := self._read_byte():
            delta, type_code = head >> 4, head & 15
            field_id = field_id + delta if delta else self._read_signed()
            if type_code not in (_TRUE, _FALSE):
                fields[field_id] = self._read_value(type_code, depth)
        return fields

    def _read_value(self, type_code: int, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError(BROKEN)
        if type_code in _INTEGERS:
            return self._read_signed()
        if type_code == _STRUCT:
            return self.read_struct(depth + 1)
        if type_code in _LISTS:
            return self._read_list(depth)
        if type_code == _BINARY:
            length = self._read_varint()
            self.offset += length
        elif type_code == _DOUBLE:
            self.offset += 8
        elif type_code in (_TRUE, _FALSE, _BYTE):
            self.offset += 1
        elif type_code == _MAP:
            self._skip_map(depth)
        else:
            raise ValueError(BROKEN)
        return None

    def _skip_map(self, depth: int) -> None:
        count = self._check_count(self._read_varint())
        types = self._read_byte() if count else 0
        for _ in range(count):
            self._read_value(types >> 4, depth + 1)
            self._read_value(types & 15, depth + 1)

    def _read_list(self, depth: int) -> list[Any]:
        head = self._read_byte()
        count = self._check_count(self._read_varint() if head >> 4 == 15 else head >> 4)
        return [self._read_value(head & 15, depth + 1) for _ in range(count)]

    def _check_count(self, count: int) -> int:
        """Return the count if the body is long enough for it: an element has at least one byte."""
        if count > len(self._body) - self.offset:
            raise ValueError(BROKEN)
        return count

    def _read_byte(self) -> int:
        if not 0 <= self.offset < len(self._body):
            raise ValueError(BROKEN)
        self.offset += 1
        return self._body[self.offset - 1]

    def _read_varint(self) -> int:
        value = 0
        for shift in range(0, _MAX_VARINT_BITS, 7):
            byte = self._read_byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError(BROKEN)

    def _read_signed(self) -> int:
        value = self._read_varint()
        return (value >> 1) ^ -(value & 1)


def get_count(struct: dict[int, Any], field_id: int) -> int:
    """Return a non-negative integer field; 0 if it is absent. Raises `ValueError`."""
    value = struct.get(field_id, 0)
    if not isinstance(value, int) or value < 0:
        raise ValueError(BROKEN)
    return value


def get_struct(struct: dict[int, Any], field_id: int) -> dict[int, Any]:
    """Return a struct field; {} if it is absent. Raises `ValueError`."""
    value = struct.get(field_id, {})
    if not isinstance(value, dict):
        raise ValueError(BROKEN)
    return value


def get_structs(struct: dict[int, Any], field_id: int) -> list[dict[int, Any]]:
    """Return a field that is a list of structs; [] if it is absent. Raises `ValueError`."""
    values = struct.get(field_id, [])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(BROKEN)
    return values
