"""The response cache: a stage before a model's scheduler, and the store that these stages share.

The key of a response is the model, its version, its load, and the content of the request without id
and headers. Responses are stored as bytes, so that clients of the Python API never share an object.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from ..batching.batch import rows_of
from ..errors import MLServerError
from ..parallel.rpc.protocol import pack_request, pack_response, plain_value, unpack_response
from ..pipeline import RequestContext
from ..registry import ModelPipeline, OuterStage
from ..types import InferenceRequest, InferenceResponse

_encoder = msgspec.msgpack.Encoder(enc_hook=plain_value)
_loads = itertools.count(1)
# Raised for requests and responses with values that cannot be encoded; these are not cached.
_NOT_CACHEABLE = (MLServerError, OverflowError, RecursionError, TypeError, ValueError)


class ResponseCache(Protocol):
    """A store of responses."""

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key; None if it is not stored."""
        ...

    def insert(self, key: bytes, value: bytes) -> None: ...


class LocalCache:
    """A store in this process's memory that evicts the least recently used entries.

    Args:
        size: Entries at most.
        max_bytes: Bytes of all keys and values at most; a larger value is not stored.
    """

    def __init__(self, size: int = 100, max_bytes: int = 128 * 1024 * 1024) -> None:
        self._size = size
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"LocalCache(entries={len(self._entries)}, bytes={self._bytes})"

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes_held(self) -> int:
        return self._bytes

    def lookup(self, key: bytes) -> bytes | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def insert(self, key: bytes, value: bytes) -> None:
        self._drop(key)
        if len(key) + len(value) > self._max_bytes:
            return
        self._entries[key] = value
        self._bytes += len(key) + len(value)
        while len(self._entries) > self._size or self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        value = self._entries.pop(key, None)
        if value is not None:
            self._bytes -= len(key) + len(value)


class CacheStage(OuterStage):
    """Returns stored responses to equal requests. Streams are not cached.

    Args:
        pipeline: The next stage.
        store: Shared with other models.
        name: Name of the model.
        version: Its version.
        record_lookup: Called for each lookup: whether it was a hit, and its nanoseconds.
    """

    def __init__(
        self,
        pipeline: ModelPipeline,
        store: ResponseCache,
        name: str,
        version: str | None,
        record_lookup: Callable[[bool, int], None],
    ) -> None:
        super().__init__(pipeline)
        self._store = store
        self._key_prefix = _encoder.encode([name, version, next(_loads)])
        self._record_lookup = record_lookup

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        started = time.perf_counter_ns()
        try:
            key = request_key(request, self._key_prefix)
        except _NOT_CACHEABLE:
            return await self._pipeline.infer(request, context)
        cached = self._store.lookup(key)
        if cached is not None:
            context.timings.batch_rows = rows_of(request)
            response = unpack(cached)
            self._record_lookup(True, time.perf_counter_ns() - started)
            return response
        elapsed = time.perf_counter_ns() - started
        response = await self._pipeline.infer(request, context)
        started = time.perf_counter_ns()
        with suppress(*_NOT_CACHEABLE):
            self._store.insert(key, pack(response))
        self._record_lookup(False, elapsed + time.perf_counter_ns() - started)
        return response

    def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        return self._pipeline.stream(requests, context)


def request_key(request: InferenceRequest, prefix: bytes = b"") -> bytes:
    """Return a digest of `prefix`, and of the request's parameters, inputs and requested outputs.

    Equal values in another representation (text for bytes, parameters in another order) have
    different keys.
    """
    buffers: list[bytes | memoryview] = []
    values = pack_request(request, buffers)
    values[0] = None
    if values[1] is not None:
        values[1].pop("headers", None)
        values[1] = values[1] or None
    digest = hashlib.blake2b(prefix, digest_size=32)
    # Each part is preceded by its length, so that different lists of parts have different digests.
    for part in (_encoder.encode(values), *buffers):
        view = memoryview(part).cast("B")
        digest.update(struct.pack("<Q", view.nbytes))
        digest.update(view)
    return digest.digest()


def pack(response: InferenceResponse) -> bytes:
    """Encode a response. The bytes share no memory with it."""
    buffers: list[bytes | memoryview] = []
    values = pack_response(response, buffers)
    return _encoder.encode([values, [bytes(buffer) for buffer in buffers]])


def unpack(packed: bytes) -> InferenceResponse:
    """Decode a response encoded by `pack`."""
    values, buffers = msgspec.msgpack.decode(packed)
    return unpack_response(values, buffers)
