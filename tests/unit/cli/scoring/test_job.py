"""A job over a client that answers from memory: order, retries, back-off, and what is taken apart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from mlserver.cli.scoring.client import Refusal
from mlserver.cli.scoring.items import ItemFailure, ItemResult, WorkItem
from mlserver.cli.scoring.runner import (
    LONGEST_PAUSE,
    RetryPolicy,
    ScoringJob,
    Unreachable,
    patiently,
)
from mlserver.cli.scoring.source import joined
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    RequestInput,
    ResponseOutput,
    TensorData,
)

Answer = Callable[[InferenceRequest], InferenceResponse]
AT_ONCE = RetryPolicy(retries=2, first_pause=0.0)


class Memory:
    """A client whose server is a function."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[InferenceRequest] = []

    def infer(self, request: InferenceRequest) -> InferenceResponse:
        self.requests.append(request)
        return self._answer(request)

    def metadata(self) -> MetadataModelResponse:
        return MetadataModelResponse(name="m", platform="")

    def close(self) -> None:
        return None


def values_of(request: InferenceRequest) -> list[float]:
    return [float(value) for value in request.inputs[0].data]


def doubled(request: InferenceRequest) -> InferenceResponse:
    values = [2 * value for value in values_of(request)]
    output = ResponseOutput(name="y", shape=[len(values)], datatype="FP64", data=TensorData(values))
    return InferenceResponse(model_name="m", outputs=[output])


def one(value: float) -> InferenceRequest:
    tensor = RequestInput(name="x", shape=[1], datatype="FP64", data=TensorData([value]))
    tensor.data.normalize("FP64", [1])
    return InferenceRequest(inputs=[tensor])


def work(*values: float, start: int = 0) -> WorkItem:
    return joined([(start + index, one(value)) for index, value in enumerate(values)])


def run(
    answer: Answer, *works: WorkItem, workers: int = 4, patience: RetryPolicy = AT_ONCE
) -> list[ItemResult]:
    return [
        done
        for group in ScoringJob(Memory(answer), workers, patience).run(iter(works))
        for done in group
    ]


def test_results_come_in_the_order_of_the_works() -> None:
    first_may_answer = threading.Event()

    def late_first(request: InferenceRequest) -> InferenceResponse:
        if values_of(request) == [0.0]:
            assert first_may_answer.wait(30)
        else:
            first_may_answer.set()
        return doubled(request)

    done = run(late_first, *(work(float(number), start=number) for number in range(50)))
    assert [each.item for each in done] == list(range(50))
    assert [each.response.outputs[0].data.root for each in done if each.response] == [
        [2.0 * n] for n in range(50)
    ]


def test_a_refused_batch_is_taken_apart() -> None:
    def no_threes(request: InferenceRequest) -> InferenceResponse:
        if 3.0 in values_of(request):
            raise Refusal("no threes")
        return doubled(request)

    done = run(no_threes, work(1, 2, 3, 4, 5))
    assert [each.failure for each in done] == [None, None, ItemFailure("no threes"), None, None]


def test_an_answer_that_cannot_be_split_is_asked_for_item_by_item() -> None:
    def total(request: InferenceRequest) -> InferenceResponse:
        output = ResponseOutput(
            name="sum", shape=[1], datatype="FP64", data=TensorData([sum(values_of(request))])
        )
        return InferenceResponse(model_name="m", outputs=[output])

    done = run(total, work(1, 2, 3))
    assert [each.response.outputs[0].data.root for each in done if each.response] == [
        [1.0],
        [2.0],
        [3.0],
    ]


def test_hopeless_batches_are_not_taken_apart_for_ever() -> None:
    def never(request: InferenceRequest) -> InferenceResponse:
        raise Refusal("never")

    client = Memory(never)
    works = [work(1, 2, 3, 4, start=4 * number) for number in range(20)]
    done = [each for group in ScoringJob(client, 1, AT_ONCE).run(iter(works)) for each in group]
    assert len(done) == 80
    assert all(each.failure == ItemFailure("never") for each in done)
    assert len(client.requests) < 80


def test_only_what_may_change_is_tried_again() -> None:
    for again, tries in ((False, 1), (True, 3)):

        def refuse(request: InferenceRequest, again: bool = again) -> InferenceResponse:
            raise Refusal("no", again=again)

        refusing = Memory(refuse)
        [[done]] = list(ScoringJob(refusing, 1, AT_ONCE).run(iter([work(1)])))
        assert done.failure == ItemFailure("no")
        assert len(refusing.requests) == tries


def test_a_job_ends_when_nobody_is_there() -> None:
    def gone(request: InferenceRequest) -> InferenceResponse:
        raise Refusal("nobody", again=True, unreachable=True)

    asked: list[int] = []

    def works() -> Iterator[WorkItem]:
        for number in range(1000):
            asked.append(number)
            yield work(1, start=number)

    with pytest.raises(Unreachable, match="nobody"):
        list(ScoringJob(Memory(gone), 2, AT_ONCE).run(works()))
    assert len(asked) < 1000


def test_pauses_double_and_the_server_counts_first() -> None:
    patience = RetryPolicy(first_pause=1.0)
    assert [patience.pause(attempt, None) for attempt in (1, 2, 3, 20)] == [
        1.0,
        2.0,
        4.0,
        LONGEST_PAUSE,
    ]
    assert patience.pause(3, 0.5) == 0.5
    assert patience.pause(1, 3600.0) == LONGEST_PAUSE


def test_a_stopped_job_does_not_wait_to_try_again() -> None:
    stopped = threading.Event()
    stopped.set()
    tries: list[int] = []

    def ask() -> None:
        tries.append(1)
        raise Refusal("later", again=True, after=30.0)

    with pytest.raises(Refusal):
        patiently(ask, RetryPolicy(retries=5), stopped)
    assert len(tries) == 1
