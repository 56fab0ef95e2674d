"""A model that does what its request says, and tells of it by files: for tests that kill, stop and overload servers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from support.repository import tensor, write_model
from support.server import Server

# A request is one BYTES element: an action, and after a colon its argument.
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


def exists(name):
    return (HERE / name).exists()


def tell(name):
    (HERE / name).write_text(str(os.getpid()))


class Chaos(MLModel):
    async def load(self):
        tell("loading")
        if exists("exit-in-load"):
            os._exit(0)
        while exists("block-load"):
            time.sleep(0.01)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        data = payload.inputs[0].data[0]
        action, _, argument = (data if isinstance(data, str) else data.decode()).partition(":")
        tell(f"started-{argument}")
        await getattr(self, action)(argument)
        output = ResponseOutput(name="y", shape=[1], datatype="BYTES", data=[argument])
        return InferenceResponse(model_name=self.name, outputs=[output])

    async def echo(self, argument):
        return

    async def wait(self, argument):
        try:
            while not exists(f"go-{argument}"):
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            tell(f"cancelled-{argument}")
            raise

    async def block(self, argument):
        while not exists(f"go-{argument}"):
            time.sleep(0.01)

    async def hold(self, argument):
        # As native code that never lets go of the interpreter.
        ctypes.PyDLL(None).pause()

    async def leave(self, argument):
        os._exit(0)

    async def exit(self, argument):
        sys.exit(0)
"""


def write_chaos(folder: Path, **settings: Any) -> Chaos:
    """Write a repository with one model `chaos`."""
    write_model(folder / "chaos", "Chaos", source=SOURCE, **settings)
    return Chaos(folder / "chaos")


class Chaos:
    """The model's folder: what it tells, and what it waits for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str) -> None:
        (self._folder / name).touch()

    def take(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def told(self, name: str) -> bool:
        return (self._folder / name).exists()


def request(action: str, argument: str) -> list[dict[str, Any]]:
    """The inputs of a request for an action."""
    return [tensor("x", [f"{action}:{argument}"], "BYTES")]


def ask(server: Server, action: str, argument: str) -> tuple[int, Any]:
    """Ask for an action. Returns the status, and the answer's element or the error's text."""
    response = server.infer("chaos", request(action, argument))
    body = response.json()
    return response.status_code, body["outputs"][0]["data"][
        0
    ] if response.status_code == 200 else body["error"]


def wait_until_gone(pids: list[int], limit: float = 20.0) -> None:
    """Return when none of these processes lives (zombies do not)."""
    deadline = time.monotonic() + limit
    while living := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still alive: {living}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process still has anything: its first thread may be a zombie while others hold its sockets open."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0] != "Z" or int(fields[17]) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False
