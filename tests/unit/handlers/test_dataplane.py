"""The data plane: fields it sets in requests and responses; health, metadata and statistics."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest

from mlserver.batching.queue import BatchPolicy
from mlserver.errors import DeadlineExceeded, MLServerError, ModelNotFound, ModelNotReady
from mlserver.handlers.request_fields import generate_id
from mlserver.pipeline import RequestContext
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataTensor,
    Parameters,
    RequestOutput,
    ResponseOutput,
    TensorData,
)
from support.pipeline import Bench, request


@pytest.fixture
async def bench() -> Bench:
    return Bench()


# -- health and metadata --


async def test_live_without_models(bench: Bench) -> None:
    bench.data_plane.accepting = False

    assert await bench.data_plane.live()
    assert not await bench.data_plane.ready()


@pytest.mark.parametrize("empty", [True, False])
async def test_ready_without_models(empty: bool) -> None:
    bench = Bench(empty_registry_readiness=empty)
    assert await bench.data_plane.ready() is empty
    bench.registry.missing.add("m")
    assert not await bench.data_plane.ready()


@pytest.mark.parametrize("strict", [True, False])
async def test_ready_depends_on_every_model(strict: bool) -> None:
    bench = Bench(strict_readiness=strict)
    model = await bench.load("m")
    assert await bench.data_plane.ready()
    await bench.fail("n")
    assert await bench.data_plane.ready() is not strict
    assert await bench.data_plane.model_ready("m")
    assert not await bench.data_plane.model_ready("n")
    model.available = False
    assert not await bench.data_plane.ready()
    assert not await bench.data_plane.model_ready("m")
    with pytest.raises(ModelNotFound):
        await bench.data_plane.model_ready("unknown")


async def test_server_metadata() -> None:
    bench = Bench(server_name="s", server_version="7", extensions=["mine", "statistics"])
    metadata = await bench.data_plane.metadata()

    assert (metadata.name, metadata.version) == ("s", "7")
    assert metadata.extensions.count("statistics") == 1
    assert metadata.extensions[-1] == "mine"


async def test_model_metadata(bench: Bench) -> None:
    await bench.load("m", "1")
    await bench.fail("n")

    assert (await bench.data_plane.model_metadata("m")).name == "m"
    with pytest.raises(ModelNotReady, match="Model n is not ready yet. no weights"):
        await bench.data_plane.model_metadata("n")
    with pytest.raises(ModelNotFound):
        await bench.data_plane.model_metadata("m", "2")


async def test_configuration() -> None:
    bench = Bench(policy=BatchPolicy(16))
    tensors = [MetadataTensor(name="x", datatype="BYTES", shape=[-1, 3])]
    await bench.load(
        metadata=MetadataModelResponse(name="m", platform="p", inputs=tensors), streams=True
    )
    config = bench.data_plane.model_config("m")

    assert (config["name"], config["platform"], config["max_batch_size"]) == ("m", "p", 16)
    assert config["input"] == [{"name": "x", "data_type": "TYPE_STRING", "dims": [3]}]
    assert config["model_transaction_policy"] == {"decoupled": True}


async def test_a_row_wise_model_is_not_decoupled(bench: Bench) -> None:
    await bench.load(streams=True, row_wise=True)

    assert "model_transaction_policy" not in bench.data_plane.model_config("m")


async def test_statistics_report_version_0_for_models_without_a_version(bench: Bench) -> None:
    await bench.load()

    assert (await bench.data_plane.statistics("m"))["model_stats"][0]["version"] == "0"


# -- one request --


async def test_an_id_is_kept_or_generated(bench: Bench) -> None:
    await bench.load("m", "3")
    kept = await bench.ask(id="mine")
    response = await bench.ask()

    assert kept.id == "mine"
    assert response.id is not None
    assert uuid.UUID(response.id).version == 4
    assert bench.executor.models[0].requests[1].id == response.id
    assert response.model_version == "3"


def test_ids_are_random_uuids() -> None:
    ids = {generate_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(
        uuid.UUID(request_id).version == 4 and uuid.UUID(request_id).variant == uuid.RFC_4122
        for request_id in ids
    )


async def test_the_models_own_version_is_kept(bench: Bench) -> None:
    model = await bench.load("m", "3")
    model.response = lambda payload: InferenceResponse(
        model_name="m", model_version="own", outputs=[]
    )

    assert (await bench.ask()).model_version == "own"


async def test_deadline_and_priority_from_parameters(bench: Bench) -> None:
    model = await bench.load()
    before = time.monotonic()
    await bench.ask(parameters={"timeout": 60_000_000, "priority": 2, "k": 1})
    (call,) = model.calls

    assert call.deadline is not None
    assert before + 60 <= call.deadline <= time.monotonic() + 60
    assert call.priority == 2
    parameters = model.requests[0].parameters
    assert parameters is not None
    assert parameters.to_dict() == {"k": 1}


async def test_the_earlier_deadline_counts(bench: Bench) -> None:
    model = await bench.load()
    context = RequestContext(deadline=time.monotonic() + 5)
    deadline = context.deadline
    await bench.data_plane.infer(request(parameters={"timeout": 60_000_000}), "m", context=context)

    assert model.calls[0].deadline == deadline


async def test_a_deadline_exceeded_in_the_model(bench: Bench) -> None:
    model = await bench.load()
    model.go.clear()
    with pytest.raises(DeadlineExceeded):
        await bench.ask(parameters={"timeout": 10_000})
    model.go.set()


@pytest.mark.parametrize("row_wise", [False, True])
async def test_headers_reach_models_that_may_depend_on_them(bench: Bench, row_wise: bool) -> None:
    model = await bench.load(row_wise=row_wise)
    context = RequestContext(headers={"x-user": "ann"})
    await bench.data_plane.infer(
        request(parameters={"headers": {"forged": "yes"}}), "m", context=context
    )
    parameters = model.requests[0].parameters

    assert parameters is not None
    assert parameters.headers == (None if row_wise else {"x-user": "ann"})


async def test_response_headers_are_moved_to_the_context(bench: Bench) -> None:
    model = await bench.load()
    model.response = lambda payload: InferenceResponse(
        model_name="m", outputs=[], parameters=Parameters(headers={"x-own": "1"}, k=2)
    )
    context = RequestContext()
    response = await bench.data_plane.infer(request(), "m", context=context)

    assert context.response_headers == {"x-own": "1"}
    assert response.parameters is not None
    assert response.parameters.to_dict() == {"k": 2}


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"data": ["a"]}, "FP64 numbers"),
        ({"id": "a\nb"}, "Invalid id"),
        ({"parameters": {"timeout": "soon"}}, "timeout"),
        ({"parameters": {"priority": -1}}, "priority"),
    ],
)
async def test_invalid_requests_are_not_passed_to_the_model(
    bench: Bench, fields: dict[str, Any], words: str
) -> None:
    model = await bench.load()
    with pytest.raises(MLServerError, match=words) as error:
        await bench.ask(**fields)

    assert error.value.status_code == 400
    assert model.requests == []


async def test_requests_for_models_that_are_not_loaded(bench: Bench) -> None:
    await bench.fail("broken")
    for name, version, kind in [("unknown", None, ModelNotFound), ("broken", None, ModelNotReady)]:
        with pytest.raises(kind):
            await bench.ask(name, version)


# -- outputs --


def two_outputs(payload: InferenceRequest) -> InferenceResponse:
    outputs = [
        ResponseOutput(name=name, shape=[1], datatype="INT8", data=TensorData([1])) for name in "ab"
    ]
    return InferenceResponse(model_name="m", outputs=outputs)


@pytest.mark.parametrize(
    "requested, names", [(None, "ab"), ([], "ab"), (["b"], "b"), (["b", "a"], "ba")]
)
async def test_requested_outputs(bench: Bench, requested: list[str] | None, names: str) -> None:
    (await bench.load()).response = two_outputs
    outputs = None if requested is None else [RequestOutput(name=name) for name in requested]

    assert "".join(output.name for output in (await bench.ask(outputs=outputs)).outputs) == names


async def test_requesting_an_unknown_output(bench: Bench) -> None:
    (await bench.load()).response = two_outputs
    with pytest.raises(MLServerError, match="no output 'c'; its outputs are 'a', 'b'") as error:
        await bench.ask(outputs=[RequestOutput(name="c")])
    assert error.value.status_code == 400


async def test_outputs_may_be_requested_by_the_names_of_the_metadata(bench: Bench) -> None:
    described = [MetadataTensor(name=name, datatype="INT8", shape=[-1]) for name in "xy"]
    (
        await bench.load(metadata=MetadataModelResponse(name="m", platform="", outputs=described))
    ).response = two_outputs
    answer = await bench.ask(outputs=[RequestOutput(name="y"), RequestOutput(name="a")])

    assert [output.name for output in answer.outputs] == ["y", "a"]
    with pytest.raises(MLServerError, match="no output 'z'; its outputs are 'a', 'b'"):
        await bench.ask(outputs=[RequestOutput(name="y"), RequestOutput(name="z")])


async def test_outputs_are_not_renamed_if_the_metadata_shares_a_name(bench: Bench) -> None:
    described = [MetadataTensor(name=name, datatype="INT8", shape=[-1]) for name in "xa"]
    (
        await bench.load(metadata=MetadataModelResponse(name="m", platform="", outputs=described))
    ).response = two_outputs
    with pytest.raises(MLServerError, match="no output 'x'"):
        await bench.ask(outputs=[RequestOutput(name="x")])


# -- statistics --


async def test_statistics(bench: Bench) -> None:
    model = await bench.load("m", "1")
    await bench.load("m", "2")
    await bench.ask(version="1")
    with pytest.raises(MLServerError):
        await bench.ask(version="1", name="m", id="\n")
    model.go.clear()
    leaving = asyncio.ensure_future(bench.ask(version="1"))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])

    (entry,) = (await bench.data_plane.statistics("m", "1"))["model_stats"]
    assert (
        entry["name"],
        entry["version"],
        entry["inference_count"],
        entry["execution_count"],
    ) == (
        "m",
        "1",
        2,
        2,
    )
    assert entry["inference_stats"]["success"]["count"] == 1
    assert entry["inference_stats"]["fail"]["count"] == 2
    assert len((await bench.data_plane.statistics("m"))["model_stats"]) == 2
    assert len((await bench.data_plane.statistics())["model_stats"]) == 2
    with pytest.raises(ModelNotFound):
        await bench.data_plane.statistics("unknown")
