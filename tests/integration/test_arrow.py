"""Arrow streams over HTTP: a dataframe in, JSON or a table out, and rejected streams."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.models import WINE, Models
from support.repository import tensor, write_model, write_server_settings, write_settings
from support.server import Server

pa = pytest.importorskip("pyarrow")

ARROW = "application/vnd.apache.arrow.stream"
# A server that cannot import pyarrow, as in a plain installation.
WITHOUT = "raise ImportError('no pyarrow here')"


@pytest.fixture(scope="module")
def server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("arrow")
    write_server_settings(folder, max_body_bytes=1_000_000)
    write_model(folder / "echo")
    for kind in ("wine", "frame"):
        parameters = {"uri": str(models[kind])}
        write_settings(
            folder / kind,
            name=kind,
            implementation="mlserver_mlflow.MLflowRuntime",
            parameters=parameters,
        )
    with Server(folder) as running:
        yield running


def stream(columns: Any, **options: Any) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def post(server: Server, model: str, body: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.client.post(
        f"/v2/models/{model}/infer", content=body, headers={"content-type": ARROW} | named
    )


def table_of(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == ARROW
    return pa.ipc.open_stream(response.content).read_all()


FRAME = {
    "name": ["red", "white"],
    "count": [1, 2],
    "ratio": [0.5, 0.25],
    "flag": pa.array([True, False]),
}


def test_a_dataframe_for_a_model(server: Server, models: Models) -> None:
    response = post(server, "wine", stream({name: [value] * 3 for name, value in WINE.items()}))

    assert response.status_code == 200, response.text
    assert response.json()["outputs"][0]["data"] == [models.wine_answer] * 3


def test_columns_of_several_types_and_a_table_back(server: Server) -> None:
    table = table_of(post(server, "frame", stream(FRAME), accept=ARROW))

    assert table.to_pydict() == {"name": ["red", "white"], "total": [1.5, 2.25]}
    assert table.schema.metadata[b"model_name"] == b"frame"


def test_categories_as_polars_and_pandas_send_them(server: Server) -> None:
    columns = {**FRAME, "name": pa.array(["red", "white"]).dictionary_encode()}

    assert table_of(post(server, "frame", stream(columns), accept=ARROW)).column(
        "name"
    ).to_pylist() == ["red", "white"]


def test_json_in_and_a_table_out(server: Server) -> None:
    body = {
        "inputs": [tensor("x", [1.5, None], "FP64"), tensor("y", ["a", "b"], "BYTES")],
        "id": "7",
    }
    table = table_of(
        server.post("/v2/models/echo/infer", body, headers={"accept": f"{ARROW}, */*;q=0.1"})
    )

    assert table.column("y").to_pylist() == ["a", "b"]
    assert table.schema.metadata[b"id"] == b"7"


@pytest.mark.parametrize(
    "accept",
    ["*/*", "application/json", f"{ARROW};q=0", "text/html", f"application/json, {ARROW};q=0.5"],
)
def test_json_unless_a_table_is_requested(server: Server, accept: str) -> None:
    assert (
        post(server, "echo", stream({"x": [1]}), accept=accept).headers["content-type"]
        == "application/json"
    )


def test_compressed_as_a_whole_and_inside(server: Server) -> None:
    columns = {"x": [0.5] * 1000}

    for body, headers in [
        (gzip.compress(stream(columns)), {"content_encoding": "gzip"}),
        (stream(columns, compression="lz4"), {}),
        (stream(columns, compression="zstd"), {}),
    ]:
        assert post(server, "echo", body, **headers).json()["outputs"][0]["data"] == [0.5] * 1000


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compression_bomb(server: Server, codec: str) -> None:
    response = post(server, "echo", stream({"x": [0.0] * 200_000}, compression=codec))

    assert response.status_code == 413
    assert "max_body_bytes" in response.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{}", b"\0" * 100, stream({"x": [1]})[:-20]])
def test_bodies_that_are_not_streams(server: Server, body: bytes) -> None:
    response = post(server, "echo", body)

    assert response.status_code == 400
    assert "expected an Arrow stream" in response.json()["error"]


def test_one_name_twice(server: Server) -> None:
    batch = pa.record_batch([pa.array([1]), pa.array([2])], names=["x", "x"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    response = post(server, "echo", bytes(sink.getvalue()))

    assert response.status_code == 400
    assert "once" in response.json()["error"]


def test_outputs_of_different_lengths_are_not_a_table(server: Server) -> None:
    body = {"inputs": [tensor("x", [1.0]), tensor("y", [1.0, 2.0])]}
    response = server.post("/v2/models/echo/infer", body, headers={"accept": ARROW})

    assert response.status_code == 406
    assert "accept JSON" in response.json()["error"]


def test_without_pyarrow_the_error_says_what_to_install(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder, hidden = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("hidden")
    (hidden / "pyarrow.py").write_text(WITHOUT)
    write_model(folder / "echo")
    with Server(folder, env={"PYTHONPATH": str(hidden)}) as server:
        for response in (
            post(server, "echo", stream({"x": [1]})),
            server.post(
                "/v2/models/echo/infer", {"inputs": [tensor("x", [1.0])]}, headers={"accept": ARROW}
            ),
        ):
            assert response.status_code == 415
            assert "pip install 'mlserver[arrow]'" in response.json()["error"]


# Its import takes until the test lets it finish.
SLOW = """
import time, pathlib
(pathlib.Path(__file__).parent / "begun").touch()
while not (pathlib.Path(__file__).parent / "go").exists():
    time.sleep(0.01)
raise ImportError
"""


@pytest.mark.slow
def test_the_import_of_the_library_delays_no_other_request(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder, hidden = tmp_path_factory.mktemp("slow"), tmp_path_factory.mktemp("hidden")
    (hidden / "pyarrow.py").write_text(SLOW)
    write_model(folder / "echo")
    with Server(folder, env={"PYTHONPATH": str(hidden)}) as server, ThreadPoolExecutor() as threads:
        call = threads.submit(post, server, "echo", stream({"x": [1]}))
        server.wait((hidden / "begun").exists, "the import began")
        try:
            assert httpx.get(f"{server.url}/v2/health/live", timeout=10).status_code == 200
        finally:
            (hidden / "go").touch()
        assert call.result().status_code == 415
