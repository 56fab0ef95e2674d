"""The OpenAPI documents, and the pages that render them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from support.models import WINE, Models
from support.repository import tensor, write_model, write_server_settings, write_settings
from support.server import Server

INPUTS: list[dict[str, Any]] = [
    {"name": "left", "datatype": "FP32", "shape": [-1, 3]},
    {
        "name": "text",
        "datatype": "BYTES",
        "shape": [-1, 1],
        "parameters": {"content_type": "str", "example": ["a", "b"]},
    },
    {"name": "flag", "datatype": "BOOL", "shape": []},
]
# Inputs that not every text is valid for.
TEXTS = [
    {"name": kind, "datatype": "BYTES", "shape": [-1, 2], "parameters": {"content_type": kind}}
    for kind in ("base64", "datetime")
]
READS = """
from mlserver import MLModel
from mlserver.types import InferenceResponse


class Reads(MLModel):
    async def predict(self, payload):
        assert all(len(self.decode(one)) == 2 for one in payload.inputs)
        return InferenceResponse(model_name=self.name, outputs=[])
"""
OUTPUTS = [{"name": "sum", "datatype": "INT64", "shape": [-1]}]


@pytest.fixture(scope="module")
def server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("openapi")
    write_server_settings(folder, root_path="/serving")
    write_model(
        folder / "known", "Echo", inputs=INPUTS, outputs=OUTPUTS, parameters={"version": "7"}
    )
    write_model(folder / "any", "Echo")
    write_model(folder / "texts", "Reads", source=READS, inputs=TEXTS)
    uri = str(models["wine"])
    write_settings(
        folder / "wine",
        name="wine",
        implementation="mlserver_mlflow.MLflowRuntime",
        parameters={"uri": uri},
    )
    # The file that MLflow writes for a model logged with an input example.
    shutil.copytree(models["wine"], folder / "shown" / "model")
    body = {"dataframe_split": {"columns": list(WINE), "data": [list(WINE.values())]}}
    (folder / "shown" / "model" / "serving_input_example.json").write_text(json.dumps(body))
    write_settings(
        folder / "shown",
        name="shown",
        implementation="mlserver_mlflow.MLflowRuntime",
        parameters={"uri": "./model"},
    )
    with Server(folder) as running:
        yield running


def document(server: Server, model: str | None = None) -> dict[str, Any]:
    response = server.get(
        "/v2/docs/dataplane.json" if model is None else f"/v2/models/{model}/docs/dataplane.json"
    )
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


def request_schema(page: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = page["components"]["schemas"]["InferenceRequest"]
    return schema


def test_every_reference_exists(server: Server) -> None:
    for page in (document(server), document(server, "known"), document(server, "any")):
        names = set(re.findall(r"#/components/schemas/(\w+)", str(page)))
        assert names <= set(page["components"]["schemas"])
        assert "$defs" not in str(page)


def test_the_servers_document(server: Server) -> None:
    page = document(server)

    assert page["openapi"].startswith("3.1")
    assert page["servers"] == [{"url": "/serving"}]
    assert {"/v2", "/v2/models", "/v2/models/{model_name}/infer", "/v2/repository/index"} <= set(
        page["paths"]
    )
    infer = page["paths"]["/v2/models/{model_name}/versions/{model_version}/infer"]["post"]
    assert [parameter["name"] for parameter in infer["parameters"]] == [
        "model_name",
        "model_version",
    ]
    assert set(infer["parameters"][0]["examples"]) == {"known", "any", "texts", "wine", "shown"}
    assert set(infer["requestBody"]["content"]) == {
        "application/json",
        "application/octet-stream",
        "application/vnd.apache.arrow.stream",
    }


def test_every_path_of_the_document_exists(server: Server) -> None:
    for path, operations in document(server)["paths"].items():
        real = path.replace("{model_name}", "known").replace("{model_version}", "7")
        for method in operations:
            assert server.client.options(real).headers["allow"].find(method.upper()) >= 0


def test_a_models_document_names_its_tensors(server: Server) -> None:
    page = document(server, "known")
    schema = request_schema(page)
    known = {
        form["title"]: form["properties"]
        for form in schema["properties"]["inputs"]["items"]["anyOf"]
    }

    assert page["info"]["title"] == "Data Plane for Model known"
    assert all(path.startswith("/v2/models/known") for path in page["paths"])
    assert {name: form["datatype"]["const"] for name, form in known.items()} == {
        "left": "FP32",
        "text": "BYTES",
        "flag": "BOOL",
    }
    assert known["left"]["shape"]["description"].startswith("[-1, 3]")
    assert schema["properties"]["outputs"]["items"]["properties"]["name"] == {"enum": ["sum"]}
    assert schema["example"] == {
        "inputs": [
            tensor("left", [0.0] * 3, shape=[1, 3]),
            tensor("text", ["a", "b"], "BYTES", [2, 1]),
            tensor("flag", [False], "BOOL", []),
        ]
    }


@pytest.mark.parametrize("model", ["known", "known/versions/7", "texts", "wine", "shown"])
def test_the_example_can_be_sent(server: Server, model: str) -> None:
    example = request_schema(document(server, model))["example"]
    response = server.post(f"/v2/models/{model}/infer", example)

    assert response.status_code == 200, response.text


def test_a_version_has_a_document_of_its_own(server: Server) -> None:
    page = document(server, "known/versions/7")

    assert page["info"] == {"title": "Data Plane for Model known (7)", "version": "7"}
    assert all(path.startswith("/v2/models/known/versions/7") for path in page["paths"])


def test_a_model_without_declared_tensors_accepts_any(server: Server) -> None:
    schema = request_schema(document(server, "any"))

    assert schema["properties"]["inputs"]["items"] == {"$ref": "#/components/schemas/RequestInput"}
    assert "example" not in schema


def test_paths_of_the_models_own(server: Server) -> None:
    paths = document(server, "wine")["paths"]

    assert list(paths["/v2/models/wine/invocations"]) == ["post"]
    assert server.get("/v2/models/wine/ping").status_code == 200
    assert list(paths["/v2/models/wine/ping"]) == ["get"]


@pytest.mark.parametrize(
    "path", ["/v2/models/nope/docs", "/v2/models/known/versions/8/docs/dataplane.json"]
)
def test_unknown_models_have_none(server: Server, path: str) -> None:
    assert server.get(path).status_code == 404


PAGES = {
    "/v2/docs": "/console/#/api",
    "/v2/docs/": "/console/#/api",
    "/v2/models/known/docs": "/console/#/api/known",
    "/v2/models/known/versions/7/docs": "/console/#/api/known/7",
    "/serving/v2/models/known/docs": "/serving/console/#/api/known",
}


@pytest.mark.parametrize("path", PAGES)
def test_pages_lead_to_the_console(server: Server, path: str) -> None:
    response = server.get(path, follow_redirects=False)

    assert response.status_code == 307
    assert urljoin(server.url + path, response.headers["location"]) == server.url + PAGES[path]


def test_the_authors_sample_request(tmp_path: Path) -> None:
    sample = {"inputs": [tensor("x", [1.5], "FP64", [1, 1])]}
    declared = [{"name": "x", "datatype": "FP64", "shape": [-1, 1]}]
    for name, inputs, body in (
        ("declared", declared, json.dumps(sample)),
        ("any", [], json.dumps(sample)),
        ("invalid", declared, "{"),
    ):
        write_model(tmp_path / name, inputs=inputs)
        (tmp_path / name / "sample-request.json").write_text(body)
    with Server(tmp_path, workers=0) as running:
        assert request_schema(document(running, "declared"))["example"] == sample
        assert request_schema(document(running, "any"))["example"] == sample
        synthesized = request_schema(document(running, "invalid"))["example"]
        assert synthesized["inputs"][0]["data"] == [0.0]


def test_the_input_example_of_a_model(server: Server) -> None:
    page = document(server, "shown")
    example = request_schema(page)["example"]
    assert {input_tensor["name"]: input_tensor["data"] for input_tensor in example["inputs"]} == {
        name: [value] for name, value in WINE.items()
    }
    operation = page["paths"]["/v2/models/shown/invocations"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["example"]
    answer = server.post("/v2/models/shown/invocations", body).json()["predictions"]
    assert server.post("/v2/models/shown/infer", example).json()["outputs"][0]["data"] == answer
    assert str(WINE["density"]) not in server.get("/v2/models/shown").text
