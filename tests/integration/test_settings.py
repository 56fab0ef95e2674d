"""Settings of MLServer 1.x: the effect of each on a running server."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.repository import tensor, write_model, write_server_settings
from support.server import Serve, Server
from support.slow import slow

# Returns the number of rows of its batch and logs a line.
ROWS = """
import logging

import mlserver
from mlserver import MLModel
from mlserver.logging import logger
from mlserver.types import InferenceResponse, ResponseOutput


class Rows(MLModel):
    async def predict(self, payload):
        rows = payload.inputs[0].shape[0]
        logger.info('said by the "model"')
        logger.debug("whispered")
        mlserver.log(rows_seen=rows)
        output = ResponseOutput(name="rows", shape=[rows, 1], datatype="INT64", data=[rows] * rows)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def start(
    serve: Serve,
    folder: Path,
    workers: int = 0,
    model: dict[str, Any] | None = None,
    **settings: Any,
) -> Server:
    """A server of one model `m`, with these fields in its settings.json."""
    write_model(folder / "m", "Rows", source=ROWS, **(model or {}))
    if settings:
        write_server_settings(folder, **settings)
    return serve(folder, workers=workers)


def ask(server: Server, rows: int = 1) -> list[int]:
    response = server.infer("m", [tensor("x", [1.0] * rows)])
    assert response.status_code == 200, response.text
    data: list[int] = response.json()["outputs"][0]["data"]
    return data


def page(server: Server, path: str = "/metrics") -> str:
    return server.client.get(f"{server.metrics_url}{path}").text


# -- server --


def test_name_version_extensions(serve: Serve, tmp_path: Path) -> None:
    server = start(serve, tmp_path, server_name="mine", server_version="7", extensions=["own"])
    actual = server.get("/v2").json()
    assert (actual["name"], actual["version"]) == ("mine", "7")
    assert "own" in actual["extensions"]
    answer = server.infer("m", [tensor("x", [1])])
    assert answer.headers["ce-inferenceservicename"] == "mine"
    assert answer.headers["ce-source"].endswith("deployment.mine")


def test_root_path(serve: Serve, tmp_path: Path) -> None:
    server = start(serve, tmp_path, root_path="/behind/proxy")
    assert server.get("/v2/health/live").status_code == 200
    assert server.get("/behind/proxy/v2/health/live").status_code == 200
    assert server.get(f"{server.metrics_url}/metrics").status_code == 200


# -- models --


def test_load_models_at_startup(serve: Serve, tmp_path: Path) -> None:
    server = start(serve, tmp_path, load_models_at_startup=False)
    assert server.get("/v2/models/m").status_code == 404
    assert server.post("/v2/repository/models/m/load").status_code == 200
    assert ask(server) == [1]


@pytest.mark.parametrize("empty, status", [(True, 200), (False, 400)])
def test_empty_registry_readiness(serve: Serve, tmp_path: Path, empty: bool, status: int) -> None:
    write_server_settings(tmp_path, empty_registry_readiness=empty)
    server = serve(tmp_path, workers=0, ready="/v2/health/live")
    server.wait_for_line("Ready in")
    assert server.get("/v2/health/ready").status_code == status


@pytest.mark.parametrize("strict, status", [(True, 400), (False, 200)])
def test_strict_readiness(serve: Serve, tmp_path: Path, strict: bool, status: int) -> None:
    write_model(tmp_path / "broken", "Broken")
    write_model(tmp_path / "m")
    write_server_settings(tmp_path, strict_readiness=strict)
    server = serve(tmp_path, workers=0, ready="/v2/health/live", tracebacks=True)
    server.wait_for_line("Ready in")
    assert server.get("/v2/health/ready").status_code == status
    assert server.get("/v2/models/m/ready").status_code == 200


def test_model_fields_reach_the_metadata(serve: Serve, tmp_path: Path) -> None:
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": [-1], "parameters": {"content_type": "np"}}
    ]
    model = {"platform": "own", "versions": ["1", "2"], "inputs": inputs, "outputs": inputs}
    actual = start(serve, tmp_path, model=model).get("/v2/models/m").json()
    assert {name: actual[name] for name in model} == model


