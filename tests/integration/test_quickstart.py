"""The README's quick start.

An MLflow model and a settings file, the right response on every route.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.models import WINE, Models
from support.repository import tensor, write_settings
from support.server import Serve, Server
from support.slow import slow

NAME = "wine-classifier"
RUNTIME = "mlserver_mlflow.MLflowRuntime"
INFER = f"/v2/models/{NAME}/infer"
# The red wine model's prediction; in float32, as the V2 request sends the columns, it differs in
# digit 8.
RED_WINE_ANSWER = 5.576883967127186


@pytest.fixture(scope="module", params=[slow(0), 1], ids=["in-process", "one-worker"])
def workers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def server(
    workers: int, models: Models, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """`mlserver start .` in a folder with the README's model-settings.json."""
    folder = tmp_path_factory.mktemp("quickstart")
    write_settings(
        folder, name=NAME, implementation=RUNTIME, parameters={"uri": str(models["wine"])}
    )
    with Server(folder, argument=".", workers=workers) as running:
        yield running


def columns(datatype: str = "FP32", **more: Any) -> list[dict[str, Any]]:
    return [tensor(name, [value], datatype, **more) for name, value in WINE.items()]


def answer_of(response: Any) -> float:
    """The single number of a V2 response, whose other fields are checked."""
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["model_name"] == NAME
    assert uuid.UUID(body["id"])
    (output,) = body["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP64", [1, 1])
    assert output["parameters"]["content_type"] == "np"
    (value,) = output["data"]
    return float(value)


# -- V2 --


def test_the_model_is_that_of_the_readme(models: Models) -> None:
    if not models.red_wine:
        pytest.skip(
            "the red wine data is not here: the other tests compare with the model's own answer"
        )
    assert models.wine_answer == pytest.approx(RED_WINE_ANSWER, abs=1e-12)


def test_the_signature_decides(server: Server, models: Models) -> None:
    value = answer_of(server.post(INFER, {"inputs": columns()}))
    assert value == pytest.approx(models.wine_answer, abs=1e-6)


def test_explicit_content_types(server: Server, models: Models) -> None:
    inputs = columns(parameters={"content_type": "np"})
    value = answer_of(server.post(INFER, {"inputs": inputs, "parameters": {"content_type": "pd"}}))
    assert value == pytest.approx(models.wine_answer, abs=1e-6)


def test_doubles_are_exact(server: Server, models: Models) -> None:
    assert answer_of(server.post(INFER, {"inputs": columns("FP64")})) == models.wine_answer


def test_the_request_id_is_returned(server: Server) -> None:
    assert server.infer(NAME, columns(), id="mine").json()["id"] == "mine"


@pytest.mark.parametrize("slash", ["", "/"])
def test_metadata(server: Server, slash: str) -> None:
    body = server.get(f"/v2/models/{NAME}{slash}").json()
    assert body["name"] == NAME
    column = {"datatype": "FP64", "shape": [-1, 1], "parameters": {"content_type": "np"}}
    assert body["inputs"] == [{"name": name, **column} for name in WINE]
    assert body["outputs"] == [{"name": "quality", **column, "datatype": "INT64"}]
    assert body["parameters"]["content_type"] == "pd"


# -- /invocations and other routes of MLflow --

ROW = list(WINE.values())
INVOCATIONS: dict[str, dict[str, Any]] = {
    "dataframe_split": {"dataframe_split": {"columns": list(WINE), "data": [ROW]}},
    "dataframe_records": {"dataframe_records": [WINE]},
    "instances": {"instances": [WINE]},
    "inputs": {"inputs": {name: [value] for name, value in WINE.items()}},
}


@pytest.mark.parametrize("form", INVOCATIONS)
def test_invocations(server: Server, models: Models, form: str) -> None:
    response = server.post("/invocations", INVOCATIONS[form])
    assert response.status_code == 200, response.text
    assert response.json() == {"predictions": [pytest.approx(models.wine_answer, abs=1e-12)]}


def test_invocations_take_csv(server: Server, models: Models) -> None:
    text = f"{','.join(WINE)}\n{','.join(map(str, ROW))}\n"
    response = server.post("/invocations", text, headers={"content-type": "text/csv"})
    assert response.status_code == 200, response.text
    assert response.json() == {"predictions": [pytest.approx(models.wine_answer, abs=1e-12)]}


