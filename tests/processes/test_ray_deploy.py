"""Clusters as users have them: addresses, nodes without the model's files, with other packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mlserver
from mlserver.version import __version__
from support.models import WINE, Models
from support.network import Network
from support.ports import free_ports
from support.ray_cluster import RayCluster, find_reason_to_skip, kill_processes
from support.repository import tensor, write_model, write_settings
from support.server import RAY, Serve, Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

# y = the number in a file of the model's folder.
SOURCE = """
import pathlib

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput
from mlserver.utils import get_model_uri


class Reads(MLModel):
    async def load(self):
        path = pathlib.Path(await get_model_uri(self.settings, ["number.txt"]))
        self.number = float(path.read_text())
        return True

    async def predict(self, payload):
        output = ResponseOutput(name="y", shape=[1], datatype="FP64", data=[self.number])
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def write_reads(folder: Path, number: float, **ray: Any) -> Path:
    """Write the model `reads` into a repository; return the repository."""
    write_model(
        folder / "reads",
        "Reads",
        source=SOURCE,
        parameters={"uri": "./weights"},
        ray={"num_cpus": 0.1, **ray},
    )
    (folder / "reads" / "weights").mkdir(exist_ok=True)
    (folder / "reads" / "weights" / "number.txt").write_text(str(number))
    return folder


def read(server: Server) -> float:
    response = server.infer("reads", [tensor("x", [0.0])])
    assert response.status_code == 200, response.text
    value: float = response.json()["outputs"][0]["data"][0]
    return value


# -- addresses --


@dataclass(frozen=True)
class StartedCluster:
    """A cluster of `ray start --head`.

    Attributes:
        variables: Of the processes that use it.
        port: Of the head node.
        client_port: Of the Ray Client server.
    """

    variables: dict[str, str]
    port: int
    client_port: int


@pytest.fixture(scope="module")
def started() -> Iterator[StartedCluster]:
    """A cluster in a namespace of its own, in which this thread is meanwhile."""
    reason = find_reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    network = Network()
    with network.entered(), tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        port, client_port = free_ports(2)
        variables = {**RayCluster([]).environment, "RAY_TMPDIR": folder}
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}"),
            *(f"--ray-client-server-port={client_port}", "--num-cpus=2"),
            *("--node-ip-address=127.0.0.1", "--include-dashboard=false"),
            # Outside of the default range, 10002 to 19999, which may have a port chosen here.
            *("--min-worker-port=33000", "--max-worker-port=39999"),
            *("--object-store-memory=80000000", "--disable-usage-stats"),
        ]
        try:
            subprocess.run(command, env={**os.environ, **variables}, check=True, timeout=200)
            yield StartedCluster(variables, port, client_port)
        finally:
            kill_processes(variables)
    network.close()


@pytest.mark.ray(own_cluster=True)
@pytest.mark.parametrize("address", ["auto", "127.0.0.1:{port}", "ray://127.0.0.1:{client_port}"])
def test_addresses(started: StartedCluster, tmp_path: Path, address: str) -> None:
    ray = {"address": address.format(**vars(started))}
    env = {**started.variables, "MLSERVER_ENGINE": "ray", "MLSERVER_RAY": json.dumps(ray)}
    with Server(write_reads(tmp_path, 7.0), env=env) as server:
        assert read(server) == 7.0
        write_reads(tmp_path, 8.0)
        assert server.post("/v2/repository/models/reads/load").status_code == 200
        assert read(server) == 8.0


@pytest.mark.ray(own_cluster=True)
def test_the_address_local(tmp_path: Path) -> None:
    """The server starts Ray, and nothing of it survives the server."""
    reason = find_reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    network = Network()
    with network.entered(), tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        cluster = RayCluster([])
        env = {
            **cluster.environment,
            "RAY_TMPDIR": folder,
            "MLSERVER_ENGINE": "ray",
            "MLSERVER_RAY": json.dumps({"address": "local"}),
        }
        try:
            with Server(write_reads(tmp_path, 7.0), env=env) as server:
                assert read(server) == 7.0
            assert wait_until_gone(cluster)
        finally:
            kill_processes(env)
    network.close()


def wait_until_gone(cluster: RayCluster) -> bool:
    """Whether the processes of a cluster end within 30 s."""
    deadline = time.monotonic() + 30
    while cluster.list_processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not cluster.list_processes()


# -- files --


