"""The model registry: loading, replacing and unloading of versions; default versions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mlserver.errors import MLServerError, ModelNotFound, ModelNotReady
from mlserver.metrics import ServerMetrics
from mlserver.parallel.executor import HTTPRequest
from mlserver.registry import ModelVersion, default_version
from mlserver.types import State
from support.pipeline import Bench, model_settings, tag_of

LIMIT = 30.0


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def waiting_for(condition: asyncio.Task[object]) -> None:
    """Run the event loop for a while, and check that the task is not done."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert not condition.done()


# -- finding --


async def test_nothing_is_loaded(bench: Bench) -> None:
    assert (bench.registry.entries(), bench.registry.defaults(), bench.registry.versions("m")) == (
        [],
        [],
        [],
    )
    with pytest.raises(ModelNotFound, match="Model m not found"):
        bench.registry.find("m")
    with pytest.raises(ModelNotFound, match="Model m with version 1 not found"):
        bench.registry.find("m", "1")


async def test_names_and_versions(bench: Bench) -> None:
    for name, version in [("m", "1"), ("m", "2"), ("n", None)]:
        await bench.load(name, version)

    assert [(entry.name, entry.version) for entry in bench.registry.entries()] == [
        ("m", "1"),
        ("m", "2"),
        ("n", None),
    ]
    assert [entry.version for entry in bench.registry.versions("m")] == ["1", "2"]
    assert [(entry.name, entry.version) for entry in bench.registry.defaults()] == [
        ("m", "2"),
        ("n", None),
    ]
    assert bench.registry.find("m", "1").version == "1"
    assert bench.registry.find("m").version == "2"
    with pytest.raises(ModelNotFound, match="version 3"):
        bench.registry.find("m", "3")
    with pytest.raises(ModelNotFound):
        bench.registry.find("n", "1")


@pytest.mark.parametrize(
    "versions, best",
    [
        (["1"], "1"),
        (["2", "10", "9"], "10"),
        (["v3", "v10"], "v3"),
        (["v10", "v3"], "v3"),
        (["1", None, "2"], None),
        ([None, "1"], None),
        (["1", None], None),
    ],
)
def test_default_version(versions: list[str | None], best: str | None) -> None:
    metrics = ServerMetrics().for_model("m", None)
    entries = [ModelVersion(model_settings("m", version), metrics) for version in versions]
    assert default_version(entries).version == best


async def test_the_default_is_a_version_that_is_loaded(bench: Bench) -> None:
    await bench.load(version="1")
    await bench.fail(version="2")
    assert bench.registry.find("m").version == "1"

    await bench.load(version="2")
    assert bench.registry.find("m").version == "2"
    await bench.registry.unload("m", "2")
    assert bench.registry.find("m").version == "1"


# -- loading --


async def test_a_loading_model_is_visible_at_once(bench: Bench) -> None:
    bench.executor.go.clear()
    loading = asyncio.ensure_future(bench.load())
    await waiting_for(loading)
    entry = bench.registry.find("m")
    assert (entry.state, entry.ready) == (State.LOADING, False)
    with pytest.raises(ModelNotReady):
        entry.usable()
    bench.executor.go.set()
    await loading

    assert (entry.state, entry.ready, entry.reason) == (State.READY, True, "")


async def test_readiness_follows_the_workers(bench: Bench) -> None:
    model = await bench.load()
    entry = bench.registry.find("m")
    model.available = False
    assert not entry.ready
    entry.usable()  # a worker may be back by the time that the request reaches it


async def test_a_failed_load_keeps_its_reason(bench: Bench) -> None:
    await bench.fail()
    entry = bench.registry.find("m")

    assert (entry.state, entry.ready, entry.reason) == (State.UNAVAILABLE, False, "no weights")
    with pytest.raises(ModelNotReady, match="no weights"):
        entry.usable()


async def test_a_load_that_returns_false(bench: Bench) -> None:
    bench.executor.ready = False
    await bench.load()
    entry = bench.registry.find("m")

    assert (entry.state, entry.reason) == (State.UNAVAILABLE, "load() of the model returned False")


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), asyncio.CancelledError()])
async def test_any_exception_ends_the_state_loading(bench: Bench, error: BaseException) -> None:
    bench.executor.load_error = error
    with pytest.raises((MLServerError, asyncio.CancelledError)):
        await bench.registry.load(model_settings())

    assert bench.registry.find("m").state is State.UNAVAILABLE
    await bench.load()
    assert bench.registry.find("m").ready


