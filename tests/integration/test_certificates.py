"""TLS: certificates of server and clients, and their renewal."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from support.certificates import Authority
from support.grpc_methods import SERVICES, call
from support.repository import tensor, write_model, write_server_settings
from support.server import Server, run_mlserver
from support.slow import slow


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


@pytest.mark.parametrize("transport", ["rest", slow("grpc")])
def test_the_command_line_sends_a_certificate(
    secured: Secured, tmp_path: Path, transport: str
) -> None:
    certificate, key = secured.clients.issue("client-command-line")
    mine = "--certificate", str(certificate), "--key", str(key)
    known = "--ca", str(secured.authority.path)
    assert score(secured, tmp_path, transport, "--use-ssl", *known, *mine) == (0, "")
    assert score(secured, tmp_path, transport, *known, *mine, scheme="https://") == (0, "")
    for wrong in ((*known,), mine, ("--ca", str(secured.others.path), *mine)):
        code, printed = score(secured, tmp_path, transport, "--use-ssl", *wrong)
        assert code == 1
        assert printed.startswith("mlserver: ")
        assert printed.count("\n") == 1
    code, printed = score(secured, tmp_path, transport, *known)
    assert (code, printed.count("\n")) == (1, 1)
    code, printed = score(secured, tmp_path, transport, "--use-ssl", "--ca", str(key))
    assert (code, printed.count("\n")) == (1, 1)
    assert "the certificates cannot be used" in printed


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
    code, printed = run_mlserver("infer", *where, "--retries", "0", "--timeout", "10", *more)
    if code == 0:
        (answer,) = output.read_text().splitlines()
        assert json.loads(answer)["outputs"][0]["data"] == [1.5]
        return code, ""
    return code, printed


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
