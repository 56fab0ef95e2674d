"""Plain Ray Serve, this server with the engine `ray`, and this server alone, interleaved.

`make bench-ray` runs it in a network namespace of its own: one-row requests of the wine model, and
matrices of 1,000 x 100 FP32, one replica or worker each. Modes of plain Ray Serve that are
variables of its processes have clusters of their own. The tables are printed, and written to the
page of the decision unless `--no-write` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from support import models
from support.network import Network
from support.ports import free_ports
from support.ray_cluster import RayCluster
from support.server import Server

from .cases import CASES as ALL_CASES
from .cases import JSON, Exchange, exchange
from .load import Target, closed, send
from .ray_results import CASES, PEERS, TITLES, RayLoad, RayResults, write_page
from .results import describe_machine

CONNECTIONS = {"wine": (1, 16, 64), "sum": (1, 16)}
THROUGHPUT = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
HAPROXY = {**THROUGHPUT, "RAY_SERVE_ENABLE_HA_PROXY": "1"}
# Peers of one cluster, and the variables of its processes.
PEER_CLUSTERS: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
    (("default", "tuned"), {}),
    (("throughput",), THROUGHPUT),
    (("haproxy",), HAPROXY),
)
PROGRAMS = Path(__file__).parent / "programs"
WARM_UP = 2
FIRST_ANSWER = 30.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--servers", default=",".join(TITLES), help="of: %(default)s")
    parser.add_argument("--cases", default=",".join(CASES), help="of: %(default)s")
    parser.add_argument("--no-write", action="store_true", help="print the tables only")
    arguments = parser.parse_args()
    servers, cases = arguments.servers.split(","), arguments.cases.split(",")
    unknown = {*servers} - {*TITLES} | {*cases} - {*CASES}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    versions = {name: version(name) for name in ("mlserver", "ray", "mlflow", "numpy")}
    seconds, rounds = arguments.seconds, arguments.rounds
    results = RayResults(describe_machine(), versions, seconds, rounds)
    network = Network()
    with network.entered(), ExitStack() as stack:
        targets = start(stack, servers, cases)
        measure(targets, results)
    print(results.format())
    if not arguments.no_write:
        results.save()
        write_page(results)


def start(stack: ExitStack, servers: list[str], cases: list[str]) -> dict[tuple[str, str], Target]:
    """Start the servers; return the targets by case and server."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    wine = str(models.build()["wine"])
    write_repository(folder, wine)
    ports = start_own(stack, servers, folder) | start_peers(stack, servers, wine)
    targets: dict[tuple[str, str], Target] = {}
    for case in cases:
        for name in servers:
            body = folder / f"{case}-{name}"
            request = make_exchange(case, name)
            body.write_bytes(request.body)
            target = targets[case, name] = Target(request, ports[name], body)
            send(target, FIRST_ANSWER)
    return targets


def write_repository(folder: Path, wine: str) -> None:
    """Write both models for this server."""
    settings: dict[str, dict[str, Any]] = {
        "wine": {"implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": wine}},
        "sum": {"implementation": "models.RowSums"},
    }
    for name, values in settings.items():
        (folder / name).mkdir()
        text = json.dumps({"name": name, **values})
        (folder / name / "model-settings.json").write_text(text)
    for module in ("models.py", "work.py"):
        shutil.copy(PROGRAMS / module, folder / "sum")


def make_exchange(case: str, server: str) -> Exchange:
    """Return the request of a case for a server."""
    if case == "wine":
        row = {"columns": list(models.WINE), "data": [list(models.WINE.values())]}
        body = json.dumps({"dataframe_split": row}).encode()
        path = f"/{server}/wine" if server in PEERS else "/invocations"
        return Exchange((path,), JSON, body, lambda _: [])
    binary = exchange(next(each for each in ALL_CASES if each.name == "sum"), "binary")
    length = int(binary.headers["inference-header-content-length"])
    if server in PEERS:
        headers = {"content-type": "application/octet-stream"}
        return Exchange((f"/{server}/sum",), headers, binary.body[length:], lambda _: [])
    document = json.loads(binary.body[:length])
    document["parameters"] = {"binary_data_output": True}
    head = json.dumps(document).encode()
    headers = {**binary.headers, "inference-header-content-length": str(len(head))}
    return replace(binary, headers=headers, body=head + binary.body[length:])


def start_own(stack: ExitStack, servers: list[str], folder: Path) -> dict[str, int]:
    """Start this server; return the ports."""
    ports: dict[str, int] = {}
    if "ray" in servers:
        cluster = stack.enter_context(RayCluster([8]))
        engine = {
            **cluster.environment,
            "MLSERVER_ENGINE": "ray",
            "MLSERVER_RAY": json.dumps({"address": cluster.address}),
        }
        ports["ray"] = stack.enter_context(Server(folder, env=engine)).http_port
    if "local" in servers:
        ports["local"] = stack.enter_context(Server(folder, workers=1)).http_port
    return ports


def start_peers(stack: ExitStack, servers: list[str], wine: str) -> dict[str, int]:
    """Start plain Ray Serve; return the ports."""
    ports: dict[str, int] = {}
    for peers, variables in PEER_CLUSTERS:
        names = [name for name in peers if name in servers]
        if names:
            cluster = stack.enter_context(RayCluster([8], variables=variables))
            (port,) = free_ports(1)
            start_serve(stack, cluster, port, names, wine)
            ports |= dict.fromkeys(names, port)
    return ports


def start_serve(
    stack: ExitStack, cluster: RayCluster, port: int, names: list[str], wine: str
) -> None:
    """Start plain Ray Serve on a cluster; return when it is ready."""
    variables = {
        "BENCH_RAY": cluster.address,
        "BENCH_PORT": str(port),
        "BENCH_WINE": wine,
        "BENCH_VARIANTS": ",".join(names),
    }
    process = subprocess.Popen(
        [sys.executable, str(PROGRAMS / "ray_apps.py")],
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


def measure(targets: dict[tuple[str, str], Target], results: RayResults) -> None:
    """Add the loads to the results; the order of the servers changes per round."""
    for target in targets.values():
        closed(target, 16, WARM_UP)
    cases = list(dict.fromkeys(case for case, _ in targets))
    for number in range(results.rounds):
        for case in cases:
            names = [name for each, name in targets if each == case]
            order = names[number % len(names) :] + names[: number % len(names)]
            for connections in CONNECTIONS[case]:
                for name in order:
                    load = closed(targets[case, name], connections, results.seconds)
                    results.loads.append(RayLoad(name, case, connections, number, load))
                    print(
                        f"round {number + 1}: {case} {name} {connections}: {load}", file=sys.stderr
                    )


if __name__ == "__main__":
    main()
