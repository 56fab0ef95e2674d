"""Messages for requests to a wrong path or with a wrong body: each names the right one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from mlserver.wire.pb import dataplane_pb2
from support.models import Models
from support.raw_http import wire
from support.repository import tensor, write_model, write_settings
from support.server import Server, run_mlserver
from support.slow import slow

MLFLOW = {"implementation": "mlserver_mlflow.MLflowRuntime"}


@pytest.fixture(scope="module")
def server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("messages")
    write_settings(folder / "wine", name="wine", **MLFLOW, parameters={"uri": str(models["wine"])})
    write_model(folder / "echo", parameters={"url": "x", "task": "y"})
    with Server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without MLflow models."""
    folder = tmp_path_factory.mktemp("plain")
    write_model(folder / "echo")
    with Server(folder, workers=0) as running:
        yield running


PATHS = [
    ("GET", "/docs", "/v2/docs"),
    ("GET", "/openapi.json", "/v2/docs"),
    ("GET", "/redoc", "/v2/docs"),
    ("POST", "/predict", "/v2/models/NAME/infer"),
    ("POST", "/predict", "/invocations"),
    ("POST", "/api/v1.0/predictions", "/v2/models/NAME/infer"),
    ("POST", "/infer", "/v2/models/NAME/infer"),
    ("POST", "/v1/models/echo:predict", "/v2/models/echo/infer"),
    ("POST", "/v1/models/echo/predict", "/v2/models/echo/infer"),
    ("GET", "/v1/models/echo", "/v2/models/echo/infer"),
    ("POST", "/v2/models/echo/predict", "/v2/models/echo/infer"),
    ("POST", "/v2/models/echo/versions/1/predict", "not found"),
    ("POST", "/predictions/echo", "/v2/models/echo/infer"),
    ("GET", "/models", "/v2/models"),
    ("GET", "/healthz", "/v2/health/ready"),
    ("GET", "/v2/healthz", "/v2/health/ready"),
    ("GET", "/anything/else", "/v2/docs"),
    ("POST", "/v2/models/echo/invocations", "MLflow"),
    ("POST", "/v2/models/missing/predict", "Model missing not found"),
    ("POST", "/v2/models/missing/infer", "Model missing not found"),
]


@pytest.mark.parametrize("method, path, text", PATHS)
def test_unknown_paths(server: Server, method: str, path: str, text: str) -> None:
    answer = server.client.request(method, path, content=b"{" if method == "POST" else None)
    assert answer.status_code == 404
    assert text in answer.json()["error"]


@pytest.mark.parametrize("path", ["/invocations", "/ping", "/version"])
def test_paths_of_mlflow_models_without_one(plain: Server, path: str) -> None:
    answer = plain.post(path, {"instances": [1]})
    assert answer.status_code == 404
    assert "MLflow" in answer.json()["error"]


V2 = {"inputs": [tensor("alcohol", [9.4], "FP64")]}
RECORDS = {"dataframe_records": [{"alcohol": 9.4}]}
SPLIT = {"dataframe_split": {"columns": ["alcohol"], "data": [[9.4]]}}


@pytest.mark.parametrize("model", ["wine", "echo"])
@pytest.mark.parametrize(
    "body", [RECORDS, SPLIT, {"instances": [[1.0]]}, {"inputs": {"a": [1]}}, {"inputs": [[1.0]]}]
)
def test_mlflows_body_sent_to_infer(server: Server, model: str, body: object) -> None:
    answer = server.post(f"/v2/models/{model}/infer", body)
    assert answer.status_code == 400
    assert "/invocations" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/invocations", "/v2/models/wine/invocations"])
def test_a_v2_body_sent_to_invocations(server: Server, path: str) -> None:
    answer = server.post(path, V2)
    assert answer.status_code == 400
    assert answer.json()["error_code"]
    assert "/v2/models/wine/infer" in answer.json()["message"]


