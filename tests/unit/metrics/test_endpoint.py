"""The metrics endpoint: path, formats, and one family per name."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlserver import metrics
from mlserver.context import model_context
from mlserver.metrics import MetricsServer, ServerMetrics, configure_metrics
from mlserver.pipeline import Timings
from mlserver.settings import ModelSettings, Settings


async def call(
    server: MetricsServer, path: str = "/metrics", method: str = "GET", accept: str = ""
) -> httpx.Response:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=server), base_url="http://test"
    ) as client:
        return await client.request(method, path, headers={"accept": accept})


def families(page: str) -> dict[str, Any]:
    by_name: dict[str, Any] = {}
    for family in text_string_to_metric_families(page):
        assert family.name not in by_name
        by_name[family.name] = family
    return by_name


async def test_the_page_has_metrics_of_server_models_and_process() -> None:
    server_metrics = ServerMetrics()
    server_metrics.add_model("wine", None)
    server_metrics.for_model("wine", None).request_finished(Timings(), 10**9)
    with model_context(ModelSettings(name="wine", implementation="a.B")):
        metrics.log(t_page=1)
    response = await call(MetricsServer(Settings(), server_metrics))
    metrics.forget("wine", None)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
    assert int(response.headers["content-length"]) == len(response.content)
    by_name = families(response.text)
    assert {"model_infer_request_success", "t_page", "python_info"} <= set(by_name)


async def test_a_models_metric_cannot_break_the_page() -> None:
    with model_context(ModelSettings(name="wine", implementation="a.B")):
        metrics.log(python_info=1, model_infer_request_success=1)
    by_name = families((await call(MetricsServer(Settings(), ServerMetrics()))).text)
    metrics.forget("wine", None)
    assert by_name["model_infer_request_success"].type == "counter"


async def test_open_metrics_on_request() -> None:
    response = await call(
        MetricsServer(Settings()), accept="application/openmetrics-text; version=1.0.0"
    )
    assert response.headers["content-type"].startswith(
        "application/openmetrics-text; version=1.0.0"
    )
    assert response.text.endswith("# EOF\n")


@pytest.mark.parametrize(
    "endpoint, path, method, status",
    [
        ("/metrics", "/metrics/", "GET", 200),
        ("/metrics", "/", "GET", 404),
        ("/metrics", "/metrics", "POST", 405),
        ("/prometheus/all", "/prometheus/all", "GET", 200),
        ("plain", "/plain", "GET", 200),
        ("/", "/", "GET", 200),
    ],
)
async def test_paths_and_methods(endpoint: str, path: str, method: str, status: int) -> None:
    response = await call(MetricsServer(Settings(metrics_endpoint=endpoint)), path, method)
    assert response.status_code == status
    texts = {404: "only the metrics, at /metrics; see 'http_port'", 405: "allowed: GET, HEAD"}
    assert status == 200 or texts[status] in response.json()["error"]


async def test_head() -> None:
    response = await call(MetricsServer(Settings()), method="HEAD")
    assert response.content == b""
    assert int(response.headers["content-length"]) > 0


async def test_lifespan() -> None:
    events = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": next(events)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    await MetricsServer(Settings())({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("endpoint", [None, ""])
def test_off(endpoint: str | None) -> None:
    assert configure_metrics(Settings(metrics_endpoint=endpoint)) is None


def test_on_with_the_settings_prefix() -> None:
    server_metrics = configure_metrics(Settings(metrics_rest_server_prefix="mine"))
    assert server_metrics is not None
    assert "mine_requests" in {family.name for family in server_metrics.collect()}
