"""Folders with any name and behind links are loaded under their own paths."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from mlserver.errors import MLServerError
from mlserver.settings import ModelParameters, ModelSettings
from mlserver.types import InferenceRequest
from mlserver_mlflow import MLflowRuntime
from support.models import save_function

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = (
    *(
        "a b",
        "a#b",
        "a?b",
        "a%20b",
        "a%23b",
        "%2e%2e",
        "..%2fa",
        "%252e",
        "ünï",
        "模型",
        "a:b",
        "models:1",
        "a;b=c",
    ),
    *(
        "a&b",
        "a\\b",
        "a'\"b",
        "[x]",
        "{x}",
        "~",
        "$HOME",
        "a..b",
        "a\nb",
        "a+b",
        "m@x",
        "-m",
        "s3:",
    ),
)
BODY = """
    def predict(self, context, model_input, params=None):
        return model_input + %d
"""


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Models that add 1 or 2, by what they add."""
    import numpy as np

    folder = tmp_path_factory.mktemp("builds")
    for number in (1, 2):
        save_function(folder / str(number), BODY % number, np.ones((1, 1)), np.ones((1, 1)))
    return {number: folder / str(number) for number in (1, 2)}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_MLFLOW_CACHE", str(tmp_path / "cache"))


async def answer(uri: str, source: Path | None = None) -> float:
    settings = ModelSettings(
        name="m", implementation=MLflowRuntime, parameters=ModelParameters(uri=uri)
    )
    settings._source = str(source) if source is not None else None
    runtime = MLflowRuntime(settings)
    await runtime.load()
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, 1], "data": [0.0]}
    response = await runtime.predict(InferenceRequest.model_validate({"inputs": [tensor]}))
    return float(response.outputs[0].data[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["last", "parent"])
async def test_names_are_taken_as_they_are_written(
    tmp_path: Path, builds: dict[int, Path], name: str, place: str
) -> None:
    folder = tmp_path / name if place == "last" else tmp_path / name / "m"
    shutil.copytree(builds[1], folder)
    settings_file = tmp_path / "model-settings.json"
    relative = str(folder.relative_to(tmp_path))
    assert await answer(str(folder)) == 1
    assert await answer(f"./{relative}", settings_file) == 1
    assert await answer(f"file://{quote(str(folder))}") == 1
    assert await answer(f"file://localhost{quote(str(folder))}") == 1
    assert await answer(f"{folder}/MLmodel") == 1
    if "%" not in name:
        assert await answer(f"file://{folder}") == 1


async def test_a_folder_is_not_taken_for_the_one_that_its_decoded_name_names(
    tmp_path: Path, builds: dict[int, Path]
) -> None:
    shutil.copytree(builds[1], tmp_path / "a b")
    shutil.copytree(builds[2], tmp_path / "a%20b")
    assert await answer(str(tmp_path / "a b")) == 1
    assert await answer(str(tmp_path / "a%20b")) == 2
    assert await answer(f"file://{tmp_path}/a%20b") == 1
    assert await answer(f"file://{tmp_path}/a%2520b") == 2


@pytest.mark.parametrize("target", ["absolute", "relative", "chain", "odd"])
async def test_links(tmp_path: Path, builds: dict[int, Path], target: str) -> None:
    release, link = tmp_path / "r" / "1", tmp_path / "mnt" / "models"
    shutil.copytree(builds[1], release)
    link.parent.mkdir()
    if target == "absolute":
        link.symlink_to(release)
    elif target == "relative":
        link.symlink_to("../r/1")
    elif target == "odd":
        shutil.copytree(builds[1], tmp_path / "r" / "a%20#1")
        link.symlink_to("../r/a%20#1")
    else:
        (tmp_path / "current").symlink_to("r")
        link.symlink_to(tmp_path / "current" / "1")
    assert await answer(str(link)) == 1
    assert await answer(f"{link}/") == 1
    (tmp_path / "parent").symlink_to("mnt")
    assert await answer(str(tmp_path / "parent" / "models")) == 1


async def test_a_link_that_is_pointed_elsewhere(tmp_path: Path, builds: dict[int, Path]) -> None:
    link = tmp_path / "current"
    for number in (1, 2, 1):
        link.unlink(missing_ok=True)
        link.symlink_to(builds[number])
        assert await answer(str(link)) == number


def replace_files_by_links(folder: Path, blobs: Path) -> None:
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        shutil.move(path, blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))


async def test_files_that_are_links(tmp_path: Path, builds: dict[int, Path]) -> None:
    folder = tmp_path / "snapshot"
    shutil.copytree(builds[1], folder)
    replace_files_by_links(folder, tmp_path / "blobs")
    with pytest.raises(
        MLServerError, match="link out of its folder, which MLflow does not follow: copy"
    ):
        await answer(str(folder))
    shutil.copy2((folder / "MLmodel").resolve(), folder / "copy")
    os.replace(folder / "copy", folder / "MLmodel")
    assert await answer(str(folder)) == 1
    os.rename(folder / "MLmodel", folder / "..data")  # as a ConfigMap's volume
    (folder / "MLmodel").symlink_to("..data")
    assert await answer(str(folder)) == 1
