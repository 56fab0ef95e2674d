"""The console's files and data over HTTP: addresses, caching, scopes, sums, errors."""

from __future__ import annotations

import gzip
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlserver.security.credentials import hash_key
from support.repository import tensor, write_model, write_server_settings
from support.server import Server, create_client

FAILING = """
from mlserver import MLModel


class Failing(MLModel):
    async def predict(self, payload):
        raise ValueError("the model's own reason")
"""
DOCUMENTS = ("metrics", "routing", "workers", "errors", "settings")
BROWSER = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
ECHO = [tensor("x", [1.0], "FP64")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("console")
    write_model(folder / "echo")
    write_model(folder / "failing", "Failing", source=FAILING)
    split = {"traffic": {"weights": {"1": 90, "2": 10}, "sticky_header": "x-user"}}
    write_model(folder / "one", name="split", parameters={"version": "1"})
    write_model(folder / "two", name="split", parameters={"version": "2", "extra": split})
    with Server(folder, tracebacks=True) as running:
        yield running


def read(server: Server, name: str, **options: Any) -> dict[str, Any]:
    response = server.get(f"/v2/console/{name}", **options)
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    document: dict[str, Any] = response.json()
    return document


def find_model(server: Server, name: str, version: str = "") -> dict[str, Any]:
    models = read(server, "metrics")["models"]
    (model,) = [entry for entry in models if (entry["name"], entry["version"]) == (name, version)]
    entry: dict[str, Any] = model
    return entry


# -- addresses --


def test_the_root_sends_browsers_to_the_console(server: Server) -> None:
    response = server.get("/", headers=BROWSER, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (307, "console/")
    assert response.headers["vary"] == "Accept"


def test_the_root_lists_routes_for_programs(server: Server) -> None:
    routes = server.get("/").json()
    assert routes["console"] == "/console/"
    assert routes["metrics"] == "/metrics"
    for path in (routes["documentation"], routes["openapi"], routes["models"], *routes["health"]):
        assert server.get(path).status_code == 200
    assert server.post("/").status_code == 405


def test_the_folder_needs_its_slash(server: Server) -> None:
    response = server.get("/console", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (307, "console/")
    assert server.get("/console/").status_code == 200


def test_every_file_is_cached_compressed_and_under_the_policy(server: Server) -> None:
    page = server.get("/console/")
    assert page.headers["cache-control"] == "no-cache"
    addresses = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(addresses) >= 4
    for address in addresses:
        response = server.get(f"/console/{address}")
        assert response.status_code == 200
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["content-encoding"] == "gzip"
        plain = server.get(f"/console/{address}", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == response.content
        again = server.get(
            f"/console/{address}", headers={"if-none-match": response.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
        for headers in (page.headers, response.headers):
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'")
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"


def test_the_page_holds_no_inline_code_and_no_other_address(server: Server) -> None:
    page = server.get("/console/").text
    assert not re.findall(r"https?://|<style|style=|onerror|onload|@import", page)
    assert not re.findall(r"<script[^>]*>[^<]", page)


@pytest.mark.parametrize(
    "path", ["/console/nothing", "/console/0/main.js", "/console/../settings.json", "/consoles"]
)
def test_other_addresses_do_not_exist(server: Server, path: str) -> None:
    assert server.get(path).status_code == 404


def test_only_get_and_head(server: Server) -> None:
    assert server.post("/console/").status_code == 405
    assert server.client.head("/console/").status_code == 200


def test_without_the_console(tmp_path: Path) -> None:
    write_server_settings(tmp_path, console=False)
    write_model(tmp_path / "echo")
    with Server(tmp_path, workers=0) as running:
        for path in ("/", "/console/", "/v2/console/metrics", "/v2/console/access"):
            assert running.get(path, headers=BROWSER).status_code == 404
        assert "setting 'console'" in running.get("/console/").json()["error"]
        assert running.get("/v2/docs").json()["openapi"]  # the document itself
        assert running.get("/v2/models/echo/docs").json()["openapi"]
        assert "/v2/console/metrics" not in running.get("/v2/docs").json()["paths"]


def test_production_has_no_console_without_credentials(tmp_path: Path) -> None:
    write_server_settings(tmp_path, production=True)
    with Server(tmp_path, workers=0) as running:
        assert running.get("/console/").status_code == 404
        assert running.get("/v2/console/metrics").status_code == 404


# -- data --


def test_metrics_count_requests(server: Server) -> None:
    before = find_model(server, "echo")
    for _ in range(5):
        assert server.infer("echo", ECHO).status_code == 200
    server.wait(
        lambda: find_model(server, "echo")["success"] == before["success"] + 5, "5 were counted"
    )
    after = find_model(server, "echo")
    assert sum(after["latency"]["counts"].values()) == after["success"]
    assert after["state"] == "READY"
    assert after["load_seconds"] > 0
    document = read(server, "metrics")
    assert len(document["latency_bounds"]) > 80
    assert {process["kind"] for process in document["processes"]} == {"server", "worker"}
    assert all(process["resident_bytes"] > 1e6 for process in document["processes"])


def test_the_published_buckets_contain_those_of_the_prometheus_client(server: Server) -> None:
    assert server.infer("echo", ECHO).status_code == 200
    bounds = re.findall(
        r'model_infer_request_duration_seconds_bucket{le="([^"]+)",model="echo"',
        server.get("/metrics").text,
    )
    assert bounds == [
        "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25",
        "0.5", "0.75", "1.0", "2.5", "5.0", "7.5", "10.0", "30.0", "60.0", "+Inf",
    ]  # fmt: skip


def test_errors_have_model_message_and_traceback(server: Server) -> None:
    request_id = "request-of-the-test"
    response = server.infer("failing", ECHO, id=request_id)
    assert response.status_code == 500
    errors = read(server, "errors")["errors"]
    (error,) = [entry for entry in errors if entry["model"] == "failing"]
    assert error["status"] == 500
    assert error["request_id"] == request_id
    assert error["operation"] == "POST /v2/models/{model_name}/infer"
    assert "the model's own reason" in error["message"]
    assert "raise ValueError" in error["traceback"]
    assert "Traceback" not in response.text


def test_equal_errors_are_one_entry(server: Server) -> None:
    for _ in range(3):
        assert server.infer("missing", ECHO).status_code == 404
    server.wait(lambda: count_missing(server) == 3, "3 errors were counted")


def count_missing(server: Server) -> int:
    errors = read(server, "errors")["errors"]
    return sum(entry["count"] for entry in errors if entry["model"] == "missing")


def test_routing_shows_the_split(server: Server) -> None:
    models = read(server, "routing")["models"]
    (model,) = [entry for entry in models if entry["name"] == "split"]
    assert model["sticky_header"] == "x-user"
    shares = {entry["version"]: entry["share"] for entry in model["versions"]}
    assert shares == {"1": 0.9, "2": 0.1}


def test_a_killed_worker_is_seen(server: Server) -> None:
    pools = read(server, "workers")["pools"]
    (pool,) = [entry for entry in pools if "echo" in entry["models"]]
    (worker,) = pool["workers"]
    os.kill(worker["pid"], signal.SIGKILL)

    def is_replaced() -> bool:
        (now,) = [
            entry for entry in read(server, "workers")["pools"] if entry["number"] == pool["number"]
        ]
        return bool(now["restarts"] == pool["restarts"] + 1 and now["ready"] == 1)

    server.wait(is_replaced, "the worker was replaced")
    (now,) = [
        entry for entry in read(server, "workers")["pools"] if entry["number"] == pool["number"]
    ]
    assert now["exits"][-1]["pid"] == worker["pid"]
    assert "SIGKILL" in now["exits"][-1]["reason"]


def test_settings_have_origins(server: Server) -> None:
    settings = {entry["name"]: entry for entry in read(server, "settings")["settings"]}
    assert settings["host"]["origin"] == "variable MLSERVER_HOST"
    assert settings["host"]["value"] == "127.0.0.1"
    assert settings["max_queue_size"]["origin"] == "default"
    assert settings["max_queue_size"]["description"]


def test_the_port_of_grpc(server: Server) -> None:
    assert read(server, "access")["grpc_port"] == server.grpc_port


def test_the_document_lists_the_data(server: Server) -> None:
    paths = server.get("/v2/docs/dataplane.json").json()["paths"]
    assert {f"/v2/console/{name}" for name in (*DOCUMENTS, "access")} <= set(paths)


# -- who may read it --


def test_scopes(tmp_path: Path) -> None:
    keys = {"i": "infer", "a": "admin", "m": "metrics"}
    lines = [f"{key} {scope} {hash_key(key)}\n" for key, scope in keys.items()]
    (tmp_path / "keys.txt").write_text("".join(lines))
    write_server_settings(tmp_path, auth={"keys": "keys.txt"})
    write_model(tmp_path / "echo")
    with Server(tmp_path, workers=0) as running:
        assert running.get("/console/").status_code == 200  # holds no data
        for name in DOCUMENTS:
            needed = "a" if name in ("errors", "settings") else "m"
            path = f"/v2/console/{name}"
            assert running.get(path).status_code == 401
            for key in keys:
                status = running.get(path, headers={"x-api-key": key}).status_code
                assert status == (200 if key == needed else 403)
        access = running.get("/v2/console/access", headers={"x-api-key": "i"}).json()
        assert access["requires_credentials"]
        allowed = {scope: entry["allowed"] for scope, entry in access["scopes"].items()}
        assert allowed == {"infer": True, "metrics": False, "admin": False}
        assert "scope 'admin'" in access["scopes"]["admin"]["reason"]


def test_web_pages_may_not_change_anything(server: Server) -> None:
    origin = {"origin": server.url}
    access = server.post("/v2/console/access", headers=origin).json()
    assert not access["requires_credentials"]
    assert access["scopes"]["metrics"]["allowed"]
    assert not access["scopes"]["admin"]["allowed"]
    assert "Origin" in access["scopes"]["admin"]["reason"]
    assert server.post("/v2/repository/models/echo/unload", headers=origin).status_code == 403
    assert server.post("/v2/console/access").json()["scopes"]["admin"]["allowed"]


@pytest.mark.parametrize(
    "host, status",
    [
        ("evil.example.com", 403),
        ("evil.example.com:80", 403),
        ("localhost:1", 200),
        ("[::1]:1", 200),
    ],
)
def test_another_sites_name_for_this_machine(server: Server, host: str, status: int) -> None:
    """A page of another site, whose name resolves to 127.0.0.1, is not local (DNS rebinding)."""
    assert server.get("/v2/console/errors", headers={"host": host}).status_code == status


# -- several processes --


def test_counts_and_errors_are_summed_over_http_workers(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    with Server(tmp_path, env={"MLSERVER_HTTP_WORKERS": "2"}) as running:
        body = {"inputs": ECHO}
        for _ in range(20):
            # A connection each, so that both processes serve.
            with create_client(running.url) as client:
                assert client.post("/v2/models/echo/infer", json=body).status_code == 200
                assert client.post("/v2/models/no/infer", json=body).status_code == 404

        def is_counted() -> bool:
            errors = read(running, "errors")["errors"]
            failed = sum(entry["count"] for entry in errors if entry["model"] == "no")
            done: int = find_model(running, "echo")["success"]
            return bool(failed == done == 20)

        running.wait(is_counted, "all were counted")
        kinds = [process["kind"] for process in read(running, "metrics")["processes"]]
        assert sorted(kinds) == ["http_worker", "server", "worker"]
        (http_worker,) = read(running, "workers")["http_workers"]
        assert http_worker["serving"]
        os.kill(http_worker["pid"], signal.SIGKILL)

        def is_replaced() -> bool:
            processes = read(running, "workers")["http_workers"]
            return [entry["pid"] for entry in processes] not in ([], [http_worker["pid"]])

        running.wait(is_replaced, "the HTTP worker process was replaced")
        assert is_counted()  # what was read of the ended process is kept


def test_files_are_compressed_once() -> None:
    from mlserver.rest.console import pages

    for name in pages.list_names():
        file = pages.load_file(name)
        assert file is not None
        assert gzip.decompress(file.compressed) == file.content
        assert pages.load_file(name) is file
