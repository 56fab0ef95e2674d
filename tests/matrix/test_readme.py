"""The README's commands in order, in a clean virtual environment (`make test-readme`).

Differences to the README: a copy of the repository, free ports, and the wine data of this machine
if present.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.models import wine_data
from support.ports import free_ports
from support.server import STOP_LIMIT, clean_environment

from .environments import ROOT

pytestmark = [pytest.mark.clean_venv, pytest.mark.timeout(900)]

BLOCK = re.compile(r"```(bash|json)\n(.*?)```", re.DOTALL)
TEXT = (ROOT / "README.md").read_text()
BLOCKS = [(language, block.strip()) for language, block in BLOCK.findall(TEXT)]
START_LIMIT = 120.0
RED_WINE = 5.5768839


def commands(beginning: str) -> list[str]:
    """The README's commands that begin like this, without their comments."""
    lines = [block for language, block in BLOCKS if language == "bash" and block.startswith("curl")]
    for language, block in BLOCKS:
        if language == "bash" and not block.startswith("curl"):
            lines += block.splitlines()
    return [line.partition("    #")[0].strip() for line in lines if line.startswith(beginning)]


class CleanPlace:
    """A copy of the repository, and a virtual environment with the README's packages."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "repository"
        self.http_port, grpc_port, metrics_port = free_ports(3)
        files = self._git_files()
        for name in files:
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        self.environment = clean_environment(
            {
                "PATH": os.pathsep.join([str(folder / "venv" / "bin"), os.environ["PATH"]]),
                "MLSERVER_HTTP_PORT": str(self.http_port),
                "MLSERVER_GRPC_PORT": str(grpc_port),
                "MLSERVER_METRICS_PORT": str(metrics_port),
            }
        )
        for name in ("PYTHONPATH", "VIRTUAL_ENV"):
            self.environment.pop(name, None)

    @staticmethod
    def _git_files() -> list[str]:
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if listed.returncode:
            pytest.skip("this is no checkout of git: there is no list of the repository's files")
        return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]

    def run(self, command: str, cwd: Path | None = None) -> str:
        """Run a command with bash. Returns its output; raises `AssertionError` if it fails."""
        done = subprocess.run(
            ["bash", "-c", command.replace("localhost:8080", f"localhost:{self.http_port}")],
            cwd=cwd or self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def serve(self, command: str, cwd: Path) -> Iterator[None]:
        """Run `mlserver start ...`, ready at the start of the block, until its end."""
        log = cwd.parent / "log.txt"
        with log.open("w") as output:
            process = subprocess.Popen(
                shlex.split(command),
                cwd=cwd,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                self._wait_until_ready(process, log)
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(STOP_LIMIT)
        assert process.returncode == 0, log.read_text()
        assert "Ready in" in log.read_text()

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            try:
                if (
                    httpx.get(f"http://localhost:{self.http_port}/v2/health/ready").status_code
                    == 200
                ):
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready after {START_LIMIT} s:\n{log.read_text()}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> CleanPlace:
    place = CleanPlace(tmp_path_factory.mktemp("readme"))
    (install,) = commands("pip install")
    try:
        place.run("pip download --quiet --no-deps --dest ../index click")
    except AssertionError as error:
        pytest.skip(f"the package index cannot be reached: {str(error)[-200:]}")
    place.run(install)
    return place


@pytest.fixture(scope="module")
def model(place: CleanPlace) -> Path:
    """The folder that the README's training prints."""
    data = wine_data()
    if data is None:
        pytest.skip("the red wine data is not here, and the training would fetch it")
    (train,) = commands("python examples/wine/train.py")
    *_, folder = place.run(f"{train} --data {shlex.quote(str(data))}").splitlines()
    assert (Path(folder) / "MLmodel").is_file()
    return Path(folder)


def test_serve_a_model_folder(place: CleanPlace, model: Path) -> None:
    command, _ = commands("mlserver start")
    for _ in place.serve(command.replace("path/to/model", shlex.quote(str(model))), place.root):
        names = [
            entry["name"]
            for entry in json.loads(
                place.run("curl -sf -X POST localhost:8080/v2/repository/index")
            )
        ]
        assert names == [model.name]


def test_train_serve_and_infer(place: CleanPlace, model: Path) -> None:
    _, command = commands("mlserver start")
    (settings,) = (block for language, block in BLOCKS if language == "json")
    folder = place.root.parent / "serve"
    folder.mkdir()
    (folder / "model-settings.json").write_text(settings.replace("path/of/the/model", str(model)))
    infer, invocations, metadata = commands("curl")
    for _ in place.serve(command, folder):
        (output,) = json.loads(place.run(infer))["outputs"]
        assert (output["datatype"], output["shape"]) == ("FP64", [1, 1])
        assert output["data"] == [pytest.approx(RED_WINE, abs=1e-6)]
        assert json.loads(place.run(invocations)) == {
            "predictions": [pytest.approx(RED_WINE, abs=1e-6)]
        }
        assert json.loads(place.run(metadata))["name"] == "wine-classifier"
