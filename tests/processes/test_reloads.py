"""Loads, reloads and unloads under load: no request fails and nothing leaks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from support.chaos import infer_chaos, write_chaos
from support.memory import descriptors, held_bytes
from support.repository import tensor, write_model
from support.server import Serve, Server, fetch
from support.slow import slow

CYCLES = int(os.environ.get("RELOAD_CYCLES", "100"))
MiB = 2**20
# Returns its input and the number of its load.
NUMBERED = """
from pathlib import Path

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Numbered(MLModel):
    async def load(self):
        number = (Path(__file__).parent / "number").read_text()
        if not number.isdigit():
            raise ValueError("no number")
        self.number = number
        return True

    async def predict(self, payload):
        data = [*payload.inputs[0].data, int(self.number)]
        output = ResponseOutput(name="y", shape=[len(data)], datatype="INT64", data=data)
        return InferenceResponse(model_name=self.name, model_version=self.number, outputs=[output])
"""


class Numbered:
    """The model's folder and its repository calls."""

    def __init__(self, folder: Path) -> None:
        self.number = 0
        self._file = write_model(folder / "numbered", "Numbered", source=NUMBERED) / "number"
        self.write("0")

    def write(self, text: str) -> None:
        """Replace the file atomically, as a deployment does."""
        part = self._file.with_suffix(".part")
        part.write_text(text)
        part.replace(self._file)

    def load(self, server: Server) -> httpx.Response:
        return server.post("/v2/repository/models/numbered/load")

    def unload(self, server: Server) -> httpx.Response:
        return server.post("/v2/repository/models/numbered/unload")

    def reload(self, server: Server) -> None:
        self.number += 1
        self.write(str(self.number))
        answer = self.load(server)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def numbered(tmp_path: Path) -> Numbered:
    return Numbered(tmp_path)


def question(server: Server, value: int) -> tuple[int, Any]:
    response = server.infer("numbered", [tensor("x", [value], "INT64")])
    return response.status_code, response.json()


def check(answer: tuple[int, Any], value: int, others: tuple[int, ...] = ()) -> int | None:
    """The number of the load that answered, the same in all parts.

    None for an allowed rejection.
    """
    status, body = answer
    if status in others:
        return None
    assert status == 200, body
    text, number = body["outputs"][0]["data"]
    assert (text, body["model_version"]) == (value, str(number))
    return int(number)


def under_load(server: Server, allowed: tuple[int, ...], change: Callable[[], None]) -> list[int]:
    """Run `change` under load.

    Returns the load numbers that the first client received, in order.
    """
    over = Event()

    def talk(caller: int) -> list[int]:
        numbers, value = [], caller * 10**6
        while not over.is_set():
            value += 1
            number = check(question(server, value), value, allowed)
            numbers += [] if number is None else [number]
        return numbers

    with ThreadPoolExecutor(3) as callers:
        talking = [callers.submit(talk, caller) for caller in range(3)]
        try:
            change()
        finally:
            over.set()
        first, *_ = [task.result() for task in talking]
        return first


@pytest.mark.parametrize("workers", [slow(0), 2])
def test_replaced_under_load(
    serve: Serve, tmp_path: Path, numbered: Numbered, workers: int
) -> None:
    """No request is rejected; every response is of one load, none older than the one before."""
    server = serve(tmp_path, workers=workers)

    def change() -> None:
        for _ in range(10):
            numbered.reload(server)
            assert check(question(server, 1), 1) == numbered.number

    numbers = under_load(server, (), change)
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("workers", [slow(0), 2])
def test_unloaded_and_loaded_under_load(
    serve: Serve, tmp_path: Path, numbered: Numbered, workers: int
) -> None:
    """Rejected while the model is unloaded (400, 404) or loading (503), else answered correctly."""
    server = serve(tmp_path, workers=workers)

    def change() -> None:
        for _ in range(10):
            assert numbered.unload(server).status_code == 200
            assert question(server, 1)[0] in (400, 404)
            numbered.reload(server)

    under_load(server, (400, 404, 503), change)
    assert check(question(server, 1), 1) == numbered.number


