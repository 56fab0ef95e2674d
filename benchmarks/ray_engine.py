"""Plain Ray Serve, this server with the engine `ray`, and this server alone, interleaved.

`make bench-ray` runs it: one-row requests of the wine model over REST with 1, 16 and 64
connections, in a network namespace of its own. All run on one Ray cluster of one node; one replica
or worker each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from support import models
from support.network import Network
from support.ports import free_ports
from support.ray_cluster import RayCluster
from support.server import Server

from .cases import JSON, Exchange
from .load import Load, Target, closed

CONNECTIONS = (1, 16, 64)
NAMES = {
    "default": "Ray Serve, default",
    "tuned": "Ray Serve, `max_ongoing_requests` 128",
    "ray": "this server, engine `ray`",
    "local": "this server, engine `local`",
}
WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    arguments = parser.parse_args()
    network = Network()
    with network.entered(), ExitStack() as stack:
        targets = start(stack)
        loads = measure(targets, arguments.rounds, arguments.seconds)
    print(format_table(loads))


def start(stack: ExitStack) -> dict[str, Target]:
    """Start everything; return the targets by name."""
    wine = models.build()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    settings = {
        "name": "wine",
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": str(wine["wine"])},
    }
    (folder / "model-settings.json").write_text(json.dumps(settings))
    row = {"columns": list(models.WINE), "data": [list(models.WINE.values())]}
    body = json.dumps({"dataframe_split": row}).encode()
    (folder / "body").write_bytes(body)
    cluster = stack.enter_context(RayCluster([8]))
    (port,) = free_ports(1)
    start_peers(stack, cluster, port, str(wine["wine"]))
    engine = {
        **cluster.environment,
        "MLSERVER_ENGINE": "ray",
        "MLSERVER_RAY": json.dumps({"address": cluster.address}),
    }
    servers = {
        "ray": stack.enter_context(Server(folder, env=engine)),
        "local": stack.enter_context(Server(folder, workers=1)),
    }
    paths = {"default": (port, "/default"), "tuned": (port, "/tuned")}
    for name, server in servers.items():
        paths[name] = server.http_port, "/invocations"
    targets = {}
    for name in NAMES:
        exchange = Exchange((paths[name][1],), JSON, body, lambda _: [])
        targets[name] = Target(exchange, paths[name][0], folder / "body")
    return targets


def start_peers(stack: ExitStack, cluster: RayCluster, port: int, wine: str) -> None:
    """Start plain Ray Serve; return when it is ready."""
    program = Path(__file__).parent / "programs" / "ray_apps.py"
    variables = {"BENCH_RAY": cluster.address, "BENCH_PORT": str(port), "BENCH_WINE": wine}
    process = subprocess.Popen(
        [sys.executable, str(program)],
        env={**os.environ, **cluster.environment, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(process.wait, 30)
    assert process.stdin is not None
    assert process.stdout is not None
    stack.callback(process.stdin.close)
    if not any(line.startswith("READY") for line in process.stdout):
        raise SystemExit("plain Ray Serve did not start")


def measure(
    targets: dict[str, Target], rounds: int, seconds: int
) -> dict[tuple[str, int], list[Load]]:
    """Return the loads of each target and number of connections; the order changes per round."""
    loads: dict[tuple[str, int], list[Load]] = {}
    for target in targets.values():
        closed(target, CONNECTIONS[-1], WARM_UP)
    for number in range(rounds):
        for connections in CONNECTIONS:
            names = list(targets)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                load = closed(targets[name], connections, seconds)
                loads.setdefault((name, connections), []).append(load)
                print(f"round {number + 1}: {name} {connections}: {load}", file=sys.stderr)
    return loads


def format_table(loads: dict[tuple[str, int], list[Load]]) -> str:
    """Return a Markdown table of medians: requests per second, milliseconds of the median."""
    header = " | ".join(f"{connections} connections" for connections in CONNECTIONS)
    lines = [f"| requests/s (median latency, ms) | {header} |", "|---|---|---|---|"]
    for name, title in NAMES.items():
        cells = []
        for connections in CONNECTIONS:
            runs = loads[name, connections]
            rate = statistics.median(run.per_second for run in runs)
            latency = statistics.median(run.p50 for run in runs)
            errors = sum(run.errors for run in runs)
            cells.append(f"{rate:,.0f} ({latency:.1f})" + (f", {errors} errors" if errors else ""))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
