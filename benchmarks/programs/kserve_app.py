"""The models in KServe's Python server: a Model with load and predict over its InferRequest."""

from __future__ import annotations

import os
import uuid
from typing import Any

import kserve
import mlflow.pyfunc
import numpy as np
import pandas as pd
from work import run

MODEL = os.environ["BENCH_MODEL"]
COPIES = int(os.environ.get("BENCH_COPIES", "0"))


class Wine(kserve.Model):
    def load(self) -> bool:
        self.model = mlflow.pyfunc.load_model(os.environ["BENCH_WINE"])
        self.ready = True
        return True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        frame = pd.DataFrame(
            {tensor.name: tensor.as_numpy().ravel().astype("float64") for tensor in payload.inputs}
        )
        output = kserve.InferOutput(name="output-1", shape=[len(frame), 1], datatype="FP64")
        output.set_data_from_numpy(
            np.asarray(self.model.predict(frame), dtype="float64").reshape(-1, 1), binary_data=False
        )
        return kserve.InferResponse(payload.id or str(uuid.uuid4()), self.name, [output])


def read_texts(tensor: Any) -> list[str]:
    """Return the texts, which are str from JSON and bytes from gRPC."""
    return [text.decode() if isinstance(text, bytes) else text for text in tensor.data]


class Work(kserve.Model):
    def load(self) -> bool:
        self.ready = True
        return True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        tensor = payload.inputs[0]
        is_text = MODEL == "text"
        answer = await run(MODEL, read_texts(tensor) if is_text else tensor.as_numpy())
        datatype = "BYTES" if is_text else tensor.datatype
        output = kserve.InferOutput(name="output-1", shape=[len(answer)], datatype=datatype)
        if is_text:
            output.data = (
                answer if payload.from_grpc is False else [text.encode() for text in answer]
            )
        else:
            output.set_data_from_numpy(answer, binary_data=False)
        return kserve.InferResponse(payload.id or str(uuid.uuid4()), self.name, [output])


if __name__ == "__main__":
    kind = Wine if MODEL == "wine" else Work
    names = [f"wine-{number}" for number in range(COPIES)] if COPIES else [MODEL]
    models = [kind(name) for name in names]
    for model in models:
        model.load()
    server = kserve.ModelServer(
        http_port=int(os.environ["BENCH_PORT"]),
        grpc_port=int(os.environ["BENCH_GRPC_PORT"]),
        workers=1,
    )
    server.start(models)
