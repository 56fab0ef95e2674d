"""The metrics endpoint on the REST port and on its own, and the addresses in the line Ready."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlserver.security.credentials import hash_key
from support.repository import tensor, write_model, write_server_settings
from support.server import Serve, Server, fetch, run_mlserver
from support.slow import slow

INPUTS = [tensor("x", [1.0])]

OWN_PAGE = """
from mlserver import MLModel
from mlserver.custom_routes import custom_handler


class Own(MLModel):
    @custom_handler("/metrics", "GET")
    async def page(self) -> dict[str, str]:
        return {"own": "page"}
"""


def count_requests(page: str) -> float:
    """The number of requests of `echo` on a metrics page."""
    samples = [
        sample for family in text_string_to_metric_families(page) for sample in family.samples
    ]
    values = [
        sample.value for sample in samples if sample.name == "model_infer_request_success_total"
    ]
    return sum(values)


@pytest.mark.parametrize("front_ends", [slow(1), 2])
def test_both_ports_have_the_sums(serve: Serve, tmp_path: Path, front_ends: int) -> None:
    write_server_settings(tmp_path, http_workers=front_ends)
    write_model(tmp_path / "echo")
    server = serve(tmp_path, workers=1)
    for _ in range(10):
        assert (
            httpx.post(f"{server.url}/v2/models/echo/infer", json={"inputs": INPUTS}).status_code
            == 200
        )
    for _ in range(6):  # each over a connection of its own, which any process may accept
        page = httpx.get(f"{server.url}/metrics", headers={"accept-encoding": "gzip"})
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/plain; version=")
        assert count_requests(page.text) == 10
    assert count_requests(fetch(f"{server.metrics_url}/metrics").text) == 10
    open_metrics = server.get(
        "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert server.client.head("/metrics").status_code == 200
    assert server.post("/metrics").status_code == 405
    assert server.client.options("/metrics").headers["allow"] == "GET, HEAD, OPTIONS"


def test_it_needs_the_scope_for_metrics(serve: Serve, tmp_path: Path) -> None:
    keys = (
        f"{key} {scope} {hash_key(key)}\n"
        for key, scope in {"i": "infer", "m": "metrics", "a": "admin"}.items()
    )
    (tmp_path / "keys.txt").write_text("".join(keys))
    write_server_settings(tmp_path, auth={"keys": "keys.txt"})
    write_model(tmp_path / "echo")
    server = serve(tmp_path, workers=0)
    for key, status in {"": 401, "wrong": 401, "i": 403, "a": 403, "m": 200}.items():
        assert server.get("/metrics", headers={"x-api-key": key}).status_code == status
    assert server.get("/v2", headers={"x-api-key": "m"}).status_code == 403


def test_another_path(serve: Serve, tmp_path: Path) -> None:
    write_server_settings(tmp_path, metrics_endpoint="prom/metrics")  # "/" is added
    write_model(tmp_path / "echo")
    server = serve(tmp_path, workers=0)
    assert server.get("/prom/metrics").status_code == 200
    assert server.get("/metrics").status_code == 404


def test_metrics_are_disabled(serve: Serve, tmp_path: Path) -> None:
    write_server_settings(tmp_path, metrics_endpoint=None)
    write_model(tmp_path / "echo")
    assert serve(tmp_path, workers=0).get("/metrics").status_code == 404


def test_a_model_may_declare_that_path(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "own", "Own", source=OWN_PAGE)
    server = serve(tmp_path, workers=0)
    assert server.get("/metrics").json() == {"own": "page"}
    assert "model_infer" in fetch(f"{server.metrics_url}/metrics").text


# -- one port for both --


class OnePort(Server):
    """A server whose metrics port is its HTTP port, or 0."""

    metrics_port_setting = ""

    def _default_env(self, workers: int | Literal["ray"] | None) -> dict[str, str]:
        own = super()._default_env(workers)
        return own | {"MLSERVER_METRICS_PORT": self.metrics_port_setting or str(self.http_port)}


class NoPort(OnePort):
    metrics_port_setting = "none"


@pytest.mark.parametrize("kind, front_ends", [(OnePort, 2), slow(NoPort, 1)])
def test_one_port_for_both(kind: type[Server], tmp_path: Path, front_ends: int) -> None:
    write_server_settings(tmp_path, http_workers=front_ends)
    write_model(tmp_path / "echo")
    with kind(tmp_path, workers=1) as server:
        assert server.infer("echo", INPUTS).status_code == 200
        assert count_requests(server.get("/metrics").text) == 1
        server.wait_for_line("metrics at /metrics")
        with pytest.raises(httpx.ConnectError):
            fetch(f"{server.metrics_url}/metrics")


def test_the_metrics_port_must_not_be_the_grpc_port(tmp_path: Path) -> None:
    ports: dict[str, Any] = {"host": "127.0.0.1", "http_port": 0, "grpc_port": 0}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        write_server_settings(tmp_path, **ports, metrics_port=taken.getsockname()[1])
        write_model(tmp_path / "echo")
        code, text = run_mlserver("start", str(tmp_path))
    assert code == 1
    assert "metrics_port" in text.splitlines()[-1]


# -- addresses --


def urls(server: Server) -> list[str]:
    """The addresses in the line Ready."""
    server.wait_for_line("Ready in")
    line = str(server.log).partition("Ready in")[2].partition("\n")[0]
    return re.findall(r"http://[^\s,;]+", line)


@pytest.mark.parametrize("front_ends", [slow(1), 2])
def test_ready_names_the_ports_that_were_found(tmp_path: Path, front_ends: int) -> None:
    write_server_settings(tmp_path, admin_port=0, http_workers=front_ends)
    write_model(tmp_path / "echo")
    free = {f"MLSERVER_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")}
    with Server(tmp_path, workers=1, env=free, ready=None) as server:
        rest, admin, metrics = urls(server)
        assert fetch(f"{rest}/v2/health/ready").status_code == 200
        assert httpx.post(f"{admin}/v2/repository/models/echo/load").status_code == 200
        assert "model_infer" in fetch(metrics).text
        assert not re.search(r":0\b", str(server.log).partition("Ready in")[2])


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_addresses_of_ipv6_have_brackets(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    with Server(tmp_path, workers=0, env={"MLSERVER_HOST": "::1"}, ready=None) as server:
        rest, metrics = urls(server)
        assert rest == f"http://[::1]:{server.http_port}"
        assert fetch(f"{rest}/v2/health/ready").status_code == 200
        assert fetch(metrics).status_code == 200
        server.wait_for_line(f"gRPC [::1]:{server.grpc_port}")


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
@pytest.mark.parametrize("kind", [slow("http_port"), slow("metrics_port"), "grpc_port"])
def test_a_taken_port_of_ipv6_has_brackets(tmp_path: Path, kind: str) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        ports: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, kind: port}
        write_server_settings(tmp_path, host="::1", **ports)
        write_model(tmp_path / "echo")
        code, text = run_mlserver("start", str(tmp_path))
    assert code == 1
    assert f"[::1]:{port} (setting '{kind}')" in text.splitlines()[-1]


# -- queues --


@pytest.mark.parametrize("workers, front_ends", [slow(0, 1), slow(2, 1), (1, 2)])
def test_every_request_is_in_the_histograms_of_queues(
    serve: Serve, tmp_path: Path, workers: int, front_ends: int
) -> None:
    """The queue time of a request that runs at once is 0, of one that waits it is not."""
    write_server_settings(tmp_path, http_workers=front_ends)
    write_model(tmp_path / "alone")
    write_model(tmp_path / "joined", max_batch_size=2, max_batch_time=0.05)
    server = serve(tmp_path, workers=workers)
    for name in ("alone", "joined"):
        for _ in range(5):
            assert server.infer(name, INPUTS).status_code == 200
    assert (
        server.post("/v2/repository/models/alone/load").status_code == 200
    )  # its counters continue
    assert server.infer("alone", INPUTS).status_code == 200
    page = server.get("/metrics").text
    waited = 'model_infer_queue_duration_seconds_{}{{model="{}",version=""}} {}'
    assert waited.format("count", "alone", 6.0) in page
    assert waited.format("sum", "alone", 0.0) in page
    assert waited.format("count", "joined", 5.0) in page
    assert waited.format("sum", "joined", 0.0) not in page
    assert "parallel_request_queue_count 11.0" in page
    assert "parallel_request_queue_sum 0.0" in page  # one after the other: none was in flight
