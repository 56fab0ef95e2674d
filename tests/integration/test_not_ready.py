"""Responses while models are loading, after a failed load, and for unknown models."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from support.repository import BROKEN, tensor, write_model, write_server_settings
from support.server import Server
from support.slow import slow

# Loads when the file `go` exists beside it.
SLOW = """
import asyncio
import os

from mlserver import MLModel
from mlserver.custom_routes import custom_handler
from mlserver.types import InferenceResponse


class Slow(MLModel):
    async def load(self) -> bool:
        while not os.path.exists(os.path.join(os.path.dirname(__file__), "go")):
            await asyncio.sleep(0.02)
        return True

    async def predict(self, payload):
        return InferenceResponse(model_name=self.name, outputs=[])

    @custom_handler("/own")
    async def own(self) -> dict[str, str]:
        return {"own": self.name}
"""

MODELS = {"slow": "", "versioned": "2", "broken": "", "echo": ""}
INPUTS = [tensor("x", [1.0])]
INFER = {"inputs": INPUTS}


def write_repository(folder: Path, **settings: Any) -> None:
    write_server_settings(folder, **settings)
    write_model(folder / "slow", "Slow", source=SLOW)
    write_model(folder / "versioned", "Slow", source=SLOW, parameters={"version": "2"})
    write_model(folder / "broken", "Broken", source=BROKEN)
    write_model(folder / "echo")


@pytest.fixture(
    scope="module", params=[slow(0), 1, 2], ids=["no workers", "1 worker", "2 front ends"]
)
def loading(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server whose models `slow` and `versioned` are loading."""
    folder = tmp_path_factory.mktemp("loading")
    write_repository(folder, http_workers=max(1, request.param))
    with Server(
        folder, workers=min(1, request.param), ready="/v2/models/echo/ready", tracebacks=True
    ) as server:
        server.wait_for_line("'broken' could not be loaded")
        yield server


def assert_come_back(response: httpx.Response, *texts: str) -> None:
    """Assert a 503 with `Retry-After`."""
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) >= 1
    for text in texts:
        assert text in response.json()["error"]


@pytest.mark.parametrize("model", ["slow", "versioned", "versioned/versions/2"])
@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", "/infer"),
        ("POST", "/infer_stream"),
        ("POST", "/generate"),
        ("GET", ""),
        ("GET", "/config"),
        ("GET", "/docs/dataplane.json"),
        ("POST", "/own"),
        ("POST", "/invocations"),
    ],
)
def test_a_model_that_is_loading(loading: Server, model: str, method: str, path: str) -> None:
    answer = loading.client.request(method, f"/v2/models/{model}{path}", json=INFER)
    assert_come_back(answer, model.partition("/")[0], "not ready")


def test_a_wrong_body_for_a_model_that_is_loading(loading: Server) -> None:
    assert_come_back(loading.post("/v2/models/slow/infer", b"{"), "not ready")


@pytest.mark.parametrize("path", ["/own", "/invocations", "/ping"])
def test_a_path_that_a_loading_model_may_declare(loading: Server, path: str) -> None:
    assert_come_back(loading.client.request("POST", path, json={}), "loading")


@pytest.mark.parametrize(
    "name, version, status", [("missing", "", 404), ("slow", "7", 404), ("missing", "1", 404)]
)
def test_unknown_models_and_versions(loading: Server, name: str, version: str, status: int) -> None:
    model = f"{name}/versions/{version}" if version else name
    for path in ("infer", "own", "invocations"):
        assert loading.post(f"/v2/models/{model}/{path}", INFER).status_code == status
    code, metadata, _ = infer_over_grpc(loading, name, version)
    assert (code, metadata) == (grpc.StatusCode.NOT_FOUND, {})


@pytest.mark.parametrize("name, version", [("slow", ""), ("versioned", ""), ("versioned", "2")])
def test_over_grpc(loading: Server, name: str, version: str) -> None:
    code, metadata, text = infer_over_grpc(loading, name, version)
    assert (code, metadata) == (
        grpc.StatusCode.UNAVAILABLE,
        {"retry-after": "1", "grpc-retry-pushback-ms": "1000"},
    )
    assert name in text
    assert "not ready" in text


