"""Resolution of addresses to local folders, the cache, and an unreachable registry."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mlflow
import pytest

from mlserver.errors import MLServerError
from mlserver.settings import ModelParameters, ModelSettings
from mlserver.types import InferenceRequest
from mlserver_mlflow import MLflowRuntime
from mlserver_mlflow.loading.artifact_cache import ArtifactCache, get_cache_key
from mlserver_mlflow.loading.sources import fetch
from support.mlflow_registry import MLflowRegistry, tracking_server, use_store

pytestmark = pytest.mark.filterwarnings("ignore")

ROW = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 1], "data": [1.0]}]}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> MLflowRegistry:
    mlflow_registry = MLflowRegistry(tmp_path_factory.mktemp("registry"))
    for answers in (1.0, 2.0, 3.0):
        mlflow_registry.add("wine", answers)
    mlflow_registry.point("wine", "champion", 2)
    return mlflow_registry


@pytest.fixture
def _asked(
    registry: MLflowRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """Set the registry of this process and an empty cache."""
    monkeypatch.setenv("MLSERVER_MLFLOW_CACHE", str(tmp_path / "cache"))
    with use_store(registry.uri):
        yield


async def answer(uri: str, version: str | None = None) -> tuple[float, str | None, str | None]:
    """Return the model's result, the version in the response and the source in the metadata."""
    parameters = ModelParameters(uri=uri, version=version)
    runtime = MLflowRuntime(
        ModelSettings(name="m", implementation=MLflowRuntime, parameters=parameters)
    )
    await runtime.load()
    response = await runtime.predict(InferenceRequest.model_validate(ROW))
    reported = (await runtime.metadata()).parameters
    source = (reported.model_extra or {}).get("source") if reported is not None else None
    return float(response.outputs[0].data[0]), response.model_version, source


@pytest.mark.usefixtures("_asked")
@pytest.mark.parametrize(
    "uri, expected",
    [
        ("models:/wine/1", (1.0, "1", "models:/wine/1")),
        ("models:/wine@champion", (2.0, "2", "models:/wine/2")),
        ("models:/wine", (3.0, "3", "models:/wine/3")),
        ("models:/wine/latest", (3.0, "3", "models:/wine/3")),
    ],
)
async def test_registered_models(uri: str, expected: Any) -> None:
    assert await answer(uri) == expected


@pytest.mark.usefixtures("_asked")
async def test_logged_models_and_runs_have_no_version(registry: MLflowRegistry) -> None:
    info = registry.infos[1]
    for uri in (info.model_uri, f"runs:/{info.run_id}/model"):
        assert await answer(uri) == (2.0, None, uri)


@pytest.mark.usefixtures("_asked")
async def test_the_settings_version_goes_first() -> None:
    assert (await answer("models:/wine@champion", "mine"))[1] == "mine"


@pytest.mark.usefixtures("_asked")
@pytest.mark.parametrize(
    "uri", ["models:/wine@missing", "models:/wine/9", "models:/nothing", f"models:/m-{'0' * 32}"]
)
async def test_what_the_registry_does_not_have(uri: str) -> None:
    with pytest.raises(MLServerError) as caught:
        await answer(uri)
    assert "m-0000" in uri or caught.value.status_code != 503


@pytest.mark.usefixtures("_asked")
def test_one_copy_per_model_whatever_its_address(registry: MLflowRegistry) -> None:
    info = registry.infos[1]
    cache = ArtifactCache.open()
    addresses = (
        "models:/wine/2",
        "models:/wine@champion",
        info.model_uri,
        f"runs:/{info.run_id}/model",
    )
    folders = {fetch(uri, cache, "m").folder for uri in addresses}
    assert len(folders) == 1
    assert info.model_id in folders.pop()


@pytest.mark.usefixtures("_asked")
def test_a_copy_is_reused_and_a_damaged_one_is_fetched_again() -> None:
    cache = ArtifactCache.open()
    folder = Path(fetch("models:/wine/1", cache, "m").folder)
    born = os.stat(folder).st_ino
    assert Path(fetch("models:/wine/1", cache, "m").folder) == folder
    assert os.stat(folder).st_ino == born
    whole = (folder / "requirements.txt").read_bytes()
    (folder / "requirements.txt").write_text("damaged")
    fetch("models:/wine/1", cache, "m")
    assert (folder / "requirements.txt").read_bytes() == whole
    manifest = json.loads((folder.parent / "manifest.json").read_text())
    assert manifest["requirements.txt"][0] == len(whole)


@pytest.mark.slow
def test_a_registry_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    cache = ArtifactCache.open(str(tmp_path / "cache"))
    with ExitStack() as stack:
        with tracking_server(tmp_path) as uri:
            registry = MLflowRegistry(tmp_path, uri)
            registry.add("wine", 1.0)
            registry.point("wine", "champion", 1)
            stack.enter_context(use_store(uri))
            here = fetch("models:/wine@champion", cache, "m")
        assert fetch("models:/wine@champion", cache, "m") == here
        with pytest.raises(MLServerError, match="cannot be reached") as caught:
            fetch("models:/other@champion", cache, "m")
        assert caught.value.status_code == 503


def test_keys() -> None:
    first, other = (
        get_cache_key(b"model_uuid: 0123456789abcdef\n"),
        get_cache_key(b"model_uuid: 0123456789abcdef\nrun_id: x\n"),
    )
    assert first.startswith("0123456789abcdef-")
    assert first != other
    assert get_cache_key(b"model_id: ../../etc\n").startswith("model-")


@pytest.mark.parametrize(
    "variable, is_advised",
    [("", True), ("MLFLOW_TRACKING_URI", False), ("MLFLOW_REGISTRY_URI", False)],
)
def test_a_missing_model_names_the_variable_that_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, is_advised: bool
) -> None:
    """A model that is not found, because the server looks in another registry."""
    monkeypatch.chdir(tmp_path)
    cache = ArtifactCache.open(str(tmp_path / "cache"))
    with use_store(f"sqlite:///{tmp_path / 'store.db'}"):
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri("")
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            monkeypatch.delenv(name, raising=False)
        if variable:
            monkeypatch.setenv(variable, f"sqlite:///{tmp_path / 'store.db'}")
        with pytest.raises(MLServerError, match="models:/nope@x") as caught:
            fetch("models:/nope@x", cache, "m")
    assert ("MLFLOW_TRACKING_URI is not set" in caught.value.message) is is_advised