# -- batching --


@pytest.mark.parametrize("workers", [slow(0), 1])
def test_adaptive_batching(serve: Serve, tmp_path: Path, workers: int) -> None:
    server = start(serve, tmp_path, workers, {"max_batch_size": 3, "max_batch_time": 5.0})
    with ThreadPoolExecutor(3) as callers:
        answers = list(callers.map(lambda rows: ask(server, rows), [1, 2, 3]))
    assert sorted(answers) == [[6], [6, 6], [6, 6, 6]]
    actual = page(server)
    assert 'batch_request_queue_count{model_name="m",model_version=""} 3.0' in actual
    assert 'model_infer_batch_requests_sum{model="m",version=""} 3.0' in actual


def test_a_batch_is_closed_after_max_batch_time(serve: Serve, tmp_path: Path) -> None:
    server = start(serve, tmp_path, model={"max_batch_size": 100, "max_batch_time": 0.2})
    started = time.monotonic()
    assert ask(server, 2) == [2, 2]
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize(
    "model",
    [
        {},
        slow({"max_batch_size": 8}),
        slow({"max_batch_time": 5.0}),
        {"max_batch_size": 1, "max_batch_time": 5.0},
    ],
)
def test_no_batching_unless_both_are_set(
    serve: Serve, tmp_path: Path, model: dict[str, Any]
) -> None:
    server = start(serve, tmp_path, model=model)
    with ThreadPoolExecutor(3) as callers:
        assert list(callers.map(lambda _: ask(server), range(6))) == [[1]] * 6


# -- metrics --


@pytest.mark.parametrize("workers", [slow(0), 1])
def test_metric_names_and_labels(serve: Serve, tmp_path: Path, workers: int) -> None:
    server = start(serve, tmp_path, workers, metrics_rest_server_prefix="own")
    ask(server, 2)
    server.wait(
        lambda: 'rows_seen_sum{model_name="m",model_version=""} 2.0' in page(server),
        "the model's own metric came",
    )
    actual = page(server)
    path = "/v2/models/{model_name}/infer"
    labels = f'app_name="mlserver",method="POST",path="{path}",status_code="200"'
    for line in (
        'model_infer_request_success_total{model="m",version=""} 1.0',
        'model_infer_request_duration_count{model="m",version=""} 1.0',
        f"own_requests_total{{{labels}}} 1.0",
        f"own_request_duration_seconds_count{{{labels}}}",
    ):
        assert _labels(line) in {_labels(other) for other in actual.splitlines()}, line


def _labels(line: str) -> tuple[str, frozenset[str]]:
    """A metric line without its value, for any order of labels."""
    name, _, rest = line.partition("{")
    return name, frozenset(rest.rpartition("}")[0].split('",'))


@pytest.mark.parametrize("endpoint", [None, slow("")])
def test_no_metrics(serve: Serve, tmp_path: Path, endpoint: str | None) -> None:
    server = start(serve, tmp_path, metrics_endpoint=endpoint)
    ask(server)
    with pytest.raises(httpx.ConnectError):
        server.client.get(f"{server.metrics_url}/metrics")


def test_metrics_endpoint(serve: Serve, tmp_path: Path) -> None:
    server = start(serve, tmp_path, metrics_endpoint="/own")
    assert "model_infer" in page(server, "/own")


# -- logs --


@pytest.mark.parametrize("workers", [slow(0), 1])
def test_json_logs(serve: Serve, tmp_path: Path, workers: int) -> None:
    server = start(serve, tmp_path, workers, use_structured_logging=True)
    ask(server)
    server.wait_for_line("said by the")
    lines = [json.loads(line) for line in str(server.log).splitlines() if line]
    (entry,) = [line for line in lines if line["message"].startswith("said")]
    assert entry["message"] == 'said by the "model"'
    assert (entry["level"], entry["name"], entry["model_name"]) == ("INFO", "mlserver", "m")


