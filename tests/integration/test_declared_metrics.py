"""Metrics that a model declares with prometheus_client.

Exported, summed over workers, never decreasing.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.repository import tensor, write_model
from support.server import Serve, Server, fetch
from support.slow import slow

# Metrics with a label for the process.
OF_EACH_PROCESS = ("own_level", "python_gc", "mlserver_worker_memory_bytes")

LIBRARY = """
from prometheus_client import Counter

used = Counter("lib_used", "Calls of the library", ["model"])
"""
DECLARING = """
import os

import library
import mlserver
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

requests = Counter("own_requests", "Requests")
elements = Histogram("own_elements", "Elements per request", ["model"], buckets=(1, 10))
seconds = Summary("own_seconds", "Seconds")
largest = Gauge("own_largest", "Elements of the largest request", multiprocess_mode="max")
holders = Gauge("own_holders", "Workers that hold the model", multiprocess_mode="livesum")
level = Gauge("own_level", "Of each worker")


class Declaring(MLModel):
    async def load(self) -> bool:
        self.loads = Counter("own_loads", "Loads", ["model"])
        self.loads.labels(self.name).inc()
        self.loaded = Gauge("own_loaded", "Declared in load", multiprocess_mode="max")
        self.loaded.set(7)
        holders.set(1)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        size = payload.inputs[0].shape[0]
        requests.inc()
        elements.labels(self.name).observe(size)
        seconds.observe(0.5)
        largest.set(size)
        level.set(3)
        library.used.labels(model=self.name).inc()
        mlserver.log(own_logged=size)
        return InferenceResponse(model_name=self.name, outputs=[])
"""


def write_declaring(folder: Path) -> None:
    write_model(folder, "Declaring", source=DECLARING)
    (folder / "library.py").write_text(LIBRARY)


def has_lost_workers(server: Server, count: int) -> bool:
    return str(server.log).count("ended unexpectedly") == count


def page(server: Server) -> dict[tuple[str, ...], float]:
    """Name and label values -> value; each series is exported once."""
    text = fetch(f"{server.metrics_url}/metrics").text
    samples: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (
                sample.name,
                *(value for name, value in sorted(sample.labels.items()) if name != "pid"),
            )
            assert family.name in OF_EACH_PROCESS or key not in samples, key
            samples[key] = max(
                sample.value, samples.get(key, sample.value)
            )  # a worker without requests has 0
    return samples


def ask(server: Server, model: str, size: int) -> None:
    assert server.infer(model, [tensor("x", [1.0] * size)]).status_code == 200


@pytest.mark.parametrize("workers, http_workers", [slow(0, 1), slow(1, 1), slow(2, 1), (2, 2)])
def test_every_kind_of_metric(
    serve: Serve, tmp_path: Path, workers: int, http_workers: int
) -> None:
    write_declaring(tmp_path / "m")
    server = serve(tmp_path, workers=workers, env={"MLSERVER_HTTP_WORKERS": str(http_workers)})
    holders = max(1, workers)
    for size in (1, 5, 20) * 4:
        ask(server, "m", size)
    samples = page(server)
    assert samples["own_requests_total",] == 12
    assert [samples["own_elements_bucket", bound, "m"] for bound in ("1.0", "10.0", "+Inf")] == [
        4,
        8,
        12,
    ]
    assert (samples["own_elements_count", "m"], samples["own_elements_sum", "m"]) == (12, 104)
    assert (samples["own_seconds_count",], samples["own_seconds_sum",]) == (12, 6)
    assert samples["own_largest",] == 20
    assert samples["own_holders",] == holders
    assert samples["own_level",] == 3
    assert samples["own_loaded",] == 7
    assert samples["own_loads_total", "m"] == holders
    assert samples["lib_used_total", "m"] == 12
    assert samples["own_logged_count", "m", ""] == 12


def test_workers_that_exit(serve: Serve, tmp_path: Path) -> None:
    write_declaring(tmp_path / "m")
    server = serve(tmp_path, workers=2)
    for count in (1, 2):
        for _ in range(10):
            ask(server, "m", 5)
        before = page(server)
        assert before["own_requests_total",] == 10 * count
        killed = server.workers[0]
        os.kill(killed, signal.SIGKILL)
        server.wait(partial(has_lost_workers, server, count), "the death of the worker is logged")
        server.wait(lambda: page(server)["own_holders",] == 2, "another worker held the model")
        after = page(server)
        assert after["own_requests_total",] == 10 * count
        assert after["own_elements_sum", "m"] == before["own_elements_sum", "m"]
        assert after["own_largest",] == 5
        assert after["own_loads_total", "m"] == before["own_loads_total", "m"] + 1


@pytest.mark.parametrize("workers", [slow(0), slow(1), 2])
def test_code_that_is_run_again(serve: Serve, tmp_path: Path, workers: int) -> None:
    """Two models with files of the same names, and files that change.

    One metric declared several times.
    """
    write_declaring(tmp_path / "m")
    write_declaring(tmp_path / "n")
    server = serve(tmp_path, workers=workers)
    for _ in range(4):
        ask(server, "m", 5)
        ask(server, "n", 5)
    assert page(server)["own_requests_total",] == 8
    (tmp_path / "m" / "declaring_model.py").write_text(DECLARING + "\n# changed\n")
    for model in ("m", "n"):
        assert server.post(f"/v2/repository/models/{model}/load").status_code == 200
    for _ in range(4):
        ask(server, "m", 5)
        ask(server, "n", 5)
    samples = page(server)
    assert samples["own_requests_total",] == 16
    assert (samples["lib_used_total", "m"], samples["lib_used_total", "n"]) == (8, 8)
    assert samples["own_elements_bucket", "10.0", "m"] == 8
    assert samples["own_loads_total", "m"] == 2 * max(1, workers)


CLASHING = """
import mlserver
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse
from prometheus_client import Counter, Gauge, Histogram

requests = Counter("model_infer_request_success", "The server's own name")
same = Histogram("clash_logged", "Also logged", ["model_name", "model_version"])
other = Gauge("clash_other", "Logged as a histogram as well")


class Clashing(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        requests.inc(100)
        other.set(1)
        same.labels(self.name, "").observe(2)
        mlserver.log(clash_logged=3, clash_other=4)
        return InferenceResponse(model_name=self.name, outputs=[])
"""


@pytest.mark.parametrize("workers", [slow(0), 2])
def test_names_of_other_metrics(serve: Serve, tmp_path: Path, workers: int) -> None:
    write_model(tmp_path / "m", "Clashing", source=CLASHING)
    server = serve(tmp_path, workers=workers)
    ask(server, "m", 1)
    samples = page(server)
    assert samples["model_infer_request_success_total", "m", ""] == 1
    assert (samples["clash_logged_count", "m", ""], samples["clash_logged_sum", "m", ""]) == (2, 5)
    assert samples["clash_other_count", "m", ""] == 1
    assert ("clash_other",) not in samples
    server.wait(
        lambda: str(server.log).count("another metric has its name") == 2, "both were warned of"
    )
