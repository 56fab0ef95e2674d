"""Remembered responses: a stage in front of a model's scheduler, and the store that all such stages share.

A response is remembered under the model, its version, the load it came from, and the content of the request: everything
but id and headers. What is remembered is bytes, so that no caller ever holds what another one gets.
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
from ..registry import ModelPipeline
from ..types import InferenceRequest, InferenceResponse

_encoder = msgspec.msgpack.Encoder(enc_hook=plain_value)
_loads = itertools.count(1)
# What holds values that are no plain data is not remembered.
_NOT_PLAIN = (MLServerError, OverflowError, RecursionError, TypeError, ValueError)


class ResponseCache(Protocol):
    """Where responses are kept."""

    def lookup(self, key: bytes) -> bytes | None:
        """What was inserted under the key, if it is still there."""
        ...

    def insert(self, key: bytes, value: bytes) -> None: ...


class LocalCache:
    """A store in this process's memory. When it is full, what was not used for the longest time goes.

    Args:
        size: Entries at most.
        max_bytes: Bytes of keys and values at most; a value that is larger alone is not kept.
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


class CacheStage:
    """A model's road that answers from the store what it has answered before. Streams are passed on.

    Args:
        road: What computes.
        store: Shared with other models.
        name, version: The model's.
        count: Told of every lookup: whether it was a hit, and the nanoseconds it took.
    """

    def __init__(
        self,
        pipeline: ModelPipeline,
        store: ResponseCache,
        name: str,
        version: str | None,
        count: Callable[[bool, int], None],
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._own = _encoder.encode([name, version, next(_loads)])
        self._count = count

    @property
    def max_batch_size(self) -> int:
        return self._pipeline.max_batch_size

    async def drained(self) -> None:
        await self._pipeline.drained()

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        started = time.perf_counter_ns()
        try:
            key = request_key(request, self._own)
        except _NOT_PLAIN:
            return await self._pipeline.infer(request, context)
        found = self._store.lookup(key)
        if found is not None:
            context.timings.batch_rows = rows_of(request)
            response = unpack(found)
            self._count(True, time.perf_counter_ns() - started)
            return response
        elapsed = time.perf_counter_ns() - started
        response = await self._pipeline.infer(request, context)
        started = time.perf_counter_ns()
        with suppress(*_NOT_PLAIN):
            self._store.insert(key, pack(response))
        self._count(False, elapsed + time.perf_counter_ns() - started)
        return response

    def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        return self._pipeline.stream(requests, context)


def request_key(request: InferenceRequest, own: bytes = b"") -> bytes:
    """A digest of what decides the answer: parameters, inputs and requested outputs, and `own`.

    Requests that say the same in other words (text for bytes, parameters in another order) have keys of their own.
    """
    buffers: list[bytes | memoryview] = []
    values = pack_request(request, buffers)
    values[0] = None
    if values[1] is not None:
        values[1].pop("headers", None)
        values[1] = values[1] or None
    digest = hashlib.blake2b(own, digest_size=32)
    # Each part with its length, so that no two lists of parts look the same.
    for part in (_encoder.encode(values), *buffers):
        view = memoryview(part).cast("B")
        digest.update(struct.pack("<Q", view.nbytes))
        digest.update(view)
    return digest.digest()


def pack(response: InferenceResponse) -> bytes:
    """A response as bytes of its own."""
    buffers: list[bytes | memoryview] = []
    values = pack_response(response, buffers)
    return _encoder.encode([values, [bytes(buffer) for buffer in buffers]])


def unpack(packed: bytes) -> InferenceResponse:
    values, buffers = msgspec.msgpack.decode(packed)
    return unpack_response(values, buffers)
