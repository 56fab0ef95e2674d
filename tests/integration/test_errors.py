"""Errors: one body format, a status that blames the right side, and never a traceback.

Requests are sent to an echo model, so that every error is the server's.
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.models import WINE, Models
from support.repository import tensor, write_model, write_server_settings, write_settings
from support.server import Serve, Server, run_mlserver
from support.slow import slow

INFER = "/v2/models/echo/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("errors")
    write_server_settings(folder, max_body_bytes=1_000_000)
    write_model(folder / "echo")
    with Server(folder) as running:
        yield running


def assert_refused(response: httpx.Response, status: int, *words: str) -> None:
    """Assert a V2 error body with these words."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].split(";")[0] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)
    for word in words:
        assert word in body["error"]
    for secret in ("Traceback", 'File "', "pydantic.dev", "site-packages"):
        assert secret not in body["error"]


# -- valid JSON with invalid tensors: the text names the input, what was expected and received --

WRONG_TENSORS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "ragged": (tensor("x", [[1, 2], [3]], shape=[2, 2]), ("'x'", "equal length", "[3]")),
    "too few values": (tensor("x", [1, 2, 3], shape=[2, 2]), ("'x'", "4", "3")),
    "too many values": (tensor("x", [1, 2, 3], shape=[2]), ("'x'", "2", "3")),
    "an enormous shape": (tensor("x", [1], shape=[10**18, 10**18]), ("'x'",)),
    "a negative dimension": (tensor("x", [1, 2], shape=[-1, 2]), ("'x'", "non-negative", "-1")),
    "a rank of 40": (tensor("x", [1], shape=[1] * 40), ("'x'", "40")),
    "text as a number": (tensor("x", ["abc"], "FP32"), ("'x'", "FP32", "abc")),
    "300 in INT8": (tensor("x", [300], "INT8"), ("'x'", "INT8", "300")),
    "-1 in UINT8": (tensor("x", [-1], "UINT8"), ("'x'", "UINT8", "-1")),
    "null in INT32": (tensor("x", [None], "INT32"), ("'x'", "INT32", "None")),
    "null in BOOL": (tensor("x", [None], "BOOL"), ("'x'", "boolean")),
    "an object": (tensor("x", {"a": 1}, shape=[1]), ("'x'",)),
    "an unknown datatype": (tensor("x", [1], "FLOAT"), ("datatype", "FP32")),
    "a fractional shape": (tensor("x", [1], shape=[1.5]), ("shape",)),  # type: ignore[list-item]
    "NUL in the name": (tensor("x\0y", [1]), ("name",)),
    "no shape": ({"name": "x", "datatype": "FP32", "data": [1]}, ("inputs", "shape")),
    "no datatype": ({"name": "x", "shape": [1], "data": [1]}, ("inputs", "datatype")),
    "no name": ({"shape": [1], "datatype": "FP32", "data": [1]}, ("inputs", "name")),
    "no data": ({"name": "x", "shape": [1], "datatype": "FP32"}, ("data",)),
}


@pytest.mark.parametrize("case", WRONG_TENSORS)
def test_wrong_tensors(server: Server, case: str) -> None:
    wrong, words = WRONG_TENSORS[case]
    assert_refused(server.infer("echo", [wrong]), 400, *words)


def test_one_name_twice(server: Server) -> None:
    assert_refused(server.infer("echo", [tensor("x", [1]), tensor("x", [2])]), 400, "'x'", "once")


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_null_is_a_missing_float(server: Server, datatype: str) -> None:
    response = server.infer("echo", [tensor("x", [None, 1.0], datatype)])
    assert response.status_code == 200, response.text
    assert response.json()["outputs"][0]["data"] == [None, 1.0]


# -- bodies that are not requests --

ONE = json.dumps({"inputs": [tensor("x", [1.0])]}).encode()
NO_REQUESTS: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"inputs=1",
    "cut short": ONE[:-5],
    "two values": ONE + ONE,
    "null": b"null",
    "a list": b"[]",
    "a string": b'"inputs"',
    "no inputs": b"{}",
    "inputs is a number": b'{"inputs": 1}',
    "an input is a number": b'{"inputs": [1]}',
    "the id is a number": ONE.replace(b'{"inputs"', b'{"id": 1, "inputs"'),
    "1e400": ONE.replace(b"1.0", b"1e400"),
    "NaN": ONE.replace(b"1.0", b"NaN"),
    "Infinity": ONE.replace(b"1.0", b"-Infinity"),
    "bad UTF-8": ONE.replace(b'"x"', b'"\xff"'),
    "half a surrogate": ONE.replace(b'"x"', b'"\\ud800"'),
    "nested 20,000 deep": ONE.replace(b"1.0", b"[" * 20_000 + b"]" * 20_000),
}


