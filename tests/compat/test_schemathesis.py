"""schemathesis generates valid and invalid requests from the OpenAPI documents.

No response of 500 or above.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.repository import write_model
from support.server import Server

pytest.importorskip("schemathesis")
INPUTS = [
    {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
    {"name": "text", "datatype": "BYTES", "shape": [-1]},
]
# Unloading the model would make the other paths answer 404.
LEFT_OUT = ["--exclude-path-regex", "/(un)?load$"]
BOUNDS = [
    "--max-examples",
    "8",
    "--seed",
    "1",
    "--phases",
    "examples,coverage,fuzzing",
    "--no-color",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("schemathesis")
    write_model(folder / "echo", inputs=INPUTS, outputs=INPUTS, parameters={"version": "1"})
    with Server(folder) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "document", ["/v2/docs/dataplane.json", "/v2/models/echo/docs/dataplane.json"]
)
def test_no_request_breaks_the_server(server: Server, document: str, tmp_path: Path) -> None:
    command = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert command is not None
    left_out = LEFT_OUT if "/models/" not in document else []
    checks = ["--checks", "not_a_server_error,content_type_conformance,response_schema_conformance"]
    done = subprocess.run(
        [command, "run", f"{server.url}{document}", *checks, *BOUNDS, *left_out],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout
