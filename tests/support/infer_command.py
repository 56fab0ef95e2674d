"""`mlserver infer`, and a server with models for it."""

from __future__ import annotations

import csv
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from mlserver.cli import main
from support.repository import tensor, write_model
from support.server import Server

# Doubles its input, counts the requests in `calls`, and rejects negative numbers.
PICKY = """
import numpy as np

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, InferenceResponse


class Picky(MLModel):
    calls = 0

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        Picky.calls += 1
        values = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        if (values < 0).any():
            raise MLServerError("no negative numbers", 422)
        calls = NumpyCodec.encode_output("calls", np.full(len(values), Picky.calls))
        outputs = [NumpyCodec.encode_output("double", values * 2), calls]
        return InferenceResponse(model_name=self.name, outputs=outputs)
"""
# Answers 503 to the first two requests.
BUSY = """
from mlserver import MLModel
from mlserver.errors import Overloaded
from mlserver.types import InferenceRequest, InferenceResponse


class Busy(MLModel):
    calls = 0

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        Busy.calls += 1
        if Busy.calls <= 2:
            raise Overloaded("come again", retry_after=0.01)
        return InferenceResponse(model_name=self.name, outputs=[])
"""


def start_server(folder: Path) -> Server:
    """Return a server for the models `picky`, `echo` and `busy`, to be started by `with`."""
    write_model(folder / "picky", "Picky", source=PICKY)
    write_model(folder / "echo")
    write_model(folder / "busy", "Busy", source=BUSY)
    return Server(folder)


class InferCommand:
    """Runs the command in a folder of its own.

    The command runs in this process: its imports cost more than a job (0.3 s). Tests of signals,
    environment variables and the exit code run `command(...)` in a process of its own.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder

    def command(self, model: str, source: str, output: str, *more: str) -> list[str]:
        port = self.server.grpc_port if "grpc" in more else self.server.http_port
        where = ["-i", str(self.folder / source), "-o", str(self.folder / output)]
        words = [
            "infer",
            "-u",
            f"127.0.0.1:{port}",
            "-m",
            model,
            *where,
            "--retry-pause",
            "0",
            *more,
        ]
        return [sys.executable, "-m", "mlserver", *words]

    def __call__(self, model: str, source: str, output: str, *more: str) -> tuple[int, str]:
        _, _, _, *arguments = self.command(model, source, output, *more)
        printed, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(printed), redirect_stderr(errors), pytest.raises(SystemExit) as end:
            main(arguments)
        assert printed.getvalue() == ""
        assert isinstance(end.value.code, int)
        return end.value.code, errors.getvalue()

    def write(self, name: str, *requests: Any) -> str:
        lines = [each if isinstance(each, str) else json.dumps(each) for each in requests]
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines))
        return name

    def lines(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.folder / name).open(newline="") as file:
            return list(csv.DictReader(file))


def request(*values: float, **more: Any) -> dict[str, Any]:
    return {"inputs": [tensor("x", list(values))], **more}


def data(line: Any, output: str = "double") -> Any:
    return next(each["data"] for each in line["outputs"] if each["name"] == output)
