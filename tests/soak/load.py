"""Load and faults for a soak test: clients, crashing clients, killed workers and reloads.

Each is a loop in a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

import grpc
import httpx

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.raw_http import infer
from support.server import Server

MODELS = ("alone", "joined")
# One iteration of a loop; returns the pause in seconds before the next.
Step = Callable[[httpx.Client, random.Random], float]


class LoadGenerator:
    """Loops of clients and faults against one server.

    Attributes:
        counts: Responses by protocol and status, faults by kind.
        unavailable: Texts of the 503 responses, counted.
        wrong: Descriptions of wrong responses; must stay empty.
        slowest: Seconds of the slowest response.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stopped = threading.Event()
        self.counts: Counter[str] = Counter()
        self.unavailable: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest = 0.0
        self._threads = [
            threading.Thread(target=self._loop, args=(loop,), daemon=True) for loop in self.loops()
        ]

    def loops(self) -> list[Step]:
        """The loops, one thread each."""
        return [
            self.small,
            self.large,
            self.over_grpc,
            self.refused,
            self.crash,
            self.kill,
            self.reload,
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the loops and wait for their last responses."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a loop hangs"

    def _loop(self, step: Step) -> None:
        """Run a step repeatedly with the pauses that it returns."""
        rng = random.Random(step.__name__)
        with httpx.Client(base_url=self._server.url, timeout=30) as client:
            while not self._stopped.is_set():
                try:
                    pause = step(client, rng)
                except httpx.TransportError as error:  # a timeout is one of them
                    self.wrong.append(f"{step.__name__}: {error!r}")
                    pause = 0.1
                self._stopped.wait(pause)

    def _record(self, answer: httpx.Response, what: str) -> bool:
        self.counts[f"{what} {answer.status_code}"] += 1
        self.slowest = max(self.slowest, answer.elapsed.total_seconds())
        if answer.status_code == 503:
            self.unavailable[answer.json()["error"]] += 1
        if answer.status_code >= 500 and answer.status_code != 503:
            self.wrong.append(f"{what}: {answer.status_code} {answer.text[:200]}")
        return answer.status_code == 200

    # -- clients --

    def small(self, client: httpx.Client, rng: random.Random) -> float:
        data = [rng.randint(0, 2**50) for _ in range(rng.randint(1, 5))]
        body = {"inputs": [{"name": "x", "shape": [len(data)], "datatype": "INT64", "data": data}]}
        answer = client.post(f"/v2/models/{rng.choice(MODELS)}/infer", json=body)
        if self._record(answer, "json") and answer.json()["outputs"][0]["data"] != data:
            self.wrong.append(f"json: {data} became {answer.text[:200]}")
        return 0.005

    def large(self, client: httpx.Client, rng: random.Random) -> float:
        raw = rng.randbytes(1024 * 1024)
        head = (
            b'{"inputs":[{"name":"x","shape":[%d],"datatype":"UINT8","parameters":{"binary_data_size":%d}}],'
            b'"parameters":{"binary_data_output":true}}' % (len(raw), len(raw))
        )
        headers = {
            "inference-header-content-length": str(len(head)),
            "content-type": "application/octet-stream",
        }
        answer = client.post("/v2/models/alone/infer", content=head + raw, headers=headers)
        if self._record(answer, "binary") and not answer.content.endswith(raw):
            self.wrong.append("binary: the response has other bytes")
        return 0.05

    def over_grpc(self, client: httpx.Client, rng: random.Random) -> float:
        with grpc.insecure_channel(f"127.0.0.1:{self._server.grpc_port}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            for _ in range(50):
                value = rng.randint(0, 2**60)
                message = pb.ModelInferRequest(
                    model_name="joined", raw_input_contents=[struct.pack("<q", value)]
                )
                message.inputs.add(name="x", datatype="INT64", shape=[1])
                started = time.monotonic()
                try:
                    answer = stub.ModelInfer(message, timeout=30)
                except grpc.RpcError as error:
                    self.counts[f"grpc {error.code().name}"] += 1
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        self.unavailable[error.details()] += 1
                    else:
                        self.wrong.append(f"grpc: {error.code()} {error.details()}")
                    continue
                finally:
                    self.slowest = max(self.slowest, time.monotonic() - started)
                self.counts["grpc OK"] += 1
                if answer.raw_output_contents[0] != message.raw_input_contents[0]:
                    self.wrong.append("grpc: the response has other bytes")
                self._stopped.wait(0.005)
        return 0

    # -- faults --

    def refused(self, client: httpx.Client, rng: random.Random) -> float:
        number = rng.randrange(10**9)
        self._record(client.post(f"/v2/models/unknown-{number}/infer", json={}), "unknown")
        self._record(
            client.post("/v2/models/alone/infer", content=b"{" * rng.randint(1, 1000)),
            "invalid JSON",
        )
        return 0.05

    def crash(self, client: httpx.Client, rng: random.Random) -> float:
        """Send a part of a request, possibly all of it, and reset the connection."""
        whole = infer("joined", 1.0)
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._server.http_port), 5) as connection,
        ):
            connection.sendall(whole[: rng.randint(1, len(whole))])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.counts["crashed clients"] += 1
        return 0.05

    def kill(self, client: httpx.Client, rng: random.Random) -> float:
        """Kill a worker, every third time all of them."""
        workers = self._server.workers
        selected = workers if self.counts["kills"] % 3 == 2 else workers[:1]
        for pid in selected:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.counts["kills"] += 1
        return 10

    def reload(self, client: httpx.Client, rng: random.Random) -> float:
        answer = client.post(f"/v2/repository/models/{rng.choice(MODELS)}/load")
        self.counts[f"reload {answer.status_code}"] += 1
        return 3
