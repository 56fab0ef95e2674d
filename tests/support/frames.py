"""Frames written to bytes, and read from slices of them."""

from __future__ import annotations

from collections.abc import Iterator

from mlserver.parallel.rpc.protocol import (
    Frame,
    FrameReader,
    encode,
)


def written(frame: Frame) -> bytes:
    return b"".join(encode(frame))


def feed(reader: FrameReader, data: bytes, slices: Iterator[int]) -> list[Frame]:
    """Write `data` into a reader's own buffer as a socket does, in parts of at most `slices` bytes.

    Returns:
        The complete frames.
    """
    frames: list[Frame] = []
    at = 0
    while at < len(data):
        buffer = reader.get_buffer()
        assert len(buffer) > 0
        count = min(next(slices), len(buffer), len(data) - at)
        buffer[:count] = data[at : at + count]
        at += count
        frames.extend(reader.filled(count))
    return frames


def always(size: int) -> Iterator[int]:
    while True:
        yield size


def read(data: bytes) -> list[Frame]:
    return feed(FrameReader(), data, always(2**20))
