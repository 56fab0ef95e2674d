"""`mlserver init`: the written model passes its test and `mlserver check`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import clean_environment, run_mlserver

FILES = {
    "README.md",
    "model.py",
    "model-settings.json",
    "requirements.txt",
    "sample-request.json",
    "sample-rows.csv",
    "settings.json",
    "test_model.py",
    "weights.json",
}


def test_the_model_passes_its_test_and_check(tmp_path: Path) -> None:
    folder = tmp_path / "flat prices"
    code, text = run_mlserver("init", str(folder))
    assert code == 0, text
    assert {path.name for path in folder.iterdir()} == FILES
    assert '"name": "flat-prices"' in (folder / "model-settings.json").read_text()
    assert not any("{{" in path.read_text() for path in folder.iterdir())

    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "."],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout
    code, text = run_mlserver("check", str(folder), "--strict")
    assert code == 0, text
    assert "inference with sample-request.json" in text


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("mine")
    code, text = run_mlserver("init", str(tmp_path))
    assert (code, text.count("\n")) == (1, 1)
    assert "model.py already exists" in text
    assert [path.name for path in tmp_path.iterdir()] == ["model.py"]


@pytest.mark.skipif(
    importlib.util.find_spec("cookiecutter") is not None, reason="cookiecutter is installed"
)
def test_a_template_needs_cookiecutter(tmp_path: Path) -> None:
    code, text = run_mlserver("init", "--template", str(tmp_path), cwd=tmp_path)
    assert (code, text) == (
        1,
        "mlserver: --template needs cookiecutter: pip install cookiecutter\n",
    )


@pytest.mark.skipif(
    importlib.util.find_spec("cookiecutter") is None, reason="cookiecutter is not installed"
)
def test_a_template_is_written(tmp_path: Path) -> None:
    template = tmp_path / "template"
    (template / "{{cookiecutter.name}}").mkdir(parents=True)
    (template / "cookiecutter.json").write_text('{"name": "mine"}')
    (template / "{{cookiecutter.name}}" / "model-settings.json").write_text(
        '{"name": "{{cookiecutter.name}}"}'
    )
    code, text = run_mlserver("init", "out", "-t", str(template), "--no-input", cwd=tmp_path)
    assert code == 0, text
    assert (tmp_path / "out" / "mine" / "model-settings.json").read_text() == '{"name": "mine"}'
