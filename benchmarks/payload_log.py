"""Command `python -m benchmarks.payload_log`: latency with the payload log against without it.

Three servers of one MLflow model run at the same time: without a payload log, with one in a file,
and with one that is sent to a receiver as CloudEvents; the sample is 1.0. Each round loads them in
turn, in changing order, with one row as V2 JSON on 16 connections. Printed for each: the median of
p50, p99 and requests per second, the median of the rounds' ratios to the server without a log, and
the least p99 of all rounds, which other programs disturb the least, and the CPU time of the
server process per request.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow.sklearn
import pandas as pd
from sklearn.linear_model import ElasticNet

from . import load, servers, wine
from .cases import JSON, Exchange
from .process import ServerProcess

OFF, FILE, ADDRESS = "off", "file", "address"
DESTINATIONS = (OFF, FILE, ADDRESS)

# Accepts events and reads them, as cheaply as possible: it shares the machine with the servers.
RECEIVER = """
import asyncio, sys


class Receiver(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.rest = transport, b""

    def data_received(self, data):
        self.rest += data
        while b"\\r\\n\\r\\n" in self.rest:
            head, _, body = self.rest.partition(b"\\r\\n\\r\\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\\r\\n")[0])
            if len(body) < size:
                return
            self.rest = body[size:]
            self.transport.write(b"HTTP/1.1 202 Accepted\\r\\ncontent-length: 0\\r\\n\\r\\n")


async def main():
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure requests with and without a payload log.")
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=9, help="repetitions, in turn")
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    if missing := load.missing_tools().get("wrk"):
        raise SystemExit(f"wrk is not installed: {missing}")
    results: dict[str, list[load.Load]] = {name: [] for name in DESTINATIONS}
    cpu: dict[str, list[float]] = {name: [] for name in DESTINATIONS}
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        running = {
            destination: stack.enter_context(serve(Path(name), destination))
            for destination in DESTINATIONS
        }
        for target, _ in running.values():
            load.closed(target, options.connections, 2)
        for number in range(options.rounds):
            turn = number % len(DESTINATIONS)
            for destination in (*DESTINATIONS[turn:], *DESTINATIONS[:turn]):
                target, process = running[destination]
                before = process.cpu().seconds[process.pid]
                result = load.closed(target, options.connections, options.seconds)
                seconds = process.cpu().seconds[process.pid] - before
                cpu[destination].append(seconds / result.requests * 1e6)
                results[destination].append(result)
        report_events({name: target for name, (target, _) in running.items()})
    report(results, cpu)


@contextlib.contextmanager
def serve(folder: Path, destination: str) -> Iterator[tuple[load.Target, ServerProcess]]:
    """Start a server with its payload log; yield the target of its requests and its process."""
    folder = folder / destination
    folder.mkdir()
    http_port, grpc_port, receiver_port = servers.free_ports(3)
    write_repository(folder, destination, receiver_port)
    variables = servers.address_variables(http_port, grpc_port)
    variables["PATH"] = "/usr/bin:/bin"
    command = [sys.executable, "-m", "mlserver", "start", str(folder)]
    receiver = subprocess.Popen([sys.executable, "-c", RECEIVER, str(receiver_port)])
    try:
        with ServerProcess(command, variables, folder, folder / "log") as process:
            servers.wait_ready(http_port)
            exchange, body = make_exchange(), folder / "body"
            body.write_bytes(exchange.body)
            yield load.Target(exchange, http_port, body), process
    finally:
        receiver.terminate()
        receiver.wait()


def write_repository(folder: Path, destination: str, receiver_port: int) -> None:
    """Train the wine model, and write the settings of the server."""
    wine.write_table(folder / "table.csv")
    table = pd.read_csv(folder / "table.csv", sep=";").drop(columns="quality")
    model = ElasticNet(alpha=0.01).fit(table, table["alcohol"])
    signature = mlflow.models.infer_signature(table, model.predict(table))
    mlflow.sklearn.save_model(model, folder / "wine", signature=signature)
    to = {FILE: "payload.jsonl", ADDRESS: f"http://{servers.HOST}:{receiver_port}/"}
    settings = {}
    if destination in to:
        settings["payload_log"] = {"to": to[destination], "sample": 1.0}
    (folder / "settings.json").write_text(json.dumps(settings))


def make_exchange() -> Exchange:
    """Return one row as a V2 request, with an input per column."""
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in zip(wine.COLUMNS, wine.ONE_ROW, strict=True)
    ]
    body = json.dumps({"inputs": inputs}).encode()
    return Exchange(("/v2/models/wine/infer",), JSON, body, list)


def report_events(targets: dict[str, load.Target]) -> None:
    """Print how many events were written and dropped."""
    for destination in (FILE, ADDRESS):
        with urllib.request.urlopen(f"{targets[destination].url}/metrics", timeout=10) as response:
            page = response.read().decode()
        lines = [line for line in page.splitlines() if line.startswith("mlserver_payload_log")]
        print(f"{destination:8} {'; '.join(lines)}")


def report(results: dict[str, list[load.Load]], cpu: dict[str, list[float]]) -> None:
    """Print the medians, and the medians of the ratios to the server without a log."""
    for destination, loads in results.items():
        ratios = [
            (result.p50 / off.p50, result.p99 / off.p99, result.per_second / off.per_second)
            for result, off in zip(loads, results[OFF], strict=True)
        ]
        p50, p99, rate = (statistics.median(values) for values in zip(*ratios, strict=True))
        errors = sum(result.errors for result in loads)
        least = min(result.p99 for result in loads)
        print(
            f"{destination:8}"
            f" p50 {statistics.median(result.p50 for result in loads):6.2f} ms ({p50:.2f}x),"
            f" p99 {statistics.median(result.p99 for result in loads):6.2f} ms ({p99:.2f}x),"
            f" {statistics.median(result.per_second for result in loads):6.0f} per second"
            f" ({rate:.2f}x), least p99 {least:.2f} ms,"
            f" {statistics.median(cpu[destination]):.0f} us of CPU per request, {errors} errors"
        )


if __name__ == "__main__":
    main()
