"""Thrift's compact protocol, in which Parquet writes its heads: bytes -> structs as dictionaries by the numbers of fields."""

from __future__ import annotations

from typing import Any

# Kinds of values. A boolean field is its kind; in a list it is a byte.
_TRUE, _FALSE, _BYTE, _NUMBERS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = (
    1,
    2,
    3,
    (4, 5, 6),
    7,
    8,
    (9, 10),
    11,
    12,
)
_DEEP = 64
_LONGEST = 70  # bits of a number, in sevens
BROKEN = "a head in it is broken"


class CompactReader:
    """Reads structs; texts and booleans are passed over, for nobody asks for them.

    Attributes:
        at: Where the next one begins.
    """

    def __init__(self, body: bytes, at: int) -> None:
        self._body = body
        self.at = at

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Raises `ValueError` if there is none."""
        found: dict[int, Any] = {}
        field = 0
        while kind := self._byte():
            field = field + (kind >> 4) if kind >> 4 else self._signed()
            if kind & 15 not in (_TRUE, _FALSE):
                found[field] = self._value(kind & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEP:
            raise ValueError(BROKEN)
        if kind in _NUMBERS:
            return self._signed()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in _LISTS:
            return self._list(depth)
        if kind == _BINARY:
            length = self._varint()
            self.at += length
        elif kind == _DOUBLE:
            self.at += 8
        elif kind in (_TRUE, _FALSE, _BYTE):
            self.at += 1
        elif kind == _MAP:
            self._map(depth)
        else:
            raise ValueError(BROKEN)
        return None

    def _map(self, depth: int) -> None:
        count = self._count(self._varint())
        kinds = self._byte() if count else 0
        for _ in range(count):
            self._value(kinds >> 4, depth + 1)
            self._value(kinds & 15, depth + 1)

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = self._count(self._varint() if head >> 4 == 15 else head >> 4)
        return [self._value(head & 15, depth + 1) for _ in range(count)]

    def _count(self, announced: int) -> int:
        """Each element has a byte or more."""
        if announced > len(self._body) - self.at:
            raise ValueError(BROKEN)
        return announced

    def _byte(self) -> int:
        if not 0 <= self.at < len(self._body):
            raise ValueError(BROKEN)
        self.at += 1
        return self._body[self.at - 1]

    def _varint(self) -> int:
        number = 0
        for shift in range(0, _LONGEST, 7):
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ValueError(BROKEN)

    def _signed(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)


def number(struct: dict[int, Any], field: int) -> int:
    """A field that is a number and not below zero; 0 if there is none."""
    found = struct.get(field, 0)
    if not isinstance(found, int) or found < 0:
        raise ValueError(BROKEN)
    return found


def part(struct: dict[int, Any], field: int) -> dict[int, Any]:
    """A field that is a struct; {} if there is none."""
    found = struct.get(field, {})
    if not isinstance(found, dict):
        raise ValueError(BROKEN)
    return found


def parts(struct: dict[int, Any], field: int) -> list[dict[int, Any]]:
    """A field that is a list of structs; [] if there is none."""
    found = struct.get(field, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(BROKEN)
    return found
