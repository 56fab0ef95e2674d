"""Authentication and authorization of a server.

Certificates, keys, every route of every port, loads.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from mlserver.grpc.services import get_kind, serialize
from mlserver.rest.console.endpoints import ConsoleEndpoints
from mlserver.rest.docs import Docs
from mlserver.rest.endpoints import Endpoints
from mlserver.security.code_policy import compute_digest
from mlserver.security.credentials import hash_key
from mlserver.settings import Settings
from mlserver.wire.pb import dataplane_pb2, health_pb2, model_repository_pb2, reflection_pb2
from support.certificates import Authority
from support.models import WINE, Models
from support.ports import free_ports
from support.repository import tensor, write_model, write_server_settings, write_settings
from support.server import Server, run_mlserver

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
    ConsoleEndpoints(nothing, nothing).register(routes)
    return [
        *routes.all,
        ("GET", "/nowhere"),
        ("POST", "/invocations"),
        ("GET", "/v2/models/other/docs"),
    ]


SERVICES = [
    file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (dataplane_pb2, "GRPCInferenceService"),
        (model_repository_pb2, "ModelRepositoryService"),
        (health_pb2, "Health"),
        (reflection_pb2, "ServerReflection"),
    )
]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
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


def call(channel: grpc.Channel, method: MethodDescriptor, key: str | None) -> grpc.StatusCode:
    """The status code of a call with an empty message."""
    name = f"/{method.containing_service.full_name}/{method.name}"
    kind = get_kind(method)
    invoke = getattr(channel, kind)(name, request_serializer=serialize, response_deserializer=bytes)
    message = GetMessageClass(method.input_type)()
    metadata = (("x-api-key", key),) if key is not None else ()
    try:
        answer = invoke(
            iter([message]) if kind.startswith("stream") else message, metadata=metadata, timeout=20
        )
        if kind.endswith("stream"):
            next(iter(answer), None)
            answer.cancel()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


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
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("names", names)])
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


# -- certificates --


class Secured:
    """A server with TLS only, which authenticates clients by certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder, "authority")
        self.clients = Authority(folder, "clients")
        self.others = Authority(folder, "others")
        certificate, key = self.authority.issue("server")
        group = {
            "certificate": certificate.name,
            "key": key.name,
            "client_ca": self.clients.path.name,
        }
        write_server_settings(folder, tls=group)
        write_model(folder / "echo")
        self.server = Server(folder, workers=0, ready=None)

    def context(self, issuer: Authority | None, days: int = 1) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.path))
        if issuer is not None:
            context.load_cert_chain(*issuer.issue(f"client-{os.urandom(4).hex()}", days))
        return context

    def get(self, context: ssl.SSLContext, path: str = "/v2/health/ready") -> httpx.Response:
        port = self.server.metrics_port if path == "/metrics" else self.server.http_port
        with httpx.Client(verify=context) as client:
            return client.get(f"https://127.0.0.1:{port}{path}")

    def grpc_status(self, issuer: Authority | None, days: int = 1) -> grpc.StatusCode:
        pair = (
            [path.read_bytes() for path in issuer.issue("client-grpc", days)]
            if issuer
            else [None, None]
        )
        credentials = grpc.ssl_channel_credentials(
            self.authority.path.read_bytes(), pair[1], pair[0]
        )
        with grpc.secure_channel(f"127.0.0.1:{self.server.grpc_port}", credentials) as channel:
            return call(channel, SERVICES[0].methods_by_name["ServerLive"], None)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secured = Secured(tmp_path_factory.mktemp("secured"))
    with secured.server as server:
        server.wait_for_line("Ready in")
        yield secured


def test_clients_with_a_certificate(secured: Secured) -> None:
    context = secured.context(secured.clients)
    assert secured.get(context).status_code == 200
    assert "model_infer" in secured.get(context, "/metrics").text
    assert secured.grpc_status(secured.clients) is grpc.StatusCode.OK