@pytest.mark.parametrize("case", NO_REQUESTS)
def test_bodies_that_are_not_requests(server: Server, case: str) -> None:
    assert_refused(server.post(INFER, NO_REQUESTS[case]), 400)


def test_another_content_type(server: Server) -> None:
    assert_refused(
        server.post(INFER, ONE, headers={"content-type": "text/plain"}), 415, "text/plain"
    )


# -- encodings and size --


def post_gzip(server: Server, body: bytes) -> httpx.Response:
    return server.post(INFER, body, headers={"content-encoding": "gzip"})


def test_gzip(server: Server) -> None:
    assert post_gzip(server, gzip.compress(ONE)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [ONE, gzip.compress(ONE)[:-6], b"\x1f\x8b\x08", b""],
    ids=["plain", "cut", "head", "none"],
)
def test_broken_gzip(server: Server, body: bytes) -> None:
    assert_refused(post_gzip(server, body), 400)


def test_a_gzip_bomb(server: Server) -> None:
    assert_refused(post_gzip(server, gzip.compress(b" " * 50_000_000)), 413, "max_body_bytes")


def test_a_body_over_the_limit(server: Server) -> None:
    assert_refused(server.post(INFER, b" " * 1_000_001), 413, "1000000", "max_body_bytes")


def test_a_chunked_body_over_the_limit(server: Server) -> None:
    """A chunked body does not declare its size."""
    response = server.client.post(INFER, content=(b" " * 100_000 for _ in range(11)))
    assert_refused(response, 413, "max_body_bytes")


def test_an_unknown_encoding(server: Server) -> None:
    assert_refused(server.post(INFER, ONE, headers={"content-encoding": "zstd"}), 415, "zstd")


# -- paths, methods, models --

UNKNOWN = [
    ("GET", "/v2/models/nope", "Model nope not found"),
    ("GET", "/v2/models/nope/ready", "Model nope not found"),
    ("POST", "/v2/models/nope/infer", "Model nope not found"),
    ("POST", "/v2/models/echo/versions/7/infer", "Model echo with version 7 not found"),
    ("POST", "/v2/repository/models/nope/load", "Model nope not found"),
    ("POST", "/v2/repository/models/nope/unload", "Model nope not found"),
    ("GET", "/v3", ""),
    ("POST", "/v2/models/echo/invent", ""),
    ("GET", "/v2/models/echo/versions", ""),
]


@pytest.mark.parametrize("method, path, text", UNKNOWN)
def test_unknown_paths_and_models(server: Server, method: str, path: str, text: str) -> None:
    body = ONE if method == "POST" else None
    assert_refused(server.client.request(method, path, content=body), 404, text)


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "%2Fetc%2Fpasswd", "a%00b", "ECHO", "é", "x" * 5_000]
)
def test_names_are_never_paths(server: Server, name: str) -> None:
    response = server.client.post(f"/v2/repository/models/{name}/load")
    assert response.status_code in (400, 404, 414, 431)


@pytest.mark.parametrize(
    "method, path, allowed",
    [("GET", INFER, "POST"), ("DELETE", "/v2/models/echo", "GET"), ("POST", "/v2", "GET")],
)
def test_wrong_methods(server: Server, method: str, path: str, allowed: str) -> None:
    response = server.client.request(method, path)
    assert_refused(response, 405)
    assert allowed in response.headers["allow"]


# -- /invocations has MLflow's error format --


@pytest.fixture(scope="module")
def mlflow_server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("invocations-errors")
    settings = {
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": str(models["wine"])},
    }
    write_settings(folder, name="wine", **settings)
    with Server(folder) as running:
        yield running


WRONG_INVOCATIONS: dict[str, tuple[Any, str]] = {
    "not JSON": (b"{", "application/json"),
    "a list": ([1], "application/json"),
    "no known key": ({"columns": [], "data": []}, "application/json"),
    "two keys": ({"inputs": [1], "instances": [1]}, "application/json"),
    "a missing column": ({"dataframe_records": [{"alcohol": 9.4}]}, "application/json"),
    "text in a number": ({"dataframe_records": [{**WINE, "alcohol": "x"}]}, "application/json"),
    "split is a list": ({"dataframe_split": [1]}, "application/json"),
    "records is an object": ({"dataframe_records": {}}, "application/json"),
    "a CSV without the columns": (b"a,b\n1,2\n", "text/csv"),
}