@pytest.mark.parametrize(
    "path", ["/ping", "/health", "/version", "/v2/health/live", "/v2/health/ready"]
)
def test_health_version_and_ping(server: Server, path: str) -> None:
    assert server.get(path).status_code == 200


def test_the_server_describes_itself(server: Server) -> None:
    body = server.get("/v2").json()
    assert body["name"] == "mlserver"
    assert body["version"].startswith("2.")
    assert isinstance(body["extensions"], list)


# -- start --


def test_ready_is_a_line_with_addresses_and_models(server: Server) -> None:
    server.wait(
        lambda: any(_tells_all(line, server) for line in str(server.log).splitlines()),
        "the ready line",
    )


def _tells_all(line: str, server: Server) -> bool:
    return "ready" in line.lower() and str(server.http_port) in line and NAME in line


def test_the_parent_holds_no_model_library(server: Server, workers: int) -> None:
    """With workers, the server process maps no library of pandas or scikit-learn."""
    mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
    held = [
        library
        for library in ("/pandas/", "/sklearn/", "/scipy/", "/pyarrow/")
        if library in mapped
    ]
    assert not held or workers == 0


@pytest.mark.slow
def test_start_with_the_path_of_a_folder(serve: Serve, models: Models, tmp_path: Path) -> None:
    folder = write_settings(
        tmp_path / "here", name=NAME, implementation=RUNTIME, parameters={"uri": "../wine"}
    )
    models.copy("wine", tmp_path / "wine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    server = serve(folder, cwd=elsewhere)
    assert answer_of(server.infer(NAME, columns("FP64"))) == models.wine_answer


# -- dataframes, named tensors and plain tensors --


@pytest.fixture(scope="module")
def kinds(
    workers: int, models: Models, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with a model of each kind of signature."""
    folder = tmp_path_factory.mktemp("kinds")
    for kind in ("frame", "dict", "array", "python"):
        write_settings(
            folder / kind, name=kind, implementation=RUNTIME, parameters={"uri": str(models[kind])}
        )
    with Server(folder, workers=workers) as running:
        yield running


def outputs_of(response: Any) -> dict[str, tuple[str, list[int], list[Any]]]:
    assert response.status_code == 200, response.text
    return {
        out["name"]: (out["datatype"], out["shape"], out["data"])
        for out in response.json()["outputs"]
    }


def test_a_dataframe_of_several_types(kinds: Server) -> None:
    inputs = [
        tensor("name", ["red", "white"], "BYTES"),
        tensor("count", [1, 2], "INT64"),
        tensor("ratio", [0.5, 0.25], "FP64"),
        tensor("flag", [True, False], "BOOL"),
    ]
    assert outputs_of(kinds.infer("frame", inputs)) == {
        "name": ("BYTES", [2, 1], ["red", "white"]),
        "total": ("FP64", [2, 1], [1.5, 2.25]),
    }


def test_named_tensors(kinds: Server) -> None:
    inputs = [tensor("left", [1, 2, 3], shape=[1, 3]), tensor("right", [[3, 2, 1]], shape=[1, 3])]
    assert outputs_of(kinds.infer("dict", inputs)) == {
        "sum": ("FP32", [1, 3], [4, 4, 4]),
        "difference": ("FP32", [1, 3], [-2, 0, 2]),
    }


def test_a_plain_tensor(kinds: Server) -> None:
    (output,) = outputs_of(
        kinds.infer("array", [tensor("x", [1, 2, 3, 4, 5, 6], "FP64", [2, 3])])
    ).values()
    assert output == ("FP64", [2, 3], [2, 4, 6, 8, 10, 12])


def test_params_of_the_signature(kinds: Server) -> None:
    inputs = [tensor("text", ["one", "three"], "BYTES")]
    (plain,) = outputs_of(kinds.infer("python", inputs)).values()
    assert plain == ("INT64", [2, 1], [3, 5])
    (doubled,) = outputs_of(kinds.infer("python", inputs, parameters={"factor": 2})).values()
    assert doubled == ("INT64", [2, 1], [6, 10])


@pytest.mark.parametrize("kind, content_type", [("frame", "pd"), ("dict", "dict"), ("array", "np")])
def test_metadata_names_the_content_type(kinds: Server, kind: str, content_type: str) -> None:
    assert kinds.get(f"/v2/models/{kind}").json()["parameters"]["content_type"] == content_type
