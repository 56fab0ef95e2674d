"""Command `python -m benchmarks.consoles`: latency of a model while consoles are open.

A model gets one request after the other. Consoles are processes that read what an open page with
the workers reads each second, compressed as for a browser; a browser would compete with the server
for the machine's cores. Measurements without and with consoles alternate, and their order too.
Printed: each measurement, the medians, the lowest p99 of each (on a busy machine the least
disturbed one), the noise, which is the range of p99 without consoles, and the CPU time that the
consoles take of a server without requests, which does not depend on other programs.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from . import servers
from .process import ServerProcess

SOURCE = """
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Small(MLModel):
    async def predict(self, payload):
        output = ResponseOutput(name="y", datatype="FP32", shape=[1], data=[1.0])
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]})
JSON = {"content-type": "application/json"}
PATHS = ("/v2/console/metrics", "/v2/console/workers")
INTERVAL = 1.0  # seconds between two reads of a page
MEASURED = "model-0"


class Result(NamedTuple):
    """Percentiles in milliseconds, and the CPU seconds of the server per second."""

    requests: int
    p50: float
    p99: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a model while consoles are open.")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=10, help="pairs of measurements")
    parser.add_argument("--consoles", type=int, default=5, help="open consoles")
    parser.add_argument("--models", type=int, default=10, help="loaded models")
    options = parser.parse_args()
    results: dict[int, list[Result]] = {0: [], options.consoles: []}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        for number in range(options.models):
            write_model(folder, f"model-{number}")
        with serve(folder) as (server, port):
            for number in range(options.rounds):
                order = sorted(results, reverse=number % 2 == 1)
                for consoles in order:
                    result = measure(server, port, consoles, options.seconds)
                    results[consoles].append(result)
                    print(f"{consoles} consoles: {describe(result)}", flush=True)
            idle = [
                measure_idle(server, port, consoles, options.seconds)
                for consoles in (0, options.consoles)
            ]
    print_summary(results)
    for consoles, cpu in zip(results, idle, strict=True):
        print(f"without requests, {consoles} consoles: server {cpu * 1e3:.1f} CPU ms/s")


@contextmanager
def serve(folder: Path) -> Iterator[tuple[ServerProcess, int]]:
    """Run a server with the models of a folder; yields it and its HTTP port."""
    http_port, grpc_port, metrics_port = servers.free_ports(3)
    variables = servers.address_variables(http_port, grpc_port, metrics_port)
    variables["PATH"] = "/usr/bin:/bin"
    command = [sys.executable, "-m", "mlserver", "start", str(folder)]
    with ServerProcess(command, variables, folder, folder / "log") as server:
        servers.wait_ready(http_port)
        yield server, http_port


def measure(server: ServerProcess, port: int, consoles: int, seconds: float) -> Result:
    """Return the latencies of requests while so many consoles are open."""
    with open_consoles(port, consoles):
        before = sum(server.cpu().seconds.values())
        started = time.monotonic()
        latencies = sorted(send_requests(port, seconds))
        spent = sum(server.cpu().seconds.values()) - before
        elapsed = time.monotonic() - started
    p50, p99 = statistics.median(latencies), latencies[len(latencies) * 99 // 100]
    return Result(len(latencies), p50 * 1e3, p99 * 1e3, spent / elapsed)


def measure_idle(server: ServerProcess, port: int, consoles: int, seconds: float) -> float:
    """Return the CPU seconds per second of a server with consoles and without requests."""
    with open_consoles(port, consoles):
        time.sleep(INTERVAL)
        before, started = sum(server.cpu().seconds.values()), time.monotonic()
        time.sleep(seconds)
        spent = sum(server.cpu().seconds.values()) - before
        return spent / (time.monotonic() - started)


@contextmanager
def open_consoles(port: int, count: int) -> Iterator[None]:
    """Run so many processes that read what a console reads."""
    processes = [multiprocessing.Process(target=poll, args=(port,)) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def poll(port: int) -> None:
    """Read what a console reads, until the process ends."""
    connection = http.client.HTTPConnection(servers.HOST, port, timeout=60)
    while True:
        for path in PATHS:
            connection.request("GET", path, headers={"accept-encoding": "gzip"})
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise SystemExit(f"{path}: {response.status}")
        time.sleep(INTERVAL)


def send_requests(port: int, seconds: float) -> list[float]:
    """Return the seconds of each request."""
    connection = http.client.HTTPConnection(servers.HOST, port, timeout=60)
    latencies = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter()
        connection.request("POST", f"/v2/models/{MEASURED}/infer", BODY, JSON)
        response = connection.getresponse()
        response.read()
        latencies.append(time.perf_counter() - started)
        if response.status != 200:
            raise SystemExit(f"{MEASURED}: {response.status}")
    return latencies


def write_model(folder: Path, name: str) -> None:
    model = folder / name
    model.mkdir()
    (model / "small_model.py").write_text(SOURCE)
    settings = {"name": name, "implementation": "small_model.Small"}
    (model / "model-settings.json").write_text(json.dumps(settings))


def describe(result: Result) -> str:
    """Return a result as text."""
    return (
        f"{result.requests:6} requests, p50 {result.p50:6.3f} ms, p99 {result.p99:6.3f} ms, "
        f"server {result.cpu:5.3f} CPU s/s"
    )


def print_summary(results: dict[int, list[Result]]) -> None:
    """Print medians per number of consoles, and the range of p99 without any."""
    for consoles, measured in results.items():
        median = Result(*(statistics.median(values) for values in zip(*measured, strict=True)))
        lowest = min(result.p99 for result in measured)
        print(f"median of {len(measured)}, {consoles} consoles: {describe(median)}")
        print(f"lowest p99, {consoles} consoles: {lowest:.3f} ms")
    noise = [result.p99 for result in results[0]]
    print(f"p99 without consoles: {min(noise):.3f} to {max(noise):.3f} ms")


if __name__ == "__main__":
    main()