@contextmanager
def nodes_without(folder: Path, content: Path | None = None) -> Iterator[dict[str, str]]:
    """A cluster whose nodes have an empty folder at `folder`, or another one's content.

    Yields variables of a server; the caller is in the namespace of the cluster meanwhile.
    """
    reason = find_reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    mount = "-t tmpfs tmpfs" if content is None else f"--bind '{content}'"
    script = f"mount {mount} '{folder}' && exec \"$@\""
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
    network = Network()
    with network.entered(), RayCluster([4], prefix=prefix) as cluster:
        yield {
            **cluster.environment,
            "MLSERVER_ENGINE": "ray",
            "MLSERVER_RAY": json.dumps({"address": cluster.address}),
        }
    network.close()


@pytest.mark.ray(own_cluster=True)
def test_a_folder_that_only_the_server_has(models: Models, tmp_path: Path) -> None:
    """The models answer as those of a server that has their files, also after a change."""
    models.copy("wine", write_reads(tmp_path, 7.0) / "files")
    settings = {"implementation": "mlserver_mlflow.MLflowRuntime", "ray": {"num_cpus": 0.1}}
    write_settings(tmp_path / "wine", name="wine", parameters={"uri": "../files"}, **settings)
    body = {"dataframe_records": [WINE]}
    with Server(tmp_path, workers=1) as server:
        expected = server.post("/invocations", body).content
    with nodes_without(tmp_path) as env, Server(tmp_path, env=env) as server:
        assert server.post("/invocations", body).content == expected
        assert read(server) == 7.0
        write_reads(tmp_path, 8.0)
        assert server.post("/v2/repository/models/reads/load").status_code == 200
        assert read(server) == 8.0
        check_refusal(server, tmp_path)


def check_refusal(server: Server, folder: Path) -> None:
    """Files above the limit are refused with path, size, limit and what to do."""
    path = folder / "reads" / "weights" / "large.bin"
    with path.open("wb") as file:
        file.truncate(200 * 1024 * 1024)
    response = server.post("/v2/repository/models/reads/load")
    path.unlink()
    assert response.status_code == 500
    error = response.json()["error"]  # without folders of the server
    server.wait_for_line(f"{folder / 'reads'} does not exist on node")
    assert "Model reads: reads does not exist on node" in error
    assert "bytes, and 'ray.upload_limit' is 104,857,600" in error
    assert "put it on a volume that all nodes mount" in error
    assert read(server) == 8.0


@pytest.mark.ray(own_cluster=True)
def test_a_node_with_older_files(tmp_path: Path) -> None:
    """The server's files count, not those at the same path of the node."""
    (tmp_path / "new").mkdir()
    write_reads(tmp_path / "old", 1.0)
    write_reads(tmp_path / "new", 2.0)
    with (
        nodes_without(tmp_path / "new", tmp_path / "old") as env,
        Server(tmp_path / "new", env=env) as server,
    ):
        assert read(server) == 2.0


# -- packages --


@pytest.mark.ray
def test_other_versions_of_packages_are_reported(serve: Serve, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    for name in ("numpy", "unrelated"):
        (packages / f"{name}-99.0.dist-info").mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n"
        (packages / f"{name}-99.0.dist-info" / "METADATA").write_text(text)
    runtime_env = {"env_vars": {"PYTHONPATH": str(packages)}}
    folder = write_reads(tmp_path / "models", 7.0, runtime_env=runtime_env)
    server = serve(folder, workers=RAY)
    assert read(server) == 7.0
    server.wait_for_line("has other versions of packages: numpy 99.0 (server: ")
    assert "unrelated" not in server.log


@pytest.mark.ray
def test_another_version_of_the_server_is_refused(serve: Serve, tmp_path: Path) -> None:
    """A node with another version of this package, whose frames may differ."""
    package = Path(mlserver.__file__).parent
    copy = tmp_path / "packages" / "mlserver"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    version = copy / "version.py"
    version.write_text(version.read_text().replace(__version__, "99.0"))
    runtime_env = {"env_vars": {"PYTHONPATH": str(copy.parent)}}
    folder = write_reads(tmp_path / "models", 7.0, runtime_env=runtime_env)
    write_model(folder / "echo", ray={"num_cpus": 0.1})
    server = serve(folder, workers=RAY, ready="/v2/models/echo/ready", tracebacks=True)
    server.wait_for_line(f"expected mlserver {__version__}, as the server has, received 99.0")
    response = server.post("/v2/repository/models/reads/load")
    assert response.status_code == 500
    assert "install one version on all nodes" in response.json()["error"]