@pytest.mark.parametrize("case", ["none", "another authority", "expired"])
def test_clients_without_a_valid_certificate(secured: Secured, case: str) -> None:
    issuer = {"none": None, "another authority": secured.others, "expired": secured.clients}[case]
    days = -1 if case == "expired" else 1
    for path in ("/v2/health/live", "/metrics"):
        with pytest.raises(httpx.TransportError):
            secured.get(secured.context(issuer, days), path)
    assert secured.grpc_status(issuer, days) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_the_command_line_sends_a_certificate(
    secured: Secured, tmp_path: Path, transport: str
) -> None:
    certificate, key = secured.clients.issue("client-command-line")
    mine = "--certificate", str(certificate), "--key", str(key)
    known = "--ca", str(secured.authority.path)
    assert score(secured, tmp_path, transport, "--use-ssl", *known, *mine) == (0, "")
    assert score(secured, tmp_path, transport, *known, *mine, scheme="https://") == (0, "")
    for wrong in ((*known,), mine, ("--ca", str(secured.others.path), *mine)):
        code, said = score(secured, tmp_path, transport, "--use-ssl", *wrong)
        assert code == 1
        assert said.startswith("mlserver: ")
        assert said.count("\n") == 1
    code, said = score(secured, tmp_path, transport, *known)
    assert (code, said.count("\n")) == (1, 1)
    code, said = score(secured, tmp_path, transport, "--use-ssl", "--ca", str(key))
    assert (code, said.count("\n")) == (1, 1)
    assert "the certificates cannot be used" in said


def test_the_command_line_can_skip_verification(secured: Secured, tmp_path: Path) -> None:
    certificate, key = secured.clients.issue("client-insecure")
    (tmp_path / "both.pem").write_text(certificate.read_text() + key.read_text())
    assert score(
        secured,
        tmp_path,
        "rest",
        "--use-ssl",
        "--insecure",
        "--certificate",
        str(tmp_path / "both.pem"),
    ) == (
        0,
        "",
    )


def score(
    secured: Secured, folder: Path, transport: str, *more: str, scheme: str = ""
) -> tuple[int, str]:
    """Run `mlserver infer` with one request.

    Returns the exit code and the output without progress.
    """
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text(json.dumps({"inputs": [tensor("x", [1.5], "FP64")]}))
    output.unlink(missing_ok=True)
    port = secured.server.grpc_port if transport == "grpc" else secured.server.http_port
    where = [
        "-u",
        f"{scheme}127.0.0.1:{port}",
        "-t",
        transport,
        "-m",
        "echo",
        "-i",
        str(source),
        "-o",
        str(output),
    ]
    code, said = run_mlserver("infer", *where, "--retries", "0", "--timeout", "10", *more)
    if code == 0:
        (answer,) = output.read_text().splitlines()
        assert json.loads(answer)["outputs"][0]["data"] == [1.5]
        return code, ""
    return code, said


def test_plain_http_is_not_answered(secured: Secured) -> None:
    for port in (secured.server.http_port, secured.server.metrics_port):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/v2/health/live")


def test_old_versions_of_tls(secured: Secured) -> None:
    context = secured.context(secured.clients)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.TransportError):
        secured.get(context)


def test_changed_certificates_are_used(secured: Secured) -> None:
    """Both sides rotate certificates.

    The server presents a new one and trusts another authority.
    """
    before = secured.context(secured.clients)
    certificate, key = secured.others.issue("fresh")
    replacements = {
        "server.crt": certificate,
        "server.key": key,
        "clients.pem": secured.others.path,
    }
    kept = {name: (secured.folder / name).read_bytes() for name in replacements}
    try:
        for name, source in replacements.items():
            fresh = secured.folder / f"{name}.new"
            fresh.write_bytes(source.read_bytes())
            fresh.rename(secured.folder / name)
        with pytest.raises(httpx.TransportError):
            secured.get(before)
        context = ssl.create_default_context(cafile=str(secured.others.path))
        context.load_cert_chain(*secured.others.issue("client-of-others"))
        assert secured.get(context).status_code == 200
        (secured.folder / "server.crt").write_text("no certificate")
        assert secured.get(context).status_code == 200, "what is wrong is not used"
        secured.server.wait_for_line("are ignored")
    finally:
        for name, content in kept.items():
            (secured.folder / name).write_bytes(content)
    assert secured.get(before).status_code == 200


def test_invalid_certificates_are_an_error_at_start(tmp_path: Path) -> None:
    write_server_settings(tmp_path, tls={"certificate": "none.crt", "key": "none.key"})
    write_model(tmp_path / "echo")
    code, output = run_mlserver("start", str(tmp_path), env={"MLSERVER_HTTP_PORT": "0"})
    assert code in (1, 2)
    assert "none.crt" in output
    assert "Traceback" not in output


# -- production --


def index(server: Server) -> dict[str, str]:
    return {item["name"]: item["reason"] for item in server.post("/v2/repository/index").json()}


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
