"""Command `python -m benchmarks.isolation`: latency of a model beside one that blocks for 5 s.

A model that computes for 1 ms gets one request after the other, while requests to its neighbour
hold the interpreter's lock for 5 s each. Printed for the neighbour idle, in the same worker pool,
and in a pool of its own (`parameters.isolation`): the requests and their p50, p99 and maximum.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from . import servers
from .process import ServerProcess

SOURCE = """
import ctypes
import time

from mlserver import MLModel
from mlserver.types import InferenceResponse


class Computes(MLModel):
    def predict(self, payload):
        end = time.thread_time() + 0.001
        while time.thread_time() < end:
            pass
        return InferenceResponse(model_name=self.name, outputs=[])


class Holds(MLModel):
    def predict(self, payload):
        ctypes.PyDLL(None).sleep(5)  # unlike `CDLL`, keeps the lock
        return InferenceResponse(model_name=self.name, outputs=[])
"""
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]})
HEADERS = {"content-type": "application/json"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a model beside one that blocks.")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, in turn")
    options = parser.parse_args()
    for _ in range(options.rounds):
        for title, isolation, is_held in (
            ("idle neighbour", "shared", False),
            ("shared pool", "shared", True),
            ("pool of its own", "model", True),
        ):
            print(f"{title:16} {measure(isolation, is_held, options.seconds)}", flush=True)


def measure(isolation: str, is_held: bool, seconds: float) -> str:
    """Start a server with both models; return the latencies of the first as text."""
    http_port, grpc_port, metrics_port = servers.free_ports(3)
    variables = servers.address_variables(http_port, grpc_port, metrics_port)
    variables["PATH"] = "/usr/bin:/bin"
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        write_model(folder, "computes", "shared")
        write_model(folder, "holds", isolation)
        command = [sys.executable, "-m", "mlserver", "start", str(folder)]
        with ServerProcess(command, variables, folder, folder / "log"):
            servers.wait_ready(http_port)
            stop = threading.Event()
            holder = threading.Thread(target=hold, args=(http_port, stop))
            if is_held:
                holder.start()
            latencies = send_requests(http_port, seconds)
            stop.set()
            if is_held:
                holder.join()
    p50, p99 = statistics.median(latencies), sorted(latencies)[len(latencies) * 99 // 100]
    return (
        f"{len(latencies):6} requests, p50 {p50 * 1e3:7.2f} ms, p99 {p99 * 1e3:7.2f} ms, "
        f"maximum {max(latencies) * 1e3:7.1f} ms"
    )


def write_model(folder: Path, name: str, isolation: str) -> None:
    model = folder / name
    model.mkdir()
    (model / f"{name}_model.py").write_text(SOURCE)
    settings = {
        "name": name,
        "implementation": f"{name}_model.{name.capitalize()}",
        "parameters": {"isolation": isolation},
    }
    (model / "model-settings.json").write_text(json.dumps(settings))


def infer(connection: http.client.HTTPConnection, model: str) -> None:
    connection.request("POST", f"/v2/models/{model}/infer", BODY, HEADERS)
    response = connection.getresponse()
    text = response.read()
    if response.status != 200:
        raise SystemExit(f"{model}: {response.status} {text!r}")


def hold(port: int, stop: threading.Event) -> None:
    """Send requests to the model that blocks, one after the other."""
    connection = http.client.HTTPConnection(servers.HOST, port, timeout=60)
    while not stop.is_set():
        infer(connection, "holds")


def send_requests(port: int, seconds: float) -> list[float]:
    """Return the seconds of each request to the model that computes."""
    connection = http.client.HTTPConnection(servers.HOST, port, timeout=60)
    infer(connection, "computes")
    latencies = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter()
        infer(connection, "computes")
        latencies.append(time.perf_counter() - started)
    return latencies


if __name__ == "__main__":
    main()