@pytest.mark.parametrize("body", [b"{", b"{}", b"[1]", b"", b'{"inputs": 7}', b"\xff"])
@pytest.mark.parametrize(
    "path, text",
    [
        ("missing/infer", "Model missing not found"),
        ("missing/infer_stream", "Model missing not found"),
        ("echo/versions/7/infer", "Model echo with version 7 not found"),
    ],
)
def test_a_wrong_name_is_reported_before_a_wrong_body(
    server: Server, path: str, text: str, body: bytes
) -> None:
    for headers in ({}, {"content-encoding": "gzip"}, {"content-type": "text/x"}):
        answer = server.post(f"/v2/models/{path}", body, headers=headers)
        assert answer.status_code == 404
        assert answer.json()["error"] == text


@pytest.mark.parametrize(
    "name, version, code",
    [("missing", "", "NOT_FOUND"), ("echo", "7", "NOT_FOUND"), ("echo", "", "INVALID_ARGUMENT")],
)
def test_over_grpc_too(server: Server, name: str, version: str, code: str) -> None:
    """The message has more raw contents than inputs."""
    message = dataplane_pb2.ModelInferRequest(
        model_name=name, model_version=version, raw_input_contents=[b"1", b"2"]
    )
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            infer(message.SerializeToString(), timeout=20)
    assert error.value.code().name == code


def test_a_wrong_name_in_the_header(server: Server) -> None:
    """A wrong name is not answered by the only model."""
    answer = server.post("/invocations", RECORDS, headers={"x-mlserver-model": "red"})
    assert answer.status_code == 404
    assert "'red'" in answer.json()["error"]
    assert "'wine'" in answer.json()["error"]


LITERALS = {
    "NaN": "use null",
    "nan": "use null",
    "Infinity": "binary",
    "-Infinity": "binary",
    "None": "use null",
    "True": "use true",
}


@pytest.mark.parametrize("literal", LITERALS)
@pytest.mark.parametrize("size", [1, 100_000])
def test_literals_that_are_not_json(server: Server, literal: str, size: int) -> None:
    numbers = ", ".join(["0.5"] * (size - 1) + [literal])
    fields = f'"name": "é", "shape": [{size}], "datatype": "FP64", "data": [{numbers}]'
    body = f'{{"inputs": [{{{fields}}}]}}'
    answer = server.post("/v2/models/echo/infer", body)
    assert answer.status_code == 400
    assert literal.lstrip("-") in answer.json()["error"]
    assert LITERALS[literal] in answer.json()["error"]


def test_grpc_on_the_rest_port(server: Server) -> None:
    with wire(server.http_port) as connection:
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        status, _, body = connection.answer()
    assert status == 505
    assert b"grpc_port" in body


# -- settings --


def test_keys_of_parameters_that_look_like_others(server: Server) -> None:
    """Unknown keys are passed to the runtime, which may read them, and logged as a warning."""
    server.wait_for_line("unknown key 'url' of 'parameters' is passed to the runtime")
    server.wait_for_line("did you mean 'uri'")
    assert "'task'" not in server.log


@pytest.mark.parametrize(
    "key, meant",
    [slow("modelUri", "uri"), ("versoin", "version")],
)
def test_the_nearest_key_is_named(tmp_path: Path, key: str, meant: str) -> None:
    write_settings(tmp_path / "wine", name="wine", **MLFLOW, parameters={key: "./somewhere"})
    code, text = run_mlserver(
        "start",
        str(tmp_path),
        env={f"MLSERVER_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")},
    )
    assert code == 1
    assert f"key '{key}' of 'parameters'" in text
    assert f"did you mean '{meant}'" in text


@pytest.mark.slow
def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    write_settings(tmp_path / "wine", name="wine", **MLFLOW, parameters={"uri": "./no/model"})
    code, text = run_mlserver(
        "start",
        str(tmp_path),
        env={f"MLSERVER_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")},
    )
    assert code == 1
    assert f"no file or folder {tmp_path / 'wine' / 'no' / 'model'}" in text.splitlines()[-1]
