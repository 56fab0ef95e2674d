"""MLflow models without settings files: search, names, versions and errors."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from mlserver.errors import MLServerError
from mlserver.repository import SchemalessModelRepository
from mlserver.repository import mlflow_models as limits
from mlserver.settings import SettingsError

RUN = "0123456789abcdef0123456789abcdef"
MLFLOW = "mlserver_mlflow.MLflowRuntime"


def write_mlflow_models(root: Path, *folders: str) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "MLmodel").touch()


def write_settings(folder: Path, **settings: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model-settings.json").write_text(json.dumps({"implementation": MLFLOW, **settings}))


async def served(root: Path) -> dict[str, str | None]:
    """Name, with the version behind a slash -> uri, relative to the root where it lies below."""
    versions: dict[str, str | None] = {}
    for settings in await SchemalessModelRepository(str(root)).list():
        assert settings.parameters is not None
        key = settings.name if settings.version is None else f"{settings.name}/{settings.version}"
        versions[key] = (settings.parameters.uri or "").removeprefix(f"{root}/")
    return versions


@pytest.mark.parametrize(
    "folders, expected",
    [
        (["red", "white"], {"red": "red", "white": "white"}),
        (["team/deep/red"], {"red": "team/deep/red"}),
        (
            ["wine/1", "wine/2", "wine/10"],
            {"wine/1": "wine/1", "wine/10": "wine/10", "wine/2": "wine/2"},
        ),
        (["1", "2"], {"models/1": "1", "models/2": "2"}),
        (["red wine", "b%20c", "d#e"], {"red wine": "red wine", "b%20c": "b%20c", "d#e": "d#e"}),
        (["wine", "wine/artifacts/inner", "wine/1"], {"wine": "wine"}),
        (["v1/wine"], {"wine": "v1/wine"}),
        ([".hidden/red", "red/.trash/white", "red"], {"red": "red"}),
        (["mlruns/0/models/m-1/artifacts"], {"m-1": "mlruns/0/models/m-1/artifacts"}),
        ([f"mlruns/0/{RUN}/artifacts/model"], {"model": f"mlruns/0/{RUN}/artifacts/model"}),
        (["mlruns/0/models/m-1/artifacts", "red"], {"red": "red"}),
        (
            ["mlartifacts/0/models/m-1/artifacts", "mlruns/.trash/x"],
            {"m-1": "mlartifacts/0/models/m-1/artifacts"},
        ),
        (
            ["0/models/m-1/artifacts", "0/models/m-2/artifacts"],
            {f"m-{n}": f"0/models/m-{n}/artifacts" for n in (1, 2)},
        ),
        (["wine/1/artifacts"], {"wine/1": "wine/1/artifacts"}),
        (["venv/lib/site-packages/mlflow/example", "red"], {"red": "red"}),
        (["a/b/c/d/e/f/g/h/i/ten"], {"ten": "a/b/c/d/e/f/g/h/i/ten"}),
        (["a/b/c/d/e/f/g/h/i/j/eleven"], {}),
    ],
)
async def test_layouts(root: Path, folders: list[str], expected: dict[str, str]) -> None:
    write_mlflow_models(root, *folders)
    assert await served(root) == expected


async def test_summary_is_logged_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_mlflow_models(root, "wine/1", "wine/2", "red")
    repository = SchemalessModelRepository(str(root))
    with caplog.at_level(logging.INFO, "mlserver"):
        await repository.list()
        await repository.list()
    assert caplog.messages == [
        f"{root}: found 3 MLflow models without model-settings.json, "
        "served under the folders' names: red, wine (1, 2)"
    ]


@pytest.mark.parametrize(
    "folders", [("a/wine", "b/wine"), ("a/wine/1", "b/wine/2"), ("a/wine", "b/wine/1")]
)
async def test_one_name_in_two_folders_is_an_error_with_both(
    root: Path, folders: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    write_mlflow_models(root, "red", *folders)
    repository = SchemalessModelRepository(str(root))
    with caplog.at_level(logging.WARNING, "mlserver"):
        assert [settings.name for settings in await repository.list()] == ["red"]
    (line,) = caplog.messages
    assert all(str(root / folder) in line for folder in folders)
    assert f"{folders[0]} and {folders[1]}; rename a folder" in repository.problems["wine"]
    assert str(root) not in repository.problems["wine"]
    with pytest.raises(MLServerError, match="one name for several models"):
        await repository.find("wine")


# -- beside settings files --


async def test_settings_file_has_precedence_in_its_folder(root: Path) -> None:
    write_mlflow_models(root, "red", "white")
    write_settings(root / "red", name="rot")
    assert await served(root) == {"rot": "red", "white": "white"}


@pytest.mark.parametrize(
    "uri", ["../red", "../red/", "../red/MLmodel", "file://{root}/red", "{root}/red"]
)
async def test_a_model_that_a_settings_file_refers_to_is_served_once(root: Path, uri: str) -> None:
    write_mlflow_models(root, "red", "white")
    write_settings(root / "described", name="rot", parameters={"uri": uri.format(root=root)})
    assert set(await served(root)) == {"rot", "white"}


async def test_models_below_a_settings_file_are_skipped(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_mlflow_models(root, "pair/left", "pair/right", "white")
    write_settings(root / "pair", implementation="pair.Pair", parameters={"uri": "./left"})
    with caplog.at_level(logging.INFO, "mlserver"):
        assert set(await served(root)) == {"pair", "white"}
    assert any(f"{root}/pair/right: MLflow model skipped" in text for text in caplog.messages)


async def test_invalid_settings_file_has_precedence_in_its_folder(root: Path) -> None:
    write_mlflow_models(root, "red", "white")
    write_settings(root / "red", max_batch_size="many")
    assert set(await served(root)) == {"white"}


async def test_name_of_a_settings_file_has_precedence(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_mlflow_models(root, "red", "wine")
    write_settings(root / "red", name="wine")
    with caplog.at_level(logging.WARNING, "mlserver"):
        assert await served(root) == {"wine": "red"}
    assert f"{root}/wine: skipped, model 'wine' is also in {root}/red" in caplog.messages


async def test_a_version_with_settings_beside_one_without(root: Path) -> None:
    write_mlflow_models(root, "wine/1", "wine/2")
    write_settings(root / "wine" / "2", name="wine", parameters={"version": "2"})
    assert set(await served(root)) == {"wine/1", "wine/2"}


async def test_tracking_store_beside_settings_files_is_skipped(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_mlflow_models(root, "mlruns/0/models/m-1/artifacts", "mlruns/0/models/m-2/artifacts")
    write_settings(root / "wine", parameters={"uri": "../mlruns/0/models/m-1/artifacts"})
    with caplog.at_level(logging.INFO, "mlserver"):
        assert set(await served(root)) == {"wine"}
    assert any(f"mlserver start {root}/mlruns" in text for text in caplog.messages)


# -- links --


async def test_a_link_gives_its_name_to_a_folder_elsewhere(root: Path, tmp_path: Path) -> None:
    write_mlflow_models(tmp_path, "store/wine-7", "versions/1", "versions/2", "versions/other")
    (root / "wine").symlink_to(tmp_path / "store" / "wine-7")
    (root / "red").symlink_to(tmp_path / "versions")
    outside = {f"red/{n}": str(tmp_path / "versions" / n) for n in ("1", "2")}
    assert await served(root) == {"wine": str(tmp_path / "store" / "wine-7"), **outside}


async def test_a_link_to_a_folder_of_the_repository_is_no_second_model(root: Path) -> None:
    write_mlflow_models(root, "wine/1", "wine/2")
    (root / "wine" / "latest").symlink_to("2")
    (root / "a").symlink_to("wine")
    assert set(await served(root)) == {"wine/1", "wine/2"}


async def test_a_link_into_a_hidden_folder_as_in_mounted_volumes(root: Path) -> None:
    write_mlflow_models(root, "..2026_01/wine")
    (root / "..data").symlink_to("..2026_01")
    (root / "wine").symlink_to("..data/wine")
    assert await served(root) == {"wine": "..2026_01/wine"}


async def test_a_root_that_is_a_link(root: Path, tmp_path: Path) -> None:
    write_mlflow_models(root, "1")
    (tmp_path / "wine").symlink_to(root)
    assert await served(tmp_path / "wine") == {"wine/1": "1"}


# -- the environment, and limits --


async def test_variables_of_single_models_do_not_rename_several(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mlflow_models(root, "red", "white")
    monkeypatch.setenv("MLSERVER_MODEL_NAME", "other")
    monkeypatch.setenv("MLSERVER_MODEL_URI", "/elsewhere")
    assert await served(root) == {"red": "red", "white": "white"}


async def test_a_model_of_the_environment_is_the_only_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mlflow_models(root, "red", "white")
    monkeypatch.setenv("MLSERVER_MODEL_NAME", "other")
    monkeypatch.setenv("MLSERVER_MODEL_URI", str(root / "red"))
    monkeypatch.setenv("MLSERVER_MODEL_IMPLEMENTATION", MLFLOW)
    assert await served(root) == {"other": "red"}


async def test_too_many_models_are_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_MODELS", 2)
    write_mlflow_models(root, "a", "b", "c")
    with pytest.raises(
        SettingsError, match="expected at most 2 MLflow models without settings files, found 3"
    ):
        await served(root)