async def test_an_exception_of_a_load_is_an_error_with_its_reason(bench: Bench) -> None:
    bench.executor.load_error = PermissionError(13, "Permission denied")
    with pytest.raises(
        MLServerError, match=r"^Model m failed to load: PermissionError: .*Permission denied"
    ):
        await bench.load()
    entry = bench.registry.find("m")
    assert (entry.state, "Permission denied" in entry.reason) == (State.UNAVAILABLE, True)


async def test_a_model_whose_pipeline_cannot_be_built(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise ModuleNotFoundError("No module named 'formats'")

    old = await bench.load()
    monkeypatch.setattr(bench.registry, "_build_pipeline", fail)
    for name in ("m", "n"):
        with pytest.raises(MLServerError, match="No module named 'formats'"):
            await bench.load(name)
        assert bench.executor.models[-1].unloaded
    assert not old.unloaded
    assert tag_of(await bench.ask()) == old.tag
    states = [entry.state for entry in bench.registry.entries()]
    assert states == [State.READY, State.UNAVAILABLE]
    assert "formats" in bench.registry.find("n").reason


async def test_a_version_that_was_unloaded_is_not_reloaded(bench: Bench) -> None:
    await bench.load()
    entry = bench.registry.find("m")
    assert await bench.registry.reload(entry)
    assert len(bench.executor.models) == 2

    bench.executor.models[1].go.clear()
    call = asyncio.create_task(bench.ask())
    await waiting_for(call)
    unloading = asyncio.create_task(bench.registry.unload("m", None))
    reloading = asyncio.create_task(bench.registry.reload(entry))  # waits for the unload
    await waiting_for(reloading)
    bench.executor.models[1].go.set()
    await asyncio.gather(call, unloading)
    assert not await reloading
    assert (bench.registry.entries(), len(bench.executor.models)) == ([], 2)


async def test_one_load_of_a_name_at_a_time(bench: Bench) -> None:
    bench.executor.go.clear()
    loads = [asyncio.ensure_future(bench.registry.load(model_settings())) for _ in range(3)]
    bench.executor.go.set()
    await asyncio.gather(*loads)

    assert [model.unloaded for model in bench.executor.models] == [True, True, False]
    assert len(bench.registry.entries()) == 1


# -- reloading --


async def test_a_reload_replaces_the_model_when_the_new_one_is_ready(bench: Bench) -> None:
    old = await bench.load()
    bench.executor.go.clear()
    reloading = asyncio.ensure_future(bench.load())
    await waiting_for(reloading)
    assert tag_of(await bench.ask()) == old.tag
    bench.executor.go.set()
    new = await reloading

    assert old.unloaded
    assert tag_of(await bench.ask()) == new.tag != old.tag
    assert len(bench.registry.entries()) == 1


async def test_running_requests_finish_on_the_replaced_model(bench: Bench) -> None:
    old = await bench.load()
    old.go.clear()
    begun = [asyncio.ensure_future(bench.ask()) for _ in range(3)]  # one runs, two wait
    await waiting_for(begun[0])
    reloading = asyncio.ensure_future(bench.load())
    await waiting_for(reloading)
    new = bench.executor.models[-1]
    assert tag_of(await bench.ask()) == new.tag
    assert not old.unloaded
    old.go.set()

    assert [tag_of(answer) for answer in await asyncio.gather(*begun)] == [old.tag] * 3
    await reloading
    assert old.unloaded


async def test_drain_timeout_bounds_the_wait_for_the_replaced_model() -> None:
    bench = Bench(drain_timeout=0.01)
    old = await bench.load()
    old.go.clear()
    begun = asyncio.ensure_future(bench.ask())
    await waiting_for(begun)
    async with asyncio.timeout(LIMIT):
        await bench.load()
    assert old.unloaded
    old.go.set()
    await begun


async def test_a_failed_reload_keeps_the_old_model(bench: Bench) -> None:
    old = await bench.load()
    await bench.fail()
    entry = bench.registry.find("m")

    assert (entry.state, entry.ready, entry.reason) == (State.READY, True, "no weights")
    assert not old.unloaded
    assert tag_of(await bench.ask()) == old.tag
    await bench.load()
    assert entry.reason == ""


async def test_a_reload_does_not_change_other_versions(bench: Bench) -> None:
    version = await bench.load(version="1")
    two = await bench.load(version="2")
    await bench.load(version="1")

    assert version.unloaded
    assert tag_of(await bench.ask(version="2")) == tag_of(await bench.ask()) == two.tag


# -- unloading --


async def test_unloading_rejects_new_requests_and_drains(bench: Bench) -> None:
    model = await bench.load()
    model.go.clear()
    begun = [asyncio.ensure_future(bench.ask()) for _ in range(2)]
    await waiting_for(begun[0])
    unloading = asyncio.ensure_future(bench.registry.unload("m", None))
    await waiting_for(unloading)
    with pytest.raises(ModelNotFound):
        await bench.ask()
    assert not model.unloaded
    model.go.set()
    await unloading

    assert [tag_of(answer) for answer in await asyncio.gather(*begun)] == [model.tag] * 2
    assert model.unloaded
    assert bench.registry.entries() == []


async def test_custom_routes_are_in_flight_until_they_have_answered(bench: Bench) -> None:
    model = await bench.load()
    model.go.clear()
    pipeline = bench.registry.find("m").pipeline
    assert pipeline is not None
    request = HTTPRequest("GET", "/own")
    call = asyncio.create_task(bench.data_plane.route("m", None, request))
    cancelled = asyncio.create_task(bench.data_plane.route("m", None, request))
    await waiting_for(call)
    assert pipeline.open_requests == (0, 2)
    unloading = asyncio.create_task(bench.registry.unload("m", None))
    cancelled.cancel()
    await waiting_for(unloading)
    assert (pipeline.open_requests, model.unloaded) == ((0, 1), False)
    model.go.set()
    assert (await call).body == b"/own"
    await unloading
    assert (pipeline.open_requests, model.unloaded) == ((0, 0), True)


async def test_unloading_an_unknown_version(bench: Bench) -> None:
    await bench.load(version="1")
    for name, version in [("n", None), ("m", None), ("m", "2")]:
        with pytest.raises(ModelNotFound):
            await bench.registry.unload(name, version)


async def test_a_failed_version_can_be_unloaded(bench: Bench) -> None:
    await bench.fail()
    await bench.registry.unload("m", None)

    with pytest.raises(ModelNotFound):
        bench.registry.find("m")


async def test_load_unload_and_infer_concurrently(bench: Bench) -> None:
    """Every response is from one model, or the error that none is loaded."""
    await bench.load()

    async def ask() -> str:
        try:
            return tag_of(await bench.ask())
        except (ModelNotFound, ModelNotReady) as error:
            return error.code

    async def change(number: int) -> None:
        if number % 3:
            await bench.load()
        else:
            try:
                await bench.registry.unload("m", None)
            except MLServerError:
                await bench.load()

    work = [change(number // 20) if number % 20 == 0 else ask() for number in range(400)]
    async with asyncio.timeout(LIMIT):
        outcomes = [answer for answer in await asyncio.gather(*work) if answer is not None]

    assert set(outcomes) <= {model.tag for model in bench.executor.models} | {
        "NOT_FOUND",
        "UNAVAILABLE",
    }
    living = [model for model in bench.executor.models if not model.unloaded]
    assert len(living) == len(bench.registry.entries())


# -- metrics and draining --


async def test_metrics_have_series_of_registered_models_only(bench: Bench) -> None:
    await bench.load("m", "1")
    await bench.ask("m")
    for name in ("unknown", "m\n"):
        with pytest.raises(ModelNotFound):
            await bench.ask(name)

    def labels() -> set[str]:
        return {
            sample.labels["model"]
            for metric in bench.metrics.collect()
            for sample in metric.samples
            if "model" in sample.labels
        }

    assert labels() == {"m"}
    await bench.registry.unload("m", "1")
    assert labels() == set()


async def test_drained(bench: Bench) -> None:
    await bench.registry.drained()
    model = await bench.load()
    await bench.fail("n")
    model.go.clear()
    begun = asyncio.ensure_future(bench.ask())
    await waiting_for(begun)
    draining = asyncio.ensure_future(bench.registry.drained())
    await waiting_for(draining)
    model.go.set()
    await draining
    await begun
