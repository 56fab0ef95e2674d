"""A model's `unload` that does not return is ended by `unload_timeout`."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.repository import tensor, write_model, write_server_settings
from support.server import Serve, Server
from support.slow import slow

SOURCE = """
import asyncio
import time

from mlserver import MLModel
from mlserver.types import InferenceResponse


class Hangs(MLModel):
    async def predict(self, payload):
        return InferenceResponse(model_name=self.name, outputs=[])

    async def unload(self):
        while True:
            {step}
"""
WAITS, BLOCKS = "await asyncio.sleep(60)", "time.sleep(60)"
REFUSES = "\n".join(
    (
        "try:",
        "                await asyncio.sleep(60)",
        "            except asyncio.CancelledError:",
        "                pass",
    )
)


def has_echo(server: Server) -> bool:
    return server.infer("echo", [tensor("x", [1.0])]).status_code == 200


@pytest.mark.parametrize(
    "workers, step",
    [
        slow(0, WAITS),
        slow(0, REFUSES),
        slow(1, WAITS),
        slow(2, WAITS),
        (2, BLOCKS),
        slow(1, REFUSES),
    ],
)
def test_an_unload_that_hangs(serve: Serve, tmp_path: Path, workers: int, step: str) -> None:
    """The request fails in time with the setting's name; other models answer."""
    write_server_settings(tmp_path, unload_timeout=0.5)
    write_model(tmp_path / "hangs", "Hangs", source=SOURCE.format(step=step))
    write_model(tmp_path / "echo")
    server = serve(tmp_path, workers=workers)
    pids = set(server.workers)
    answer = server.post("/v2/repository/models/hangs/unload")
    assert answer.status_code == 504, answer.text
    assert "Model hangs: unload exceeded 0.5 s (setting 'unload_timeout')" in answer.json()["error"]
    assert server.get("/v2/models/hangs/ready").status_code != 200
    if step == BLOCKS:
        server.wait(lambda: not pids & set(server.workers), "the blocked workers were killed")
    server.wait(lambda: has_echo(server), "the other model answered")
