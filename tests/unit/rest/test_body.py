"""Bodies: read in any chunks, bounded before and after decompression; responses compressed as
accepted.
"""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver.errors import MLServerError, PayloadTooLarge, UnsupportedMediaType
from mlserver.rest.http.body import ClientDisconnected, compress, inflate, read_body
from mlserver.rest.messages import Request

LIMIT = 100_000
Receive = Callable[[], Awaitable[dict[str, Any]]]


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def create_receive(*chunks: bytes, disconnects: bool = False) -> Receive:
    """Return an ASGI `receive` with these chunks, then the end of the body or a disconnect."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    if disconnects or not messages:
        messages.append({"type": "http.disconnect"} if disconnects else {"type": "http.request"})
    else:
        messages[-1]["more_body"] = False

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    return receive


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request("POST", "/", b"", raw)


async def read(*chunks: bytes, limit: int = LIMIT, **headers: str) -> bytes:
    return await read_body(request(**headers), create_receive(*chunks), limit)


@pytest.mark.parametrize(
    "chunks",
    [(), (b"",), (b"abc",), (b"a", b"", b"bc"), tuple(b"%c" % byte for byte in b"x" * 500)],
)
async def test_any_chunks(chunks: tuple[bytes, ...]) -> None:
    assert await read(*chunks) == b"".join(chunks)


@pytest.mark.parametrize("chunks", [(b"abcdef",), (b"abc", b"def"), (b"a",) * 6])
async def test_the_limit_is_counted_in_bytes(chunks: tuple[bytes, ...]) -> None:
    assert await read(*chunks, limit=6) == b"".join(chunks)
    with pytest.raises(
        PayloadTooLarge, match=r"larger than 5 bytes \(setting 'max_body_bytes'\)"
    ) as error:
        await read(*chunks, limit=5)
    assert (error.value.status_code, error.value.code) == (413, "RESOURCE_EXHAUSTED")


async def test_chunks_are_not_read_beyond_the_limit() -> None:
    left = [b"a" * 10] * 100

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(), "more_body": True}

    with pytest.raises(PayloadTooLarge):
        await read_body(request(), receive, 25)
    assert len(left) == 97


@pytest.mark.parametrize("declared", [str(LIMIT + 1), str(10**11), "9" * 5000])
async def test_a_declared_length_over_the_limit_is_rejected_unread(declared: str) -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError

    with pytest.raises(PayloadTooLarge):
        await read_body(request(content_length=declared), receive, LIMIT)


async def test_a_declared_length_of_the_limit_is_read() -> None:
    assert await read(b"abc", limit=3, content_length="3") == b"abc"


async def test_a_declared_length_of_18_digits_is_a_number() -> None:
    """One of more digits is rejected by its digits, whatever the limit."""
    limit = 10**18
    assert await read(b"abc", limit=limit, content_length="9" * 18) == b"abc"
    with pytest.raises(PayloadTooLarge):
        await read(b"abc", limit=limit, content_length=str(limit))


async def test_a_message_without_more_body_ends_the_body() -> None:
    messages = [{"type": "http.request", "body": b"a", "more_body": True}]
    messages.append({"type": "http.request", "body": b"b"})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    assert await read_body(request(), receive, LIMIT) == b"ab"


async def test_several_content_encoding_lines_are_one_list() -> None:
    """The last coding of all lines was applied last (RFC 9110 8.4 and 5.3)."""
    raw = [(b"content-encoding", b"deflate"), (b"content-encoding", b"gzip")]
    packed = gzip.compress(zlib.compress(b"abc"))
    body = await read_body(Request("POST", "/", b"", raw), create_receive(packed), LIMIT)
    assert body == b"abc"


@pytest.mark.parametrize("declared", ["-1", "x", "", "1e3"])
async def test_an_invalid_declared_length_is_ignored(declared: str) -> None:
    assert await read(b"abc", content_length=declared) == b"abc"


@pytest.mark.parametrize("chunks", [(), (b"a",), (b"a", b"b")])
async def test_a_client_that_disconnects(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(ClientDisconnected):
        await read_body(request(), create_receive(*chunks, disconnects=True), LIMIT)


# -- compressed --


@pytest.mark.parametrize(
    "encoding, packed",
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        (" GZIP ", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
        ("", bytes),
        ("gzip, identity", gzip.compress),
        ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 20_000, LIMIT])
async def test_encodings(encoding: str, packed: Callable[[bytes], bytes], size: int) -> None:
    data = bytes(number % 251 for number in range(size))

    assert await read(packed(data), content_encoding=encoding) == data


@pytest.mark.parametrize(
    "encoding, packed",
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)],
)
async def test_one_byte_over_the_limit(encoding: str, packed: Callable[[bytes], bytes]) -> None:
    assert len(await read(packed(bytes(LIMIT)), content_encoding=encoding)) == LIMIT
    with pytest.raises(PayloadTooLarge):
        await read(packed(bytes(LIMIT + 1)), content_encoding=encoding)


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_bomb_costs_no_more_than_the_limit(name: str) -> None:
    bomb = (gzip.compress if name == "gzip" else zlib.compress)(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            inflate(bomb, name, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


async def test_a_bomb_in_a_bomb() -> None:
    bomb = gzip.compress(gzip.compress(bytes(20_000_000)))
    with pytest.raises(PayloadTooLarge):
        await read(bomb, content_encoding="gzip, gzip")


MIB = 1024 * 1024


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("size, expected", [(MIB, 200), (MIB + 1, 413), (30 * MIB, 413)])
async def test_a_body_may_grow_to_one_mebibyte(layers: int, size: int, expected: int) -> None:
    """Zeros compress a thousandfold, in two layers a millionfold."""
    packed = bytes(size)
    for _ in range(layers):
        packed = gzip.compress(packed)
    assert 100 * len(packed) < MIB * 30
    encoding = ", ".join(["gzip"] * layers)
    if expected == 200:
        assert await read(packed, limit=64 * MIB, content_encoding=encoding) == bytes(size)
        return
    with pytest.raises(MLServerError, match="100 times") as error:
        await read(packed, limit=64 * MIB, content_encoding=encoding)
    assert error.value.status_code == expected


@pytest.mark.parametrize("limit, text", [(MIB, "max_body_bytes"), (MIB + 1, "100 times")])
async def test_the_lower_of_both_bounds_is_named(limit: int, text: str) -> None:
    """A body of zeros may grow to 1 MiB: at that limit, the setting is what must change."""
    with pytest.raises(MLServerError, match=text):
        await read(gzip.compress(bytes(2 * MIB)), limit=limit, content_encoding="gzip")


def test_a_member_after_the_limit_is_not_decompressed() -> None:
    """A limit of 0 bytes that remain is not "no limit", as zlib's argument 0 is."""
    body = gzip.compress(bytes(LIMIT)) + gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            inflate(body, "gzip", LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("noise, passes", [(64 * 1024, True), (32 * 1024, False)])
@pytest.mark.parametrize("encoding, packed", [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_body_may_grow_to_100_times_its_size(
    noise: int, passes: bool, encoding: str, packed: Callable[[bytes], bytes]
) -> None:
    """A body of `noise` random bytes and 5 MiB of zeros."""
    body = random.Random(0).randbytes(noise) + bytes(5 * MIB)
    sent = packed(body)
    assert (100 * len(sent) >= len(body)) is passes
    if passes:
        assert await read(sent, limit=64 * MIB, content_encoding=encoding) == body
    else:
        with pytest.raises(MLServerError, match="100 times"):
            await read(sent, limit=64 * MIB, content_encoding=encoding)


def test_many_members() -> None:
    """Parallel compressors write many members; the time is linear in their number."""
    assert (
        inflate(gzip.compress(b"ab") + gzip.compress(b"") + gzip.compress(b"c"), "gzip", 10)
        == b"abc"
    )
    assert inflate(gzip.compress(b"") * 100_000, "gzip", 10) == b""
    with pytest.raises(PayloadTooLarge):
        inflate(gzip.compress(b"x") * 11, "gzip", 10)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(0, 40_000))
def test_members_of_any_size(members: list[bytes], padding: int) -> None:
    members = [bytes(padding), *members]
    packed = b"".join(gzip.compress(member) for member in members)

    assert inflate(packed, "gzip", LIMIT) == b"".join(members)


@pytest.mark.parametrize(
    "name, packed",
    [("gzip", gzip.compress(b"abc" * 9, mtime=0)), ("deflate", zlib.compress(b"abc" * 9))],
)
def test_truncated_at_every_byte(name: str, packed: bytes) -> None:
    for size in range(1, len(packed)):
        with pytest.raises(MLServerError, match=f"expected {name} data") as error:
            inflate(packed[:size], name, LIMIT)
        assert error.value.status_code == 400


@given(st.binary(min_size=1, max_size=100), st.sampled_from(["gzip", "deflate"]))
def test_random_data_is_rejected_or_read(data: bytes, name: str) -> None:
    try:
        inflate(data, name, LIMIT)
    except MLServerError as error:
        assert error.status_code in (400, 413)  # noqa: PT017 - both results are valid


@pytest.mark.parametrize(
    "encoding",
    ["br", "gzip, br", "zstd", "compress", "gzip, gzip, gzip", ", ".join(["gzip"] * 999)],
)
async def test_encodings_that_are_not_supported(encoding: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="Content-Encoding") as error:
        await read(b"abc", content_encoding=encoding)
    assert error.value.status_code == 415


# -- responses --


@pytest.mark.parametrize(
    "accepted, name",
    [
        (b"gzip", "gzip"),
        (b"deflate, gzip;q=0.5", "gzip"),
        (b"gzip;q=0, deflate", "deflate"),
        (b"gzip;q=", "gzip"),
        (b"gzip ; q=0.1", "gzip"),
        (b"GZIP", "gzip"),
        (b"gzip;q=x", ""),
        (b"br", ""),
        (b"", ""),
        (b"identity", ""),
    ],
)
@pytest.mark.parametrize("size", [600, 100_000])
async def test_responses_have_an_accepted_encoding(accepted: bytes, name: str, size: int) -> None:
    unpack: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "": bytes,
    }
    body, encoding = await compress(b"a" * size, accepted)

    assert encoding == name
    assert isinstance(body, bytes)
    assert unpack[name](body) == b"a" * size


async def test_parts_are_compressed_only_if_they_shrink() -> None:
    same, encoding = await compress([random.Random(0).randbytes(9000), b"b"], b"gzip")
    assert (encoding, len(same)) == ("", 2)
    body, encoding = await compress([b"a" * 9000, memoryview(b"b")], b"gzip")
    assert isinstance(body, bytes)
    assert gzip.decompress(body) == b"a" * 9000 + b"b"


@pytest.mark.parametrize("zeros, encoding", [(600, ""), (1200, "gzip")])
async def test_parts_must_shrink_by_a_fifth(zeros: int, encoding: str) -> None:
    """A body of random bytes and zeros shrinks by the share of its zeros."""
    noise = random.Random(0).randbytes(4000 - zeros)
    assert (await compress([noise, bytes(zeros)], b"gzip"))[1] == encoding
