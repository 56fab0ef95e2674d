"""A custom runtime of plain functions, synchronized with the test by marker files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.repository import tensor, write_model
from support.server import Server

# A request has one BYTES element, `ACTION:ARGUMENT`; the response has the argument and the largest
# number of functions that have run at the same time in this process.
SOURCE = '''
import logging
import threading
import time
from pathlib import Path

import mlserver
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.handlers import custom_handler
from mlserver.types import InferenceResponse

HERE = Path(__file__).parent
LOCK = threading.Lock()
logger = logging.getLogger("mlserver.plain")


class Plain(MLModel):
    async def load(self):
        self.inside = self.most = 0
        mlserver.register("answered", "Answered requests")
        return True

    def predict(self, payload):
        return self.answer(self.run(payload))

    def predict_stream(self, payloads):
        for payload in payloads:
            for part in range(3):
                yield self.answer(f"{self.run(payload)}-{part}")

    @custom_handler(rest_path="/plain")
    def handle(self, text: str) -> list[str]:
        return [self.enter(text), str(self.most)]

    def run(self, payload):
        (text,) = StringCodec.decode_input(payload.inputs[0])
        return self.enter(text)

    def answer(self, text):
        outputs = [StringCodec.encode_output("y", [text, str(self.most)])]
        return InferenceResponse(model_name=self.name, outputs=outputs)

    def enter(self, text):
        with LOCK:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            action, _, argument = text.partition(":")
            getattr(self, action)(argument)
            logger.info("answers %s", argument)
            mlserver.log(answered=1)
            return argument
        finally:
            with LOCK:
                self.inside -= 1

    def echo(self, argument):
        time.sleep(0)

    def wait(self, argument):
        """Block until the marker `go` exists."""
        (HERE / f"in-{argument}").touch()
        while not (HERE / "go").exists():
            time.sleep(0.002)
        (HERE / f"out-{argument}").touch()

    def fail(self, argument):
        raise ValueError(f"no {argument}")
'''


class PlainModel:
    """The folder of the model, with its markers."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.name = folder.name
        self._folder = write_model(folder, "Plain", source=SOURCE, **settings)

    def has_marker(self, name: str) -> bool:
        return (self._folder / name).exists()

    def release(self) -> None:
        """Let all requests that wait return, and all that follow."""
        (self._folder / "go").touch()

    def hold(self) -> None:
        (self._folder / "go").unlink()

    def count_inside(self) -> int:
        """Number of requests that have begun to wait."""
        return len(list(self._folder.glob("in-*")))


def infer_rest(server: Server, model: str, text: str, **parameters: Any) -> list[str]:
    """Return the argument and the largest overlap, or the status and the error."""
    fields = {"parameters": parameters} if parameters else {}
    response = server.infer(model, [tensor("x", [text], "BYTES")], **fields)
    if response.status_code != 200:
        return [str(response.status_code), response.json()["error"]]
    data: list[str] = response.json()["outputs"][0]["data"]
    return data


def infer_stream(server: Server, model: str, text: str) -> list[list[str]]:
    """Return the data of each response of a REST stream."""
    body = {"inputs": [tensor("x", [text], "BYTES")]}
    path = f"/v2/models/{model}/infer_stream"
    with server.client.stream("POST", path, json=body) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    return [json.loads(line)["outputs"][0]["data"] for line in lines]


def call_handler(server: Server, model: str, text: str) -> list[str]:
    response = server.client.post(f"/v2/models/{model}/plain", params={"text": text})
    assert response.status_code == 200, response.text
    values: list[str] = response.json()
    return values


def write_message(model: str, text: str) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model)
    added = message.inputs.add(name="x", datatype="BYTES", shape=[1])
    added.contents.bytes_contents.append(text.encode())
    return message


def read_message(message: pb.ModelInferResponse) -> list[str]:
    return [value.decode() for value in message.outputs[0].contents.bytes_contents]


@contextmanager
def open_stub(server: Server) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield GRPCInferenceServiceStub(channel)


def infer_grpc(server: Server, model: str, text: str) -> list[str]:
    with open_stub(server) as stub:
        return read_message(stub.ModelInfer(write_message(model, text), timeout=60))
