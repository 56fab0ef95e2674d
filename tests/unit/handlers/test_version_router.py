"""The version router: shares of versions, and mirrored requests to a shadow version."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mlserver.errors import MLServerError
from mlserver.handlers.version_router import MAX_SHADOW_REQUESTS
from mlserver.pipeline import RequestContext
from mlserver.settings import ModelParameters, ModelSettings
from mlserver.types import InferenceResponse
from support.pipeline import Bench, Model, request, tag_of

NAMES = {"model": "m", "version": "3"}


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def load(bench: Bench, version: str, **traffic: Any) -> Model:
    extra = {"traffic": traffic} if traffic else {}
    parameters = ModelParameters(version=version, extra=extra)
    await bench.registry.load(
        ModelSettings(name="m", implementation="mlserver.MLModel", parameters=parameters)
    )
    return bench.executor.models[-1]


def outcomes(bench: Bench) -> dict[str, float]:
    """Mirrored requests by outcome."""
    families = [
        family for family in bench.metrics.collect() if family.name == "model_shadow_requests"
    ]
    samples = [
        sample for family in families for sample in family.samples if sample.name.endswith("_total")
    ]
    return {sample.labels["outcome"]: sample.value for sample in samples}


async def version_of(bench: Bench, **headers: str) -> str:
    response = await bench.data_plane.infer(request(), "m", None, RequestContext(headers=headers))
    assert response.model_version is not None
    return response.model_version


async def test_versions_by_weight(bench: Bench) -> None:
    await load(bench, "1", weights={"1": 1, "2": 1}, sticky_header="x-user")
    await load(bench, "2")
    assert {await version_of(bench) for _ in range(200)} == {"1", "2"}
    for user in "abcdef":
        assert len({await version_of(bench, **{"x-user": user}) for _ in range(10)}) == 1
    counts = Counter([await version_of(bench, **{"x-user": str(number)}) for number in range(200)])
    assert min(counts["1"], counts["2"]) > 40
    assert tag_of(await bench.ask("m", "2")).startswith("2#")


async def test_the_share_of_an_unloaded_version_goes_to_the_others(bench: Bench) -> None:
    await load(bench, "1", weights={"1": 1, "2": 1})
    assert await version_of(bench) == "1"
    await load(bench, "2")
    assert {await version_of(bench) for _ in range(200)} == {"1", "2"}
    await bench.registry.unload("m", "2")
    assert {await version_of(bench) for _ in range(50)} == {"1"}
    await load(bench, "1")
    await load(bench, "2")
    assert {await version_of(bench) for _ in range(50)} == {"2"}  # no version configures a split


async def test_streams_are_split_as_well(bench: Bench) -> None:
    await load(bench, "1", weights={"1": 1})
    await load(bench, "2")

    async def requests() -> Any:
        yield request()

    responses = [response async for response in bench.data_plane.infer_stream(requests(), "m")]
    assert [response.model_version for response in responses] == ["1"]


async def test_invalid_settings_fail_the_load(bench: Bench) -> None:
    with pytest.raises(MLServerError, match="traffic.weights"):
        await load(bench, "1", weights=3)
    assert "traffic.weights" in bench.registry.find("m", "1").reason


async def test_shadow_responses_are_compared_and_not_returned(bench: Bench) -> None:
    await load(bench, "2", shadow="3")
    shadow = await load(bench, "3")
    assert await version_of(bench) == "2"
    await bench.data_plane.wait_shadows_idle()
    assert len(shadow.requests) == 1
    assert outcomes(bench) == {"same": 1}

    def other(payload: Any) -> InferenceResponse:
        return InferenceResponse(model_name="m", outputs=[])

    def broken(payload: Any) -> InferenceResponse:
        raise MLServerError("no", 500)

    for answer in (other, broken):
        shadow.response = answer
        assert await version_of(bench) == "2"
        await bench.data_plane.wait_shadows_idle()
    assert outcomes(bench) == {"same": 1, "different": 1, "failed": 1}


async def test_a_slow_shadow_does_not_delay_responses(bench: Bench) -> None:
    await load(bench, "2", shadow="3")
    shadow = await load(bench, "3")
    shadow.go.clear()
    for _ in range(MAX_SHADOW_REQUESTS + 2):
        assert await version_of(bench) == "2"
    assert outcomes(bench) == {"dropped": 2}
    shadow.go.set()
    await bench.data_plane.wait_shadows_idle()
    assert outcomes(bench) == {"dropped": 2, "same": MAX_SHADOW_REQUESTS}
