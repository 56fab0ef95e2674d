"""Models in the folders of a repository, and messages about invalid ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlserver.errors import MLServerError, ModelNotFound
from mlserver.repository import DEFAULT_MODEL_SETTINGS_FILENAME, SchemalessModelRepository
from mlserver.settings import ModelSettings, SettingsError

Write = Callable[..., Path]


async def list_models(root: Path) -> list[ModelSettings]:
    return await SchemalessModelRepository(str(root)).list()


async def names(root: Path) -> list[str]:
    return [settings.name for settings in await list_models(root)]


def uri(settings: ModelSettings) -> str | None:
    assert settings.parameters is not None
    return settings.parameters.uri


def test_the_name_of_the_file() -> None:
    assert DEFAULT_MODEL_SETTINGS_FILENAME == "model-settings.json"


# -- where models are
# --------------------------------------------------------------------------------------------------


async def test_folders_at_any_depth_and_the_root_itself(root: Path, write: Write) -> None:
    for folder in (".", "a", "b/c/d"):
        write(folder)
    assert await names(root) == ["models", "a", "d"]


async def test_hidden_folders_are_skipped(root: Path, write: Write) -> None:
    write(".hidden/a")
    write("seen")
    assert await names(root) == ["seen"]


async def test_a_relative_root(root: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(".")
    monkeypatch.chdir(root)
    (settings,) = await SchemalessModelRepository(".").list()
    assert (settings.name, settings.folder, uri(settings)) == ("models", str(root), str(root))


async def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"model repository .*none does not exist"):
        await list_models(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"model repository .*file is not a folder"):
        await list_models(tmp_path / "file")


async def test_an_empty_root(root: Path) -> None:
    assert await list_models(root) == []


async def test_cyclic_links_are_read_once(root: Path, write: Write) -> None:
    write("a")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a")
    (root / "zz").symlink_to(root / "a")
    (root / "dead").symlink_to(root / "nowhere")
    assert await names(root) == ["a"]


async def test_search_behind_a_link_out_of_the_root_is_limited_to_its_target(
    root: Path, tmp_path: Path, write: Write
) -> None:
    write("../outside/model")
    write("../outside/model/deeper")
    (root / "linked").symlink_to(tmp_path / "outside" / "model")
    (root / "all").symlink_to(tmp_path / "outside")
    (root / "top").symlink_to("/")
    assert await names(root) == ["linked"]


async def test_files_that_are_links_as_in_mounted_volumes(root: Path, write: Write) -> None:
    path = write("..2026_01/wine")
    (root / "..data").symlink_to(path.parent)
    (root / "model-settings.json").symlink_to(root / "..data" / "model-settings.json")
    (settings,) = await list_models(root)
    assert (settings.name, uri(settings)) == ("models", str(root))


async def test_a_root_that_is_a_link(root: Path, tmp_path: Path, write: Write) -> None:
    write("a/b")
    (tmp_path / "link").symlink_to(root)
    assert await names(tmp_path / "link") == ["b"]


# -- what the folder gives
# ---------------------------------------------------------------------------------------------


async def test_name_and_uri_of_the_file_override_the_folder(root: Path, write: Write) -> None:
    path = write(
        "a",
        {"implementation": "a.B", "name": "wine", "parameters": {"uri": "./m", "version": "v1"}},
    )
    (settings,) = await list_models(root)
    assert (settings.name, settings.version, uri(settings), settings.folder) == (
        "wine",
        "v1",
        "./m",
        str(path.parent),
    )


async def test_variables_override_the_folder(
    root: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_MODEL_URI", "/mnt/models")
    monkeypatch.setenv("MLSERVER_MODEL_VERSION", "3")
    monkeypatch.setenv("MLSERVER_MODEL_IMPLEMENTATION", "e.F")
    write("a", {})
    (settings,) = await list_models(root)
    assert (settings.name, settings.version, uri(settings), settings.implementation_) == (
        "a",
        "3",
        "/mnt/models",
        "e.F",
    )


@pytest.mark.parametrize(
    "folder, name, version, warned",
    [
        ("wine", "wine", None, False),
        ("1", "wine", "1", False),
        ("x", "wine", "1", True),
        (".", "wine", None, False),
    ],
)
async def test_name_unlike_the_folder_is_logged_once(
    folder: str,
    name: str,
    version: str | None,
    warned: bool,
    root: Path,
    write: Write,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(folder, {"implementation": "a.B", "name": name, "parameters": {"version": version}})
    repository = SchemalessModelRepository(str(root))
    with caplog.at_level(logging.WARNING, "mlserver"):
        await repository.list()
        await repository.list()
    assert len(caplog.records) == warned


async def test_versions_and_find(root: Path, write: Write) -> None:
    for version in ("1", "2"):
        write(
            f"wine/{version}",
            {"implementation": "a.B", "name": "wine", "parameters": {"version": version}},
        )
    write("other")
    repository = SchemalessModelRepository(str(root))
    assert [settings.version for settings in await repository.find("wine")] == ["1", "2"]
    assert [settings.name for settings in await repository.find("other")] == ["other"]
    with pytest.raises(ModelNotFound, match="Model none not found"):
        await repository.find("none")


async def test_first_of_equal_versions_is_used(
    root: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("a", "b"):
        write(folder, {"implementation": f"{folder}.M", "name": "wine"})
    with caplog.at_level(logging.WARNING, "mlserver"):
        (settings,) = await list_models(root)
    assert settings.implementation_ == "a.M"
    assert f"{root / 'b'}: skipped, model 'wine' is also in {root / 'a'}" in caplog.messages


async def test_changed_files_are_read(root: Path, write: Write) -> None:
    repository = SchemalessModelRepository(str(root))
    assert await repository.list() == []
    write("a")
    assert [settings.name for settings in await repository.list()] == ["a"]


# -- files that are wrong
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, name, reason",
    [
        ("{", "bad", "bad/model-settings.json: not valid JSON: line 1 column 2"),
        (
            {},
            "bad",
            "bad/model-settings.json: field 'implementation': expected a value, received nothing",
        ),
        (
            {"name": "wine", "implementation": "a.B", "max_batch_size": "many"},
            "wine",
            "bad/model-settings.json: field 'max_batch_size': expected an integer,"
            ' received "many"',
        ),
        (
            {"implementation": "a.B", "parameters": {"version": 3}},
            "bad",
            "bad/model-settings.json: field 'parameters.version': expected a string, received 3",
        ),
        ([], "bad", "bad/model-settings.json: expected a JSON object, received []"),
    ],
)
async def test_invalid_file_does_not_affect_other_models(
    content: object,
    name: str,
    reason: str,
    root: Path,
    write: Write,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write("bad", content)
    write("good")
    repository = SchemalessModelRepository(str(root))
    with caplog.at_level(logging.WARNING, "mlserver"):
        for _ in range(2):
            assert [settings.name for settings in await repository.list()] == ["good"]
    assert list(repository.problems) == [name]
    assert repository.problems[name].startswith(reason)
    (line,) = caplog.messages
    assert line.startswith(f"{root}/{reason}")
    assert "\n" not in line
    with pytest.raises(
        MLServerError, match=f"Model {name} cannot be loaded: bad/model-settings.json"
    ):
        await repository.find(name)
    write("bad")
    await repository.list()
    assert repository.problems == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_folder_without_read_permission(root: Path, write: Write) -> None:
    write("good")
    closed = write("shut").parent
    closed.chmod(0)
    try:
        assert await names(root) == ["good"]
    finally:
        closed.chmod(0o700)


# -- no file at all --


async def test_a_model_from_the_environment_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_MODEL_NAME", "wine")
    monkeypatch.setenv("MLSERVER_MODEL_URI", "/mnt/models")
    assert await list_models(root) == []
    monkeypatch.setenv("MLSERVER_MODEL_IMPLEMENTATION", "a.B")
    (settings,) = await list_models(root)
    assert (settings.name, settings.implementation_, uri(settings), settings.folder) == (
        "wine",
        "a.B",
        "/mnt/models",
        None,
    )


async def test_invalid_variable_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_MODEL_IMPLEMENTATION", "a.B")
    monkeypatch.setenv("MLSERVER_MODEL_MAX_BATCH_SIZE", "many")
    with pytest.raises(SettingsError, match="environment variable MLSERVER_MODEL_MAX_BATCH_SIZE"):
        await list_models(root)


async def test_environment_is_used_if_all_files_are_invalid(
    root: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("bad", "{")
    monkeypatch.setenv("MLSERVER_MODEL_IMPLEMENTATION", "a.B")
    assert await names(root) == ["models"]


async def test_the_root_is_an_mlflow_model(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "MLmodel").touch()
    monkeypatch.chdir(root)
    (settings,) = await SchemalessModelRepository(".").list()
    assert (settings.name, settings.implementation_, uri(settings)) == (
        "models",
        "mlserver_mlflow.MLflowRuntime",
        str(root),
    )


async def test_environment_overrides_an_mlflow_model(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "MLmodel").touch()
    monkeypatch.setenv("MLSERVER_MODEL_NAME", "mlflow-model")
    (settings,) = await list_models(root)
    assert (settings.name, settings.implementation_) == (
        "mlflow-model",
        "mlserver_mlflow.MLflowRuntime",
    )
    monkeypatch.setenv("MLSERVER_MODEL_IMPLEMENTATION", "a.B")
    monkeypatch.setenv("MLSERVER_MODEL_URI", "/other")
    (settings,) = await list_models(root)
    assert (settings.implementation_, uri(settings)) == ("a.B", "/other")


async def test_settings_file_below_overrides_the_mlflow_model(root: Path, write: Write) -> None:
    (root / "MLmodel").touch()
    write("a")
    assert await names(root) == ["a"]


async def test_invalid_settings_file_overrides_the_mlflow_model(root: Path, write: Write) -> None:
    (root / "MLmodel").touch()
    write(".", "{")
    assert await names(root) == []
