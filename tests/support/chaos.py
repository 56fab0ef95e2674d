"""A model whose requests name its action, synchronized with the test by marker files.

For tests that kill, stop and overload servers.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from support.repository import tensor, write_model
from support.server import Server

# A request has one BYTES element, `ACTION:ARGUMENT`.
SOURCE = """
import asyncio
import ctypes
import os
import sys
import time
from pathlib import Path

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

HERE = Path(__file__).parent


def has_marker(name):
    return (HERE / name).exists()


def write_marker(name):
    (HERE / name).write_text(str(os.getpid()))


class Chaos(MLModel):
    async def load(self):
        write_marker("loading")
        if has_marker("exit-in-load"):
            os._exit(0)
        while has_marker("block-load"):
            time.sleep(0.01)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        data = payload.inputs[0].data[0]
        action, _, argument = (data if isinstance(data, str) else data.decode()).partition(":")
        write_marker(f"started-{argument}")
        await getattr(self, action)(argument)
        output = ResponseOutput(name="y", shape=[1], datatype="BYTES", data=[argument])
        return InferenceResponse(model_name=self.name, outputs=[output])

    async def echo(self, argument):
        return

    async def wait(self, argument):
        try:
            while not has_marker(f"go-{argument}"):
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            write_marker(f"cancelled-{argument}")
            raise

    async def block(self, argument):
        while not has_marker(f"go-{argument}"):
            time.sleep(0.01)

    async def hold(self, argument):
        # Native code that never releases the interpreter lock.
        ctypes.PyDLL(None).pause()

    async def leave(self, argument):
        os._exit(0)

    async def exit(self, argument):
        sys.exit(0)
"""


def write_chaos(folder: Path, **settings: Any) -> Chaos:
    """Write a repository with the model `chaos`. Returns its markers."""
    write_model(folder / "chaos", "Chaos", source=SOURCE, **settings)
    return Chaos(folder / "chaos")


class Chaos:
    """Marker files in the model's folder: those that it writes, and those that it waits for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add_marker(self, name: str) -> None:
        (self._folder / name).touch()

    def remove_marker(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def has_marker(self, name: str) -> bool:
        return (self._folder / name).exists()


def build_inputs(action: str, argument: str) -> list[dict[str, Any]]:
    """The inputs of a request for an action."""
    return [tensor("x", [f"{action}:{argument}"], "BYTES")]


def infer_chaos(server: Server, action: str, argument: str) -> tuple[int, Any]:
    """Request an action. Returns the status, and the output's element or the error's text."""
    response = server.infer("chaos", build_inputs(action, argument))
    body = response.json()
    if response.status_code != 200:
        return response.status_code, body["error"]
    return 200, body["outputs"][0]["data"][0]


def wait_until_gone(pids: list[int], limit: float = 20.0) -> None:
    """Return when all these processes have exited; zombies count as exited."""
    deadline = time.monotonic() + limit
    while living := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still alive: {living}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process still holds resources.

    Its first thread may be a zombie while others keep its sockets open.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0] != "Z" or int(fields[17]) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False
