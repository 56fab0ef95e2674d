"""An unload answers soon although the model is loading, and the load ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.repository import tensor, write_model, write_server_settings
from support.server import Serve
from support.slow import slow

# Its load begins in the folder of the model, and ends when the file `go` exists there.
SOURCE = """
import asyncio
import time
from pathlib import Path

from mlserver import MLModel
from mlserver.types import InferenceResponse

FOLDER = Path(__file__).parent


class Loads(MLModel):
    async def load(self):
        (FOLDER / "begun").touch()
        while not (FOLDER / "go").exists():
            {step}
        return True

    async def predict(self, payload):
        return InferenceResponse(model_name=self.name, outputs=[])
"""
WAITS, BLOCKS = "await asyncio.sleep(0.01)", "time.sleep(0.01)"


@pytest.mark.parametrize(
    "workers, http_workers, step",
    [(1, 1, WAITS), slow(1, 1, BLOCKS), slow(0, 1, WAITS), slow(2, 2, WAITS)],
)
def test_an_unload_during_a_load(
    serve: Serve, tmp_path: Path, workers: int, http_workers: int, step: str
) -> None:
    write_server_settings(tmp_path, http_workers=http_workers)
    folder = write_model(
        tmp_path / "loads",
        "Loads",
        source=SOURCE.format(step=step),
        parameters={"isolation": "model"} if step == BLOCKS else {},
    )
    write_model(tmp_path / "echo")
    server = serve(tmp_path, workers=workers, ready="/v2/models/echo/ready")

    def unload() -> int:
        return server.post("/v2/repository/models/loads/unload").status_code

    try:
        server.wait((folder / "begun").exists, "the first load began")
        assert unload() == 200
        server.wait_until("/v2/health/ready")
        processes = set(server.workers)
        (folder / "begun").unlink()
        with ThreadPoolExecutor(1) as caller:
            loading = caller.submit(server.post, "/v2/repository/models/loads/load")
            server.wait((folder / "begun").exists, "the second load began")
            assert unload() == 200
            answer = loading.result(timeout=30)
            assert (answer.status_code, "was cancelled" in answer.text) == (409, True)
            assert set(server.workers) == processes  # none of a pool of the model
    finally:
        (folder / "go").touch()
    assert server.post("/v2/repository/models/loads/load").status_code == 200
    assert server.infer("loads", [tensor("x", [1.0])]).status_code == 200
    assert server.infer("echo", [tensor("x", [1.0])]).status_code == 200
