"""Bodies that are nearly right: what is kept in the corpus, changed at random in the ways that readers trip over."""

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
    """The kept bodies of one format, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def mutated(bodies: list[bytes], dice: random.Random) -> bytes:
    """One of the bodies after one to four changes."""
    body = dice.choice(bodies)
    for _ in range(dice.randint(1, 4)):
        body = dice.choice(_CHANGES)(body, bodies, dice)[:LARGEST]
    return body


def _flip(body: bytes, bodies: list[bytes], dice: random.Random) -> bytes:
    if not body:
        return body
    changed = bytearray(body)
    changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _number(body: bytes, bodies: list[bytes], dice: random.Random) -> bytes:
    """Another number in the place of one."""
    found = list(_NUMBER.finditer(body))
    if not found:
        return body
    one = dice.choice(found)
    return body[: one.start()] + dice.choice(_NUMBERS) + body[one.end() :]


def _insert(body: bytes, bodies: list[bytes], dice: random.Random) -> bytes:
    at = dice.randint(0, len(body))
    return body[:at] + dice.choice(_TOKENS) + body[at:]


def _part(body: bytes, dice: random.Random) -> tuple[int, int]:
    start = dice.randint(0, len(body))
    return start, min(len(body), start + dice.choice((1, 2, 4, 8, 16, 64, 256)))


def _remove(body: bytes, bodies: list[bytes], dice: random.Random) -> bytes:
    start, end = _part(body, dice)
    return body[:start] + body[end:]


def _repeat(body: bytes, bodies: list[bytes], dice: random.Random) -> bytes:
    start, end = _part(body, dice)
    return body[:start] + body[start:end] * dice.choice((2, 3, 50)) + body[end:]


def _cut(body: bytes, bodies: list[bytes], dice: random.Random) -> bytes:
    return body[: dice.randint(0, len(body))]


def _splice(body: bytes, bodies: list[bytes], dice: random.Random) -> bytes:
    other = dice.choice(bodies)
    return body[: dice.randint(0, len(body))] + other[dice.randint(0, len(other)) :]


def _word(body: bytes, bodies: list[bytes], dice: random.Random) -> bytes:
    """Other bytes where a length or an offset may be."""
    if len(body) < 4:
        return body
    at = dice.randint(0, len(body) - 4)
    word = dice.choice(
        (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0")
    )
    return body[:at] + word + body[at + 4 :]


_CHANGES: list[Callable[[bytes, list[bytes], random.Random], bytes]] = [
    _flip,
    _number,
    _insert,
    _remove,
    _repeat,
    _cut,
    _splice,
    _word,
]
