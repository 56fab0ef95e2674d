"""Authentication and authorization of a server.

Certificates, keys, every route of every port, loads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor import MethodDescriptor

from mlserver.rest.app import CONSOLE_PATHS
from mlserver.rest.docs import Docs
from mlserver.rest.endpoints import Endpoints
from mlserver.security.code_policy import compute_digest
from mlserver.security.credentials import hash_key
from mlserver.settings import Settings
from support.grpc_methods import METHODS, SERVICES, call
from support.models import WINE, Models
from support.ports import free_ports
from support.repository import tensor, write_model, write_server_settings, write_settings
from support.server import Server

KEYS = {"i": "infer", "a": "admin", "m": "metrics"}
OPEN = {
    ("GET", "/v2/health/live"),
    ("GET", "/v2/health/ready"),
    ("GET", "/v2/console/access"),  # what the caller may do
    ("POST", "/v2/console/access"),
}
PAGES = {
    ("GET", path)
    for path in (
        "/v2/docs",
        "/v2/models/echo/docs",
        "/v2/models/other/docs",
        "/v2/models/echo/versions/1/docs",
    )
}


class Routes:
    """Records the routes that the front end registers."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def add(self, method: str, template: str, endpoint: Any) -> None:
        values = {"model_name": "echo", "model_version": "1", "repository": "any"}
        self.all.append((method, template.format(**values)))


def rest_routes() -> list[tuple[str, str]]:
    routes: Any = Routes()
    nothing: Any = None
    Endpoints(Settings(), nothing, nothing, nothing).register(routes)
    Docs(Settings(), nothing).register(routes)
    return [
        *routes.all,
        *CONSOLE_PATHS,
        ("GET", "/nowhere"),
        ("POST", "/invocations"),
        ("GET", "/v2/models/other/docs"),
    ]


OPEN_METHODS = {"ServerLive", "ServerReady", "Check", "Watch"}


def needed(path: str) -> str:
    if path.endswith(("load", "unload", "/v2/console/errors", "/v2/console/settings")):
        return "a"
    return "m" if path.startswith("/v2/console/") else "i"


# -- keys: every route, every method --


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys.txt").write_text(
        "".join(f"{key} {scope} {hash_key(key)}\n" for key, scope in KEYS.items())
    )
    write_server_settings(folder, auth={"keys": "keys.txt"}, admin_access="credential")
    write_model(folder / "echo", parameters={"version": "1"})
    with Server(folder, workers=0) as running:
        yield running


@pytest.mark.parametrize("method, path", rest_routes())
def test_rest_routes_need_a_credential(keyed: Server, method: str, path: str) -> None:
    if (method, path) in OPEN:
        assert keyed.client.request(method, path).status_code == 200
        return
    if (method, path) in PAGES:  # a redirection, the same whether the model exists or not
        page = keyed.client.request(method, path, follow_redirects=False)
        assert (page.status_code, page.content) == (307, b"")
        assert "console/#/api" in page.headers["location"]
        return
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"x-api-key": ""},
        {"authorization": "i"},
    ):
        response = keyed.client.request(method, path, headers=headers)
        assert response.status_code == 401, response.text
        assert response.headers["www-authenticate"] == "Bearer"
        assert "echo" not in response.text
    wrong = "m" if needed(path) == "i" else "i"
    assert keyed.client.request(method, path, headers={"x-api-key": wrong}).status_code == 403
    right = keyed.client.request(method, path, headers={"x-api-key": needed(path)})
    assert right.status_code not in (401, 403), right.text


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_grpc_methods_need_a_credential(keyed: Server, method: MethodDescriptor) -> None:
    refusals = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    right = "a" if method.name.endswith(("Load", "Unload")) else "i"
    with grpc.insecure_channel(f"127.0.0.1:{keyed.grpc_port}") as channel:
        if method.name in OPEN_METHODS:
            assert call(channel, method, None) not in refusals
            return
        assert call(channel, method, None) is grpc.StatusCode.UNAUTHENTICATED
        assert call(channel, method, "wrong") is grpc.StatusCode.UNAUTHENTICATED
        assert call(channel, method, "m") is grpc.StatusCode.PERMISSION_DENIED
        assert call(channel, method, right) not in refusals


