"""The server under an arbitrary user id, as OpenShift runs images.

Without home, name and own folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.models import Models
from support.other_user import OtherUsersServer, prefix, why_not
from support.repository import tensor

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@pytest.fixture
def folder(models: Models) -> Iterator[Path]:
    """A folder of MLflow models that every user may read; pytest's folders are private."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        models.copy("array", Path(folder) / "models" / "doubles")
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        yield Path(folder)


@pytest.fixture
def closed(folder: Path) -> Path:
    """A working directory that only root may read, with a `.env`."""
    path = folder / "closed"
    path.mkdir(mode=0o700)
    (path / ".env").write_text("MLSERVER_SERVER_NAME=secret\n")
    return path


def test_an_unreadable_working_directory(folder: Path, closed: Path) -> None:
    with OtherUsersServer(folder / "models", cwd=closed) as server:
        inputs = [tensor("x", [1.0, 2.0, 3.0], "FP64", [1, 3])]
        assert server.infer("doubles", inputs).json()["outputs"][0]["data"] == [2.0, 4.0, 6.0]
        assert server.get("/v2").json()["name"] == "mlserver"
        lines = [line for line in str(server.log).splitlines() if ".env" in line]
        assert len(lines) == 1
        assert lines[0].startswith(".env in the current folder is skipped: Permission denied")


@pytest.mark.slow
def test_an_unreadable_file_of_variables(folder: Path) -> None:
    (folder / ".env").write_text("MLSERVER_SERVER_NAME=secret\n")
    (folder / ".env").chmod(0o600)
    with OtherUsersServer(folder / "models", cwd=folder) as server:
        assert server.get("/v2").json()["name"] == "mlserver"
        server.wait_for_line("Permission denied")


@pytest.mark.slow
def test_the_command_line_checks_models_too(folder: Path, closed: Path) -> None:
    command = [*prefix(), sys.executable, "-m", "mlserver", "check", str(folder / "models")]
    done = subprocess.run(command, cwd=closed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "doubles: ok" in done.stdout


def test_unreadable_models(folder: Path, closed: Path) -> None:
    command = [*prefix(), sys.executable, "-m", "mlserver", "start", str(closed)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"'{closed}' is not readable" in done.stderr
