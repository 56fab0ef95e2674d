"""The wire protocol without sockets: vectors, slices of any size, invalid bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserver.parallel.rpc.protocol import (
    PREFIX,
    Frame,
    FrameError,
    FrameReader,
    MessageType,
    encode,
)
from support.frames import always, feed, read, written


def to_tuple(frame: Frame) -> tuple[int, int, Any, list[bytes]]:
    return frame.kind, frame.id, frame.head, [bytes(buffer) for buffer in frame.buffers]


# -- the bytes themselves: they may only change together with both ends --


VECTORS = [
    (Frame(MessageType.PING, 7, None), "08 00 0000 01000000 0700000000000000 0000000000000000 c0"),
    (
        Frame(MessageType.REPLY, 1, [1, "a"], [b"xyz", b""]),
        "15 00 0200 04000000 0100000000000000 0300000000000000"
        " 0300000000000000 0000000000000000 9201a161 78797a",
    ),
]


@pytest.mark.parametrize("frame, expected", VECTORS)
def test_vectors(frame: Frame, expected: str) -> None:
    assert written(frame) == bytes.fromhex(expected)
    assert [to_tuple(frame) for frame in read(bytes.fromhex(expected))] == [to_tuple(frame)]


# -- slices --


FRAMES = [
    Frame(MessageType.INFER, 1, {"a": [1, None, b"\xff"]}),
    Frame(MessageType.REPLY, 2, None, [b"x" * 40, b"", b"y"]),
    Frame(MessageType.END, 2**64 - 1, "é"),
    Frame(MessageType.INFER, 3, None, [bytes(range(256)) * 3]),
    Frame(MessageType.PING, 4, None),
]


@pytest.mark.parametrize("buffer_size", [24, 64, 100, 1000, 2**18])
def test_slices_of_every_size(buffer_size: int) -> None:
    """Frames smaller and larger than the receive buffer, cut anywhere."""
    data = b"".join(map(written, FRAMES))
    for size in range(1, 200):
        frames = feed(FrameReader(buffer_size), data, always(size))
        assert [to_tuple(frame) for frame in frames] == [to_tuple(frame) for frame in FRAMES]


@given(
    st.lists(
        st.tuples(st.binary(max_size=60), st.lists(st.binary(max_size=200), max_size=3)), max_size=6
    ),
    st.lists(st.integers(1, 300), min_size=1),
    st.integers(24, 400),
)
def test_any_frames_in_any_slices(contents: Any, sizes: list[int], buffer_size: int) -> None:
    frames = [
        Frame(MessageType.INFER, number, head, buffers)
        for number, (head, buffers) in enumerate(contents)
    ]

    def slices() -> Iterator[int]:
        while True:
            yield from sizes

    received = feed(FrameReader(buffer_size), b"".join(map(written, frames)), slices())
    assert [to_tuple(frame) for frame in received] == [to_tuple(frame) for frame in frames]


def test_a_frame_keeps_its_bytes_when_more_arrive() -> None:
    reader = FrameReader(256)
    (first,) = feed(reader, written(Frame(MessageType.INFER, 1, None, [b"a" * 50])), always(999))
    feed(reader, written(Frame(MessageType.INFER, 2, None, [b"b" * 50])), always(999))

    assert bytes(first.buffers[0]) == b"a" * 50


def test_large_buffers_are_passed_on_as_they_are() -> None:
    large = np.zeros(1_000_000, "f4")
    parts = encode(Frame(MessageType.INFER, 1, None, [large.data]))

    large[0] = 7
    (frame,) = read(b"".join(parts))
    assert len(frame.buffers[0]) == large.nbytes
    assert bytes(frame.buffers[0][:4]) == struct.pack("<f", 7)


# -- bytes that are no frame --


@pytest.mark.parametrize(
    "data",
    [
        bytes(24),
        PREFIX.pack(MessageType.INFER, 0, 0, 2**32 - 1, 1, 0),
        PREFIX.pack(MessageType.INFER, 0, 0, 1, 1, 2**63) + b"\xc0",
        PREFIX.pack(MessageType.INFER, 0, 0, 1, 1, 0) + b"\xc1",
        PREFIX.pack(MessageType.INFER, 0, 0, 2, 1, 0) + b"\xa1\xff",
        PREFIX.pack(MessageType.INFER, 0, 0, 2, 1, 0) + b"\xc0\xc0",
        PREFIX.pack(MessageType.INFER, 0, 0, 0, 1, 0),
        PREFIX.pack(MessageType.INFER, 0, 0, 1, 1, 4) + b"\xc0abcd",
        PREFIX.pack(MessageType.INFER, 0, 1, 1, 1, 4) + struct.pack("<Q", 3) + b"\xc0abcd",
        PREFIX.pack(MessageType.INFER, 0, 1, 1, 1, 4) + struct.pack("<Q", 2**64 - 1) + b"\xc0abcd",
        PREFIX.pack(MessageType.INFER, 0, 0, 2000, 1, 0) + b"\x91" * 2000,
    ],
)
def test_no_frames(data: bytes) -> None:
    with pytest.raises(FrameError):
        read(data)


@given(
    st.binary(max_size=100),
    st.sampled_from([written(frame) for frame in FRAMES]),
    st.integers(0, 100),
)
@settings(max_examples=300)
def test_mutated_bytes_are_frames_or_refused(noise: bytes, frame: bytes, at: int) -> None:
    data = frame[:at] + noise + frame[at + len(noise) :]
    head = int.from_bytes(data[4:8], "little") + int.from_bytes(data[16:24], "little")
    if head < 2**20:  # else the reader waits for the declared length
        try:
            frames = read(data)
        except FrameError:
            return
        assert all(isinstance(item, Frame) for item in frames)
