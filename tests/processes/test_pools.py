"""Worker pools: one per environment and group, stopped with the last of its models."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.repository import tensor, write_model
from support.server import Server

# Returns its process id, its environment, and the build of a package that each environment has.
WHERE = """
import os, sys

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.handlers import custom_handler
from mlserver.types import InferenceResponse


class Where(MLModel):
    async def load(self):
        import numpy  # of the server's environment, where the model's has none

        try:
            import build_of_package
        except ImportError:
            self.build = "none"
        else:
            self.build = build_of_package.BUILD
        return True

    async def predict(self, payload):
        texts = [str(os.getpid()), sys.prefix, self.build]
        output = StringCodec.encode_output("where", texts)
        return InferenceResponse(model_name=self.name, outputs=[output])

    @custom_handler(rest_path="/where")
    async def where(self, greeting: str = "hi") -> dict:
        return {"greeting": greeting, "prefix": sys.prefix}
"""
FAILS = """
from mlserver import MLModel


class Fails(MLModel):
    async def load(self):
        raise RuntimeError("no weights")
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with one package."""
    folder = tmp_path_factory.mktemp("environments") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "build_of_package.py").write_text("BUILD = 'of the environment'\n")
    # Environments of MLServer 1.x contain mlserver: it must not be imported.
    (site / "mlserver").mkdir()
    (site / "mlserver" / "__init__.py").write_text(
        "raise ImportError('the mlserver of the environment')\n"
    )
    return folder


def write(folder: Path, name: str, **parameters: Any) -> None:
    write_model(folder / name, "Where", source=WHERE, parameters=parameters)


@pytest.fixture(scope="module")
def server(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pools")
    with tarfile.open(folder / "env.tar.gz", "w:gz") as archive:
        archive.add(environment, arcname=".")
    write(folder, "default")
    write(folder, "path", environment_path=str(environment))
    write(folder, "tarball", environment_tarball="../env.tar.gz")
    write(folder, "grouped-1", inference_pool_gid="group")
    write(folder, "grouped-2", inference_pool_gid="group")
    write(folder, "own", autogenerate_inference_pool_gid=True)
    write(folder, "both", environment_path=str(environment), inference_pool_gid="group")
    write_model(folder / "here", "Where", source=WHERE, parallel_workers=0)
    with Server(
        folder, workers=1, env={"MLSERVER_ENVIRONMENTS_DIR": str(folder / "unpacked")}
    ) as running:
        yield running


def ask(server: Server, name: str) -> tuple[int, str, str]:
    """The process id, `sys.prefix` and package build that a model reports."""
    response = server.infer(name, [tensor("x", [1])])
    assert response.status_code == 200, response.text
    pid, prefix, build = response.json()["outputs"][0]["data"]
    return int(pid), prefix, build


def repository(server: Server, name: str, action: str) -> Any:
    return server.post(f"/v2/repository/models/{name}/{action}")


def test_one_pool_per_environment_and_group(server: Server) -> None:
    names = ["default", "path", "tarball", "grouped-1", "own", "both"]
    pids = {name: ask(server, name)[0] for name in names}
    assert len(set(pids.values())) == len(names)
    assert sorted(pids.values()) == server.workers
    assert ask(server, "grouped-2")[0] == pids["grouped-1"]


def test_each_model_imports_the_packages_of_its_environment(
    server: Server, environment: Path
) -> None:
    assert ask(server, "default")[1:] == (sys.prefix, "none")
    assert ask(server, "path")[1:] == (str(environment), "of the environment")
    assert ask(server, "both")[1:] == (str(environment), "of the environment")
    _, prefix, build = ask(server, "tarball")
    assert build == "of the environment"
    assert "unpacked" in prefix


def test_a_model_may_stay_in_the_servers_process(server: Server) -> None:
    assert ask(server, "here")[0] == server.process.pid


@pytest.mark.parametrize("name", ["default", "path", "tarball", "grouped-1", "here"])
def test_custom_routes(server: Server, name: str) -> None:
    response = server.post(f"/v2/models/{name}/where?greeting=hello")
    assert response.status_code == 200, response.text
    assert response.json() == {"greeting": "hello", "prefix": ask(server, name)[1]}


def test_a_pool_stops_with_its_last_model(server: Server) -> None:
    before = {name: ask(server, name)[0] for name in ("default", "path", "grouped-1", "own")}
    assert repository(server, "grouped-1", "unload").status_code == 200
    assert ask(server, "grouped-2")[0] == before["grouped-1"]
    assert repository(server, "grouped-2", "unload").status_code == 200
    assert before["grouped-1"] not in server.workers
    for name in ("default", "path", "own"):
        assert ask(server, name)[0] == before[name]
    for name in ("grouped-1", "grouped-2"):
        assert repository(server, name, "load").status_code == 200
    assert ask(server, "grouped-1")[0] == ask(server, "grouped-2")[0]


def test_a_reload_stays_in_its_pool(server: Server) -> None:
    before, workers = ask(server, "path")[0], server.workers
    assert repository(server, "path", "load").status_code == 200
    assert ask(server, "path")[0] == before
    assert server.workers == workers


def test_a_failed_load_leaves_no_pool(environment: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "good", "Where", source=WHERE)
    with Server(tmp_path, workers=1, tracebacks=True) as server:
        workers = server.workers
        for name, parameters in {
            "fails": {"inference_pool_gid": "mine"},
            "nowhere": {"environment_path": "nowhere"},
            "broken": {"environment_tarball": "model-settings.json"},
        }.items():
            write_model(tmp_path / name, "Fails", source=FAILS, parameters=parameters)
            response = repository(server, name, "load")
            assert response.status_code == 500, response.text
            assert server.workers == workers
        assert (
            "cannot be used: there is no such folder"
            in repository(server, "nowhere", "load").json()["error"]
        )
        assert ask(server, "good")[0] in workers