def test_metrics_need_a_credential(keyed: Server) -> None:
    for headers, status in (
        ({}, 401),
        ({"x-api-key": "i"}, 403),
        ({"authorization": "Bearer m"}, 200),
    ):
        assert httpx.get(f"{keyed.metrics_url}/metrics", headers=headers).status_code == status


SHOW = """
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse


class Show(MLModel):
    async def predict(self, payload):
        names = sorted(payload.parameters.headers)
        output = StringCodec.encode_output("names", names)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def test_credentials_do_not_reach_models_or_the_log(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(f"i infer,metrics {hash_key('very-secret')}\n")
    write_server_settings(tmp_path, auth={"keys": "keys.txt"}, debug=True)
    write_model(tmp_path / "show", "Show", source=SHOW)
    with Server(tmp_path, workers=0) as server:
        headers = {"authorization": "Bearer very-secret", "x-mine": "1"}
        response = server.post(
            "/v2/models/show/infer", {"inputs": [tensor("x", [1.0])]}, headers=headers
        )
        names = response.json()["outputs"][0]["data"]
        assert "x-mine" in names
        assert "authorization" not in names
    assert "very-secret" not in server.log


# -- administration --


def test_only_programs_on_this_machine_change_the_server(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    with Server(tmp_path, workers=0) as server:
        load = "/v2/repository/models/echo/load"
        assert server.post(load).status_code == 200
        for name in ("x-forwarded-for", "forwarded", "via", "origin"):
            refused = server.post(load, headers={name: "192.0.2.7"})
            assert refused.status_code == 403
            assert "admin_access" in refused.json()["error"]
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            method = SERVICES[0].methods_by_name["RepositoryModelLoad"]
            assert call(channel, method, None) is not grpc.StatusCode.PERMISSION_DENIED
        assert server.infer("echo", [tensor("x", [1.0])]).status_code == 200


def test_an_address_of_its_own_for_administration(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    write_server_settings(tmp_path, admin_port=port)
    write_model(tmp_path / "echo")
    with Server(tmp_path, workers=0) as server:
        load = "/v2/repository/models/echo/load"
        refused = server.post(load)
        assert refused.status_code == 403
        assert "admin_port" in refused.json()["error"]
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            method = SERVICES[0].methods_by_name["RepositoryModelLoad"]
            assert call(channel, method, None) is grpc.StatusCode.PERMISSION_DENIED
        assert httpx.post(f"http://127.0.0.1:{port}{load}").status_code == 200


# -- production --


def index(server: Server) -> dict[str, str]:
    return {item["name"]: item["reason"] for item in server.post("/v2/repository/index").json()}


@pytest.mark.slow
def test_production_runs_what_is_trusted_only(models: Models, tmp_path: Path) -> None:
    """A pickled model is loaded if its files are trusted by folder or digest.

    Other sources are not.
    """
    mlflow = {"implementation": "mlserver_mlflow.MLflowRuntime"}
    for name in ("trusted", "untrusted"):
        models.copy("wine", tmp_path / name / "files")
        write_settings(tmp_path / name, name=name, **mlflow, parameters={"uri": "./files"})
    with open(tmp_path / "untrusted" / "files" / "MLmodel", "a") as file:
        file.write("# changed\n")
    write_settings(
        tmp_path / "outside", name="outside", **mlflow, parameters={"uri": str(models["wine"])}
    )
    write_model(tmp_path / "echo")
    digest = compute_digest(str(tmp_path / "trusted" / "files"))
    write_server_settings(
        tmp_path, production=True, trusted_models=[digest], strict_readiness=False
    )
    with Server(tmp_path) as server:
        reasons = index(server)
        assert reasons["trusted"] == ""
        assert "trusted_models" in reasons["untrusted"]
        assert "allowed_model_sources" in reasons["outside"]
        assert "allowed_runtimes" in reasons["echo"]
        for reason in reasons.values():
            assert str(tmp_path) not in reason
        assert (
            server.post("/v2/models/trusted/invocations", {"dataframe_records": [WINE]}).status_code
            == 200
        )
