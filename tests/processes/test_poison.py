"""Requests that kill every worker they run in.

They are retried once, and batched neighbours are answered.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.repository import tensor, write_model
from support.server import Serve, Server
from support.slow import slow

POISONS, CALLERS, ANSWERS = 4, 4, 10
ROWS = """
import os
from pathlib import Path

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput

HERE = Path(__file__).parent


class Rows(MLModel):
    async def predict(self, payload):
        (one,) = payload.inputs
        texts = [text if isinstance(text, str) else text.decode() for text in one.data]
        for text in texts:
            if text.startswith("poison"):
                with (HERE / text).open("a") as ran:
                    ran.write(f"{os.getpid()}\\n")
                os._exit(1)
        output = ResponseOutput(name="y", shape=one.shape, datatype="BYTES", data=texts)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def ask(server: Server, text: str) -> tuple[int, Any]:
    response = server.infer("rows", [tensor("x", [text], "BYTES", [1, 1])])
    body = response.json()
    return response.status_code, body["outputs"][0][
        "data"
    ] if response.status_code == 200 else body["error"]


@pytest.mark.parametrize("size", [slow(1), 8], ids=["alone", "joined"])
def test_requests_beside_one_that_kills_workers_are_answered(
    serve: Serve, tmp_path: Path, size: int
) -> None:
    joined = {"max_batch_size": size, "max_batch_time": 0.02} if size > 1 else {}
    folder = write_model(tmp_path / "rows", "Rows", source=ROWS, **joined)
    server = serve(tmp_path, workers=2)
    over = threading.Event()

    def talk(caller: int) -> int:
        """Send requests until the poison is over and `count` were answered.

        Others may only be rejected.
        """
        count = number = 0
        while count < ANSWERS or not over.is_set():
            number += 1
            status, text = ask(server, f"{caller}-{number}")
            assert status in (200, 503), text
            assert status == 503 or text == [f"{caller}-{number}"]
            count += status == 200
        return count

    with ThreadPoolExecutor(CALLERS) as callers:
        talking = [callers.submit(talk, caller) for caller in range(CALLERS)]
        try:
            for number in range(POISONS):
                assert ask(server, f"poison-{number}")[0] == 503
        finally:
            over.set()
        assert all(task.result() >= ANSWERS for task in talking)
    for number in range(POISONS):
        ran = folder / f"poison-{number}"
        assert not ran.exists() or len(ran.read_text().splitlines()) <= 2
    assert any((folder / f"poison-{number}").exists() for number in range(POISONS)), os.listdir(
        folder
    )
    server.wait(lambda: len(server.workers) == 2, "the pool was full again")
    server.wait_until("/v2/health/ready")