@pytest.mark.parametrize("workers", [slow(0), 1])
def test_text_logs_name_the_model(serve: Serve, tmp_path: Path, workers: int) -> None:
    server = start(serve, tmp_path, workers, {"parameters": {"version": "v1"}})
    ask(server)
    server.wait_for_line('[mlserver][m:v1] INFO - said by the "model"')
    assert "whispered" not in server.log


@pytest.mark.parametrize("settings", [{"debug": True}, slow({"log_level": "DEBUG"})])
def test_debug_logs(serve: Serve, tmp_path: Path, settings: dict[str, Any]) -> None:
    server = start(serve, tmp_path, **settings)
    ask(server)
    server.wait_for_line("whispered")


CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"own": {"format": "OWN %(message)s"}},
    "handlers": {
        "own": {"class": "logging.StreamHandler", "formatter": "own", "stream": "ext://sys.stdout"}
    },
    "loggers": {"mlserver": {"handlers": ["own"], "level": "DEBUG", "propagate": False}},
}


@pytest.mark.parametrize("workers", [slow(0), 1])
@pytest.mark.parametrize("as_file", [False, True])
def test_logging_settings(serve: Serve, tmp_path: Path, workers: int, as_file: bool) -> None:
    (tmp_path / "logging.json").write_text(json.dumps(CONFIG))
    server = start(
        serve,
        tmp_path,
        workers,
        logging_settings=str(tmp_path / "logging.json") if as_file else CONFIG,
    )
    ask(server)
    server.wait_for_line("OWN whispered")


@pytest.mark.parametrize(
    "settings, logged", [({}, False), ({"debug": True}, True), slow({"access_log": True}, True)]
)
def test_access_log(serve: Serve, tmp_path: Path, settings: dict[str, Any], logged: bool) -> None:
    server = start(serve, tmp_path, **settings)
    ask(server)
    server.stop()
    assert ("POST /v2/models/m/infer" in server.log) is logged
    if "debug" not in settings:
        assert "GET /v2/health/ready" not in server.log


# -- browsers --


def test_no_cors_by_default(serve: Serve, tmp_path: Path) -> None:
    answer = start(serve, tmp_path).get("/v2", headers={"origin": "http://a.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_cors(serve: Serve, tmp_path: Path) -> None:
    cors = {
        "allow_origins": ["http://a.example"],
        "allow_origin_regex": r"https://.*\.b\.example",
        "allow_credentials": True,
        "allow_methods": ["GET", "POST"],
        "allow_headers": ["x-own"],
        "expose_headers": ["ce-id"],
        "max_age": 7,
    }
    server = start(serve, tmp_path, cors_settings=cors)
    for origin, allowed in (
        ("http://a.example", True),
        ("https://x.b.example", True),
        ("http://c.example", False),
    ):
        answer = server.get("/v2", headers={"origin": origin})
        assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
    answer = server.get("/v2", headers={"origin": "http://a.example"})
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-expose-headers"] == "ce-id"
    headers = {
        "origin": "http://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-own",
    }
    preflight = server.client.options("/v2/models/m/infer", headers=headers)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-max-age"] == "7"
    assert "x-own" in preflight.headers["access-control-allow-headers"].lower()


@pytest.mark.parametrize("enabled, encoding", [(True, "gzip"), slow(False, None)])
def test_gzip(serve: Serve, tmp_path: Path, enabled: bool, encoding: str | None) -> None:
    server = start(serve, tmp_path, gzip_enabled=enabled)
    answer = server.infer("m", [tensor("x", [1.0] * 1000)])
    assert answer.headers.get("content-encoding") == encoding
    assert len(answer.json()["outputs"][0]["data"]) == 1000


# -- where the processes are --


def test_parallel_workers(serve: Serve, tmp_path: Path) -> None:
    assert len(start(serve, tmp_path, workers=2).workers) == 2


def test_files_override_variables(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "m", "Rows", source=ROWS)
    write_server_settings(tmp_path, server_name="of the file")
    env = {
        "MLSERVER_SERVER_NAME": "of the environment",
        "MLSERVER_SERVER_VERSION": "of the environment",
    }
    actual = serve(tmp_path, workers=0, env=env).get("/v2").json()
    assert (actual["name"], actual["version"]) == ("of the file", "of the environment")