@pytest.mark.parametrize("workers", [slow(0), 2])
def test_a_failed_load_keeps_the_loaded_model(
    serve: Serve, tmp_path: Path, numbered: Numbered, workers: int
) -> None:
    server = serve(tmp_path, workers=workers, tracebacks=True)
    settings = tmp_path / "numbered" / "model-settings.json"
    good = settings.read_text()

    def change() -> None:
        for text, whole in (("half a num", True), ("0", False)):
            numbered.write(text)
            settings.write_text(good if whole else good[: len(good) // 2])
            answer = numbered.load(server)
            assert 400 <= answer.status_code <= 500
            assert answer.json()["error"]
            assert check(question(server, 1), 1) == 0
        settings.write_text(good)

    assert set(under_load(server, (), change)) == {0}
    server.wait_until("/v2/models/numbered/ready")
    numbered.reload(server)
    assert check(question(server, 1), 1) == 1


@pytest.mark.parametrize("workers", [slow(0), 1])
def test_an_unload_waits_for_running_requests(serve: Serve, tmp_path: Path, workers: int) -> None:
    chaos = write_chaos(tmp_path)
    server = serve(tmp_path, workers=workers)
    with ThreadPoolExecutor(2) as callers:
        call = callers.submit(infer_chaos, server, "wait", "a")
        server.wait(lambda: chaos.has_marker("started-a"), "the request ran")
        unloading = callers.submit(server.post, "/v2/repository/models/chaos/unload")
        server.wait(
            lambda: server.get("/v2/models/chaos/ready").status_code != 200,
            "the model took no more requests",
        )
        assert infer_chaos(server, "echo", "b")[0] in (400, 404)
        assert not call.done()
        chaos.add_marker("go-a")
        assert call.result(timeout=20) == (200, "a")
        assert unloading.result(timeout=20).status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [0, 1])
def test_repeated_loads_and_unloads_leak_nothing(
    serve: Serve, tmp_path: Path, numbered: Numbered, workers: int
) -> None:
    """Memory, descriptors and metrics stay flat. RELOAD_CYCLES=5000 runs ten thousand cycles."""
    server = serve(tmp_path, workers=workers)
    assert server.get("/v2/health/ready").status_code == 200

    def cycle(times: int) -> tuple[list[float], int, int]:
        for _ in range(times):
            assert numbered.unload(server).status_code == 200
            numbered.reload(server)
            assert check(question(server, 1), 1) == numbered.number
        page = fetch(f"{server.metrics_url}/metrics").text
        pids = server.list_processes()
        held = [held_bytes(pid) / MiB for pid in pids]
        return held, sum(descriptors(pid) for pid in pids), len(page.splitlines())

    before = cycle(max(20, CYCLES // 4))
    after = cycle(CYCLES)
    for was, now in zip(before[0], after[0], strict=True):
        assert now - was < 2 + 0.02 * was, f"{before} became {after}"
    assert after[1] <= before[1] + 2
    assert after[2] == before[2]
    assert json.loads(server.post("/v2/repository/index").text)[0]["state"] == "READY"


# Its handler, a coroutine, waits for a file; `order` has what has ended, in order.
HANDLES = """
import asyncio
from pathlib import Path

from mlserver import MLModel
from mlserver.handlers import custom_handler

FOLDER = Path(__file__).parent


class Handles(MLModel):
    @custom_handler(rest_path="/handle")
    async def handle(self) -> str:
        (FOLDER / "begun").touch()
        while not (FOLDER / "go").exists():
            await asyncio.sleep(0.01)
        self.note("handled")
        return "done"

    async def unload(self):
        self.note("unloaded")
        return True

    def note(self, text):
        with (FOLDER / "order").open("a") as file:
            file.write(f"{text} ")
"""


@pytest.mark.parametrize("http_workers", ["1", "2"])
def test_an_unload_waits_for_custom_handlers(
    serve: Serve, tmp_path: Path, http_workers: str
) -> None:
    folder = write_model(
        tmp_path / "handles", "Handles", source=HANDLES, parameters={"isolation": "model"}
    )
    server = serve(tmp_path, workers=1, env={"MLSERVER_HTTP_WORKERS": http_workers})
    with ThreadPoolExecutor(2) as callers:
        handling = callers.submit(server.post, "/handle")
        try:
            server.wait(
                lambda: (folder / "begun").exists() or handling.done(), "the handler to begin"
            )
            unloading = callers.submit(server.post, "/v2/repository/models/handles/unload")
            server.wait(lambda: is_unloading(server) or handling.done(), "the unload to begin")
        finally:
            (folder / "go").touch()
        assert handling.result().json() == "done"
        assert unloading.result().status_code == 200
    assert (folder / "order").read_text() == "handled unloaded "


def is_unloading(server: Server) -> bool:
    items = server.post("/v2/repository/index", {}).json()
    return [item["state"] for item in items] == ["UNLOADING"]
