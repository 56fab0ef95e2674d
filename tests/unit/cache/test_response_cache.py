"""The response cache: cached responses equal computed ones; keys cover the whole request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserver.cache.response_cache import CacheStage, LocalCache, request_key
from mlserver.errors import MLServerError
from mlserver.handlers.validation import check_request
from mlserver.pipeline import RequestContext
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    RequestOutput,
    ResponseOutput,
)


class NextStage:
    """Returns the inputs, and counts the requests."""

    max_batch_size = 1

    def __init__(self) -> None:
        self.request_count = 0

    @property
    def open_requests(self) -> tuple[int, int]:
        return 0, 0

    async def drained(self) -> None:
        return None

    def count_route(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        self.request_count += 1
        return answer(request)

    async def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        async for request in requests:
            yield await self.infer(request, context)


def answer(request: InferenceRequest) -> InferenceResponse:
    outputs = [
        ResponseOutput(
            name=tensor.name,
            shape=tensor.shape,
            datatype=tensor.datatype,
            parameters=tensor.parameters,
            data=tensor.data,
        )
        for tensor in request.inputs
    ]
    parameters = Parameters(headers={"x-model": "yes"}, extra=[1, {"k": None}])
    return InferenceResponse(model_name="m", outputs=outputs, parameters=parameters)


def request(data: Any = (1.0, 2.0), datatype: str = "FP64", **more: Any) -> InferenceRequest:
    shape = more.pop("shape", [len(data)])
    tensor = RequestInput(
        name=more.pop("name", "x"),
        shape=shape,
        datatype=datatype,
        data=list(data),
        **more.pop("tensor", {}),
    )
    request = InferenceRequest(inputs=[tensor], **more)
    check_request(request)
    return request


def cached(
    next_stage: NextStage,
    store: LocalCache | None = None,
    name: str = "m",
    version: str | None = None,
) -> CacheStage:
    return CacheStage(next_stage, store or LocalCache(), name, version, lambda hit, ns: None)


# -- cached responses equal computed ones --

elements = {
    "FP64": st.floats(allow_nan=False),
    "FP32": st.floats(width=32, allow_nan=False),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT8": st.integers(0, 255),
    "BOOL": st.booleans(),
    "BYTES": st.text(),
}
plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False)
)


@st.composite
def requests(draw: st.DrawFn) -> InferenceRequest:
    inputs = []
    for name in draw(st.lists(st.sampled_from("abc"), min_size=1, unique=True)):
        datatype = draw(st.sampled_from(sorted(elements)))
        data = draw(st.lists(elements[datatype], min_size=0, max_size=4))
        parameters = draw(
            st.none() | st.dictionaries(st.sampled_from("pq"), plain).map(Parameters.from_values)
        )
        inputs.append(
            RequestInput(
                name=name, shape=[len(data)], datatype=datatype, data=data, parameters=parameters
            )
        )
    request = InferenceRequest(
        id=draw(st.none() | st.text()),
        parameters=draw(
            st.none() | st.dictionaries(st.sampled_from("rs"), plain).map(Parameters.from_values)
        ),
        inputs=inputs,
        outputs=draw(
            st.none()
            | st.lists(st.sampled_from("abc"), max_size=2, unique=True).map(
                lambda names: [RequestOutput(name=name) for name in names]
            )
        ),
    )
    check_request(request)
    return request


def content(message: InferenceRequest | InferenceResponse) -> Any:
    """The fields of a message without id and headers."""
    fields = message.model_dump()
    fields.pop("id", None)
    fields.get("parameters", {}).pop("headers", None)
    return {key: value for key, value in fields.items() if value}


@settings(deadline=None, max_examples=50)
@given(st.lists(requests(), min_size=1, max_size=6))
async def test_cached_responses_equal_computed_ones(sent: list[InferenceRequest]) -> None:
    cache = cached(NextStage())
    for each in [*sent, *sent]:
        assert (await cache.infer(each, RequestContext())).model_dump() == answer(each).model_dump()


@settings(deadline=None, max_examples=100)
@given(requests(), requests())
def test_equal_keys_mean_equal_content(first: InferenceRequest, other: InferenceRequest) -> None:
    assert (request_key(first) == request_key(other)) <= (
        repr(content(first)) == repr(content(other))
    )


# -- equal requests --


@pytest.mark.parametrize(
    "again",
    [
        request(),
        request(id="another"),
        request(parameters=Parameters(headers={"x": "y"})),
        request(np.array([1.0, 2.0])),
        request([1, 2]),
    ],
)
async def test_an_equal_request_is_computed_once(again: InferenceRequest) -> None:
    next_stage = NextStage()
    cache = cached(next_stage)
    await cache.infer(request(), RequestContext())
    await cache.infer(again, RequestContext())
    assert next_stage.request_count == 1


@pytest.mark.parametrize(
    "other",
    [
        request([1.0, 2.5]),
        request([1.0, 2.0], "FP32"),
        request(shape=[2, 1]),
        request(shape=[1, 2]),
        request(name="y"),
        request(parameters=Parameters(content_type="np")),
        request(tensor={"parameters": Parameters(content_type="np")}),
        request(outputs=[RequestOutput(name="x")]),
    ],
    ids=range(8),
)
async def test_another_request_is_computed(other: InferenceRequest) -> None:
    next_stage = NextStage()
    cache = cached(next_stage)
    await cache.infer(request(), RequestContext())
    await cache.infer(other, RequestContext())
    assert next_stage.request_count == 2


def test_large_tensors_are_part_of_the_key() -> None:
    zeros, ones = np.zeros(10_000), np.zeros(10_000)
    ones[-1] = 1
    assert request_key(request(zeros)) == request_key(request(zeros))
    assert request_key(request(zeros)) != request_key(request(ones))


async def test_models_versions_and_loads_do_not_share() -> None:
    store, next_stages = LocalCache(), [NextStage() for _ in range(4)]
    for next_stage, (name, version) in zip(
        next_stages, [("m", None), ("n", None), ("m", "1"), ("m", None)], strict=True
    ):
        cache = cached(next_stage, store, name, version)
        await cache.infer(request(), RequestContext())
    assert [next_stage.request_count for next_stage in next_stages] == [1, 1, 1, 1]


# -- stored responses --


async def test_changing_a_response_does_not_change_the_cache() -> None:
    cache = cached(NextStage())
    for _ in range(3):
        response = await cache.infer(request(), RequestContext())
        assert response.model_dump() == answer(request()).model_dump()
        response.id = "mine"
        response.outputs.clear()
        assert response.parameters is not None
        response.parameters.headers = None


async def test_errors_are_not_cached() -> None:
    class Fails(NextStage):
        async def infer(
            self, request: InferenceRequest, context: RequestContext
        ) -> InferenceResponse:
            self.request_count += 1
            raise MLServerError("no")

    next_stage = Fails()
    cache = cached(next_stage)
    for _ in range(2):
        with pytest.raises(MLServerError):
            await cache.infer(request(), RequestContext())
    assert next_stage.request_count == 2


async def test_requests_that_cannot_be_encoded_are_passed_on() -> None:
    next_stage = NextStage()
    cache = cached(next_stage)
    for _ in range(2):
        await cache.infer(
            request(parameters=Parameters.from_values({"huge": 2**70})), RequestContext()
        )
    assert next_stage.request_count == 2


async def test_streams_are_passed_on() -> None:
    next_stage = NextStage()
    cache = cached(next_stage)

    async def two() -> AsyncIterator[InferenceRequest]:
        yield request()
        yield request()

    assert len([response async for response in cache.stream(two(), RequestContext())]) == 2
    assert next_stage.request_count == 2


async def test_hits_and_misses_are_counted() -> None:
    """With the nanoseconds that the cache itself took."""
    counted: list[tuple[bool, int]] = []
    cache = CacheStage(
        NextStage(), LocalCache(), "m", None, lambda hit, ns: counted.append((hit, ns))
    )
    for sent, is_hit in (
        (request(), False),
        (request(), True),
        (request([3.0]), False),
        (request(), True),
    ):
        started = time.perf_counter_ns()
        await cache.infer(sent, RequestContext())
        elapsed = time.perf_counter_ns() - started
        hit, ns = counted.pop()
        assert hit is is_hit
        assert 0 <= ns <= elapsed


# -- the store --


def test_the_least_recently_used_entry_is_evicted() -> None:
    store = LocalCache(2)
    store.insert(b"a", b"1")
    store.insert(b"b", b"2")
    store.lookup(b"a")
    store.insert(b"c", b"3")
    assert [store.lookup(key) for key in (b"a", b"b", b"c")] == [b"1", None, b"3"]


def test_bytes_are_bounded() -> None:
    store = LocalCache(100, max_bytes=10)
    store.insert(b"a", bytes(5))
    store.insert(b"b", bytes(5))
    assert (len(store), store.bytes_held) == (1, 6)
    store.insert(b"c", bytes(10))
    assert store.lookup(b"c") is None
    store.insert(b"c", bytes(9))
    assert (len(store), store.bytes_held) == (1, 10)
    store.insert(b"b", bytes(2))
    assert (len(store), store.bytes_held) == (1, 3)


@given(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"c", b"dd"]), st.binary(max_size=8), st.booleans())
    )
)
def test_the_store_equals_a_simple_model(steps: list[tuple[bytes, bytes, bool]]) -> None:
    store, model = LocalCache(3, max_bytes=16), dict[bytes, bytes]()
    for key, value, insert in steps:
        if insert:
            store.insert(key, value)
            model.pop(key, None)
            model[key] = value
            while len(model) > 3 or sum(len(k) + len(v) for k, v in model.items()) > 16:
                model.pop(next(iter(model)))
        else:
            assert store.lookup(key) == model.get(key)
            if key in model:
                model[key] = model.pop(key)
    assert len(store) == len(model)
    assert store.bytes_held == sum(len(k) + len(v) for k, v in model.items())
