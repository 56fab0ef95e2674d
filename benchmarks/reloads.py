"""Command `python -m benchmarks.reloads`: memory of a worker while a model is loaded many times.

Two models, one after the other: the linear wine model, and a forest of 100 trees, about 30 MB. Each
is loaded over the repository API while it serves, so that a worker holds two copies for a moment.
Printed: the private memory (dirty pages) of the worker and of the server, in MB.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from . import servers, wine
from .cold_start import train
from .process import ServerProcess
from .run import WORK

FOREST = """
import sys
import mlflow.sklearn
import numpy as np
from mlflow.models import infer_signature
from sklearn.ensemble import RandomForestRegressor

random = np.random.default_rng(7)
rows = random.standard_normal((5000, 11))
model = RandomForestRegressor(n_estimators=100, random_state=7).fit(rows, random.random(5000))
signature = infer_signature(rows, model.predict(rows))
mlflow.sklearn.save_model(model, sys.argv[1], signature=signature,
    serialization_format="cloudpickle", pip_requirements=["scikit-learn"])
"""
MODEL = "model"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a worker's memory over many reloads.")
    parser.add_argument("--reloads", type=int, default=400, help="of the wine model")
    parser.add_argument("--forests", type=int, default=60, help="reloads of the forest")
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    table = WORK / "wine.csv"
    wine.write_table(table)
    forest = WORK / "forest"
    if not forest.exists():
        subprocess.run([sys.executable, "-c", FOREST, str(forest)], check=True, cwd=WORK)
    wine_folder = train("sklearn-cloudpickle", table).folder
    for title, folder, count in (
        ("wine", wine_folder, options.reloads),
        ("forest", forest, options.forests),
    ):
        measure(title, folder, count)


def measure(title: str, model: Path, count: int) -> None:
    """Start a server with a model and load it `count` times."""
    http_port, grpc_port, metrics_port = servers.free_ports(3)
    variables = servers.address_variables(http_port, grpc_port, metrics_port)
    variables["PATH"] = "/usr/bin:/bin"
    settings = servers.mlflow_settings(MODEL, model)
    steps = {round(count * part) for part in (0.025, 0.1, 0.25, 0.5, 0.75, 1)}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "model-settings.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "mlserver", "start", str(folder)]
        with ServerProcess(command, variables, folder, folder / "log") as process:
            servers.wait_ready(http_port)
            print(f"{title:8} {0:4} reloads: {describe(process)}", flush=True)
            for number in range(1, count + 1):
                load(http_port)
                if number in steps:
                    print(f"{title:8} {number:4} reloads: {describe(process)}", flush=True)


def load(port: int) -> None:
    connection = http.client.HTTPConnection(servers.HOST, port, timeout=60)
    try:
        connection.request("POST", f"/v2/repository/models/{MODEL}/load", "{}")
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise SystemExit(f"{response.status} {text!r}")
    finally:
        connection.close()


def describe(process: ServerProcess) -> str:
    names = process.names()
    workers = [pid for pid, name in names.items() if name == "mlserver-worker"]
    others = [
        pid for pid, name in names.items() if name not in ("mlserver-worker", "mlserver-templ")
    ]
    worker, server = (sum(map(read_private, pids)) for pids in (workers, others))
    return f"worker {worker:6.1f} MB, server {server:6.1f} MB"


def read_private(pid: int) -> float:
    """Return a process's dirty private pages in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
