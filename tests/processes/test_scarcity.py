"""Exhausted resources (disk, shared memory, memory, a closed log): the server keeps serving."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.ports import free_ports
from support.repository import tensor, write_model, write_server_settings
from support.server import STOP_LIMIT, Server, clean_environment, fetch
from support.slow import slow

ONE = [tensor("x", [1.5])]
NEEDY = """
import subprocess
import sys

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Needy(MLModel):
    async def predict(self, payload):
        value = int(payload.inputs[0].data[0])
        if value > 1000:
            bytes(value)
        command = [sys.executable, "-c", f"raise SystemExit({value})"]
        code = subprocess.run(command, check=False).returncode
        output = ResponseOutput(name="y", shape=[1], datatype="INT64", data=[code])
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


class OnAFullDisk(Server):
    """No byte can be written to any file."""

    prefix = ("prlimit", "--fsize=0")


class OnAReadOnlyDisk(Server):
    """All file systems but the kernel's are mounted read-only."""

    prefix = (
        "unshare",
        "--mount",
        "--map-root-user",
        "sh",
        "-c",
        'mount -o remount,ro,bind / && exec "$@"',
        "sh",
    )


def possible(prefix: tuple[str, ...], *command: str) -> bool:
    try:
        return (
            subprocess.run(
                [*prefix, *command], capture_output=True, timeout=20, check=False
            ).returncode
            == 0
        )
    except OSError:
        return False


@pytest.mark.parametrize("kind", [slow(OnAFullDisk), OnAReadOnlyDisk])
def test_a_disk_that_cannot_be_written(tmp_path: Path, kind: type[Server]) -> None:
    if not possible(tuple(kind.prefix), "true"):
        pytest.skip(f"this machine does not let a test use {kind.prefix[0]}")
    writing = f"import pathlib; pathlib.Path({str(tmp_path / 'x')!r}).write_text('x')"
    if possible(tuple(kind.prefix), sys.executable, "-c", writing):
        pytest.skip("it can be written all the same")
    write_model(tmp_path / "echo")
    with kind(tmp_path, workers=2) as server:
        assert server.infer("echo", ONE).json()["outputs"][0]["data"] == [1.5]
        assert server.post("/v2/repository/models/echo/load").status_code == 200
        assert fetch(f"{server.metrics_url}/metrics").status_code == 200
        assert server.infer("echo", ONE).status_code == 200


@pytest.mark.parametrize("workers", [slow(0), 2])
def test_no_shared_memory_is_used(tmp_path: Path, workers: int) -> None:
    """No file in /dev/shm, so none can be full or left over."""
    write_model(tmp_path / "echo")
    with Server(tmp_path, workers=workers) as server:
        for size in (1, 1000, 1_000_000):
            assert server.infer("echo", [tensor("x", [1.5] * size)]).status_code == 200
        for pid in server.list_processes():
            maps = Path(f"/proc/{pid}/maps").read_text()
            links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
            assert "/dev/shm" not in maps + "".join(links)
            assert "memfd:" not in maps + "".join(links)


def test_a_memory_error_fails_one_request(tmp_path: Path) -> None:
    """A model that allocates too much memory fails alone; its worker serves the next request."""
    write_model(tmp_path / "needy", "Needy", source=NEEDY)
    with Server(tmp_path, workers=1, tracebacks=True) as server:
        before = server.workers
        answer = server.infer("needy", [tensor("x", [2**60], "INT64")])
        assert (answer.status_code, answer.json()["error"]) == (
            500,
            "Model needy failed to predict: MemoryError",
        )
        assert server.infer("needy", [tensor("x", [0], "INT64")]).status_code == 200
        assert server.workers == before


@pytest.mark.parametrize("workers", [slow(0), 1])
def test_child_processes_of_a_model_keep_their_exit_status(tmp_path: Path, workers: int) -> None:
    write_model(tmp_path / "needy", "Needy", source=NEEDY)
    with Server(tmp_path, workers=workers) as server:
        for code in (0, 7):
            answer = server.infer("needy", [tensor("x", [code], "INT64")])
            assert answer.json()["outputs"][0]["data"] == [code]


@pytest.mark.parametrize("workers", [slow(0), 1])
@pytest.mark.parametrize("how", [slow("from the start"), "later"])
def test_a_log_without_a_reader(tmp_path: Path, workers: int, how: str) -> None:
    """The log's pipe has no reader: the server keeps serving and stops normally."""
    write_server_settings(tmp_path, debug=True)
    write_model(tmp_path / "echo")
    ports = dict(
        zip(("HTTP_PORT", "GRPC_PORT", "METRICS_PORT"), map(str, free_ports(3)), strict=True)
    )
    env = {f"MLSERVER_{name}": port for name, port in ports.items()}
    env |= {"MLSERVER_HOST": "127.0.0.1", "MLSERVER_PARALLEL_WORKERS": str(workers)}
    mine, theirs = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlserver", "start", str(tmp_path)],
        env=clean_environment(env),
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        with os.fdopen(mine, "rb") as log:
            if how == "later":
                assert any(b"Ready" in line for line in log)
        url = f"http://127.0.0.1:{ports['HTTP_PORT']}"
        transport = httpx.HTTPTransport(retries=8)  # with growing pauses, until the server listens
        with httpx.Client(base_url=url, transport=transport, timeout=30) as client:
            while client.get("/v2/health/ready").status_code != 200:
                assert process.poll() is None
            for _ in range(200):
                assert client.post("/v2/models/echo/infer", json={"inputs": ONE}).status_code == 200
                assert client.get("/nowhere").status_code == 404
        process.terminate()
        assert process.wait(STOP_LIMIT) == 0
    except httpx.TransportError as error:
        error.add_note(f"exit code of the server: {process.poll()}")
        raise
    finally:
        process.kill()
        process.wait()
