"""Random mutations of the corpus: bodies that are nearly valid."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

CORPUS = Path(__file__).parent.parent / "corpus"

_NUMBERS = [
    b"0",
    b"-1",
    b"1",
    b"2147483648",
    b"4294967295",
    b"9223372036854775807",
    b"9223372036854775808",
]
_NUMBERS += [
    b"18446744073709551616",
    b"1e308",
    b"1e400",
    b"-0.0",
    b"0.1",
    b"NaN",
    b"1" * 400,
    b"null",
    b"true",
    b'"1"',
]
_TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"null",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"\n",
    b"[" * 100,
]
_TOKENS += [
    b'"FP32"',
    b'"BYTES"',
    b'"UINT64"',
    b'"inputs"',
    b'"parameters"',
    b'"content_type"',
    b'"binary_data_size"',
]
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
LARGEST = 64 * 1024


def corpus(target: str) -> list[bytes]:
    """The corpus of one format, sorted by file name."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def mutate(bodies: list[bytes], rng: random.Random) -> bytes:
    """Return one of the bodies after one to four changes."""
    body = rng.choice(bodies)
    for _ in range(rng.randint(1, 4)):
        body = rng.choice(_CHANGES)(body, bodies, rng)[:LARGEST]
    return body


def _flip_bit(body: bytes, bodies: list[bytes], rng: random.Random) -> bytes:
    if not body:
        return body
    changed = bytearray(body)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _replace_number(body: bytes, bodies: list[bytes], rng: random.Random) -> bytes:
    """Replace a number with a boundary value."""
    numbers = list(_NUMBER.finditer(body))
    if not numbers:
        return body
    match = rng.choice(numbers)
    return body[: match.start()] + rng.choice(_NUMBERS) + body[match.end() :]


def _insert_token(body: bytes, bodies: list[bytes], rng: random.Random) -> bytes:
    offset = rng.randint(0, len(body))
    return body[:offset] + rng.choice(_TOKENS) + body[offset:]


def _choose_slice(body: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(body))
    return start, min(len(body), start + rng.choice((1, 2, 4, 8, 16, 64, 256)))


def _remove_slice(body: bytes, bodies: list[bytes], rng: random.Random) -> bytes:
    start, end = _choose_slice(body, rng)
    return body[:start] + body[end:]


def _repeat_slice(body: bytes, bodies: list[bytes], rng: random.Random) -> bytes:
    start, end = _choose_slice(body, rng)
    return body[:start] + body[start:end] * rng.choice((2, 3, 50)) + body[end:]


def _truncate(body: bytes, bodies: list[bytes], rng: random.Random) -> bytes:
    return body[: rng.randint(0, len(body))]


def _splice(body: bytes, bodies: list[bytes], rng: random.Random) -> bytes:
    other = rng.choice(bodies)
    return body[: rng.randint(0, len(body))] + other[rng.randint(0, len(other)) :]


def _replace_word(body: bytes, bodies: list[bytes], rng: random.Random) -> bytes:
    """Replace four bytes, which may be a length or an offset."""
    if len(body) < 4:
        return body
    offset = rng.randint(0, len(body) - 4)
    word = rng.choice(
        (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0")
    )
    return body[:offset] + word + body[offset + 4 :]


_CHANGES: list[Callable[[bytes, list[bytes], random.Random], bytes]] = [
    _flip_bit,
    _replace_number,
    _insert_token,
    _remove_slice,
    _repeat_slice,
    _truncate,
    _splice,
    _replace_word,
]
