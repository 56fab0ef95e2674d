"""Command `python -m benchmarks.replacements`: seconds until a killed worker is replaced.

A server with one worker holds 1 or 10 wine models. The worker is killed (SIGKILL); printed are the
seconds until every model has answered again, with the right prediction, median and largest of all
kills, and the requests that were refused (503) until then, each sent again at once: a request waits
0.8 s for a worker. A wrong answer ends the command.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from . import cases, servers, wine
from .cold_start import is_answer, train
from .process import ServerProcess
from .run import WORK

PAUSE = 2.0  # seconds between kills: more deaths in a minute are answered by pauses
EXCHANGE = cases.exchange(cases.CASES[0], "v2")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the replacement of a killed worker.")
    parser.add_argument("--models", default="1,10", help="numbers of models, with commas")
    parser.add_argument("--kills", type=int, default=5, help="of each start")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each number of models")
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    table = WORK / "wine.csv"
    wine.write_table(table)
    model = train("sklearn-skops", table)
    answer = json.loads(model.folder.with_suffix(".json").read_text())["answer"]
    counts = [int(count) for count in options.models.split(",")]
    waits: dict[int, list[Replacement]] = {count: [] for count in counts}
    for _ in range(options.rounds):
        for count in counts:
            waits[count] += measure(model.folder, count, options.kills, answer)
    for count, replacements in waits.items():
        seconds = [each.seconds for each in replacements]
        print(
            f"{count:3} models, {len(seconds)} kills: median {statistics.median(seconds):.2f} s,"
            f" largest {max(seconds):.2f} s, {sum(each.refused for each in replacements)} refused"
        )


class Replacement(NamedTuple):
    """One replacement: seconds until all models have answered, and refused requests."""

    seconds: float
    refused: int


def measure(model: Path, count: int, kills: int, answer: float) -> list[Replacement]:
    """Start a server with `count` models, and kill its worker repeatedly."""
    http_port, grpc_port, metrics_port = servers.free_ports(3)
    variables = servers.address_variables(http_port, grpc_port, metrics_port)
    variables |= {"MLSERVER_PARALLEL_WORKERS": "1", "PATH": "/usr/bin:/bin"}
    names = [f"wine-{number}" for number in range(count)]
    replacements = []
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = Path(temporary)
        for name in names:
            write_model(folder / name, name, model)
        command = [sys.executable, "-m", "mlserver", "start", str(folder)]
        with ServerProcess(command, variables, folder, folder / "log") as process:
            servers.wait_ready(http_port)
            for _ in range(kills):
                predict_all(http_port, names, answer)
                time.sleep(PAUSE)
                started = time.perf_counter()
                os.kill(find_worker(process), signal.SIGKILL)
                refused = predict_all(http_port, names, answer)
                replacements.append(Replacement(time.perf_counter() - started, refused))
    return replacements


def write_model(folder: Path, name: str, model: Path) -> None:
    folder.mkdir()
    settings = servers.mlflow_settings(name, model)
    (folder / "model-settings.json").write_text(json.dumps(settings))


def find_worker(process: ServerProcess) -> int:
    """Return the process id of the worker."""
    (worker,) = [pid for pid, name in process.names().items() if name == "mlserver-worker"]
    return worker


def predict_all(port: int, names: list[str], answer: float) -> int:
    """Send a request to each model until it answers; return the number of refused ones.

    Exits if an answer is wrong, or another error.
    """
    connection = http.client.HTTPConnection(servers.HOST, port, timeout=60)
    refused, waiting = 0, list(names)
    while waiting:
        path = f"/v2/models/{waiting[0]}/infer"
        connection.request("POST", path, EXCHANGE.body, {"content-type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        if response.status == 503:
            refused += 1
        elif response.status != 200 or not is_answer(EXCHANGE.read(body), answer):
            raise SystemExit(f"{waiting[0]}: {response.status} {body[:200]!r}")
        else:
            waiting.pop(0)
    connection.close()
    return refused


if __name__ == "__main__":
    main()
