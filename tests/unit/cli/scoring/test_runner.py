"""Scoring job with a fake client: order, retries, back-off, and splitting of failed requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from mlserver.cli.scoring.client import RequestFailed
from mlserver.cli.scoring.items import ItemFailure, ItemResult, WorkItem
from mlserver.cli.scoring.runner import (
    MAX_RETRY_DELAY,
    RetryPolicy,
    ScoringJob,
    Unreachable,
    call_with_retries,
)
from mlserver.cli.scoring.source import join_items
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    RequestInput,
    ResponseOutput,
    TensorData,
)

Handler = Callable[[InferenceRequest], InferenceResponse]
NO_DELAY = RetryPolicy(retries=2, first_delay=0.0)


class FakeClient:
    """Client whose responses come from a function."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.requests: list[InferenceRequest] = []

    def infer(self, request: InferenceRequest) -> InferenceResponse:
        self.requests.append(request)
        return self._handler(request)

    def metadata(self) -> MetadataModelResponse:
        return MetadataModelResponse(name="m", platform="")

    def close(self) -> None:
        return None


def values_of(request: InferenceRequest) -> list[float]:
    return [float(value) for value in request.inputs[0].data]


def double(request: InferenceRequest) -> InferenceResponse:
    values = [2 * value for value in values_of(request)]
    output = ResponseOutput(name="y", shape=[len(values)], datatype="FP64", data=TensorData(values))
    return InferenceResponse(model_name="m", outputs=[output])


def make_request(value: float) -> InferenceRequest:
    tensor = RequestInput(name="x", shape=[1], datatype="FP64", data=TensorData([value]))
    tensor.data.normalize("FP64", [1])
    return InferenceRequest(inputs=[tensor])


def make_work_item(*values: float, start: int = 0) -> WorkItem:
    return join_items([(start + index, make_request(value)) for index, value in enumerate(values)])


def run(
    handler: Handler, *work_items: WorkItem, workers: int = 4, retry_policy: RetryPolicy = NO_DELAY
) -> list[ItemResult]:
    job = ScoringJob(FakeClient(handler), workers, retry_policy)
    return [result for group in job.run(iter(work_items)) for result in group]


def test_results_are_in_the_order_of_the_work_items() -> None:
    first_may_answer = threading.Event()

    def late_first(request: InferenceRequest) -> InferenceResponse:
        if values_of(request) == [0.0]:
            assert first_may_answer.wait(30)
        else:
            first_may_answer.set()
        return double(request)

    done = run(late_first, *(make_work_item(float(number), start=number) for number in range(50)))
    assert [each.item for each in done] == list(range(50))
    assert [each.response.outputs[0].data.root for each in done if each.response] == [
        [2.0 * n] for n in range(50)
    ]


def test_a_failed_request_is_split_to_isolate_the_failing_item() -> None:
    def no_threes(request: InferenceRequest) -> InferenceResponse:
        if 3.0 in values_of(request):
            raise RequestFailed("no threes")
        return double(request)

    done = run(no_threes, make_work_item(1, 2, 3, 4, 5))
    assert [each.failure for each in done] == [None, None, ItemFailure("no threes"), None, None]


def test_items_are_sent_alone_if_the_response_cannot_be_split() -> None:
    def total(request: InferenceRequest) -> InferenceResponse:
        output = ResponseOutput(
            name="sum", shape=[1], datatype="FP64", data=TensorData([sum(values_of(request))])
        )
        return InferenceResponse(model_name="m", outputs=[output])

    done = run(total, make_work_item(1, 2, 3))
    assert [each.response.outputs[0].data.root for each in done if each.response] == [
        [1.0],
        [2.0],
        [3.0],
    ]


def test_splitting_stops_when_every_request_fails() -> None:
    def never(request: InferenceRequest) -> InferenceResponse:
        raise RequestFailed("never")

    client = FakeClient(never)
    work_items = [make_work_item(1, 2, 3, 4, start=4 * number) for number in range(20)]
    done = [
        each for group in ScoringJob(client, 1, NO_DELAY).run(iter(work_items)) for each in group
    ]
    assert len(done) == 80
    assert all(each.failure == ItemFailure("never") for each in done)
    assert len(client.requests) < 80


def test_only_retryable_failures_are_retried() -> None:
    for is_retryable, attempts in ((False, 1), (True, 3)):

        def refuse(
            request: InferenceRequest, is_retryable: bool = is_retryable
        ) -> InferenceResponse:
            raise RequestFailed("no", is_retryable=is_retryable)

        refusing = FakeClient(refuse)
        [[done]] = list(ScoringJob(refusing, 1, NO_DELAY).run(iter([make_work_item(1)])))
        assert done.failure == ItemFailure("no")
        assert len(refusing.requests) == attempts


def test_a_job_ends_when_the_server_is_unreachable() -> None:
    def gone(request: InferenceRequest) -> InferenceResponse:
        raise RequestFailed("refused", is_retryable=True, is_unreachable=True)

    read: list[int] = []

    def read_work_items() -> Iterator[WorkItem]:
        for number in range(1000):
            read.append(number)
            yield make_work_item(1, start=number)

    with pytest.raises(Unreachable, match="refused"):
        list(ScoringJob(FakeClient(gone), 2, NO_DELAY).run(read_work_items()))
    assert len(read) < 1000


def test_the_delay_doubles_and_retry_after_overrides_it() -> None:
    policy = RetryPolicy(first_delay=1.0)
    assert [policy.get_delay(attempt, None) for attempt in (1, 2, 3, 20)] == [
        1.0,
        2.0,
        4.0,
        MAX_RETRY_DELAY,
    ]
    assert policy.get_delay(3, 0.5) == 0.5
    assert policy.get_delay(1, 3600.0) == MAX_RETRY_DELAY


def test_a_stopped_job_does_not_retry() -> None:
    stopped = threading.Event()
    stopped.set()
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise RequestFailed("later", is_retryable=True, retry_after=30.0)

    with pytest.raises(RequestFailed):
        call_with_retries(fail, RetryPolicy(retries=5), stopped)
    assert len(tries) == 1
