"""MLServer in another program: `await MLServer(settings).start([model_settings])`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import decode_args
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from support.ports import free_ports


class Ones(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        output = ResponseOutput(name="ones", shape=[1], datatype="INT64", data=[1])
        return InferenceResponse(model_name=self.name, outputs=[output])


class Shout(MLModel):
    @decode_args
    async def predict(self, words: list[str]) -> list[str]:
        return [word.upper() for word in words]


@asynccontextmanager
async def running(*models: ModelSettings, **fields: object) -> AsyncIterator[httpx.AsyncClient]:
    http_port, grpc_port, metrics_port = free_ports(3)
    ports = {
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
    }
    server = MLServer(Settings.model_validate(ports | fields))
    serving = asyncio.create_task(server.start(list(models)))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_port}") as client:
            while not await _ready(client):
                assert not serving.done(), serving.exception()
                await asyncio.sleep(0.01)
            yield client
    finally:
        await server.stop()
        await serving


async def _ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/v2/health/ready")).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("workers", [0, 1])
async def test_models_passed_by_the_program(workers: int) -> None:
    models = [
        ModelSettings(name="ones", implementation=Ones),
        ModelSettings(name="shout", implementation=Shout),
    ]
    if workers:  # a worker cannot import a class of this test module, but one of the package
        models = [ModelSettings(name="ones", implementation="support.embedded.Ones")]
    async with running(*models, parallel_workers=workers) as client:
        body = {"inputs": [{"name": "words", "shape": [1], "datatype": "BYTES", "data": ["hi"]}]}
        answer = await client.post("/v2/models/ones/infer", json=body)
        assert answer.json()["outputs"][0]["data"] == [1]
        if not workers:
            answer = await client.post("/v2/models/shout/infer", json=body)
            assert answer.json()["outputs"][0]["data"] == ["HI"]


async def test_a_server_after_a_server() -> None:
    for _ in range(2):
        async with running(
            ModelSettings(name="ones", implementation=Ones), parallel_workers=0
        ) as client:
            assert (await client.get("/v2/models/ones/ready")).status_code == 200


async def test_the_repository_of_the_settings(tmp_path: Path) -> None:
    async with running(parallel_workers=0, model_repository_root=str(tmp_path)) as client:
        assert (await client.post("/v2/repository/index", json={})).json() == []
