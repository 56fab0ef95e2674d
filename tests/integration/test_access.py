"""Credentials: which paths of models need one, and which ones may load and unload models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from mlserver.security.credentials import hash_key
from support.models import Models
from support.repository import tensor, write_model, write_server_settings, write_settings
from support.server import Serve, Server

MLFLOW = {"implementation": "mlserver_mlflow.MLflowRuntime"}
KEYS = {"i": "infer", "a": "admin", "m": "metrics"}

HANDLERS = """
from mlserver import MLModel
from mlserver.custom_routes import Route, custom_handler
from mlserver.types import InferenceResponse


class Handlers(MLModel):
    @custom_handler("/health", "GET")
    async def health(self) -> dict[str, str]:
        return {"data": "secret"}

    @custom_handler("/ping", "GET")
    async def ping(self) -> dict[str, str]:
        return {"data": "secret"}

    @custom_handler("/open", "GET", public=True)
    async def open(self) -> dict[str, str]:
        return {"data": "open"}

    @custom_handler("/open", "POST")
    async def write(self) -> dict[str, str]:
        return {"data": "secret"}

    def routes(self):
        static = Route("/status", "GET", static="fine", public=True)
        return [*super().routes(), static, Route("/hidden", "GET", static="secret")]

    async def predict(self, payload):
        return InferenceResponse(model_name=self.name, outputs=[])
"""


def write_keys(folder: Path, **settings: object) -> None:
    lines = (f"{key} {scope} {hash_key(key)}\n" for key, scope in KEYS.items())
    (folder / "keys.txt").write_text("".join(lines))
    write_server_settings(folder, auth={"keys": "keys.txt"}, **settings)


# -- public routes --


@pytest.fixture(scope="module", params=[0, 1])
def custom(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("custom")
    write_keys(folder)
    write_model(folder / "m", "Handlers", source=HANDLERS)
    with Server(folder, workers=request.param) as server:
        yield server


@pytest.mark.parametrize("prefix", ["", "/v2/models/m"])
@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/health"),
        ("HEAD", "/health"),
        ("GET", "/ping"),
        ("POST", "/open"),
        ("GET", "/hidden"),
    ],
)
def test_routes_of_a_custom_runtime_need_a_credential(
    custom: Server, prefix: str, method: str, path: str
) -> None:
    refused = custom.client.request(method, prefix + path)
    assert refused.status_code == 401
    assert "secret" not in refused.text
    assert (
        custom.client.request(method, prefix + path, headers={"x-api-key": "m"}).status_code == 403
    )
    assert (
        custom.client.request(method, prefix + path, headers={"x-api-key": "i"}).status_code == 200
    )


@pytest.mark.parametrize("prefix", ["", "/v2/models/m"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/open", "/status"])
def test_public_routes_need_none(custom: Server, prefix: str, method: str, path: str) -> None:
    assert custom.client.request(method, prefix + path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v2/models/n/health", "/v2/models/m/nowhere", "/Health", "/health/x"]
)
def test_paths_that_no_model_declares_need_a_credential(custom: Server, path: str) -> None:
    assert custom.get(path).status_code == 401


@pytest.mark.slow
def test_public_routes_of_mlflow_models(models: Models, tmp_path: Path, serve: Serve) -> None:
    write_keys(tmp_path)
    write_settings(
        tmp_path / "wine", name="wine", **MLFLOW, parameters={"uri": str(models["wine"])}
    )
    server = serve(tmp_path)
    for prefix in ("", "/v2/models/wine"):
        assert [server.get(prefix + path).status_code for path in ("/ping", "/health")] == [
            200,
            200,
        ]
        assert [server.get(prefix + path).status_code for path in ("/version", "/invocations")] == [
            401,
            401,
        ]
        assert server.get(f"{prefix}/version", headers={"x-api-key": "i"}).status_code == 200


def test_a_path_that_one_model_keeps_to_itself_is_not_public(tmp_path: Path, serve: Serve) -> None:
    """Several models declare one path, some of them as public: the requested model decides."""
    write_keys(tmp_path)
    write_model(tmp_path / "kept", "Handlers", source=HANDLERS)
    write_model(
        tmp_path / "open",
        "Handlers",
        source=HANDLERS.replace('"/ping", "GET"', '"/ping", "GET", public=True'),
    )
    server = serve(tmp_path, workers=0)
    answers = {
        name: server.get("/ping", headers={"x-mlserver-model": name}).status_code
        for name in ("kept", "open")
    }
    assert answers == {"kept": 401, "open": 200}
    assert server.get("/ping").status_code == 401
    assert server.get("/ping", headers={"x-mlserver-model": "neither"}).status_code == 401


# -- with the setting `auth`, credentials decide --


@pytest.mark.parametrize(
    "key, status", [(None, 401), ("i", 403), ("m", 403), ("wrong", 401), ("a", 200)]
)
def test_loading_needs_an_admin_credential(custom: Server, key: str | None, status: int) -> None:
    headers = {} if key is None else {"x-api-key": key}
    assert custom.post("/v2/repository/models/m/load", headers=headers).status_code == status
    code = grpc_load(custom, key)
    assert code == {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 200: "OK"}[status]


def grpc_load(server: Server, key: str | None) -> str:
    """The status code of a load over gRPC."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        load = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")
        try:
            load(b"\x12\x01m", metadata=() if key is None else (("x-api-key", key),), timeout=20)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def test_local_programs_may_load_with_the_setting(tmp_path: Path, serve: Serve) -> None:
    write_keys(tmp_path, admin_access="loopback")
    write_model(tmp_path / "m")
    server = serve(tmp_path, workers=0)
    load = "/v2/repository/models/m/load"
    assert server.post(load).status_code == 200
    assert server.post(load, headers={"x-api-key": "i"}).status_code == 403
    assert server.post(load, headers={"x-api-key": "wrong"}).status_code == 401
    assert server.infer("m", [tensor("x", [1.0])]).status_code == 401


def test_a_local_browser_receives_the_reason(tmp_path: Path, serve: Serve) -> None:
    write_model(tmp_path / "m")
    server = serve(tmp_path, workers=0)
    refused = server.post("/v2/repository/models/m/unload", headers={"origin": server.url})
    assert refused.status_code == 403
    assert "web pages" in refused.json()["error"]
    assert "curl" in refused.json()["error"]
