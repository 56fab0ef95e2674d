"""The Thrift reader: every type of value, and invalid bytes."""

from __future__ import annotations

import pytest

from mlserver_mlflow.invocations.limits.thrift_compact import (
    BROKEN,
    CompactReader,
    get_count,
    get_struct,
    get_structs,
)


def test_every_type_is_read_or_skipped() -> None:
    body = b"".join(
        [
            b"\x15\x04",  # 1: a number
            b"\x11\x12",  # 2 and 3: true and false
            b"\x13\x07",  # 4: a byte
            b"\x17" + b"\0" * 8,  # 5: a double
            b"\x18\x03abc",  # 6: a text
            b"\x19\x25\x02\x04",  # 7: a list of two numbers
            b"\x1b\x01\x58\x02\x01x",  # 8: a map from numbers to texts
            b"\x1c\x15\x01\x00",  # 9: a struct
            b"\x05\x80\x01\x06",  # 64: a field id that is written in full
            b"\x19\x1c\x00",  # 65: a list of an empty struct
            b"\x00",
        ]
    )
    reader = CompactReader(b"before" + body, 6)
    fields = reader.read_struct()
    assert fields == {
        1: 2,
        4: None,
        5: None,
        6: None,
        7: [1, 2],
        8: None,
        9: {1: -1},
        64: 3,
        65: [{}],
    }
    assert reader.offset == 6 + len(body)
    assert get_count(fields, 1) == 2
    assert get_count(fields, 99) == 0
    assert get_struct(fields, 9) == {1: -1}
    assert get_structs(fields, 65) == [{}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x15",
        b"\x15" + b"\xff" * 20,
        b"\x18\xff\xff\xff\x7f",
        b"\x19\xf1\xff\xff\xff\xff\x7f",
        b"\x1b\xff\xff\xff\xff\x7f\x11",
        b"\x1d\x00",
        b"\x1c" * 1000,
        b"\x19\x19" * 1000,
    ],
)
def test_invalid_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=BROKEN):
        CompactReader(body, 0).read_struct()


def test_a_field_of_another_type_is_refused() -> None:
    for read_field in (get_count, get_struct, get_structs):
        with pytest.raises(ValueError, match=BROKEN):
            read_field({1: None}, 1)
    with pytest.raises(ValueError, match=BROKEN):
        get_count({1: -1}, 1)
