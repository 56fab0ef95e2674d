"""A server of which every part has been used: each metric that it declares has a value."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.plain_model import PlainModel, infer_grpc, infer_rest, infer_stream
from support.repository import tensor, write_model, write_server_settings
from support.server import Server, fetch

# Its address is a file with the name of a version; the version "broken" cannot be loaded.
FOLLOWS = """
from pathlib import Path

from mlserver import MLModel
from mlserver.types import Parameters


class Follows(MLModel):
    async def load(self) -> bool:
        self._source = await self.resolve_source(self.settings.parameters.uri)
        if self._source == "broken":
            raise RuntimeError("the weights are missing")
        return True

    async def resolve_source(self, uri):
        return Path(uri).read_text()

    async def metadata(self):
        metadata = await super().metadata()
        metadata.parameters = Parameters(source=self._source)
        return metadata
"""
INPUTS = [tensor("x", [1.0])]
VERSIONS = ("1", "2", "3")
TRAFFIC = {"weights": {"1": 50, "2": 50}, "shadow": "3"}


class UsedServer(Server):
    """A server with models of all kinds, after `use`."""

    def samples(self) -> dict[str, list[dict[str, str]]]:
        """Return the labels of each sample on the metrics page, by the sample's name."""
        samples: dict[str, list[dict[str, str]]] = {}
        for family in text_string_to_metric_families(self.read_page()):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample.labels)
        return samples

    def read_page(self) -> str:
        return fetch(f"{self.metrics_url}/metrics").text


@contextmanager
def run_used_server(folder: Path, **options: Any) -> Iterator[UsedServer]:
    """Run a server, use each of its parts, and yield it while one request still runs.

    It has two HTTP worker processes and two pools, a model of each state, and has lost a worker.
    """
    write_server_settings(
        folder, http_workers=2, cache_enabled=True, max_queue_size=1, worker_start="fresh"
    )
    log = {"to": str(folder / "payloads.jsonl"), "sample": 1.0}
    write_model(folder / "echo", cache_enabled=True, payload_log=log)
    write_model(folder / "broken", "Broken")
    unreachable = {"to": "http://127.0.0.1:9/", "sample": 1.0}
    write_model(folder / "joined", max_batch_size=2, max_batch_time=0.05, payload_log=unreachable)
    for version in VERSIONS:
        parameters: dict[str, Any] = {"version": version}
        if version == VERSIONS[0]:
            parameters["extra"] = {"traffic": TRAFFIC}
        write_model(folder / f"m{version}", name="m", parameters=parameters)
    plain = PlainModel(folder / "plain", max_concurrency=1)
    alias = folder / "alias.txt"
    alias.write_text("first")
    parameters = {"uri": str(alias), "extra": {"follow": 0.05}}
    write_model(folder / "followed", "Follows", source=FOLLOWS, parameters=parameters)
    with ExitStack() as stack:
        server = stack.enter_context(
            UsedServer(folder, workers=1, ready=None, tracebacks=True, **options)
        )
        server.wait_for_line("Ready")
        callers = stack.enter_context(ThreadPoolExecutor(8))
        stack.callback(plain.release)
        use(server, callers, alias)
        yield server


def use(server: UsedServer, callers: ThreadPoolExecutor, alias: Path) -> None:
    """Send requests of all kinds, also ones that fail, and kill a worker process."""
    for _ in range(20):
        assert server.infer("echo", INPUTS).status_code == 200
        assert server.infer("m", INPUTS).status_code == 200
    assert server.infer("none", INPUTS).status_code == 404
    assert server.infer("broken", INPUTS).status_code == 503
    assert infer_rest(server, "plain", "fail:x")[0] == "500"
    for model, code in (("plain", "INTERNAL"), ("broken", "UNAVAILABLE")):
        with pytest.raises(grpc.RpcError) as raised:
            infer_grpc(server, model, "fail:x")
        assert raised.value.code().name == code
    assert infer_grpc(server, "plain", "echo:over gRPC")[0] == "over gRPC"
    assert infer_stream(server, "plain", "echo:s")
    pairs = [callers.submit(server.infer, "joined", INPUTS) for _ in range(2)]
    assert {pair.result(60).status_code for pair in pairs} <= {200, 429}
    pid = min(server.workers)
    os.kill(pid, signal.SIGKILL)
    deaths = 'mlserver_worker_deaths_total{kind="worker",reason="killed"} 1.0'
    server.wait(lambda: deaths in server.read_page(), "the death of the worker is counted")
    server.wait(
        lambda: server.infer("plain", [tensor("x", ["echo:a"], "BYTES")]).is_success,
        "another worker answers",
    )
    alias.write_text("broken")
    assert infer_rest(server, "plain", "wait:late", timeout=200_000)[0] == "504"
    for number in range(3):
        callers.submit(server.infer, "plain", _wait(number))
    refused = 'model="plain",reason="queue_full"'
    server.wait(lambda: refused in server.read_page(), "a request is refused with 429")
    dropped = 'mlserver_payload_log_dropped_total{model="joined",'
    server.wait(lambda: dropped in server.read_page(), "an event of the payload log is dropped")
    abandoned = 'model_abandoned_calls{model="plain",version=""} 1.0'
    server.wait(lambda: abandoned in server.read_page(), "a call runs after its request has ended")
    server.wait(lambda: _has_failed_swap(server), "the followed model could not be reloaded")


def _wait(number: int) -> list[dict[str, Any]]:
    return [tensor("x", [f"wait:{number}"], "BYTES")]


def _has_failed_swap(server: UsedServer) -> bool:
    swap = 'model_swaps_total{model="followed",outcome="failed",version=""} '
    return any(line.startswith(swap) and not line.endswith(" 0.0") for line in _lines(server))


def _lines(server: UsedServer) -> list[str]:
    return server.read_page().splitlines()
