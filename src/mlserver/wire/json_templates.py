"""Requests of one row whose text differs from an earlier one only in its numbers: read without parsing the rest again.

Callers send the same document again and again with other numbers in it (and another id). What has been parsed and accepted a
few times becomes a pattern: its text, with a gap wherever a number of the data stands. A body that fits the pattern is the same
document with the numbers that stand in the gaps; whatever does not fit is parsed. Gaps take plain decimals only, so a pattern
never accepts what the parser would refuse, or would read as another value.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

from ..types import Parameters, RequestOutput
from ..types.row_block import ROW_CODES, PackedRequest, RowBlock, packed

LARGEST = 8 * 1024  # bytes of a body: making a pattern costs microseconds per byte
SEEN_BEFORE = 3  # bodies of the same beginning, after which one is worth a pattern
MOST_PATTERNS = 128  # made in the life of a process; each costs a millisecond or so
_MOST_SEEN = 1024
_KEY = 64  # bytes from the first input on, by which patterns are found
_PER_KEY = 4

_INTEGER = rb"(0|-?[1-9][0-9]{0,18})"
# Up to 15 digits in front and no exponent: nothing overflows, and nothing is a whole number that a double cannot hold.
# "-0" is left to the parser, which reads it as the integer 0.
_DECIMAL = rb"(-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,19}|0|-?[1-9][0-9]{0,14})"
_SCALARS = (str, int, float, type(None))
_DATA = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*([-+.0-9eE]+)[ \t\r\n]*\]')
_ID = re.compile(rb'"id"[ \t\r\n]*:[ \t\r\n]*"([ !#-\[\]-~]*)"')


class Layout:
    """One pattern.

    Args:
        pattern: Fits bodies; its groups are the numbers in order, and the id where there is one.
        request: The request that it was made of. Its parameters and requested outputs are those of all.
        rows: The inputs of that request.
        id_at: Which group is the id; None = requests have none.
    """

    __slots__ = (
        "_datatype",
        "_id_at",
        "_match",
        "_names",
        "_number",
        "_outputs",
        "_pack",
        "_parameters",
        "_shape",
    )

    def __init__(
        self, pattern: re.Pattern[bytes], request: PackedRequest, rows: RowBlock, id_at: int | None
    ) -> None:
        self._match = pattern.fullmatch
        self._names, self._datatype, self._shape = rows.names, rows.datatype, rows.shape
        self._number: Callable[[bytes], Any] = float if _is_float(rows.datatype) else int
        self._pack = struct.Struct(f"<{len(rows.names)}{ROW_CODES[rows.datatype]}").pack
        self._id_at = id_at
        # Requests change on the road: the pattern has copies of its own, and gives each request others.
        self._parameters, self._outputs = (
            _copied(request.parameters),
            _copied_outputs(request.outputs),
        )

    def read(self, body: bytes) -> PackedRequest | None:
        """The request in a body; None if it does not fit."""
        found = self._match(body)
        if found is None:
            return None
        groups: Any = found.groups()
        request_id = None
        if self._id_at is not None:
            groups = list(groups)
            request_id = groups.pop(self._id_at).decode("ascii")
        try:
            block = self._pack(*map(self._number, groups))
        except struct.error:  # out of the datatype's range
            return None
        rows = RowBlock(self._names, self._datatype, self._shape, 1, block)
        if self._parameters is None and self._outputs is None:
            return PackedRequest.of(request_id, rows)
        return PackedRequest.of(
            request_id, rows, _copied(self._parameters), _copied_outputs(self._outputs)
        )


def learn(body: bytes, request: PackedRequest) -> Layout | None:
    """The layout of a body that was read as `request`; None if it cannot be told where its numbers stand."""
    rows = packed(request)
    if rows is None or rows.rows != 1 or not _is_flat(request):
        return None
    gaps = [
        (found.span(1), _DECIMAL if _is_float(rows.datatype) else _INTEGER)
        for found in _DATA.finditer(body)
    ]
    if len(gaps) != len(rows.names):
        return None
    id_at = None
    if request.id is not None:
        ids = list(_ID.finditer(body))
        # A second "id" anywhere would leave it open which of them is the request's.
        if len(ids) != 1 or body.count(b'"id"') != 1 or ids[0][1].decode("ascii") != request.id:
            return None
        gaps.append((ids[0].span(1), rb"([ !#-\[\]-~]*)"))
        gaps.sort()
        id_at = [span for span, _ in gaps].index(ids[0].span(1))
    layout = Layout(_pattern(body, gaps), request, rows, id_at)
    again = layout.read(body)
    return (
        layout if again is not None and again.id == request.id and packed(again) == rows else None
    )


def _is_flat(request: PackedRequest) -> bool:
    """Whether parameters hold nothing that two requests could not share."""
    given = [request.parameters, *(output.parameters for output in request.outputs or ())]
    return all(
        isinstance(value, _SCALARS)
        for one in given
        if one is not None
        for value in one.plain().values()
    )


def _copied(parameters: Parameters | None) -> Parameters | None:
    return None if parameters is None else parameters.copied()


def _copied_outputs(outputs: Sequence[RequestOutput] | None) -> list[RequestOutput] | None:
    if outputs is None:
        return None
    return [
        RequestOutput.build({"name": one.name, "parameters": _copied(one.parameters)})
        for one in outputs
    ]


def _pattern(body: bytes, gaps: list[tuple[tuple[int, int], bytes]]) -> re.Pattern[bytes]:
    parts: list[bytes] = []
    at = 0
    for (start, end), gap in gaps:
        parts += (re.escape(body[at:start]), gap)
        at = end
    parts.append(re.escape(body[at:]))
    return re.compile(b"".join(parts))


def _is_float(datatype: str) -> bool:
    return datatype.startswith("FP")


class Layouts:
    """The patterns of one process. Bounded, whatever callers send: only so many are ever made."""

    def __init__(self) -> None:
        self._known: dict[bytes, list[Layout]] = {}
        self._seen: dict[bytes, int] = {}
        self._made = 0

    def read(self, body: bytes) -> PackedRequest | None:
        """The request in a body that fits a pattern, else None."""
        for layout in self._known.get(_key(body), ()):
            request = layout.read(body)
            if request is not None:
                return request
        return None

    def saw(self, body: bytes, request: PackedRequest) -> None:
        """A body of one row that fitted no pattern was parsed: it may be worth one."""
        if self._made >= MOST_PATTERNS:
            return
        key = _key(body)
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        count = self._seen[key] = self._seen.get(key, 0) + 1
        if count < SEEN_BEFORE or len(self._known.get(key, ())) >= _PER_KEY:
            return
        self._made += 1
        self._seen[key] = 0
        layout = learn(body, request)
        if layout is not None:
            self._known.setdefault(key, []).append(layout)


def _key(body: bytes) -> bytes:
    """The beginning of the inputs: an id may stand before them."""
    at = body.find(b'"inputs"', 0, 256)
    return body[at : at + _KEY] if at >= 0 else b""
