"""`mlserver start` in a container whose models appear after its start."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mlserver.cli.serve import prepare_settings
from mlserver.settings import SettingsError
from support.repository import write_model


def test_a_folder_that_does_not_exist_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """KServe's modelcar: the folder is made as a link once the server waits for it."""
    write_model(tmp_path / "echo")
    link = tmp_path / "models"
    monkeypatch.setenv("MODEL_INIT_MODE", "async")
    appears = threading.Timer(0.3, link.symlink_to, [tmp_path / "echo"])
    appears.start()
    assert prepare_settings(str(link)).model_repository_root == str(link)
    appears.join()
    assert f"Waiting for {link}, which MODEL_INIT_MODE=async announces" in capsys.readouterr().out


def test_the_wait_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_INIT_MODE", "async")
    monkeypatch.setenv("MLSERVER_LOAD_TIMEOUT", "0.2")
    with pytest.raises(SettingsError, match="does not exist"):
        prepare_settings(str(tmp_path / "models"))


def test_no_wait_without_the_variable(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        prepare_settings(str(tmp_path / "models"))
