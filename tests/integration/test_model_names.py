"""Model names with slashes and percent signs over REST (`%2F`, `%25`), gRPC and the CLI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from support.models import Models
from support.protocols import infer_by_all
from support.repository import tensor, write_model, write_settings
from support.server import Server, run_mlserver
from support.slow import slow

NAMES = ["team/echo", "team%2Fecho", "a/b/c", "50% off", "/leading", "trailing/", "snow \u2603/x"]


@pytest.fixture(scope="module", params=["1", slow("2")], ids=["one-process", "two-processes"])
def server(
    request: pytest.FixtureRequest, models: Models, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("names")
    for number, name in enumerate(NAMES):
        parameters = {"version": "v/1"} if name == "a/b/c" else {}
        write_model(folder / f"model-{number}", name=name, parameters=parameters)
    wine = {"uri": str(models["wine"])}
    write_settings(
        folder / "wine",
        name="team/wine",
        implementation="mlserver_mlflow.MLflowRuntime",
        parameters=wine,
    )
    with Server(folder, workers=1, env={"MLSERVER_HTTP_WORKERS": request.param}) as started:
        yield started


def path_of(name: str) -> str:
    return f"/v2/models/{quote(name, safe='')}"


@pytest.mark.parametrize("name", NAMES)
def test_every_path_of_a_model_is_found(server: Server, name: str) -> None:
    path = path_of(name)
    assert server.get(f"{path}/ready").status_code == 200
    assert server.get(path).json()["name"] == name
    assert server.get(f"{path}/config").json()["name"] == name
    assert server.get(f"{path}/docs/dataplane.json").status_code == 200
    answer = server.post(f"{path}/infer", {"inputs": [tensor("x", [1.5])]})
    assert (answer.status_code, answer.json()["model_name"]) == (200, name)
    assert server.post(f"{path}/infer", {"inputs": []}).json()["model_name"] == name


def test_a_version_may_hold_a_slash_too(server: Server) -> None:
    path = f"{path_of('a/b/c')}/versions/v%2F1"
    assert server.get(f"{path}/ready").status_code == 200
    answer = server.post(f"{path}/infer", {"inputs": [tensor("x", [1.5])]})
    assert answer.json()["model_version"] == "v/1"
    assert server.get(f"{path_of('a/b/c')}/versions/v/ready").status_code == 404


def test_a_slash_that_is_not_encoded_ends_the_name(server: Server) -> None:
    assert server.get("/v2/models/team/echo").status_code == 404
    assert server.get("/v2/models/team/echo/ready").status_code == 404


@pytest.mark.parametrize(
    "path", ["/v2/models/team%252Fecho", "/v2/models/team%2fecho", "/v2%2Fmodels/team%2Fecho"]
)
def test_percent_signs_are_decoded_once(server: Server, path: str) -> None:
    answer = server.client.get(path)
    expected = {
        "/v2/models/team%252Fecho": "team%2Fecho",
        "/v2/models/team%2fecho": "team/echo",
    }.get(path)
    assert answer.status_code == (404 if expected is None else 200)
    assert answer.json().get("name") == expected


def test_paths_that_the_model_declares_and_the_repository(server: Server) -> None:
    path = path_of("team/wine")
    names = [entry["name"] for entry in server.get(path).json()["inputs"]]
    body = {"dataframe_records": [dict.fromkeys(names, 1.0)]}
    answer = server.post(f"{path}/invocations", body)
    assert answer.status_code == 200, answer.text
    answers = infer_by_all(server, "team/wine", [tensor(name, [1.0], "FP64") for name in names])
    assert isinstance(answers, list)
    assert answers[0][3] == [
        row[0] if isinstance(row, list) else row for row in answer.json()["predictions"]
    ]
    base = f"/v2/repository/models/{quote('team/wine', safe='')}"
    assert server.post(f"{base}/unload").status_code == 200
    assert server.get(f"{path}/ready").status_code != 200
    assert server.post(f"{base}/load").status_code == 200
    assert server.get(f"{path}/ready").status_code == 200


def test_the_command_line_encodes_names(server: Server, tmp_path: Path) -> None:
    lines = tmp_path / "in.jsonl"
    lines.write_text(
        '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.5]}]}\n'
    )
    out, url = tmp_path / "out.jsonl", f"127.0.0.1:{server.http_port}"
    code, printed = run_mlserver(
        "infer", "-u", url, "-m", "team/echo", "-i", str(lines), "-o", str(out)
    )
    assert code == 0, printed
    assert '"team/echo"' in out.read_text()
