"""Responses while workers are killed, models reloaded and clients disconnect."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from support.equal_requests import AFFINE, MODELS
from support.repository import write_model, write_server_settings
from support.server import Server


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_client_receives_its_own_response_under_faults(tmp_path: Path) -> None:
    """Workers are killed, models reloaded and clients disconnect.

    Each response is correct or a 503.
    """
    for name, settings in MODELS.items():
        write_model(tmp_path / name, "Affine", source=AFFINE, **settings)
    write_server_settings(tmp_path, cache_enabled=True)
    with Server(tmp_path, workers=2) as server:
        disturbance = Disturbance(server)
        with ThreadPoolExecutor(8) as threads:
            calls = [threads.submit(disturbance.send_requests, number) for number in range(6)]
            leaving = threads.submit(disturbance.disconnect)
            disturbance.cause()
            for each in (*calls, leaving):
                each.result(60)
        server.wait_until("/v2/health/ready")
    assert disturbance.right > 50
    assert not disturbance.wrong, disturbance.wrong[:3]


class Disturbance:
    """Clients of a server, and the faults it is exposed to."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self.right = 0
        self.wrong: list[str] = []

    def cause(self) -> None:
        """Eight times: kill one or all workers and reload a model."""
        for turn in range(8):
            workers = self._server.workers
            for pid in workers if turn % 2 else workers[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            name = list(MODELS)[turn % len(MODELS)]
            answer = self._server.post(f"/v2/repository/models/{name}/load")
            if answer.status_code not in (200, 500, 503):
                self.wrong.append(f"load: {answer.status_code} {answer.text}")
            enough = self.right + 20
            self._server.wait(partial(self._has_answers, enough), "callers were answered")
        self._over.set()

    def _has_answers(self, enough: int) -> bool:
        return self.right >= enough or bool(self.wrong)

    def send_requests(self, caller: int) -> None:
        rng = random.Random(caller)
        url = f"{self._server.url}/v2/models"
        with httpx.Client(timeout=30) as client:
            while not self._over.is_set():
                rows = rng.randint(1, 4)
                data = [rng.randint(-(2**40), 2**40) for _ in range(rows)]
                body = {
                    "inputs": [{"name": "x", "shape": [rows], "datatype": "INT64", "data": data}]
                }
                answer = client.post(f"{url}/{rng.choice(list(MODELS))}/infer", json=body)
                if answer.status_code == 503:
                    continue
                if answer.status_code != 200:
                    self.wrong.append(f"{answer.status_code} {answer.text}")
                elif answer.json()["outputs"][0]["data"] != [3 * value + 1 for value in data]:
                    self.wrong.append(f"{data}: {answer.text}")
                else:
                    self.right += 1

    def disconnect(self) -> None:
        """A client that disconnects before each response."""
        tensor = {"name": "x", "shape": [1], "datatype": "INT64", "data": [7]}
        while not self._over.is_set():
            with httpx.Client(timeout=0.002) as client, contextlib.suppress(httpx.TransportError):
                client.post(f"{self._server.url}/v2/models/joined/infer", json={"inputs": [tensor]})
