"""Joined requests get the results that they get alone, bit for bit, for every type of result."""

from __future__ import annotations

import asyncio
import json
import os
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mlflow.types import DataType

from mlserver.batching.admission import AdmissionPolicy
from mlserver.batching.queue import BatchPolicy
from mlserver.batching.scheduler import Scheduler
from mlserver.errors import MLServerError
from mlserver.parallel.worker.model_runner import ModelRunner
from mlserver.pipeline import RequestContext
from mlserver.settings import ModelParameters, ModelSettings
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.wire import json as wire
from mlserver_mlflow import MLflowRuntime
from mlserver_mlflow.v2 import join_backoff
from support.examples import example_count
from support.mlflow_results import FORMS, inputs_of, save
from support.slow import slow
from support.tracking_store import create_store

pytestmark = pytest.mark.filterwarnings("ignore")

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, -1, 2**53 + 1, 2**63, 2**64, 2**70]),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 1e300, {"float": "nan"}, {"float": "inf"}]),
    st.sampled_from(["", "cat", "1", "True", "None", "nan", "é\0"]),
    st.sampled_from(
        [
            {"date": "2020-01-02"},
            {"time": "2020-01-02T00:00:00"},
            {"time": "2020-01-02T03:04:05.678901"},
        ]
    ),
    st.sampled_from([{"bytes": "00ff"}, {"bytes": "6869"}]),
    st.sampled_from([[], [1, 0.5], {"a": 1}, {}]),
)
# Values of few kinds make batches that a dtype can hold.
KINDS = [
    st.one_of(st.none(), st.sampled_from(["cat", "dog", "1"])),
    st.one_of(st.none(), st.integers(-3, 3)),
    st.one_of(st.none(), st.integers(0, 3), st.sampled_from([0.5, 1.0, 2.25])),
    st.one_of(st.none(), st.booleans()),
    st.one_of(st.booleans(), st.integers(0, 2), st.sampled_from([0.5, 1.0])),
    st.sampled_from([1, 2**53 + 1, 2**63, -1, 0.5]),
    st.sampled_from(
        [{"date": "2020-01-02"}, {"time": "2020-01-02T03:04:05"}, {"time": "2020-01-02T00:00:00"}]
    ),
    st.one_of(st.none(), st.sampled_from([{"bytes": "00ff"}, "cat"])),
    VALUES,
]
BATCHES = st.sampled_from(KINDS).flatmap(
    lambda values: st.lists(st.lists(values, min_size=1, max_size=3), min_size=2, max_size=4)
)


class NoMetrics:
    def request_queued(self, queue_size: int) -> None: ...

    def request_rejected(self, reason: str) -> None: ...

    def run_started(self, in_flight: int, queue_seconds: Sequence[float]) -> None: ...

    def run_finished(self, requests: int, rows: int, seconds: float) -> None: ...


class Loaded:
    """A loaded model as the scheduler's next stage, which counts how its requests came."""

    capacity = 1

    def __init__(self, runner: ModelRunner, key: str) -> None:
        self._runner = runner
        self._key = key
        self.batches: list[int] = []

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        self.batches.append(max(1, len(context.rows_per_request)))
        return await self._runner.infer(self._key, request, context)

    def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        raise NotImplementedError


MODELS: dict[str, DataType | None] = {
    "free": None,
    "texts": DataType.string,
    "longs": DataType.long,
}


@pytest.fixture(scope="module")
def loaded(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[asyncio.Runner, dict[str, Loaded]]]:
    folder: Path = tmp_path_factory.mktemp("results")
    before = dict(os.environ)
    os.environ["MLFLOW_TRACKING_URI"] = create_store(folder / "mlflow.db")
    runner, models = ModelRunner(), {}

    async def load() -> None:
        for name, declared in MODELS.items():
            uri = str(save(folder / name, declared))
            parameters = ModelParameters(uri=uri)
            model = ModelSettings(
                name=name,
                implementation=MLflowRuntime,
                parameters=parameters,
                max_batch_size=8,
                max_batch_time=0.01,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                await runner.load(name, model)
            models[name] = Loaded(runner, name)

    with asyncio.Runner() as loop:
        loop.run(load())
        yield loop, models
    os.environ.clear()
    os.environ.update(before)


def request_of(values: Sequence[Any], form: str) -> InferenceRequest:
    return InferenceRequest.model_validate(
        {"inputs": inputs_of([json.dumps(value) for value in values], form)}
    )


async def answer(stage: Any, values: Sequence[Any], form: str) -> Any:
    """The response as JSON, or the error."""
    try:
        return json.loads(
            wire.write_response(await stage.infer(request_of(values, form), RequestContext()))
        )
    except MLServerError as error:
        return error.status_code, error.message


async def answer_alone(model: Loaded, batch: Sequence[Sequence[Any]], form: str) -> list[Any]:
    """The answers to the requests one by one, up to the first error."""
    answers: list[Any] = []
    for values in batch:
        answers.append(await answer(model, values, form))
        if isinstance(answers[-1], tuple):
            break
    return answers


async def answer_joined(model: Loaded, batch: Sequence[Sequence[Any]], form: str) -> list[Any]:
    """The answers to the requests in one batch."""
    model.batches.clear()
    scheduler = Scheduler(
        "m", model, BatchPolicy(len(batch), 60.0), AdmissionPolicy(100, None), NoMetrics()
    )
    joined = await asyncio.gather(*(answer(scheduler, values, form) for values in batch))
    await scheduler.drained()
    assert model.batches[0] == len(batch)
    return list(joined)


# A model that declares an output has it in every answer, which those records have not.
CASES = [
    slow(name, form) if name == "longs" else (name, form)
    for name in MODELS
    for form in FORMS
    if name == "free" or form != "records"
]


@pytest.mark.hypothesis
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name, form", CASES)
def test_joined_is_alone(
    loaded: tuple[asyncio.Runner, dict[str, Loaded]],
    name: str,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, models = loaded
    monkeypatch.setattr(join_backoff, "MAX_SKIPPED_BATCHES", 0)  # every batch is tried

    @settings(max_examples=example_count(12), suppress_health_check=list(HealthCheck))
    @given(BATCHES)
    def check(batch: list[list[Any]]) -> None:
        alone = loop.run(answer_alone(models[name], batch, form))
        # A model may refuse a request alone and accept it beside other values.
        assume(not isinstance(alone[-1], tuple))
        assert loop.run(answer_joined(models[name], batch, form)) == alone

    check()