@pytest.mark.parametrize("case", WRONG_INVOCATIONS)
def test_wrong_invocations(mlflow_server: Server, case: str) -> None:
    body, content_type = WRONG_INVOCATIONS[case]
    response = mlflow_server.post("/invocations", body, headers={"content-type": content_type})
    assert response.status_code == 400, response.text
    assert {"error_code", "message"} <= set(response.json())
    assert "Traceback" not in response.text


def test_invocations_of_another_content_type(mlflow_server: Server) -> None:
    response = mlflow_server.post("/invocations", b"x", headers={"content-type": "image/png"})
    assert response.status_code == 415
    assert "Traceback" not in response.text


def test_a_column_of_another_name_over_v2(mlflow_server: Server) -> None:
    response = mlflow_server.infer("wine", [tensor("vinegar", [1.0], "FP64")])
    assert_refused(response, 400, "alcohol")


# -- start: one line with the reason and the place, exit code 1 or 2 --


def one_line(output: str) -> str:
    """The last line of the output, which has the reason."""
    assert "Traceback" not in output
    return output.strip().splitlines()[-1]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    code, output = run_mlserver("start", str(tmp_path / "nowhere"))
    assert code in (1, 2)
    assert "nowhere" in one_line(output)


WRONG_SETTINGS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "no implementation": (
        "model-settings.json",
        '{"name": "a"}',
        ("model-settings.json", "implementation"),
    ),
    "an unknown implementation": (
        "model-settings.json",
        '{"name": "a", "implementation": "no_such_package.Model"}',
        ("implementation", "no_such_package"),
    ),
    "an unknown class": (
        "model-settings.json",
        '{"name": "a", "implementation": "mlserver.NoSuchModel"}',
        ("implementation", "NoSuchModel"),
    ),
    "no JSON": ("model-settings.json", "{", ("model-settings.json", "JSON")),
    "a wrong type": (
        "settings.json",
        '{"http_port": "eighty"}',
        ("settings.json", "http_port", "eighty"),
    ),
    "a broken settings.json": ("settings.json", "[", ("settings.json", "JSON")),
}


# Classes are imported in the worker or in the server's process; all else is read before.
IMPORTED = ("an unknown implementation", "an unknown class")
WRONG_STARTS = [*((case, "1") for case in WRONG_SETTINGS), *(slow(case, "0") for case in IMPORTED)]


@pytest.mark.parametrize("case, workers", WRONG_STARTS)
def test_wrong_settings(tmp_path: Path, case: str, workers: str) -> None:
    file, text, words = WRONG_SETTINGS[case]
    (tmp_path / file).write_text(text)
    ports = {f"MLSERVER_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")}
    code, output = run_mlserver(
        "start", ".", cwd=tmp_path, env=ports | {"MLSERVER_PARALLEL_WORKERS": workers}
    )
    assert code in (1, 2), output
    line = one_line(output)
    assert all(word in line for word in words), output


@pytest.mark.parametrize("kind", ["HTTP", slow("GRPC"), "METRICS"])
def test_a_port_in_use(tmp_path: Path, kind: str) -> None:
    write_model(tmp_path / "echo")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        env = {"MLSERVER_GRPC_PORT": "0", "MLSERVER_METRICS_PORT": "0", "MLSERVER_HTTP_PORT": "0"}
        env |= {
            f"MLSERVER_{kind}_PORT": port,
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_PARALLEL_WORKERS": "1",
        }
        code, output = run_mlserver("start", ".", cwd=tmp_path, env=env)
    assert code in (1, 2)
    assert port in one_line(output)


@pytest.mark.slow
def test_a_request_that_an_estimator_refuses_is_one_line_in_the_log(
    serve: Serve, models: Models, tmp_path: Path
) -> None:
    """A missing value, which scikit-learn explains in a dozen lines below a traceback of thirty."""
    models.copy("wine", tmp_path / "wine")
    server = serve(tmp_path, workers=1)
    server.wait_for_line("Ctrl-C stops the server")  # the last line of the start
    before = len(str(server.log).splitlines())
    columns = [
        tensor(name, [None if name == "pH" else value], "FP64") for name, value in WINE.items()
    ]
    for _ in range(3):
        answer = server.infer("wine", columns)
        assert answer.status_code == 400
        assert "NaN" in answer.json()["error"]
    row = {**WINE, "pH": None}
    assert server.post("/invocations", {"dataframe_records": [row]}).status_code == 400
    server.wait(
        lambda: str(server.log).count("refused a request") >= 3, "three refusals were logged"
    )
    lines = str(server.log).splitlines()[before:]
    assert all(
        "Model 'wine' refused a request: ValueError: Input X contains NaN" in line for line in lines
    ), lines
    assert len(lines) <= 4
