"""KServe's published REST and gRPC clients against a server with a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import kserve_calls
from support.published import IndexUnreachable, install
from support.repository import write_model
from support.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# The client and the imports that the tests' environment lacks; it also contains a server and a
# Kubernetes client.
PACKAGES = [
    "kserve==0.21.0",
    "cloudevents==1.13.0",
    "deprecation==2.1.0",
    "durationpy==0.11",
    "grpc-interceptor==0.15.4",
    "kubernetes==37.0.2",
    "oauthlib==4.0.1",
    "psutil==7.2.2",
    "requests-oauthlib==2.0.0",
    "tabulate==0.10.0",
    "timing-asgi==0.3.2",
    "watchfiles==1.3.0",
    "websocket-client==1.9.2",
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of each call of each client."""
    try:
        packages = install(PACKAGES, "kserve")
    except IndexUnreachable as error:
        pytest.skip(f"the client is not installed and the package index cannot be reached: {error}")
    folder = tmp_path_factory.mktemp("kserve")
    write_model(folder / "echo")
    with Server(folder) as server:
        done = subprocess.run(
            [
                sys.executable,
                "-W",
                "ignore",
                kserve_calls.__file__,
                server.url,
                f"127.0.0.1:{server.grpc_port}",
            ],
            env={**os.environ, "PYTHONPATH": str(packages)},
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    calls: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return calls


@pytest.mark.parametrize("client", ["rest", "grpc"])
def test_every_call_of_the_client(results: dict[str, Any], client: str) -> None:
    calls = results[client]
    error = calls.pop("error")

    assert "Model nope not found" in error
    assert calls.pop("missing_model_ready", False) is False
    assert {name: answer for name, answer in calls.items() if answer is not True} == {}
    assert len(calls) > len(kserve_calls.ARRAYS)
