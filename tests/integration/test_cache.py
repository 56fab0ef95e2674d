"""The response cache of a server.

On for models that enable it, if the server's setting allows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from support.repository import tensor, write_model
from support.server import Serve, Server
from support.slow import slow

# Counts its runs and returns a header with the count, which differs from that of a cached response.
COUNTS = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse, Parameters

import numpy as np


class Counts(MLModel):
    runs = 0

    async def predict(self, payload):
        self.runs += 1
        total = NumpyCodec.decode_input(payload.inputs[0]).sum()
        outputs = [
            NumpyCodec.encode_output("total", np.array([total])),
            NumpyCodec.encode_output("run", np.array([self.runs])),
        ]
        parameters = Parameters(headers={"x-run": str(self.runs)})
        return InferenceResponse(model_name=self.name, outputs=outputs, parameters=parameters)
"""
ON = {"MLSERVER_CACHE_ENABLED": "true"}


def write(folder: Path, name: str = "m", **settings: Any) -> None:
    write_model(folder / name, "Counts", source=COUNTS, **({"cache_enabled": True} | settings))


def ask(
    server: Server, values: list[float], name: str = "m", **fields: Any
) -> tuple[float, int, httpx.Response]:
    response = server.infer(name, [tensor("x", values, "FP64")], **fields)
    assert response.status_code == 200, response.text
    total, run = (output["data"][0] for output in response.json()["outputs"])
    return total, run, response


def statistics(server: Server, name: str = "m") -> dict[str, Any]:
    (counts,) = server.get(f"/v2/models/{name}/stats").json()["model_stats"]
    return dict(counts)


@pytest.mark.parametrize("workers", [slow(0), 1])
def test_hits_and_misses(serve: Serve, tmp_path: Path, workers: int) -> None:
    write(tmp_path)
    server = serve(tmp_path, workers=workers, env=ON)
    assert ask(server, [1, 2], id="one")[:2] == (3, 1)
    total, run, response = ask(server, [1, 2], id="two")
    assert (total, run) == (3, 1)
    assert response.json()["id"] == "two"
    assert response.headers["ce-id"] == "two"
    assert response.headers["x-run"] == "1"
    assert ask(server, [1, 2], parameters={"factor": 2})[1] == 2
    assert ask(server, [2, 1])[:2] == (3, 3)
    assert ask(server, [1, 2])[1] == 1

    counts = statistics(server)
    assert (
        counts["inference_stats"]["cache_hit"]["count"],
        counts["inference_stats"]["cache_miss"]["count"],
    ) == (2, 3)
    assert (counts["inference_stats"]["success"]["count"], counts["execution_count"]) == (5, 3)
    page = server.client.get(f"{server.metrics_url}/metrics").text
    assert 'model_infer_cache_hits_total{model="m",version=""} 2.0' in page
    assert 'model_infer_cache_misses_total{model="m",version=""} 3.0' in page


def test_models_that_are_cached(serve: Serve, tmp_path: Path) -> None:
    write(tmp_path, "cached")
    write(tmp_path, "uncached", cache_enabled=False)
    server = serve(tmp_path, workers=0, env=ON)
    assert [ask(server, [1], "cached")[1] for _ in range(2)] == [1, 1]
    assert [ask(server, [1], "uncached")[1] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("env", [{}, {**ON, "MLSERVER_CACHE_SIZE": "0"}])
def test_the_server_setting_disables_the_cache(
    serve: Serve, tmp_path: Path, env: dict[str, str]
) -> None:
    write(tmp_path)
    server = serve(tmp_path, workers=0, env=env)
    assert [ask(server, [1])[1] for _ in range(2)] == [1, 2]


def test_models_and_versions_have_separate_entries(serve: Serve, tmp_path: Path) -> None:
    write(tmp_path, "one")
    write(tmp_path, "two", parameters={"version": "1"})
    write_model(
        tmp_path / "two-2",
        "Counts",
        source=COUNTS.replace("+= 1", "+= 10"),
        name="two",
        cache_enabled=True,
        parameters={"version": "2"},
    )
    server = serve(tmp_path, workers=0, env=ON)
    body = {"inputs": [tensor("x", [1], "FP64")]}
    for _ in range(2):
        assert ask(server, [1], "one")[2].json()["model_name"] == "one"
        answers = [
            server.post(f"/v2/models/two/versions/{version}/infer", body).json() for version in "12"
        ]
        assert [answer["model_version"] for answer in answers] == ["1", "2"]
        assert [answer["outputs"][1]["data"] for answer in answers] == [[1], [10]]


def test_a_reload_clears_the_entries(serve: Serve, tmp_path: Path) -> None:
    write(tmp_path)
    server = serve(tmp_path, workers=0, env=ON)
    assert ask(server, [1])[1] == 1
    assert server.post("/v2/repository/models/m/load").status_code == 200
    before = ask(server, [2])[1]
    assert (before, ask(server, [1])[1]) == (1, 2)


@pytest.mark.parametrize(
    "limit", [{"MLSERVER_CACHE_SIZE": "1"}, slow({"MLSERVER_CACHE_MAX_BYTES": "200"})]
)
def test_limits(serve: Serve, tmp_path: Path, limit: dict[str, str]) -> None:
    write(tmp_path)
    server = serve(tmp_path, workers=0, env=ON | limit)
    assert [ask(server, [value])[1] for value in (1, 1, 2, 2, 1)] == [1, 1, 2, 2, 3]
