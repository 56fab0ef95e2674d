"""HTTP/2 frames, as bytes: for clients that no library would let misbehave."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_HEADERS = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


CALL = b"\x83\x86" + b"".join(  # POST, http
    [
        literal(b":path", b"/inference.GRPCInferenceService/ModelInfer"),
        literal(b":authority", b"x"),
        literal(b"content-type", b"application/grpc"),
        literal(b"te", b"trailers"),
    ]
)
START = PREFACE + frame(SETTINGS, 0, 0)
