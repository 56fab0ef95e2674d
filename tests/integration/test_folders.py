"""Models in folders behind symbolic links and in folders of any name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.models import Models
from support.repository import tensor, write_model, write_settings
from support.server import Serve, Server
from support.slow import slow

FLOW = "mlserver_mlflow.MLflowRuntime"
FILE_READER = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class Reader(MLModel):
    async def load(self) -> bool:
        with open(await get_model_uri(self.settings, ["weight.txt"])) as file:
            self.weight = float(file.read())
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        output = NumpyCodec.encode_output("output-1", values * self.weight)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def release(models: Models, folder: Path, factor: int) -> Path:
    """An MLflow model that multiplies by `factor`."""
    models.copy("array", folder)
    (source,) = folder.glob("*_source.py")
    source.write_text(source.read_text().replace("2 *", f"{factor} *"))
    return folder


def point(link: Path, target: Path) -> None:
    new = link.with_name(f"{link.name}.new")
    new.symlink_to(target)
    os.replace(new, link)


def factor(server: Server, model: str) -> float:
    response = server.infer(model, [tensor("input-0", [1.0, 1.0, 1.0], "FP64", [1, 3])])
    assert response.status_code == 200, response.text
    return float(response.json()["outputs"][0]["data"][0])


@pytest.mark.parametrize("workers", [0, slow(2)])
def test_a_link_that_changes_its_target(
    serve: Serve, models: Models, tmp_path: Path, workers: int
) -> None:
    for number in (2, 3):
        release(models, tmp_path / "releases" / str(number), number)
    current = tmp_path / "served" / "current"
    current.parent.mkdir()
    point(current, tmp_path / "releases" / "2")
    write_settings(
        tmp_path / "served" / "m", name="m", implementation=FLOW, parameters={"uri": "../current"}
    )
    server = serve(tmp_path / "served", workers=workers)
    assert factor(server, "m") == 2
    point(current, tmp_path / "releases" / "3")
    if workers == 2:  # a worker that is started now has the same models as the others
        killed = server.workers[0]
        os.kill(killed, signal.SIGKILL)
        server.wait_for_line("ended unexpectedly")
        server.wait(lambda: len(set(server.workers) - {killed}) == 2, "another worker was started")
        server.wait_until("/v2/health/ready")
    assert {factor(server, "m") for _ in range(8)} == {2}
    assert server.post("/v2/repository/models/m/load").status_code == 200
    assert {factor(server, "m") for _ in range(8)} == {3}


@pytest.mark.slow
def test_the_served_folder_is_a_link_to_a_model(
    serve: Serve, models: Models, tmp_path: Path
) -> None:
    release(models, tmp_path / "image" / "models", 3)
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt" / "models").symlink_to("../image/models")
    environment = {"MLSERVER_MODEL_NAME": "m", "MLSERVER_MODEL_IMPLEMENTATION": FLOW}
    server = serve(
        tmp_path / "mnt" / "models",
        env=environment | {"MLSERVER_MODEL_URI": str(tmp_path / "mnt/models")},
    )
    assert factor(server, "m") == 3


@pytest.mark.parametrize("allowed", [slow(True), False])
def test_the_target_of_a_link_must_be_allowed(
    serve: Serve, models: Models, tmp_path: Path, allowed: bool
) -> None:
    release(models, tmp_path / "elsewhere" / "2", 2)
    folder = tmp_path / "served" / "m"
    write_settings(folder, name="m", implementation=FLOW, parameters={"uri": "./current/2"})
    (folder / "current").symlink_to(tmp_path / "elsewhere")
    write_model(tmp_path / "served" / "echo")
    sources = [str(tmp_path / "served"), *([str(tmp_path / "elsewhere")] if allowed else [])]
    environment = {"MLSERVER_ALLOWED_MODEL_SOURCES": str(sources).replace("'", '"')}
    server = serve(tmp_path / "served", env=environment, ready="/v2/health/live")
    server.wait_until("/v2/models/echo/ready")
    if allowed:
        server.wait_until("/v2/models/m/ready")
        assert factor(server, "m") == 2
    else:
        server.wait_for_line("allowed_model_sources")
        assert server.get("/v2/models/m/ready").status_code != 200


@pytest.mark.slow
def test_names_of_folders(serve: Serve, models: Models, tmp_path: Path) -> None:
    """The names of the repository, the model's folder and its files have characters that URIs
    interpret.
    """
    root = tmp_path / "100% of #1?"
    names = ["a#b", "a?b=c", "a%20b", "a b", "%2e%2e", "ünï 模型", "a;b"]
    for number, name in enumerate(names, start=3):
        write_settings(
            root / name, name=f"flow-{number}", implementation=FLOW, parameters={"uri": f"./{name}"}
        )
        release(models, root / name / name, number)
        write_model(
            root / "own" / name,
            "Reader",
            source=FILE_READER,
            name=f"own-{number}",
            parameters={"uri": "."},
        )
        (root / "own" / name / "weight.txt").write_text(str(number))
    server = serve(root, workers=1)
    assert server.post("/v2/repository/models/flow-3/load").status_code == 200
    for number in range(3, 3 + len(names)):
        assert factor(server, f"flow-{number}") == number
        assert factor(server, f"own-{number}") == number
