"""NVIDIA's load generator perf_analyzer against a server with a worker.

It reads a model's metadata and configuration, sends matching requests, and reads the statistics
before and after. The program is taken from the variable PERF_ANALYZER or from PATH;
docs/explanation/compatibility.md names its source.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.models import Models
from support.repository import write_model, write_settings
from support.server import Server

PROGRAM = os.environ.get("PERF_ANALYZER") or shutil.which("perf_analyzer")
REQUESTS = 24
LIMIT = 120.0  # time limit of one run in seconds

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="perf_analyzer is neither on PATH nor named by PERF_ANALYZER"
)

HTTP = ["-i", "http"]
GRPC = ["-i", "grpc"]
JSON = ["--input-tensor-format", "json", "--output-tensor-format", "json"]
STREAM = [*GRPC, "--async", "--streaming"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("perf-analyzer")
    described = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
    tensors: dict[str, Any] = {"inputs": [described], "outputs": [described]}
    write_model(folder / "plain", **tensors)
    write_model(folder / "numbered", parameters={"version": "3"}, **tensors)
    write_model(folder / "joined", max_batch_size=8, max_batch_time=0.002, **tensors)
    wine = {"uri": str(models["wine"])}
    write_settings(
        folder / "wine",
        name="wine",
        implementation="mlserver_mlflow.MLflowRuntime",
        parameters=wine,
    )
    with Server(folder) as running:
        yield running


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("plain", [*HTTP, "--shape", "x:1,4"]),
        ("plain", [*GRPC, "--shape", "x:1,4"]),
        ("numbered", [*HTTP, "--shape", "x:1,4", "-x", "3"]),
        ("joined", HTTP),
        ("joined", [*HTTP, *JSON, "-b", "2"]),
        ("joined", [*GRPC, "-b", "2"]),
        ("joined", STREAM),
        ("wine", HTTP),
        ("wine", [*GRPC, "-b", "10"]),
        ("wine", STREAM),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value[1:]).replace("--", "-"),
)
def test_perf_analyzer_measures_the_model(
    server: Server, tmp_path: Path, model: str, options: list[str]
) -> None:
    port = server.http_port if "http" in options else server.grpc_port
    report = tmp_path / "report.csv"
    count = ["--request-count", str(REQUESTS), "--concurrency-range", "4", "-f", str(report)]
    before = counted(server, model)
    done = subprocess.run(
        [
            str(PROGRAM),
            "--service-kind",
            "triton",
            "-m",
            model,
            "-u",
            f"127.0.0.1:{port}",
            *options,
            *count,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"Request count: {REQUESTS}" in done.stdout

    (row,) = csv.DictReader(report.read_text().splitlines())
    assert float(row["Inferences/Second"]) > 0
    assert int(row["Server Queue"]) >= 0
    assert int(row["Server Compute Infer"]) >= 0
    assert counted(server, model) - before >= REQUESTS


def counted(server: Server, model: str) -> int:
    """The number of successful requests in the model's statistics."""
    (only,) = server.get(f"/v2/models/{model}/stats").json()["model_stats"]
    count: int = only["inference_stats"]["success"]["count"]
    return count