def test_a_retry_policy_waits_as_long_as_the_server_says(loading: Server) -> None:
    """Its own pauses would be over in 30 ms, and its four attempts with them."""
    policy = {
        "name": [{}],
        "retryPolicy": {
            "maxAttempts": 4,
            "initialBackoff": "0.01s",
            "maxBackoff": "0.01s",
            "backoffMultiplier": 1,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }
    options = [("grpc.service_config", json.dumps({"methodConfig": [policy]}))]
    started = time.monotonic()
    assert infer_over_grpc(loading, "slow", "", options)[0] is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - started >= 3


def infer_over_grpc(
    server: Server, name: str, version: str, options: list[tuple[str, str]] | None = None
) -> tuple[grpc.StatusCode, dict[str, str], str]:
    """Status code, trailing metadata and text of a `ModelInfer` without inputs, which fails."""
    message = b"".join(
        b"%c%c%s" % (tag, len(text), text.encode()) for tag, text in ((10, name), (18, version))
    )
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(message, timeout=20)
    error = caught.value
    return error.code(), dict(error.trailing_metadata()), error.details()


def test_a_model_that_could_not_be_loaded(loading: Server) -> None:
    """A retry does not help, so there is no `Retry-After`; the reason is in the text."""
    for path in ("infer", "own"):
        answer = loading.post(f"/v2/models/broken/{path}", INFER)
        assert answer.status_code == 503
        assert "retry-after" not in answer.headers
        assert "the weights are missing" in answer.json()["error"]
    code, metadata, text = infer_over_grpc(loading, "broken", "")
    assert (code, metadata) == (grpc.StatusCode.UNAVAILABLE, {})
    assert "the weights are missing" in text


def test_other_models_are_served_before_the_server_is_ready(loading: Server) -> None:
    assert loading.infer("echo", INPUTS).status_code == 200
    for path in ("/v2/health/ready", "/v2/models/slow/ready", "/v2/models/broken/ready"):
        assert loading.get(path).status_code == 400
    assert loading.get("/v2/models/slow/ready").json() == {"name": "slow", "ready": False}
    assert loading.get("/v2/models/missing/ready").status_code == 404
    assert loading.get("/v2/health/live").status_code == 200


def test_known_from_the_first_answer_on(tmp_path: Path) -> None:
    """A model of the repository is known when the port is open: never 404, never 400."""
    write_model(tmp_path / "m")
    with Server(tmp_path, workers=1, ready=None) as server:
        seen: set[int] = set()

        def is_answered() -> bool:
            try:
                answer = server.infer("m", INPUTS)
            except httpx.TransportError:
                return False
            seen.add(answer.status_code)
            return answer.status_code == 200

        server.wait(is_answered, "the model answered")
        assert seen <= {200, 503}


def test_once_loaded(tmp_path: Path) -> None:
    """The same requests are answered; undeclared paths are 404, and a reload causes no error."""
    write_server_settings(tmp_path, not_ready_status=400)
    write_model(tmp_path / "slow", "Slow", source=SLOW)
    with Server(tmp_path, workers=1, ready="/v2/health/live") as server:
        refused = server.infer("slow", INPUTS)
        assert (refused.status_code, refused.headers["retry-after"]) == (
            400,
            "1",
        )  # like MLServer 1.x, with the setting
        (tmp_path / "slow" / "go").touch()
        server.wait_until("/v2/health/ready")
        assert server.infer("slow", INPUTS).status_code == 200
        assert server.post("/own").json() == {"own": "slow"}
        assert server.post("/nothing").status_code == 404
        (tmp_path / "slow" / "go").unlink()
        with ThreadPoolExecutor(1) as thread:
            reload = thread.submit(
                httpx.post, f"{server.url}/v2/repository/models/slow/load", timeout=60
            )
            reloads = ("READY", "reload in progress")
            server.wait(lambda: state(server, "slow") == reloads, "the reload began")
            assert server.infer("slow", INPUTS).status_code == 200
            assert server.post("/own").status_code == 200
            assert server.post("/nothing").status_code == 404
            (tmp_path / "slow" / "go").touch()
            assert reload.result().status_code == 200


def state(server: Server, name: str) -> tuple[str, str]:
    """State and reason of a model in the repository index."""
    return next(
        (str(item["state"]), str(item["reason"]))
        for item in server.post("/v2/repository/index").json()
        if item["name"] == name
    )
