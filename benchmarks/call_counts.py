"""Counts the server's own function calls per request: `python -m benchmarks.call_counts [--list]`.

One warm V2 JSON request of one row passes a real server with one worker process. `sys.setprofile`
counts, in the event loop's thread of the server process, the calls of functions in `mlserver`, the
modules they are in, and how often a call enters another module than the call before it. A coroutine
counts once each time it is entered or resumed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlserver
from mlserver.server import MLServer
from mlserver.settings import Settings
from mlserver.utils import AsyncManager

from . import cases
from .servers import free_ports, wait_ready

PACKAGE = str(Path(mlserver.__file__).parent)
WARM_UP = 50
REQUESTS = 50
MODEL = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Sum(MLModel):
    row_wise = True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        total = sum(self.decode(tensor, default_codec=NumpyCodec) for tensor in payload.inputs)
        output = NumpyCodec.encode_output("total", total)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
"""


class CallRecorder:
    """Records the module and function of each call in `mlserver`, for `sys.setprofile`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def record(self, frame: Any, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            module = code.co_filename.removeprefix(PACKAGE).strip("/")
            self.calls.append((module, code.co_qualname))

    def per_request(self) -> Counter[tuple[str, str]]:
        """Calls of one request; what happens less than once per request (timers) is left out."""
        counts = Counter(self.calls)
        return Counter({call: n // REQUESTS for call, n in counts.items() if n >= REQUESTS})

    def switches(self) -> float:
        modules = [module for module, _ in self.calls]
        return sum(a != b for a, b in pairwise(modules)) / REQUESTS


def send_requests(port: int, count: int) -> None:
    """Send the one-row wine request `count` times over one connection."""
    exchange = cases.exchange(cases.CASES[0], "v2")
    headers = {"content-type": "application/json"}
    connection = HTTPConnection("127.0.0.1", port)
    for _ in range(count):
        connection.request("POST", exchange.paths[0], exchange.body, headers)
        response = connection.getresponse()
        text = response.read()
        assert response.status == 200, text
    connection.close()


async def measure(folder: Path) -> CallRecorder:
    """Serve the model from `folder` in this process, and record the calls of warm requests."""
    (folder / "counted_model.py").write_text(MODEL)
    (folder / "model-settings.json").write_text(
        json.dumps({"name": "wine", "implementation": "counted_model.Sum"})
    )
    http_port, grpc_port = free_ports(2)
    settings = Settings(
        host="127.0.0.1",
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=None,
        parallel_workers=1,
        model_repository_root=str(folder),
    )
    server = MLServer(settings)
    running = asyncio.create_task(server.start())
    recorder = CallRecorder()
    try:
        await asyncio.to_thread(wait_ready, http_port)
        await asyncio.to_thread(send_requests, http_port, WARM_UP)
        sys.setprofile(recorder.record)
        await asyncio.to_thread(send_requests, http_port, REQUESTS)
        sys.setprofile(None)
    finally:
        await server.stop()
        await running
    return recorder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print each function's calls as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="calls-") as name:
        recorder = AsyncManager().run(measure(Path(name)))
    counts = recorder.per_request()
    if options.list:
        for (module, function), count in sorted(counts.items()):
            print(f"{count:4} {module}:{function}")
    modules = {module for module, _ in counts}
    print(f"{counts.total()} calls in {len(modules)} modules, {recorder.switches():.0f} switches")


if __name__ == "__main__":
    main()
