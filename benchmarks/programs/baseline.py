"""Baseline: a hand-written ASGI program for one model and two bodies, without validation or limits.

BASELINE_BATCHING=1 batches the requests that arrive while the model is busy; the model then runs
in a thread. Otherwise the model runs in the event loop, which is faster for a single client.
BASELINE_INPUT=frame passes a DataFrame to scikit-learn instead of an array.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlflow.sklearn
import numpy as np
import orjson
import pandas as pd
from asgi import Receive, Send, read_body, send_response

model = mlflow.sklearn.load_model(os.environ["BENCH_WINE"])
columns = list(model.feature_names_in_)
index = pd.Index(columns)
del model.feature_names_in_  # without names, scikit-learn accepts an array without a warning
use_frames = os.environ.get("BASELINE_INPUT") == "frame"
if use_frames:
    model.feature_names_in_ = np.array(columns, dtype=object)


def predict(rows: Any) -> Any:
    return model.predict(pd.DataFrame(rows, columns=index, copy=False) if use_frames else rows)


def read(path: str, body: bytes) -> Any:
    document = orjson.loads(body)
    if path == "/invocations":
        return np.array(document["dataframe_split"]["data"], dtype=np.float64)
    return np.array([tensor["data"] for tensor in document["inputs"]], dtype=np.float64).T


def write(path: str, values: Any) -> bytes:
    values = np.ascontiguousarray(values)
    if path == "/invocations":
        return orjson.dumps({"predictions": values}, option=orjson.OPT_SERIALIZE_NUMPY)
    output = {"name": "output-1", "shape": [len(values), 1], "datatype": "FP64", "data": values}
    return orjson.dumps(
        {"model_name": "wine", "outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY
    )


class Batcher:
    """Runs the model in a thread, on all requests that arrived during its previous run."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self.task: asyncio.Task[None] | None = None
        self.thread = ThreadPoolExecutor(1)

    async def predict(self, rows: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((rows, future))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self.run())
        return await future

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting:
            batch, self.waiting = self.waiting, []
            rows = np.concatenate([rows for rows, _ in batch]) if len(batch) > 1 else batch[0][0]
            values = await loop.run_in_executor(self.thread, predict, rows)
            start = 0
            for part, future in batch:
                future.set_result(values[start : start + len(part)])
                start += len(part)


batcher = Batcher() if os.environ.get("BASELINE_BATCHING") == "1" else None


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    path = scope["path"]
    rows = read(path, await read_body(receive))
    values = predict(rows) if batcher is None else await batcher.predict(rows)
    await send_response(send, write(path, values))
